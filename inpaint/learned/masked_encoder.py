# SPDX-License-Identifier: Apache-2.0
"""Training of an encoder: from an image with a hole to latents in W+ whose render is the whole image.

The generator is frozen. Training images have random holes, but the loss looks at all of their pixels, so the encoder
learns what is likely behind a hole; some of each batch are the generator's own samples, whose latents are known. A
linear encoder, fitted in closed form to latents, is trained on by the same loss to make images instead.
"""

import dataclasses
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

import stylegan_jax as sg
from inpaint import losses, masks
from stylegan_jax import checkpoint, parameters
from stylegan_jax.encoders import LinearEncoder, MaskedEncoder, MaskedEncoderConfig
from stylegan_jax.training import data
from stylegan_jax.training import losses as training_losses
from stylegan_jax.training import run as _run


@dataclasses.dataclass
class EncoderTrainConfig:
    """Settings of the training; counts of "images" are images seen by the encoder.

    Attributes:
        widths: channels of the encoder at 4, 8, ..., the generator's resolution; features: of its dense layer. Neither
            matters to a linear encoder.
        images: length of the run; batch: images per step.
        generated: how many of a batch are the generator's own samples.
        lr: largest learning rate of Adam, under a cosine to 0.
        masks: generators of holes (`inpaint.masks.parse`), one of them drawn for every mask of the pool.
        mask_pool: masks drawn once and shown again and again, mirrored and shifted.
        mask_shift: largest shift of a mask to each side, as a share of its height and width.
        whole: share of images shown without a hole.
        pixel: weight of the mean squared error; features_weight: of the distance in the discriminator's features.
        latent: weight of the distance to the known latents of generated images, in units of W's spread.
        prior: weight of the Mahalanobis distance to the mean of W.
        x_flip: show mirrored images too.
        snapshot_images: images between two snapshots.
        seed: of everything random.
    """

    widths: tuple[int, ...] = (128, 128, 64, 32, 16)
    features: int = 256
    images: int = 100_000
    batch: int = 16
    generated: int = 4
    lr: float = 0.005
    masks: tuple[str, ...] = (
        "centre",
        "upper_half",
        "lower_half",
        "left_half",
        "right_half",
        "mouth",
        "eyes",
        "rectangles",
        "rectangles",
        "strokes:0.1-0.5",
        "strokes:0.1-0.5",
        "strokes:0.1-0.5",
        "noise:0.5",
    )
    mask_pool: int = 2_000
    mask_shift: float = 0.1
    whole: float = 0.1
    pixel: float = 4.0
    features_weight: float = 0.5
    latent: float = 0.1
    prior: float = 0.001
    x_flip: bool = True
    snapshot_images: int = 4_800
    seed: int = 0


class State(NamedTuple):
    """Everything that changes in training."""

    parameters: Any
    optimizer: Any
    images: Array


def draw_masks(config: EncoderTrainConfig, size: int) -> np.ndarray:
    """Returns the pool of masks, uint8 `[mask_pool, size, size]`, 1 = keep."""
    generators = [masks.parse(text) for text in config.masks]
    rng, pool = np.random.default_rng((config.seed, 3)), []
    for i in range(config.mask_pool):
        known = generators[rng.integers(len(generators))](jax.random.fold_in(jax.random.key(config.seed), i), size)
        reach = round(config.mask_shift * size)
        # Past the border the mask's own edge goes on.
        padded = np.pad(known, reach, mode="edge")
        top, left = rng.integers(0, 2 * reach + 1, 2)
        known = padded[top : top + size, left : left + size]
        pool.append(known > 0.5 if known.min() < 0.5 < known.max() else np.ones_like(known))
    return np.stack(pool).astype(np.uint8)


def masks_at(pool: np.ndarray, step: int, config: EncoderTrainConfig) -> np.ndarray:
    """Returns the masks of one step, float32 `[batch, h, w]`, which depend on seed and step alone."""
    rng = np.random.default_rng((config.seed, 4, step))
    chosen = pool[rng.integers(0, len(pool), config.batch)].astype(np.float32)
    flip, whole = rng.random((2, config.batch, 1, 1))
    chosen = np.where(flip < 0.5, chosen[:, :, ::-1], chosen)
    return np.where(whole < config.whole, np.float32(1), chosen)


