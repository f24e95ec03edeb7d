# SPDX-License-Identifier: Apache-2.0
"""Training of DiFaI: a decoder of known pixels and style images against a patch discriminator, the generator frozen.

The coarse completer is trained along, by its own error alone: no gradient of the other losses reaches it, or the
encoder of latents, or the generator.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import stylegan_jax as sg
from inpaint.learned import inpainters
from inpaint.learned.difai import coarse, losses, sheet, spectral
from inpaint.learned.difai.discriminator import PatchConfig, PatchDiscriminator
from inpaint.learned.difai.features import Features
from inpaint.learned.difai.inpainter import Difai, DifaiConfig, sefa_steps
from inpaint.learned.training_masks import TrainingMasks
from stylegan_jax import checkpoint, image_io
from stylegan_jax.training import data
from stylegan_jax.training import run as _run

RECONSTRUCTS = ("unperturbed", "all")
# Settings of the network that may change when a run is resumed, and others that may not.
FREE = {"w_dim", "image_channels", "distance", "first_layer", "last_layer"}
FIXED = {"batch", "discriminator_widths", "masks", "perturbed", "seed", "x_flip"}
_SHOWN = 4  # people of the training set on a sheet


@dataclasses.dataclass
class DifaiTrainConfig:
    """Settings of the training; counts of "images" are images seen.

    Attributes:
        encoder_widths, widths, hidden, norm, affine, resize, coarse_seen, coarse_widths, sees, directions, distance,
            first_layer, last_layer, noise: of the networks, see `inpainter.DifaiConfig`.
        discriminator_widths: see `discriminator.PatchConfig`.
        weights: of the losses, see `losses.LossWeights`; `losses.printed_weights` has the paper's.
        reconstructs: see `losses.inpainting_losses`.
        perturbed: alpha, perturbed style images of every image in each step; the paper does not say how many.
        features: "discriminator" (the generator's own, whose maps are divided by their mean magnitude), or the path of
            a VGG (the paper's is VGG-19), for perceptual and style loss.
        taps: feature maps by name; empty: all of the discriminator, or relu1_1 to relu5_1 of a VGG.
        features_interval: the losses on features are computed in every so many steps, with as much more weight.
        gradient_penalty: weight of that of WGAN-GP; the paper does not say, 10 is its authors' own.
        batch_statistics: normalise over whole batches in training, as the published code of region normalisation. A
            result is always normalised by itself, so that it depends on no other; hence off by default.
        bfloat16: compute the decoder's convolutions in bfloat16.
        images: length of the run; batch: images per step.
        lr: largest learning rate of Adam for decoder and coarse completer, under a cosine to 0; discriminator_lr: of
            the discriminator. Those of SPADE by default, beta1 0 and beta2 0.9 too.
        coarse_lr: of the coarse completer.
        ema_images: images in which the stored average of the weights forgets half; at most a twentieth of those seen.
        masks: generators of masks with their area bands, see `TrainingMasks`; by default the paper's, strokes as of
            QuickDraw with a square of a third of the side.
        x_flip: show mirrored images too.
        half: store the network in half precision.
        snapshot_images: images between two snapshots (state, network, sample sheet).
        seed: of everything random.
    """

    encoder_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    widths: tuple[int, ...] = (1024, 1024, 1024, 512, 256, 128, 64)
    hidden: int = 128
    norm: str = "region"
    affine: str = "masked"
    resize: str = "mean"
    coarse_seen: int = 64
    coarse_widths: tuple[int, ...] = (32, 64, 128, 128)
    sees: str = "coarse"
    directions: int = 10
    distance: float = 1.0
    first_layer: int = 0
    last_layer: int = -1
    noise: str = "const"
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)
    weights: losses.LossWeights = dataclasses.field(default_factory=losses.printed_weights)
    reconstructs: str = "unperturbed"
    perturbed: int = 1
    features: str = "discriminator"
    taps: tuple[str, ...] = ()
    features_interval: int = 1
    gradient_penalty: float = 10.0
    batch_statistics: bool = False
    bfloat16: bool = False
    images: int = 1_000_000
    batch: int = 8
    lr: float = 1e-4
    discriminator_lr: float = 4e-4
    beta1: float = 0.0
    beta2: float = 0.9
    coarse_lr: float = 1e-3
    ema_images: float = 10_000.0
    masks: tuple[str, ...] = ("strokes_and_square",)
    x_flip: bool = True
    half: bool = False
    snapshot_images: int = 10_000
    seed: int = 0

    def networks(self, model: sg.Model) -> DifaiConfig:
        """Returns the settings of the networks for a generator; raises ValueError where they do not fit it."""
        own = {field.name for field in dataclasses.fields(DifaiConfig)} - {"w_dim", "image_channels"}
        generator = model.generator.config
        values = {name: getattr(self, name) for name in own}
        values = {name: tuple(x) if isinstance(x, list | tuple) else x for name, x in values.items()}
        config = DifaiConfig(w_dim=generator.w_dim, image_channels=generator.image_channels, **values)
        if config.resolution != generator.resolution:
            raise ValueError(
                f"{len(self.widths)} widths decode images of {config.resolution} px, the generator makes "
                f"{generator.resolution}"
            )
        return config


class State(NamedTuple):
    """Everything that changes in training: parameters and other variables of both networks, and the average."""

    parameters: Any
    average: Any
    buffers: Any
    critic: Any
    critic_buffers: Any
    optimizer: Any
    critic_optimizer: Any
    images: Array


class DifaiTrainer:
    """A run in a folder: `state/` (to resume), `model/` (the network), `sheets/`, `log.jsonl`."""

    def __init__(
        self,
        config: DifaiTrainConfig,
        model: sg.Model,
        images: np.ndarray,
        folder: str | os.PathLike,
        *,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Prepares the run, and resumes it where the folder holds a state.

        Args:
            config: settings.
            model: generator and encoder of latents, statistics of W, and where features are its own a discriminator.
            images: uint8 `[n, r, r, c]`.
            folder: of the run.
            devices: that share each batch; by default all of this process.

        Raises:
            ValueError: where these do not fit each other.
        """
        generator = model.generator.config
        if images.shape[1:] != (generator.resolution,) * 2 + (generator.image_channels,):
            raise ValueError(f"images are {list(images.shape[1:])}, the generator's {[generator.resolution] * 2}")
        if model.encoder is None:
            raise ValueError(
                "DiFaI takes its latents from an encoder, and the generator has none; train one with `python -m "
                "inpaint train`, and put it into the folder `encoder` of the generator's checkpoint"
            )
        if config.reconstructs not in RECONSTRUCTS:
            raise ValueError(f"reconstructs must be one of {', '.join(RECONSTRUCTS)}, got {config.reconstructs!r}")
        if config.perturbed < 0 or min(config.batch, config.features_interval) < 1:
            raise ValueError(
                f"perturbed must be at least 0, batch and features_interval 1, got {config.perturbed}, {config.batch} "
                f"and {config.features_interval}"
            )
        if model.w_statistics is None:
            statistics = sg.estimate_w_statistics(jax.random.key(0), model.generator)
            model = dataclasses.replace(model, w_statistics=statistics)
        self.config, self.model, self.images, self.folder = config, model, images, pathlib.Path(folder)
        self.state = self._begin(config.networks(model))
        self.features = Features.load(config.features, model, config.taps, images[:32])
        if (self.folder / "state").exists():
            self._resume()
        self._masks = TrainingMasks(config.masks, size=model.resolution, batch=config.batch, seed=config.seed)
        self._frozen_graph, self._frozen = nnx.split((model.generator, model.encoder, self.features.network))
        self._place(jax.local_devices() if devices is None else devices)
        self._step = jax.jit(self._advance, donate_argnums=(1,))

    def _place(self, devices: Sequence[jax.Device]) -> None:
        """Deals batches out to devices, every one of which holds all arrays."""
        self._sharding = None
        if len(devices) == 1:
            return
        if self.config.batch % len(devices):
            raise ValueError(f"batch must be a multiple of the {len(devices)} devices, got {self.config.batch}")
        mesh = Mesh(np.asarray(devices), ("images",))
        self._sharding = NamedSharding(mesh, P("images"))
        everywhere = NamedSharding(mesh, P())
        self.state = jax.device_put(self.state, everywhere)
        self._frozen = jax.device_put(self._frozen, everywhere)

    def _begin(self, networks: DifaiConfig) -> State:
        config = self.config
        difai = Difai(networks, rngs=nnx.Rngs(config.seed))
        difai.steps[...] = jnp.asarray(sefa_steps(self.model, networks))
        critic_config = PatchConfig(image_channels=networks.image_channels, widths=tuple(config.discriminator_widths))
        critic = PatchDiscriminator(critic_config, rngs=nnx.Rngs(config.seed + 1))
        critic.check(networks.resolution)
        self._graph, parameters, buffers = nnx.split(difai, nnx.Param, ...)
        self._critic_graph, critic_parameters, critic_buffers = nnx.split(critic, nnx.Param, ...)
        self._optimizer = self._adam(config.lr)
        self._critic_optimizer = self._adam(config.discriminator_lr)
        return State(
            parameters,
            jax.tree.map(jnp.copy, parameters),
            buffers,
            critic_parameters,
            critic_buffers,
            self._optimizer.init(parameters),
            self._critic_optimizer.init(critic_parameters),
            jnp.zeros((), jnp.int32),
        )

    def _resume(self) -> None:
        metadata = checkpoint.state_metadata(self.folder / "state")
        if metadata["generator"] != self.model.content_hash:
            raise ValueError(f"{self.folder} holds a run on another generator; choose another --output")
        fixed = {field.name for field in dataclasses.fields(DifaiConfig)} - FREE | FIXED
        own, stored = (json.loads(json.dumps(x)) for x in (dataclasses.asdict(self.config), metadata["config"]))
        if changed := sorted(name for name in fixed if stored.get(name) != own[name]):
            raise ValueError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); choose another --output"
            )
        steps = self.state.buffers["steps"]
        self.state, _ = checkpoint.load_state(self.folder / "state", self.state)
        self.state.buffers["steps"] = steps

    def _adam(self, rate: float) -> optax.GradientTransformation:
        config = self.config
        schedule = optax.cosine_decay_schedule(rate, -(-config.images // config.batch))
        return optax.adam(schedule, b1=config.beta1, b2=config.beta2)

    def _styles(self, key: Array, difai: Difai, generator: sg.Generator, images: Array, known: Array) -> Array:
        """Returns the style images `[1 + alpha, n, h, w, c]`, the unperturbed ones first; no gradient flows back."""
        n, alpha = len(images), self.config.perturbed
        ws = jnp.tile(difai.encode(generator, images, known), (1 + alpha, 1, 1))
        distances = difai.draw_distances(key, alpha * n)
        distances = jnp.concatenate([jnp.zeros_like(distances, shape=(n, distances.shape[1])), distances])
        styles = difai.styles(generator, difai.moved(ws, distances))
        return jax.lax.stop_gradient(styles.reshape(1 + alpha, *images.shape).astype(images.dtype))

    def _generator_loss(
        self, parameters: Any, state: State, styles: Array, features: Features, images: Array, known: Array
    ) -> tuple[Array, tuple[dict[str, Array], Array]]:
        """Returns what decoder and coarse completer minimise, its parts, and the outputs `[(1 + alpha) n, h, w, c]`."""
        config, count = self.config, len(styles)
        difai = nnx.merge(self._graph, parameters, state.buffers)
        critic = nnx.merge(self._critic_graph, state.critic, state.critic_buffers)
        outputs = difai.decoder(
            jnp.tile(images, (count, 1, 1, 1)),
            styles.reshape(-1, *images.shape[1:]),
            jnp.tile(known, (count, 1, 1)),
            across_batch=config.batch_statistics,
            dtype=jnp.bfloat16 if config.bfloat16 else None,
        )
        made = outputs.reshape(styles.shape)
        parts = losses.pixel_losses(made, images, known, reconstructs=config.reconstructs)
        parts |= self._feature_losses(state, features, made, styles, images, known)
        parts["adversarial"] = losses.generator_loss(critic(outputs))
        total = sum(getattr(config.weights, name) * value for name, value in parts.items())
        parts["coarse"] = coarse.loss(difai.coarse, images, known)
        return total + parts["coarse"], (parts, outputs)

    def _feature_losses(
        self, state: State, features: Features, outputs: Array, styles: Array, images: Array, known: Array
    ) -> dict[str, Array]:
        """Returns what is computed by a network, in those steps that it is computed in."""
        interval, zero = self.config.features_interval, jnp.zeros(())

        def found() -> dict[str, Array]:
            parts = losses.feature_losses(outputs, styles, images, known, features)
            return {name: interval * value for name, value in parts.items()}

        if interval == 1:
            return found()
        due = (state.images // self.config.batch) % interval == 0
        return jax.lax.cond(due, found, lambda: {"perceptual": zero, "style": zero})

    def _critic_loss(self, parameters: Any, key: Array, buffers: Any, real: Array, fake: Array):
        """Returns what the discriminator minimises, and its parts."""
        critic = nnx.merge(self._critic_graph, parameters, buffers)
        game = losses.discriminator_loss(critic(real), critic(fake))
        # The penalty looks at one output of every image, since it costs as much as all the rest.
        penalty = losses.gradient_penalty(key, critic, real, fake[: len(real)])
        return game + self.config.gradient_penalty * penalty, {"critic": game, "penalty": penalty}

    def _advance(self, key: Array, state: State, frozen: Any, images: Array, known: Array):
        """Returns the state after one step of both networks, and statistics."""
        generator, encoder, network = nnx.merge(self._frozen_graph, frozen)
        features = self.features.with_network(network)
        style_key, penalty_key = jax.random.split(key)
        # Power iterations see the weights that the step begins with.
        difai, buffers = self._advanced(self._graph, state.parameters, state.buffers)
        _, critic_buffers = self._advanced(self._critic_graph, state.critic, state.critic_buffers)
        state = state._replace(buffers=buffers, critic_buffers=critic_buffers)
        difai.encoder = encoder
        styles = self._styles(style_key, difai, generator, images, known)
        gradient, (parts, outputs) = jax.grad(self._generator_loss, has_aux=True)(
            state.parameters, state, styles, features, images, known
        )
        critic_gradient, critic_parts = jax.grad(self._critic_loss, has_aux=True)(
            state.critic, penalty_key, state.critic_buffers, images, jax.lax.stop_gradient(outputs)
        )
        return self._updated(state, gradient, critic_gradient), parts | critic_parts

    @staticmethod
    def _advanced(graph: Any, parameters: Any, buffers: Any) -> tuple[nnx.Module, Any]:
        network = nnx.merge(graph, parameters, buffers)
        spectral.advance(network)
        return network, nnx.split(network, nnx.Param, ...)[2]

    def _updated(self, state: State, gradient: Any, critic_gradient: Any) -> State:
        config = self.config
        updates, optimizer = self._optimizer.update(gradient, state.optimizer)
        # Adam's steps are proportional to the rate, so those of one part can be made longer afterwards.
        ratio = config.coarse_lr / config.lr
        updates = jax.tree_util.tree_map_with_path(lambda path, x: x * ratio if path[0].key == "coarse" else x, updates)
        critic_updates, critic_optimizer = self._critic_optimizer.update(critic_gradient, state.critic_optimizer)
        parameters = optax.apply_updates(state.parameters, updates)
        images = state.images + config.batch
        decay = 0.5 ** (config.batch / jnp.minimum(config.ema_images, jnp.maximum(images / 20, 1.0)))
        return State(
            parameters,
            jax.tree.map(lambda a, p: p + (a - p) * decay.astype(p.dtype), state.average, parameters),
            state.buffers,
            optax.apply_updates(state.critic, critic_updates),
            state.critic_buffers,
            optimizer,
            critic_optimizer,
            images,
        )

    def difai(self) -> Difai:
        """Returns the network with the average of the weights so far, with its encoder."""
        network = nnx.merge(self._graph, self.state.average, self.state.buffers)
        # The singular vectors are those of the weights themselves.
        for _ in range(3):
            spectral.advance(network)
        return network.guided(self.model.encoder)

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state, network, and a sheet of samples."""
        own = {"config": dataclasses.asdict(self.config), "generator": self.model.content_hash}
        seen, difai = int(self.state.images), self.difai()
        checkpoint.save_state(self.folder / "state", self.state, metadata=own)
        inpainters.save(
            self.folder / "model",
            difai.guided(None),
            generator=self.model.content_hash,
            provenance=provenance | own | {"images": seen, "encoder": self.model.encoder_hash},
            half=self.config.half,
            overwrite=True,
        )
        images = image_io.from_uint8(self.images[:: max(len(self.images) // _SHOWN, 1)][:_SHOWN])
        known = np.resize(self._masks.draw(2**31 - 1), (len(images), *images.shape[1:3]))
        picture = sheet.samples_sheet(jax.random.key(0), difai, self.model.generator, images, known)
        image_io.write_image(self.folder / "sheets" / f"{seen:08d}.png", picture)

    def _arguments(self, number: int) -> tuple[Any, ...]:
        """Returns the arguments of the step of this number."""
        config = self.config
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        real = data.batch_at(self.images, number, batch=config.batch, seed=config.seed, x_flip=config.x_flip)
        batch = real, self._masks.at(number)
        return (
            key,
            self.state,
            self._frozen,
            *(batch if self._sharding is None else jax.device_put(batch, self._sharding)),
        )

    def advance(self, number: int) -> dict[str, Array]:
        """Runs the step of this number; returns its statistics, scalars by name."""
        self.state, statistics = self._step(*self._arguments(number))
        return statistics

    def compiled_memory(self) -> int:
        """Returns how many bytes a step asks for by what the compiler says: state, frozen networks and temporaries."""
        found = self._step.lower(*self._arguments(0)).compile().memory_analysis()
        kept = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return kept + found.temp_size_in_bytes

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end, with snapshots at intervals; `report` is called with every line of the log."""
        config = self.config
        _run.run(
            self.folder,
            self.advance,
            seen=int(self.state.images),
            images=config.images,
            batch=config.batch,
            snapshot=lambda: self.snapshot(provenance=provenance),
            snapshot_images=config.snapshot_images,
            report=report,
        )
