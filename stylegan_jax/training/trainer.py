# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 training (Karras et al. 2020) as pure steps over a state, and the loop that runs them."""

import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from stylegan_jax import checkpoint, image_io, latents, parameters, stylegan2
from stylegan_jax.encoders import MaskedEncoder, MaskedEncoderConfig
from stylegan_jax.training import augment, data, losses, warm_start
from stylegan_jax.training.config import TrainConfig

# Other settings (length, weights of losses, rates) may change when a run is resumed.
FIXED_BY_STATE = (
    "resolution channel_base channel_max widths z_dim w_dim mapping_layers conv_clamp batch x_flip warm_start_images "
    "decoding_resolution encoder_widths seed"
).split()


class State(NamedTuple):
    """Everything that changes in training; parameters are NNX states."""

    generator: Any
    discriminator: Any
    average: Any
    generator_optimizer: Any
    discriminator_optimizer: Any
    images: Array  # real images shown so far, without the warm start
    warm_images: Array
    augment_p: Array
    path_mean: Array
    encoder: Any = None
    encoder_optimizer: Any = None


class Networks(NamedTuple):
    """The static side: graph definitions and buffers."""

    generator: Any
    generator_buffers: Any
    discriminator: Any
    discriminator_buffers: Any
    encoder: Any = None
    encoder_buffers: Any = None

    def generate(self, parameters: Any) -> stylegan2.Generator:
        """Returns the generator with `parameters`."""
        return nnx.merge(self.generator, parameters, self.generator_buffers)

    def discriminate(self, parameters: Any) -> stylegan2.Discriminator:
        """Returns the discriminator with `parameters`."""
        return nnx.merge(self.discriminator, parameters, self.discriminator_buffers)

    def encode(self, parameters: Any) -> MaskedEncoder:
        """Returns the encoder with `parameters`."""
        return nnx.merge(self.encoder, parameters, self.encoder_buffers)


def _network_configs(config: TrainConfig, channels: int):
    widths = tuple(config.widths) or stylegan2.channel_widths(
        config.resolution, channel_base=config.channel_base, channel_max=config.channel_max
    )
    if 2 << len(widths) != config.resolution:
        raise ValueError(f"{len(widths)} widths make images of {2 << len(widths)} px, not {config.resolution}")
    shared = dict(
        widths=widths,
        image_channels=channels,
        conv_clamp=config.conv_clamp or None,
        bfloat16_from=config.bfloat16_from or None,
    )
    generator = stylegan2.GeneratorConfig(
        z_dim=config.z_dim, w_dim=config.w_dim, mapping_layers=config.mapping_layers, **shared
    )
    return generator, stylegan2.DiscriminatorConfig(**shared)


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, b1=0.0, b2=0.99, eps=1e-8)


def create(config: TrainConfig, *, channels: int, initial: checkpoint.Model | None = None) -> tuple[Networks, State]:
    """Returns networks and state for images of `channels` channels.

    They are freshly initialised, but for what they share with the networks of `initial`, a model of lower resolution.
    """
    generator_config, discriminator_config = _network_configs(config, channels)
    generator = stylegan2.Generator(generator_config, rngs=nnx.Rngs(config.seed))
    discriminator = stylegan2.Discriminator(discriminator_config, rngs=nnx.Rngs(config.seed + 1))
    if initial is not None:
        generator = _begin_with(generator, initial.generator)
        if initial.discriminator is not None:
            discriminator = _begin_with(discriminator, initial.discriminator)
    g_graph, g_params, g_buffers = nnx.split(generator, nnx.Param, ...)
    d_graph, d_params, d_buffers = nnx.split(discriminator, nnx.Param, ...)
    e_graph, e_params, e_buffers = None, None, None
    if config.encoder_widths:
        e_graph, e_params, e_buffers = nnx.split(_new_encoder(config, generator, initial), nnx.Param, ...)
    state = State(
        generator=g_params,
        discriminator=d_params,
        average=jax.tree.map(jnp.copy, g_params),
        generator_optimizer=_optimizer(config).init(g_params),
        discriminator_optimizer=_optimizer(config).init(d_params),
        images=jnp.zeros((), jnp.int32),
        warm_images=jnp.zeros((), jnp.int32),
        augment_p=jnp.asarray(config.augment_p if config.augment != "none" else 0.0, jnp.float32),
        path_mean=jnp.zeros((), jnp.float32),
        encoder=e_params,
        encoder_optimizer=None if e_params is None else _optimizer(config).init(e_params),
    )
    return Networks(g_graph, g_buffers, d_graph, d_buffers, e_graph, e_buffers), state


