# SPDX-License-Identifier: Apache-2.0
"""DCGAN training (Radford et al. 2016) as a pure step over a state, and the run around it.

Images are float32 `[n, h, w, c]` in [-1, 1]. Batch normalisation takes the moments of its batch; real and generated
images are batches of their own. The discriminator keeps running moments of both; the averaged generator, whose weights
never saw a batch, gets its moments from fixed latents when it is stored.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from stylegan_jax import checkpoint, image_io, latents
from stylegan_jax.dcgan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, joined, with_moments
from stylegan_jax.training import augment, data, losses, run

# Other settings (length, rates) may change when a run is resumed.
FIXED_BY_STATE = "resolution generator_widths discriminator_widths kernel bias z_dim batch x_flip seed".split()
MOMENTS_SHARE = 0.1  # of a batch in the running moments
CALIBRATION = (16, 128)  # batches of latents behind the moments of the averaged generator, and latents in each


@dataclasses.dataclass
class DcganTrainConfig:
    """Settings of DCGAN training; counts of "images" are real images shown to the discriminator.

    Attributes:
        resolution: height and width of the images, a power of two.
        generator_widths, discriminator_widths: channels at 4, 8, ..., resolution / 2.
        kernel, bias, z_dim: of the networks, see `stylegan_jax.dcgan`.
        images: length of the run; batch: images per step.
        lr, beta1: of both Adam optimisers (beta2 is 0.999).
        generator_steps: steps of the generator for one of the discriminator.
        x_flip: show mirrored images too.
        augment_p: probability of each augmentation of what the discriminator sees (0: off); small data needs it.
        ema_images: half-life of the averaged generator in images, less while few were seen; 0 for no averaging.
        snapshot_images: images between two snapshots (state, model and sample sheet).
        seed: of everything random.
    """

    resolution: int = 64
    generator_widths: tuple[int, ...] = (512, 256, 128, 64)
    discriminator_widths: tuple[int, ...] = (512, 256, 128, 64)
    kernel: int = 4
    bias: bool = False
    z_dim: int = 100
    images: int = 300_000
    batch: int = 64
    lr: float = 2e-4
    beta1: float = 0.5
    generator_steps: int = 1
    x_flip: bool = True
    augment_p: float = 0.0
    ema_images: float = 0.0
    snapshot_images: int = 20_000
    seed: int = 0


class State(NamedTuple):
    """Everything that changes in training; parameters and moments are NNX states."""

    generator: Any
    discriminator: Any
    discriminator_moments: Any
    average: Any
    generator_optimizer: Any
    discriminator_optimizer: Any
    images: Array  # real images shown so far


class Networks(NamedTuple):
    """The static side: graph definitions, and the moments of a fresh generator, which training never uses."""

    generator: Any
    generator_moments: Any
    discriminator: Any

    def generate(self, parameters: Any) -> Generator:
        """Returns the generator with `parameters`."""
        return nnx.merge(self.generator, parameters, self.generator_moments)

    def discriminate(self, parameters: Any, moments: Any) -> Discriminator:
        """Returns the discriminator with `parameters` and running `moments`."""
        return nnx.merge(self.discriminator, parameters, moments)


def _optimizer(config: DcganTrainConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, b1=config.beta1, b2=0.999)


def create(config: DcganTrainConfig, *, channels: int) -> tuple[Networks, State]:
    """Returns freshly initialised networks and state for images of `channels` channels.

    Raises:
        ValueError: for widths that do not fit the resolution.
    """
    shared = dict(image_channels=channels, kernel=config.kernel, bias=config.bias)
    generator_config = GeneratorConfig(widths=tuple(config.generator_widths), z_dim=config.z_dim, **shared)
    discriminator_config = DiscriminatorConfig(widths=tuple(config.discriminator_widths), **shared)
    for name, found in (("generator", generator_config), ("discriminator", discriminator_config)):
        if found.resolution != config.resolution:
            count = len(found.widths)
            raise ValueError(f"{count} {name}_widths are for {found.resolution} px, not {config.resolution}")
    generator = Generator(generator_config, rngs=nnx.Rngs(config.seed))
    discriminator = Discriminator(discriminator_config, rngs=nnx.Rngs(config.seed + 1))
    g_graph, g_params, g_moments = nnx.split(generator, nnx.Param, ...)
    d_graph, d_params, d_moments = nnx.split(discriminator, nnx.Param, ...)
    state = State(
        generator=g_params,
        discriminator=d_params,
        discriminator_moments=d_moments,
        average=jax.tree.map(jnp.copy, g_params),
        generator_optimizer=_optimizer(config).init(g_params),
        discriminator_optimizer=_optimizer(config).init(d_params),
        images=jnp.zeros((), jnp.int32),
    )
    return Networks(g_graph, g_moments, d_graph), state


def discriminator_step(
    key: Array, networks: Networks, state: State, real: Array, *, config: DcganTrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the discriminator on `real` `[n, h, w, c]`, and its statistics.

    `mean softplus(-D(x)) + mean softplus(D(G(z)))`, the binary cross-entropy of the sigmoid of D's logits.

    Args:
        key: of latents and augmentation.
        networks: static side.
        state: before.
        real: in [-1, 1].
        config: settings.
    """
    z_key, fake_key, real_key = jax.random.split(key, 3)
    z = jax.random.normal(z_key, (real.shape[0], config.z_dim))
    fake, _ = networks.generate(state.generator).forward_batch(z)
    if config.augment_p:
        real, fake = (
            augment.augment(real_key, real, config.augment_p),
            augment.augment(fake_key, fake, config.augment_p),
        )

    def loss(parameters: Any):
        discriminator = networks.discriminate(parameters, state.discriminator_moments)
        real_logits, of_real = discriminator.forward_batch(real)
        fake_logits, of_fake = discriminator.forward_batch(fake)
        moved = with_moments(discriminator, joined([of_real, of_fake]), share=MOMENTS_SHARE)
        statistics = {"d_real": jnp.mean(real_logits), "d_fake": jnp.mean(fake_logits)}
        found = losses.discriminator_logistic(real_logits, fake_logits)
        return found, (nnx.split(moved, nnx.Param, ...)[2], statistics | {"d_loss": found})

    gradient, (moments, statistics) = jax.grad(loss, has_aux=True)(state.discriminator)
    updates, optimizer = _optimizer(config).update(gradient, state.discriminator_optimizer)
    state = state._replace(
        discriminator=optax.apply_updates(state.discriminator, updates),
        discriminator_moments=moments,
        discriminator_optimizer=optimizer,
        images=state.images + real.shape[0],
    )
    return state, statistics