def loss(
    encoder: MaskedEncoder | LinearEncoder,
    model: sg.Model,
    images: Array,
    known: Array,
    ws: Array,
    *,
    config: EncoderTrainConfig,
) -> tuple[Array, dict[str, Array]]:
    """Returns the loss of one batch, and its parts.

    Args:
        encoder: to be trained.
        model: the frozen generator and discriminator, with the statistics of W.
        images: `[n, h, w, c]` in about [-1, 1].
        known: `[n, h, w]`, 1 = shown to the encoder.
        ws: `[m, num_ws, w_dim]`, the latents of the first m images.
        config: weights.
    """
    found, m = encoder(images, known), ws.shape[0]
    renders = model.generator.synthesis(found, noise="none")
    mean, whitening = model.w_statistics.mean, model.w_statistics.whitening()
    parts = {
        "pixel": jnp.mean(jnp.square(renders - images)),
        "prior": jnp.mean(jax.vmap(lambda x: losses.mahalanobis(x, mean, whitening))(found)),
    }
    if config.features_weight:
        parts["features"] = training_losses.feature_distance(model.discriminator, renders, images)
    if m:
        parts["latent"] = jnp.mean(jnp.square((found[:m] - ws) @ whitening))
    weights = {
        "pixel": config.pixel,
        "prior": config.prior,
        "features": config.features_weight,
        "latent": config.latent,
    }
    return sum(weights[name] * value for name, value in parts.items()), parts


def _as_type(arrays: dict[str, Array], dtype: Any) -> dict[str, Array]:
    return {name: array.astype(dtype) for name, array in arrays.items()}


