# SPDX-License-Identifier: Apache-2.0
"""A training run of a hierarchical inpainter in a folder."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import stylegan_jax as sg
from inpaint.learned import inpainters
from inpaint.learned.hierarchical import losses, training
from inpaint.learned.hierarchical.network import HierarchicalInpainter
from inpaint.learned.hierarchical.training import Batch, Frozen, Graphs, HierarchicalTrainConfig, State
from inpaint.learned.training_masks import TrainingMasks
from stylegan_jax import checkpoint, image_io, parameters
from stylegan_jax.features.vgg import Vgg
from stylegan_jax.training import data
from stylegan_jax.training import run as _run

SHOWN, SAMPLES = 6, 4  # images and samples of each on a sheet
LOW_FROM = 32  # blocks of at least so many pixels compute in bfloat16 where anything does
# Settings that the arrays of a run depend on; all others may change when it is resumed.
FIXED = "batch generated seed"


@functools.partial(jax.jit, static_argnames="graphs")
def _samples(keys: Array, arrays: tuple[Any, Any, Any], image: Array, known: Array, *, graphs: Graphs) -> Array:
    """Returns composites `[n, h, w, c]`, one for each key."""
    generator = nnx.merge(graphs.generator, arrays[0])
    network = nnx.merge(graphs.inpainter, *arrays[1:])
    shown = jnp.where(known[..., None] > 0.5, image, 0)
    made = jax.vmap(lambda key: network.produce(key, generator, shown, known).image)(keys)
    return losses.composite(made, jnp.broadcast_to(image, made.shape), jnp.broadcast_to(known, made.shape[:3]))


def _lowered(network: nnx.Module) -> nnx.Module:
    """Returns a network of StyleGAN2 that computes its large blocks in bfloat16."""
    config = dataclasses.replace(network.config, bfloat16_from=LOW_FROM)
    return parameters.fill(type(network), config, parameters.to_arrays(network))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class HierarchicalTrainer:
    """A run in a folder: `state/` (to resume), `model/` (the averaged network), `sheets/`, `log.jsonl`."""

    def __init__(
        self,
        config: HierarchicalTrainConfig,
        model: sg.Model,
        images: np.ndarray | None,
        folder: str | os.PathLike,
        *,
        initial: HierarchicalInpainter | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Prepares the run, and resumes it where the folder holds a state.

        Args:
            config: settings.
            model: generator, discriminator and statistics of W; an encoder where `config.start` counts from it.
            images: uint8 `[m, r, r, c]`, or None to train on the generator's samples alone.
            folder: of the run.
            initial: a network to begin with; a run that is resumed does not need it.
            devices: that share each batch; by default all of this process.

        Raises:
            ValueError: where these do not fit each other.
        """
        self.config, self.images, self.folder = config, images, pathlib.Path(folder)
        self._check(model)
        model = self._complete(model)
        self.model = model
        network = self._new_network(initial)
        self.settings = network.config
        # The guide is frozen, whatever it is made of.
        trained = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("guide")))
        graph, weights, buffers = nnx.split(network, trained, ...)
        d_graph, judge, d_buffers = nnx.split(model.discriminator, nnx.Param, ...)
        features = checkpoint.load_network(config.vgg, Vgg)[0] if config.vgg else model.discriminator
        f_graph, f_state = nnx.split(features)
        g_graph, g_state = nnx.split(model.generator)
        self._graphs = Graphs(g_graph, graph, d_graph, f_graph)
        self._frozen = Frozen(g_state, buffers, d_buffers, f_state)
        self.state = self._new_state(weights, judge)
        if (self.folder / "state").exists():
            self._resume()
        self._masks = TrainingMasks(config.masks, size=model.resolution, batch=config.batch, seed=config.seed)
        self._place(jax.local_devices() if devices is None else devices)
        shared = dict(graphs=self._graphs, config=self.config)
        self._warm_step = jax.jit(functools.partial(training.warm_step, **shared), donate_argnums=1)
        program = functools.partial(training.step, **shared)
        self._step = jax.jit(program, static_argnames=("plays", "penalises"), donate_argnames="state")

    def _new_state(self, weights: Any, judge: Any) -> State:
        # Steps consume their state, so nothing of it may be anybody else's.
        weights, average, judge = (jax.tree.map(jnp.copy, x) for x in (weights, weights, judge))
        own, others = training.optimizers(self.config)
        return State(weights, average, own.init(weights), judge, others.init(judge), jnp.zeros((), jnp.int32))

    def _check(self, model: sg.Model) -> None:
        config, generator = self.config, model.generator.config
        size = (generator.resolution, generator.resolution, generator.image_channels)
        if self.images is not None and self.images.shape[1:] != size:
            raise ValueError(f"images are {list(self.images.shape[1:])}, the generator's {list(size)}")
        if not 1 <= config.generated <= config.batch or (self.images is None and config.generated != config.batch):
            raise ValueError(
                f"generated must be 1 to batch ({config.batch}), and all of it without images; got {config.generated}"
            )
        if model.discriminator is None:
            raise ValueError(
                "the generator's checkpoint has no discriminator, which is trained along; take one with it"
            )
        if config.start == "encoder" and model.encoder is None:
            raise ValueError("start is encoder, and the generator has none in its folder; train one, or start at mean")
        if config.warm_images and config.start != "encoder":
            raise ValueError("warm_images learn from the generator's encoder, so they need start=encoder")
        if config.distance not in losses.DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(losses.DISTANCES)}, got {config.distance!r}")
        for name, known in (("real", ("generated", "all")), ("bfloat16", ("auto", "yes", "no"))):
            if getattr(config, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(config, name)!r}")

    def _complete(self, model: sg.Model) -> sg.Model:
        """Returns the model with statistics of W, computing in bfloat16 where the settings say so."""
        if model.w_statistics is None:
            statistics = sg.estimate_w_statistics(jax.random.key(0), model.generator)
            model = dataclasses.replace(model, w_statistics=statistics)
        if self.config.bfloat16 == "auto":
            low = "no" if jax.default_backend() == "cpu" else "yes"
            self.config = dataclasses.replace(self.config, bfloat16=low)
        if self.config.bfloat16 == "no":
            return model
        both = (_lowered(network) for network in (model.generator, model.discriminator))
        return dataclasses.replace(model, generator=next(both), discriminator=next(both))

    def _new_network(self, initial: HierarchicalInpainter | None) -> HierarchicalInpainter:
        config = self.config.network(self.model.generator.config)
        if initial is not None and initial.config != config:
            raise ValueError(f"the initial network is {initial.config}, the settings ask for {config}")
        network = HierarchicalInpainter(config, rngs=nnx.Rngs(self.config.seed))
        # It may be stored in half precision.
        network = network if initial is None else inpainters.cast(initial, self.model.generator.dtype)
        statistics = self.model.w_statistics
        network.mean[...] = statistics.mean
        network.scale[...] = jnp.sqrt(jnp.diag(statistics.covariance))
        return network.guided(self.model.encoder) if network.needs_guide else network

    def _resume(self) -> None:
        metadata = checkpoint.state_metadata(self.folder / "state")
        if metadata["generator"] != self.model.content_hash:
            raise ValueError(f"{self.folder} holds a run on another generator; choose another --output")
        own, stored = dataclasses.asdict(self.config), metadata["config"]
        fixed = (*FIXED.split(), *(set(dataclasses.asdict(self.settings)) & set(own)))
        changed = [n for n in fixed if _plain(stored.get(n)) != _plain(own[n])]
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings ({', '.join(sorted(changed))}); choose another --output"
            )
        self.state, _ = checkpoint.load_state(self.folder / "state", self.state)

    def _place(self, devices: Sequence[jax.Device]) -> None:
        """Deals batches out to devices, every one of which holds all arrays."""
        self._sharding = None
        if len(devices) == 1:
            return
        mesh = Mesh(np.asarray(devices), ("images",))
        for name in ("batch", "generated"):
            if getattr(self.config, name) % len(devices):
                raise ValueError(f"{name} must be a multiple of the {len(devices)} devices")
        self._sharding = NamedSharding(mesh, P("images"))
        everywhere = NamedSharding(mesh, P())
        self.state = jax.device_put(self.state, everywhere)
        self._frozen = jax.device_put(self._frozen, everywhere)

    def _batch(self, number: int) -> Batch:
        config, size = self.config, self.model.resolution
        count, channels = config.batch - config.generated, self.model.generator.config.image_channels
        real = np.zeros((0, size, size, channels), np.float32)
        if count:
            real = data.batch_at(self.images, number, batch=count, seed=config.seed, x_flip=config.x_flip)
        batch = Batch(real, self._masks.at(number))
        return batch if self._sharding is None else jax.device_put(batch, self._sharding)

    def advance(self, number: int) -> dict[str, Array]:
        """Runs the step of this number; returns its statistics, scalars by name."""
        config = self.config
        key, batch = jax.random.fold_in(jax.random.key(config.seed), number), self._batch(number)
        if int(self.state.images) < config.warm_images:
            self.state, statistics = self._warm_step(key, self.state, self._frozen, batch)
            return statistics
        turn = number % config.adversarial_interval == 0
        plays = config.adversarial > 0 and turn and int(self.state.images) >= config.adversarial_from
        games = number // config.adversarial_interval
        self.state, statistics = self._step(
            key,
            self.state,
            self._frozen,
            batch,
            plays=plays,
            penalises=plays and config.r1_gamma > 0 and games % config.r1_interval == 0,
        )
        return statistics

    def network(self) -> HierarchicalInpainter:
        """Returns the averaged network as it is now, without its guide."""
        return nnx.merge(self._graphs.inpainter, self.state.average, self._frozen.buffers).guided(None)

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state, network and a sheet."""
        own = {"config": dataclasses.asdict(self.config), "generator": self.model.content_hash}
        checkpoint.save_state(self.folder / "state", self.state, metadata=own)
        provenance = provenance | own | {"images": int(self.state.images), "encoder": self.model.encoder_hash}
        inpainters.save(
            self.folder / "model",
            self.network(),
            generator=self.model.content_hash or "",
            provenance=provenance,
            half=self.config.half,
            overwrite=True,
        )
        path = self.folder / "sheets" / f"{int(self.state.images):08d}.png"
        image_io.write_image(path, image_io.grid(self._sheet(), columns=2 + SAMPLES))

    def _sheet(self) -> np.ndarray:
        """Returns images, what is known of them, and samples, one row for each image."""
        if self.images is None:
            z = jax.random.normal(jax.random.key(1), (SHOWN, self.model.generator.config.z_dim))
            truth = np.asarray(self.model.generator(z, noise=self.config.noise))
        else:
            truth = image_io.from_uint8(self.images[:: max(len(self.images) // SHOWN, 1)][:SHOWN])
        known = np.resize(self._masks.draw(2**31 - 1), (len(truth), *truth.shape[1:3]))
        rows = []
        for i, (image, mask) in enumerate(zip(truth, known, strict=True)):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(2), i), SAMPLES)
            shown = image * mask[..., None]
            arrays = (self._frozen.generator, self.state.average, self._frozen.buffers)
            made = _samples(keys, arrays, image, mask, graphs=self._graphs)
            rows.append(np.concatenate([np.stack([image, shown]), np.asarray(made)]))
        return np.clip(np.concatenate(rows), -1, 1)

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