def _new_encoder(config: TrainConfig, generator: stylegan2.Generator, initial: checkpoint.Model | None):
    encoder = MaskedEncoder(
        MaskedEncoderConfig(
            widths=tuple(config.encoder_widths),
            image_channels=generator.config.image_channels,
            num_ws=generator.config.num_ws,
            w_dim=config.w_dim,
        ),
        rngs=nnx.Rngs(config.seed + 2),
    )
    if encoder.resolution != config.resolution:
        raise ValueError(f"encoder_widths are for images of {encoder.resolution} px, not {config.resolution}")
    known = None if initial is None else initial.w_statistics
    statistics = known or latents.estimate_w_statistics(jax.random.key(0), generator)
    encoder.mean[...] = statistics.mean
    encoder.scale[...] = jnp.sqrt(jnp.diag(statistics.covariance))
    return encoder


def _begin_with(network: nnx.Module, smaller: nnx.Module) -> nnx.Module:
    """Returns `network` with the arrays of `smaller` wherever name and shape agree; new layers to RGB begin at 0.

    With skip connections the result then first makes the enlarged images of the smaller network.
    """
    arrays, given = parameters.to_arrays(network), parameters.to_arrays(smaller)
    for name, array in arrays.items():
        if name in given and given[name].shape == array.shape:
            arrays[name] = given[name]
        elif "/torgb/" in name and not name.endswith(("affine/weight", "affine/bias")):
            arrays[name] = jnp.zeros_like(array)
    return parameters.fill(type(network), network.config, arrays)


def _mixed_ws(key: Array, generator: stylegan2.Generator, n: int, probability: float) -> Array:
    """Returns `ws` of `n` random latents, some crossing over to a second latent at a random layer."""
    config = generator.config
    first, second, where, choose = jax.random.split(key, 4)
    ws = generator.map(jax.random.normal(first, (n, config.z_dim)))
    if probability == 0:
        return ws
    other = generator.map(jax.random.normal(second, (n, config.z_dim)))
    cut = jax.random.randint(where, (n,), 1, config.num_ws)
    cut = jnp.where(jax.random.uniform(choose, (n,)) < probability, cut, config.num_ws)
    return jnp.where((jnp.arange(config.num_ws)[None, :] < cut[:, None])[..., None], ws, other)


def _averaged(config: TrainConfig, average: Any, current: Any, images: Array) -> Any:
    half_life = jnp.minimum(config.ema_images, jnp.maximum(images * config.ema_rampup, 1.0))
    beta = 0.5 ** (config.batch / half_life)
    return jax.tree.map(lambda a, b: b + (a - b) * beta, average, current)