class EncoderTrainer:
    """A run in a folder: `state/` (to resume), `model/` (the encoder), `log.jsonl`."""

    def __init__(
        self,
        config: EncoderTrainConfig,
        model: sg.Model,
        images: np.ndarray | None,
        folder: str | os.PathLike,
        *,
        initial: MaskedEncoder | LinearEncoder | None = None,
    ):
        """Prepares the run, and resumes it where the folder holds a state.

        Args:
            config: settings.
            model: generator, discriminator (where `features_weight` is above 0) and statistics of W.
            images: uint8 `[n, r, r, c]`, or None to train on the generator's samples alone.
            folder: of the run.
            initial: what to begin with: a masked encoder of another generator, or a linear one of this. A run that is
                resumed does not need the former.

        Raises:
            ValueError: where these do not fit each other.
        """
        generator = model.generator.config
        if images is not None and images.shape[1:] != (generator.resolution,) * 2 + (generator.image_channels,):
            raise ValueError(f"images are {list(images.shape[1:])}, the generator's {[generator.resolution] * 2}")
        if not 0 <= config.generated <= config.batch or (images is None and config.generated != config.batch):
            raise ValueError(
                f"generated must be 0 to batch ({config.batch}), and all of it without images; got {config.generated}"
            )
        if config.features_weight and model.discriminator is None:
            raise ValueError("the checkpoint has no discriminator; set features_weight to 0")
        if model.w_statistics is None:
            statistics = sg.estimate_w_statistics(jax.random.key(0), model.generator)
            model = dataclasses.replace(model, w_statistics=statistics)
        self.config, self.model, self.images, self.folder = config, model, images, pathlib.Path(folder)
        encoder = self._new_encoder(initial)
        self._stored_as = initial.loadings.dtype if isinstance(initial, LinearEncoder) else None
        self._graph, parameters, self._buffers = nnx.split(encoder, nnx.Param, ...)
        self._optimizer = optax.adam(
            optax.cosine_decay_schedule(config.lr, -(-config.images // config.batch)), b1=0.5, b2=0.99
        )
        self.state = State(parameters, self._optimizer.init(parameters), jnp.zeros((), jnp.int32))
        if (self.folder / "state").exists():
            self.state, metadata = checkpoint.load_state(self.folder / "state", self.state)
            if metadata["generator"] != model.content_hash:
                raise ValueError(f"{folder} holds a run on another generator; choose another --output")
        self._pool = draw_masks(config, generator.resolution)
        networks = (model.generator, model.discriminator)
        self._model_graph, self._model_state = nnx.split(networks)
        self._step = jax.jit(self._advance, donate_argnums=(1,))

    def _new_encoder(self, initial: MaskedEncoder | LinearEncoder | None) -> MaskedEncoder | LinearEncoder:
        if isinstance(initial, LinearEncoder):
            return self._linear(initial)
        config, generator, statistics = self.config, self.model.generator.config, self.model.w_statistics
        encoder_config = MaskedEncoderConfig(
            widths=tuple(config.widths),
            image_channels=generator.image_channels,
            num_ws=generator.num_ws,
            w_dim=generator.w_dim,
            features=config.features,
        )
        if encoder_config.resolution != generator.resolution:
            raise ValueError(
                f"{len(config.widths)} widths read images of {encoder_config.resolution} px, "
                f"the generator makes {generator.resolution}"
            )
        if initial is not None and initial.config != encoder_config:
            raise ValueError(f"the initial encoder is {initial.config}, the settings ask for {encoder_config}")
        encoder = MaskedEncoder(encoder_config, rngs=nnx.Rngs(config.seed)) if initial is None else nnx.clone(initial)
        encoder.mean[...] = statistics.mean
        encoder.scale[...] = jnp.sqrt(jnp.diag(statistics.covariance))
        return encoder

    def _linear(self, initial: LinearEncoder) -> LinearEncoder:
        theirs, ours = initial.config, self.model.generator.config
        shapes = [(x.resolution, x.image_channels, x.num_ws, x.w_dim) for x in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "the initial linear encoder is of another generator: resolution, channels, num_ws and w_dim "
                f"{shapes[0]}, here {shapes[1]}"
            )
        return LinearEncoder.from_arrays(theirs, _as_type(parameters.to_arrays(initial), np.float32))

    def _advance(self, key: Array, state: State, networks: Any, real: Array, known: Array):
        generator, discriminator = nnx.merge(self._model_graph, networks)
        model = dataclasses.replace(self.model, generator=generator, discriminator=discriminator)
        z = jax.random.normal(key, (self.config.generated, generator.config.z_dim))
        ws = generator.map(z)
        samples = generator.synthesis(ws, noise="none") if len(z) else real[:0]
        images = jnp.concatenate([samples, real])

        def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
            encoder = nnx.merge(self._graph, parameters, self._buffers)
            return loss(encoder, model, images, known, ws, config=self.config)

        gradient, statistics = jax.grad(objective, has_aux=True)(state.parameters)
        updates, optimizer = self._optimizer.update(gradient, state.optimizer)
        parameters = optax.apply_updates(state.parameters, updates)
        return State(parameters, optimizer, state.images + self.config.batch), statistics

    def _real(self, step: int) -> np.ndarray:
        config, generator = self.config, self.model.generator.config
        count = config.batch - config.generated
        if not count:
            size = generator.resolution
            return np.zeros((0, size, size, generator.image_channels), np.float32)
        return data.batch_at(self.images, step, batch=count, seed=config.seed, x_flip=config.x_flip)

    def encoder(self) -> MaskedEncoder | LinearEncoder:
        """Returns the network as it is now, a linear one in the type that it was stored in."""
        found = nnx.merge(self._graph, self.state.parameters, self._buffers)
        if self._stored_as is None:
            return found
        return LinearEncoder.from_arrays(found.config, _as_type(parameters.to_arrays(found), self._stored_as))

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state and network."""
        own = {"config": dataclasses.asdict(self.config), "generator": self.model.content_hash}
        checkpoint.save_state(self.folder / "state", self.state, metadata=own)
        provenance = provenance | own | {"images": int(self.state.images)}
        checkpoint.save_network(self.folder / "model", self.encoder(), provenance=provenance, overwrite=True)

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end, with snapshots at intervals; `report` is called with every line of the log."""
        config, key = self.config, jax.random.key(self.config.seed)

        def step(number: int) -> dict[str, Array]:
            known = masks_at(self._pool, number, config)
            own = jax.random.fold_in(key, number)
            self.state, statistics = self._step(own, self.state, self._model_state, self._real(number), known)
            return statistics

        _run.run(
            self.folder,
            step,
            seen=int(self.state.images),
            images=config.images,
            batch=config.batch,
            snapshot=lambda: self.snapshot(provenance=provenance),
            snapshot_images=config.snapshot_images,
            report=report,
        )
