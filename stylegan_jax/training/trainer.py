# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 training: a run in a folder, and the loop that runs its steps."""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from stylegan_jax import checkpoint, image_io, latents
from stylegan_jax.training import data, steps, warm_start
from stylegan_jax.training.config import TrainConfig

# Other settings (length, weights of losses, rates) may change when a run is resumed.
FIXED_BY_STATE = (
    "resolution channel_base channel_max widths z_dim w_dim mapping_layers conv_clamp batch x_flip warm_start_images "
    "decoding_resolution encoder_widths discriminator discriminator_widths discriminator_moments noise seed"
).split()
MOMENTS_IMAGES = 250  # about so many, from all of the data, give the moments that a discriminator stores once


def _program(step: Callable) -> Callable:
    return jax.jit(step, static_argnames=("config", "penalise"), donate_argnames="state")


_discriminator_program, _generator_program = _program(steps.discriminator_step), _program(steps.generator_step)
_warm_program = jax.jit(steps.warm_step, static_argnames="config", donate_argnames="state")


class Trainer:
    """A run in a folder: `state/` (to resume), `model/` (the averaged generator), `encoder/` (where it has one),
    `sheets/`, `log.jsonl`."""

    def __init__(
        self,
        config: TrainConfig,
        images: np.ndarray,
        folder: str | os.PathLike,
        *,
        initial: checkpoint.Model | None = None,
    ):
        """Prepares the run and resumes it where the folder holds a state.

        Args:
            config: settings; a resumed run may change those that are not in `FIXED_BY_STATE`.
            images: uint8 `[n, r, r, c]`, r the resolution of the config.
            folder: of the run.
            initial: a trained model of lower resolution to begin with; a run that is resumed does not need it.

        Raises:
            ValueError: for unsuitable images or settings.
            CheckpointError: where the folder holds a run with other settings.
        """
        if images.shape[1] != config.resolution:
            raise ValueError(f"images are {images.shape[1]} px, the config says {config.resolution}")
        if config.augment not in ("ada", "fixed", "none"):
            raise ValueError(f'augment must be "ada", "fixed" or "none", got {config.augment!r}')
        self.config, self.images, self.folder = config, images, pathlib.Path(folder)
        some = image_io.from_uint8(images[:: max(len(images) // MOMENTS_IMAGES, 1)])
        self.networks, self.state = steps.create(config, channels=images.shape[3], initial=initial, real=some)
        self.components = None
        if (self.folder / "state").exists():
            self.state, metadata = checkpoint.load_state(self.folder / "state", self.state)
            self._check_same_run(metadata["config"])
        # What no step depends on is left out, so that runs which differ in it share their programs.
        self._step_config = dataclasses.replace(
            config, images=0, warm_start_images=0, snapshot_images=0, discriminator_first=0, seed=0
        )

    def _check_same_run(self, stored: dict[str, Any]) -> None:
        current = json.loads(json.dumps(dataclasses.asdict(self.config)))
        # States written before a setting existed have its default.
        stored = json.loads(json.dumps(dataclasses.asdict(TrainConfig()))) | stored
        changed = [name for name in FIXED_BY_STATE if stored[name] != current[name]]
        if changed:
            raise checkpoint.CheckpointError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); choose another --output"
            )

    def _key(self, stage: int, step: int) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.config.seed), stage), step)

    def _batch(self, step: int) -> np.ndarray:
        config = self.config
        return data.batch_at(self.images, step, batch=config.batch, seed=config.seed, x_flip=config.x_flip)

    def _warm_batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        if self.components is None:
            both = np.concatenate([self.images, self.images[:, :, ::-1]]) if self.config.x_flip else self.images
            small = data.reduce(both, self.config.decoding_resolution or self.config.resolution)
            self.components = both, warm_start.whitened_components(small, self.config.z_dim)
        both, components = self.components
        count = self.config.decoding_batch or self.config.batch
        chosen = np.random.default_rng((self.config.seed, 2, step)).integers(0, len(both), count)
        return components[chosen], image_io.from_uint8(both[chosen])

    def _step(self) -> dict[str, Array]:
        config = self.config
        if int(self.state.warm_images) < config.warm_start_images:
            step = int(self.state.warm_images) // config.batch
            key, batch = self._key(0, step), self._warm_batch(step)
            self.state, statistics = _warm_program(key, self.networks, self.state, *batch, config=self._step_config)
            return statistics
        step = int(self.state.images) // config.batch
        real = self._batch(step)
        penalise = config.r1_gamma > 0 and step % config.r1_interval == 0
        self.state, statistics = _discriminator_program(
            self._key(1, step),
            self.networks,
            self.state,
            real,
            config=self._step_config,
            penalise=penalise,
        )
        if int(self.state.images) <= config.discriminator_first:
            return statistics
        lengths = config.path_weight > 0 and step % config.path_interval == 0
        decodes = config.decoding_weight or config.decoding_features
        decoded = self._warm_batch(config.warm_start_images // config.batch + step) if decodes else None
        run = functools.partial(_generator_program, config=self._step_config, penalise=lengths)
        matched = real if config.contrast_weight else None
        self.state, more = run(self._key(2, step), self.networks, self.state, decoded, real=matched)
        return statistics | more

    def model(self, *, provenance: dict[str, Any]) -> checkpoint.Model:
        """Returns the averaged generator, the discriminator and the statistics of W (which set `w_avg`)."""
        generator = self.networks.generate(self.state.average)
        statistics = latents.estimate_w_statistics(jax.random.key(0), generator)
        generator.mapping.w_avg[...] = statistics.mean
        return checkpoint.Model(
            generator=generator,
            discriminator=self.networks.discriminate(self.state),
            w_statistics=statistics,
            provenance=provenance | {"images": int(self.state.images), "config": dataclasses.asdict(self.config)},
        )

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state, model and a sheet of fixed latents (psi 1 above, 0.7 below)."""
        checkpoint.save_state(self.folder / "state", self.state, metadata={"config": dataclasses.asdict(self.config)})
        model = self.model(provenance=provenance)
        checkpoint.save(self.folder / "model", model, overwrite=True)
        if self.state.encoder is not None:
            # Beside the model, not in its folder: it has never seen a hole, so no search should begin with it unasked.
            path, encoder = self.folder / "encoder", self.networks.encode(self.state.encoder)
            own = {"generator": checkpoint.info(self.folder / "model")["content_hash"]}
            checkpoint.save_network(path, encoder, provenance=provenance | own, overwrite=True)
        z = jax.random.normal(jax.random.key(1), (32, self.config.z_dim))
        run = jax.jit(lambda g, z, psi: g.synthesis(g.map(z, truncation_psi=psi)), static_argnums=2)
        rows = np.concatenate([np.asarray(run(model.generator, z, psi)) for psi in (1.0, 0.7)])
        sheet = image_io.grid(rows, columns=8)
        name = f"{int(self.state.warm_images):08d}-{int(self.state.images):08d}.png"
        image_io.write_image(self.folder / "sheets" / name, sheet.repeat(2, 0).repeat(2, 1))

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end; snapshots at intervals and when interrupted.

        Args:
            provenance: stored with the models.
            report: called with every line of `log.jsonl`, about every ten seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for line in self._lines(provenance):
                with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                report(line)
        except KeyboardInterrupt:
            self.snapshot(provenance=provenance)
            raise
        self.snapshot(provenance=provenance)

    def _lines(self, provenance: dict[str, Any]) -> Iterator[dict[str, Any]]:
        config = self.config
        started, shown, saved = time.perf_counter(), self._seen(), self._seen()
        pending: list[dict[str, Array]] = []
        while int(self.state.images) < config.images:
            pending.append(self._step())
            if self._seen() - saved >= config.snapshot_images:
                saved = self._seen()
                self.snapshot(provenance=provenance)
            elapsed = time.perf_counter() - started
            if elapsed > 10 or int(self.state.images) >= config.images:
                speed = (self._seen() - shown) / elapsed
                yield self._line(pending, speed)
                started, shown, pending = time.perf_counter(), self._seen(), []

    def _seen(self) -> int:
        return int(self.state.images) + int(self.state.warm_images)

    def _line(self, pending: list[dict[str, Array]], speed: float) -> dict[str, Any]:
        names = sorted({name for statistics in pending for name in statistics})
        means = {n: float(np.mean([np.asarray(s[n]) for s in pending if n in s])) for n in names}
        left = max(self.config.images - int(self.state.images), 0) / max(speed, 1e-9)
        return {
            "images": int(self.state.images),
            "warm_images": int(self.state.warm_images),
            "images_per_second": round(speed, 2),
            "hours_left": round(left / 3600, 2),
            "augment_p": round(float(self.state.augment_p), 3),
            **{name: round(value, 4) for name, value in means.items()},
        }