def discriminator_step(
    key: Array, networks: Networks, state: State, real: Array, *, config: TrainConfig, penalise: bool
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the discriminator, with R1 where `penalise`, and its statistics.

    Args:
        key: of latents, noise and augmentation.
        networks: static side.
        state: before.
        real: `[n, h, w, c]` in [-1, 1].
        config: settings.
        penalise: add the lazy R1 penalty, times its interval.
    """
    keys = jax.random.split(key, 4)
    generator = networks.generate(state.generator)
    fake = generator.synthesis(_mixed_ws(keys[0], generator, real.shape[0], config.style_mixing), noise=keys[1])
    real = augment.augment(keys[2], real, state.augment_p) if config.augment != "none" else real
    fake = augment.augment(keys[3], fake, state.augment_p) if config.augment != "none" else fake

    def loss(parameters: Any) -> tuple[Array, dict[str, Array]]:
        discriminator = networks.discriminate(parameters)
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        value = losses.discriminator_logistic(real_logits, fake_logits)
        statistics = {"d_loss": value, "d_real": real_logits.mean(), "d_fake": fake_logits.mean()}
        statistics["d_sign"] = jnp.sign(real_logits).mean()
        if penalise:
            penalty = losses.r1_penalty(discriminator, real)
            statistics["r1"] = penalty
            value = value + config.r1_gamma * config.r1_interval * penalty
        return value, statistics

    gradient, statistics = jax.grad(loss, has_aux=True)(state.discriminator)
    updates, optimizer = _optimizer(config).update(gradient, state.discriminator_optimizer)
    p = state.augment_p
    if config.augment == "ada":
        p = jnp.clip(
            p + jnp.sign(statistics["d_sign"] - config.augment_target) * config.batch / config.augment_images, 0, 1
        )
    state = state._replace(
        discriminator=optax.apply_updates(state.discriminator, updates),
        discriminator_optimizer=optimizer,
        images=state.images + real.shape[0],
        augment_p=p,
    )
    return state, statistics


def generator_step(
    key: Array,
    networks: Networks,
    state: State,
    decoded: tuple[Array, Array] | None,
    *,
    config: TrainConfig,
    penalise: bool,
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the generator (with its encoder, if any) and of its average, and statistics.

    Args:
        key: of latents, noise and augmentation.
        networks: static side.
        state: before.
        decoded: components `[n, z_dim]` and their images `[n, h, w, c]` for the decoding loss, or None; an encoder
            reads the images and has no use for the components.
        config: settings.
        penalise: add path length regularisation, times its interval.
    """
    keys = jax.random.split(key, 6)

    def loss(parameters: tuple[Any, Any]) -> tuple[Array, tuple[dict[str, Array], Array]]:
        generator = networks.generate(parameters[0])
        fake = generator.synthesis(_mixed_ws(keys[0], generator, config.batch, config.style_mixing), noise=keys[1])
        fake = augment.augment(keys[2], fake, state.augment_p) if config.augment != "none" else fake
        value = losses.generator_logistic(networks.discriminate(state.discriminator)(fake))
        statistics, path_mean = {"g_loss": value}, state.path_mean
        if penalise:
            ws = _mixed_ws(keys[3], generator, max(config.batch // 2, 1), config.style_mixing)
            lengths = losses.path_lengths(keys[4], lambda ws: generator.synthesis(ws, noise="none"), ws)
            path_mean = path_mean + 0.01 * (lengths.mean() - path_mean)
            penalty = jnp.mean(jnp.square(lengths - jax.lax.stop_gradient(path_mean)))
            value = value + config.path_weight * config.path_interval * penalty
            statistics["path_length"] = lengths.mean()
        if decoded is not None:
            decoding, more = _decoding(keys[5], networks, state, parameters, decoded, config=config)
            value, statistics = value + decoding, statistics | more
        return value, (statistics, path_mean)

    gradient, (statistics, path_mean) = jax.grad(loss, has_aux=True)((state.generator, state.encoder))
    return _updated(state, gradient, state.images, config=config)._replace(path_mean=path_mean), statistics


def _decoding(
    key: Array, networks: Networks, state: State, parameters: tuple[Any, Any], decoded: tuple, *, config: TrainConfig
) -> tuple[Array, dict[str, Array]]:
    """Returns the weighted loss of rendering real images from what is known of them, and its parts."""
    generator, (components, real) = networks.generate(parameters[0]), decoded
    found = {}
    if networks.encoder is None:
        fake = generator(warm_start.blurred(key, components), noise="none")
    else:
        encoder = networks.encode(parameters[1])
        ws = encoder(real, jnp.ones(real.shape[:3], real.dtype))
        fake = generator.synthesis(ws, noise="none")
        found["prior"] = jnp.mean(jnp.square((ws - encoder.mean[...][None, None]) / encoder.scale[...][None, None]))
    found["decoding_loss"] = warm_start.pixel_distance(fake, real)
    if config.decoding_features:
        discriminator = networks.discriminate(state.discriminator)
        found["decoding_features"] = losses.feature_distance(discriminator, fake, real)
    weights = {
        "prior": config.encoder_prior,
        "decoding_loss": config.decoding_weight,
        "decoding_features": config.decoding_features,
    }
    return sum(weights[name] * value for name, value in found.items()), found


def _updated(state: State, gradient: tuple[Any, Any], images: Array, *, config: TrainConfig) -> State:
    """Returns the state with generator, average and encoder one step further; `images` were seen before."""
    updates, optimizer = _optimizer(config).update(gradient[0], state.generator_optimizer)
    parameters = optax.apply_updates(state.generator, updates)
    average = _averaged(config, state.average, parameters, images)
    state = state._replace(generator=parameters, generator_optimizer=optimizer, average=average)
    if state.encoder is None:
        return state
    updates, optimizer = _optimizer(config).update(gradient[1], state.encoder_optimizer)
    return state._replace(encoder=optax.apply_updates(state.encoder, updates), encoder_optimizer=optimizer)


def warm_step(
    key: Array, networks: Networks, state: State, components: Array, real: Array, *, config: TrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of decoding `components` `[n, z_dim]` (or what an encoder sees of `real`) to
    `real` `[n, h, w, c]`, by the losses that accompany the game."""
    # A run that decodes in the warm start only still needs a loss there.
    config = dataclasses.replace(config, decoding_weight=config.decoding_weight or 1.0)

    def loss(parameters: tuple[Any, Any]) -> tuple[Array, dict[str, Array]]:
        return _decoding(key, networks, state, parameters, (components, real), config=config)

    gradient, statistics = jax.grad(loss, has_aux=True)((state.generator, state.encoder))
    state = _updated(state, gradient, state.warm_images, config=config)
    return state._replace(warm_images=state.warm_images + real.shape[0]), statistics


def _program(step: Callable) -> Callable:
    return jax.jit(step, static_argnames=("config", "penalise"), donate_argnames="state")


_discriminator_program, _generator_program = _program(discriminator_step), _program(generator_step)
_warm_program = jax.jit(warm_step, static_argnames="config", donate_argnames="state")


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
        self.networks, self.state = create(config, channels=images.shape[3], initial=initial)
        self.components = None
        if (self.folder / "state").exists():
            self.state, metadata = checkpoint.load_state(self.folder / "state", self.state)
            self._check_same_run(metadata["config"])
        # What no step depends on is left out, so that runs which differ in it share their programs.
        self._step_config = dataclasses.replace(config, images=0, warm_start_images=0, snapshot_images=0, seed=0)

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
        chosen = np.random.default_rng((self.config.seed, 2, step)).integers(0, len(both), self.config.batch)
        return components[chosen], image_io.from_uint8(both[chosen])

    def _step(self) -> dict[str, Array]:
        config = self.config
        if int(self.state.warm_images) < config.warm_start_images:
            step = int(self.state.warm_images) // config.batch
            key, batch = self._key(0, step), self._warm_batch(step)
            self.state, statistics = _warm_program(key, self.networks, self.state, *batch, config=self._step_config)
            return statistics
        step = int(self.state.images) // config.batch
        penalise = config.r1_gamma > 0 and step % config.r1_interval == 0
        self.state, statistics = _discriminator_program(
            self._key(1, step),
            self.networks,
            self.state,
            self._batch(step),
            config=self._step_config,
            penalise=penalise,
        )
        lengths = config.path_weight > 0 and step % config.path_interval == 0
        decodes = config.decoding_weight or config.decoding_features
        decoded = self._warm_batch(config.warm_start_images // config.batch + step) if decodes else None
        run = functools.partial(_generator_program, config=self._step_config, penalise=lengths)
        self.state, more = run(self._key(2, step), self.networks, self.state, decoded)
        return statistics | more

    def model(self, *, provenance: dict[str, Any]) -> checkpoint.Model:
        """Returns the averaged generator, the discriminator and the statistics of W (which set `w_avg`)."""
        generator = self.networks.generate(self.state.average)
        statistics = latents.estimate_w_statistics(jax.random.key(0), generator)
        generator.mapping.w_avg[...] = statistics.mean
        return checkpoint.Model(
            generator=generator,
            discriminator=self.networks.discriminate(self.state.discriminator),
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
