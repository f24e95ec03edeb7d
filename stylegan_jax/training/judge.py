# SPDX-License-Identifier: Apache-2.0
"""Training of the judging network.

Two tasks on clean portraits: recognise the same portrait among the others of the batch after shift, zoom, mirroring and
change of light (Chen et al. 2020, SimCLR), and name at every position what was done to a damaged region: nothing, blur,
noise, another portrait's pixels, or one flat colour.
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

from stylegan_jax import checkpoint, image_io
from stylegan_jax.features.judge import Judge, JudgeConfig
from stylegan_jax.training import augment, data, run

DAMAGES = ("blur", "noise", "swap", "flat")


@dataclasses.dataclass
class JudgeTrainConfig:
    """Settings of the training.

    Attributes:
        resolution, widths, embedding: of the network.
        images: length of the run; batch: images per step, each told apart from the others.
        lr: largest learning rate of Adam, under a cosine to 0.
        temperature: of the recognition loss.
        snapshot_images: images between two snapshots.
        seed: of everything random.
    """

    resolution: int = 64
    widths: tuple[int, ...] = (16, 32, 64, 128)
    embedding: int = 64
    images: int = 60_000
    batch: int = 32
    lr: float = 0.01
    temperature: float = 0.2
    snapshot_images: int = 1_920
    seed: int = 20_261


class State(NamedTuple):
    """Everything that changes in training."""

    parameters: Any
    optimizer: Any
    images: Array


def _damaged(key: Array, image: Array, other: Array) -> tuple[Array, Array]:
    """Returns `image` with one region damaged, and the kind of damage `[h, w]` (0 = clean)."""
    where, kind_key, strength, noise = jax.random.split(key, 4)
    size = image.shape[0]
    corner, extent = jax.random.uniform(where, (2, 2), minval=jnp.asarray([[-0.1], [0.2]]), maxval=0.8)
    at = (jnp.arange(size) + 0.5) / size
    rows = (at > corner[0]) & (at < corner[0] + extent[0])
    columns = (at > corner[1]) & (at < corner[1] + extent[1])
    region = rows[:, None] & columns[None, :]
    level = jax.random.uniform(strength)
    slight, strong = augment.blurred(image, 3), augment.blurred(image, 12)
    filled = jnp.broadcast_to((image * region[..., None]).mean((0, 1)), image.shape)
    choices = jnp.stack(
        [
            slight + level * (strong - slight),
            image + (0.05 + 0.3 * level) * jax.random.normal(noise, image.shape),
            other,
            filled,
        ]
    )
    kind = jax.random.randint(kind_key, (), 0, len(DAMAGES))
    return jnp.where(region[..., None], choices[kind], image), jnp.where(region, kind + 1, 0)


def loss(key: Array, judge: Judge, images: Array, *, temperature: float) -> tuple[Array, dict[str, Array]]:
    """Returns the loss of both tasks, and statistics.

    Args:
        key: of the changes and damages.
        judge: the network.
        images: `[n, h, w, 3]` in [-1, 1], different portraits.
        temperature: of the recognition loss.
    """
    n = images.shape[0]
    views = [jax.vmap(augment.another_view)(jax.random.split(k, n), images) for k in jax.random.split(key)]
    broken, kinds = jax.vmap(_damaged)(jax.random.split(jax.random.fold_in(key, 2), n), views[0], views[1][::-1])
    seen = judge(jnp.concatenate([*views, broken]))
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in jnp.split(seen.embedding[: 2 * n], 2))
    logits = a @ b.T / temperature
    log_matches = (jnp.diagonal(jax.nn.log_softmax(logits, 1)), jnp.diagonal(jax.nn.log_softmax(logits, 0)))
    recognition = -jnp.stack(log_matches).mean()
    found, cells = seen.damage[2 * n :], seen.damage.shape[1]
    step = images.shape[1] // cells
    share = jax.nn.one_hot(kinds, len(DAMAGES) + 1).reshape(n, cells, step, cells, step, -1).mean((2, 4))
    location = -(share * jax.nn.log_softmax(found)).sum(-1).mean()
    statistics = {
        "recognition": recognition,
        "location": location,
        "recognised": (logits.argmax(1) == jnp.arange(n)).mean(),
        "located": (found.argmax(-1) == share.argmax(-1)).mean(),
    }
    return recognition + location, statistics


class JudgeTrainer:
    """A run in a folder: `state/` (to resume), `model/` (the network), `log.jsonl`."""

    def __init__(self, config: JudgeTrainConfig, images: np.ndarray, folder: str | os.PathLike):
        """Prepares the run, and resumes it where the folder holds a state; `images` uint8 `[n, r, r, 3]`."""
        if images.shape[1:] != (config.resolution, config.resolution, 3):
            raise ValueError(f"images are {list(images.shape[1:])}, expected [{config.resolution}] * 2 + [3]")
        if len(images) < config.batch:
            raise ValueError(f"{len(images)} images are fewer than one batch of {config.batch}")
        self.config, self.images, self.folder = config, images, pathlib.Path(folder)
        network_config = JudgeConfig(
            resolution=config.resolution,
            widths=tuple(config.widths),
            embedding=config.embedding,
            damages=DAMAGES,
        )
        self.graph, parameters = nnx.split(Judge(network_config, rngs=nnx.Rngs(config.seed)))
        self.optimizer = optax.adam(optax.cosine_decay_schedule(config.lr, -(-config.images // config.batch)), b2=0.99)
        self.state = State(parameters, self.optimizer.init(parameters), jnp.zeros((), jnp.int32))
        if (self.folder / "state").exists():
            self.state, _ = checkpoint.load_state(self.folder / "state", self.state)
        self._step = jax.jit(self._advance, donate_argnums=(1,))
        self._evaluate = jax.jit(
            lambda key, parameters, images: loss(
                key, nnx.merge(self.graph, parameters), images, temperature=config.temperature
            )[1]
        )

    def _advance(self, key: Array, state: State, images: Array) -> tuple[State, dict[str, Array]]:
        def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
            return loss(key, nnx.merge(self.graph, parameters), images, temperature=self.config.temperature)

        gradient, statistics = jax.grad(objective, has_aux=True)(state.parameters)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer)
        parameters = optax.apply_updates(state.parameters, updates)
        return State(parameters, optimizer, state.images + images.shape[0]), statistics

    def judge(self) -> Judge:
        """Returns the network as it is now."""
        return nnx.merge(self.graph, self.state.parameters)

    def measure(self, images: np.ndarray) -> dict[str, float]:
        """Returns both tasks' statistics on other uint8 images `[n, r, r, 3]`, one batch of all of them."""
        found = self._evaluate(jax.random.key(0), self.state.parameters, image_io.from_uint8(images))
        return {name: float(value) for name, value in found.items()}

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state and network."""
        metadata = {"config": dataclasses.asdict(self.config)}
        checkpoint.save_state(self.folder / "state", self.state, metadata=metadata)
        provenance = provenance | metadata | {"images": int(self.state.images)}
        checkpoint.save_network(self.folder / "model", self.judge(), provenance=provenance, overwrite=True)

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end, with snapshots at intervals; `report` is called with every line of the log."""
        config, key = self.config, jax.random.key(self.config.seed)

        def step(number: int) -> dict[str, Array]:
            images = data.batch_at(self.images, number, batch=config.batch, seed=config.seed, x_flip=False)
            self.state, statistics = self._step(jax.random.fold_in(key, number), self.state, images)
            return statistics

        run.run(
            self.folder,
            step,
            seen=int(self.state.images),
            images=config.images,
            batch=config.batch,
            snapshot=lambda: self.snapshot(provenance=provenance),
            snapshot_images=config.snapshot_images,
            report=report,
        )