def generator_step(
    key: Array, networks: Networks, state: State, *, config: DcganTrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after one step of the generator, without its average, and its statistics (scalars).

    `mean softplus(-D(G(z)))`, the non-saturating loss; arguments are those of `discriminator_step`.
    """
    z_key, fake_key = jax.random.split(key)
    z = jax.random.normal(z_key, (config.batch, config.z_dim))
    discriminator = networks.discriminate(state.discriminator, state.discriminator_moments)

    def loss(parameters: Any) -> Array:
        fake, _ = networks.generate(parameters).forward_batch(z)
        fake = augment.augment(fake_key, fake, config.augment_p) if config.augment_p else fake
        return losses.generator_logistic(discriminator.forward_batch(fake)[0])

    found, gradient = jax.value_and_grad(loss)(state.generator)
    updates, optimizer = _optimizer(config).update(gradient, state.generator_optimizer)
    parameters = optax.apply_updates(state.generator, updates)
    return state._replace(generator=parameters, generator_optimizer=optimizer), {"g_loss": found}


def _averaged(config: DcganTrainConfig, state: State) -> Any:
    # Short at first: the average would otherwise hold on to what the networks began with.
    half_life = jnp.clip(0.05 * state.images, 1.0, config.ema_images) if config.ema_images else 1e-3
    keep = 0.5 ** (config.batch / half_life)
    return jax.tree.map(lambda a, b: b + (a - b) * keep, state.average, state.generator)


def step(
    key: Array, networks: Networks, state: State, real: Array, *, config: DcganTrainConfig
) -> tuple[State, dict[str, Array]]:
    """Returns the state after a step of D on `real` `[n, h, w, c]`, `generator_steps` of G and its averaging, and
    statistics; arguments are those of `discriminator_step`."""
    keys = jax.random.split(key, 1 + config.generator_steps)
    state, statistics = discriminator_step(keys[0], networks, state, real, config=config)
    for own in keys[1:]:
        state, more = generator_step(own, networks, state, config=config)
    return state._replace(average=_averaged(config, state)), statistics | more


@jax.jit
def _batch_moments(generator: Generator, z: Array) -> dict[str, Any]:
    return generator.forward_batch(z)[1]


def calibrated(key: Array, generator: Generator) -> Generator:
    """Returns `generator` with stored moments that are those of its own blocks over fixed latents.

    Batches of 128, `[16, 128, z_dim]`; the moments of a block are taken where those before it normalise by the batch.
    """
    batches, n = CALIBRATION
    z = jax.random.normal(key, (batches, n, generator.config.z_dim))
    return with_moments(generator, joined([_batch_moments(generator, part) for part in z]))


class DcganTrainer:
    """A run in a folder: `state/` (to resume), `model/` (averaged networks), `sheets/`, `log.jsonl`."""

    def __init__(self, config: DcganTrainConfig, images: np.ndarray, folder: str | os.PathLike):
        """Prepares the run and resumes it where the folder holds a state.

        Args:
            config: settings; a resumed run may change those that are not in `FIXED_BY_STATE`.
            images: uint8 `[n, r, r, c]`, r the resolution of the config.
            folder: of the run.

        Raises:
            ValueError: for unsuitable images or settings.
            CheckpointError: where the folder holds a run with other settings.
        """
        if images.shape[1:3] != (config.resolution, config.resolution):
            raise ValueError(f"images are {images.shape[1]}x{images.shape[2]} px, the config says {config.resolution}")
        if config.batch < 2 or config.generator_steps < 1 or not 0 <= config.augment_p <= 1:
            raise ValueError(
                "need batch >= 2 (batch normalisation), generator_steps >= 1 and augment_p in [0, 1], got "
                f"{config.batch}, {config.generator_steps} and {config.augment_p}"
            )
        self.config, self.images, self.folder = config, images, pathlib.Path(folder)
        self.networks, self.state = create(config, channels=images.shape[3])
        if (self.folder / "state").exists():
            self.state, metadata = checkpoint.load_state(self.folder / "state", self.state)
            self._check_same_run(metadata["config"])
        self._step = jax.jit(
            lambda key, state, real: step(key, self.networks, state, real, config=config), donate_argnums=(1,)
        )

    def _check_same_run(self, stored: dict[str, Any]) -> None:
        current = json.loads(json.dumps(dataclasses.asdict(self.config)))
        stored = json.loads(json.dumps(stored))
        changed = [name for name in FIXED_BY_STATE if stored.get(name) != current[name]]
        if changed:
            raise checkpoint.CheckpointError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); choose another --output"
            )

    def _advance(self, number: int) -> dict[str, Array]:
        config = self.config
        real = data.batch_at(self.images, number, batch=config.batch, seed=config.seed, x_flip=config.x_flip)
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        self.state, statistics = self._step(key, self.state, real)
        return statistics

    def model(self, *, provenance: dict[str, Any]) -> checkpoint.Model:
        """Returns the averaged generator, calibrated, and the discriminator with its running moments."""
        generator = calibrated(jax.random.key(0), self.networks.generate(self.state.average))
        return checkpoint.Model(
            generator=generator,
            discriminator=self.networks.discriminate(self.state.discriminator, self.state.discriminator_moments),
            w_statistics=latents.estimate_w_statistics(jax.random.key(0), generator),
            provenance=provenance | {"images": int(self.state.images), "config": dataclasses.asdict(self.config)},
        )

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state, model and a sheet of fixed latents (psi 1 above, 0.7 below)."""
        checkpoint.save_state(self.folder / "state", self.state, metadata={"config": dataclasses.asdict(self.config)})
        model = self.model(provenance=provenance)
        checkpoint.save(self.folder / "model", model, overwrite=True)
        z = jax.random.normal(jax.random.key(1), (32, self.config.z_dim))
        rows = np.asarray(_render(model.generator, jnp.concatenate([z, 0.7 * z])))
        sheet = image_io.grid(rows, columns=8).repeat(2, 0).repeat(2, 1)
        image_io.write_image(self.folder / "sheets" / f"{int(self.state.images):08d}.png", sheet)

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end; snapshots at intervals and when interrupted.

        Args:
            provenance: stored with the models.
            report: called with every line of `log.jsonl`, one for every snapshot.
        """
        snapshot = functools.partial(self.snapshot, provenance=provenance)
        try:
            run.run(
                self.folder,
                self._advance,
                seen=int(self.state.images),
                images=self.config.images,
                batch=self.config.batch,
                snapshot=snapshot,
                snapshot_images=self.config.snapshot_images,
                report=report,
            )
        except KeyboardInterrupt:
            snapshot()
            raise


@jax.jit
def _render(generator: Generator, z: Array) -> Array:
    return generator(z)
