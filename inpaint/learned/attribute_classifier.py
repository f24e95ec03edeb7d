# SPDX-License-Identifier: Apache-2.0
"""Training of a classifier of one attribute, and the figures that say how far it can be trusted.

Images are uint8 `[n, r, r, 3]`, labels bool `[n]`, log-odds `[n]`, positive for present.
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

from stylegan_jax import checkpoint, classifiers, image_io
from stylegan_jax.classifiers.convolutional import ConvolutionalClassifier, ConvolutionalConfig
from stylegan_jax.training import augment, data
from stylegan_jax.training import run as _run

MEASURED_AT_ONCE = 100  # images in one call of the network outside training


@dataclasses.dataclass
class ClassifierTrainConfig:
    """Settings of the training; counts of "images" are images seen by the classifier.

    Attributes:
        attribute: its name; labels: the array of the npz that says where it is (1), is not (0) or is uncertain.
        resolution, widths, kernel, convolutions, features: of the network, see `ConvolutionalConfig`.
        images: length of the run; batch: images per step.
        lr: largest learning rate of Adam, under a cosine to 0; decay: of the weights, per step and unit of the rate.
        smoothing: how far labels are moved towards a half, which keeps the log-odds small.
        reach: largest shift of an image, as a share of its height; aligned faces vary little.
        blur, noise, cutout: probabilities that an image is blurred, gets noise, or loses a square; beside that every
            image is mirrored, shifted, zoomed and lit differently. A search would else find patterns that no face has.
        ema_images: half-life of the averaged weights in images, less while few were seen.
        snapshot_images: images between two snapshots.
        seed: of everything random.
    """

    attribute: str = "teeth_visible"
    labels: str = "smile_open"
    resolution: int = 64
    widths: tuple[int, ...] = (16, 32, 48, 64)
    kernel: int = 3
    convolutions: int = 2
    features: int = 64
    images: int = 60_000
    batch: int = 32
    lr: float = 0.003
    decay: float = 1e-4
    smoothing: float = 0.05
    reach: float = 0.04
    blur: float = 0.3
    noise: float = 0.3
    cutout: float = 0.2
    ema_images: float = 2_000.0
    snapshot_images: int = 6_400
    seed: int = 0


class State(NamedTuple):
    """Everything that changes in training."""

    parameters: Any
    average: Any
    optimizer: Any
    images: Array


def disturbed(key: Array, image: Array, config: ClassifierTrainConfig) -> Array:
    """Returns `image` `[h, w, 3]` seen anew, and sometimes blurred, noisy or with a grey square."""
    view, choose, noise_key, where = jax.random.split(key, 4)
    image = augment.another_view(view, image, reach=config.reach)
    blur, noise, cutout = jax.random.uniform(choose, (3,)) < jnp.asarray([config.blur, config.noise, config.cutout])
    image = jnp.where(blur, augment.blurred(image, 2), image)
    image = jnp.where(noise, image + 0.15 * jax.random.normal(noise_key, image.shape), image)
    size = image.shape[0]
    centre = jax.random.uniform(where, (2,))
    near = jnp.abs((jnp.arange(size)[None, :] + 0.5) / size - centre[:, None]) < 0.12
    return jnp.where(cutout & (near[0][:, None] & near[1][None, :])[..., None], 0, image)


def loss(
    key: Array, classifier: ConvolutionalClassifier, images: Array, labels: Array, config: ClassifierTrainConfig
) -> tuple[Array, dict[str, Array]]:
    """Returns the mean cross entropy of a batch to its smoothed labels, and statistics.

    Args:
        key: of the disturbances.
        classifier: to be trained.
        images: `[n, r, r, 3]` in [-1, 1].
        labels: `[n]`, 1 = present.
        config: settings.
    """
    keys = jax.random.split(key, len(images))
    found = classifier(jax.vmap(lambda k, image: disturbed(k, image, config))(keys, images))[:, 0]
    target = labels * (1 - config.smoothing) + 0.5 * config.smoothing
    value = jnp.mean(classifiers.cross_entropy(found, target))
    return value, {"loss": value, "accuracy": jnp.mean((found > 0) == (labels > 0.5))}


class ClassifierTrainer:
    """A run in a folder: `state/` (to resume), `model/` (the averaged network), `log.jsonl`."""

    def __init__(
        self, config: ClassifierTrainConfig, images: np.ndarray, labels: np.ndarray, folder: str | os.PathLike
    ):
        """Prepares the run, and resumes it where the folder holds a state.

        Args:
            config: settings.
            images: uint8 `[n, r, r, 3]`, r the resolution of the config.
            labels: bool `[n]`.
            folder: of the run.

        Raises:
            ValueError: where images and labels do not fit each other or the settings.
        """
        size = config.resolution
        if images.shape[1:] != (size, size, 3) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"expected images [n, {size}, {size}, 3] and labels [n], got {list(images.shape)} and "
                f"{list(labels.shape)}"
            )
        self.config, self.images, self.labels, self.folder = config, images, labels, pathlib.Path(folder)
        network_config = ConvolutionalConfig(
            attributes=(config.attribute,),
            resolution=size,
            widths=tuple(config.widths),
            kernel=config.kernel,
            convolutions=config.convolutions,
            features=config.features,
        )
        network = ConvolutionalClassifier(network_config, rngs=nnx.Rngs(config.seed))
        self._graph, parameters = nnx.split(network)
        schedule = optax.cosine_decay_schedule(config.lr, -(-config.images // config.batch))
        self._optimizer = optax.adamw(schedule, b2=0.99, weight_decay=config.decay)
        average = jax.tree.map(jnp.copy, parameters)
        self.state = State(parameters, average, self._optimizer.init(parameters), jnp.zeros((), jnp.int32))
        if (self.folder / "state").exists():
            self.state, _ = checkpoint.load_state(self.folder / "state", self.state)
        self._step = jax.jit(self._advance, donate_argnums=(1,))

    def _advance(self, key: Array, state: State, images: Array, labels: Array) -> tuple[State, dict[str, Array]]:
        config = self.config

        def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
            return loss(key, nnx.merge(self._graph, parameters), images, labels, config)

        gradient, statistics = jax.grad(objective, has_aux=True)(state.parameters)
        updates, optimizer = self._optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        keep = 0.5 ** (config.batch / jnp.clip(0.1 * state.images, 1.0, config.ema_images))
        average = jax.tree.map(lambda a, b: b + (a - b) * keep, state.average, parameters)
        return State(parameters, average, optimizer, state.images + config.batch), statistics

    def classifier(self) -> ConvolutionalClassifier:
        """Returns the averaged network as it is now."""
        return nnx.merge(self._graph, self.state.average)

    def snapshot(self, *, provenance: dict[str, Any]) -> None:
        """Writes state and network."""
        own = {"config": dataclasses.asdict(self.config)}
        checkpoint.save_state(self.folder / "state", self.state, metadata=own)
        provenance = provenance | own | {"images": int(self.state.images)}
        checkpoint.save_network(self.folder / "model", self.classifier(), provenance=provenance, overwrite=True)

    def run(self, *, provenance: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end, with snapshots at intervals; `report` is called with every line of the log."""
        config, key = self.config, jax.random.key(self.config.seed)

        def step(number: int) -> dict[str, Array]:
            chosen = data.indices_at(len(self.images), number, batch=config.batch, seed=config.seed)
            images, labels = image_io.from_uint8(self.images[chosen]), self.labels[chosen].astype(np.float32)
            self.state, statistics = self._step(jax.random.fold_in(key, number), self.state, images, labels)
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


@jax.jit
def _log_odds(classifier: classifiers.Classifier, images: Array) -> Array:
    return classifier(images)


def predict(classifier: nnx.Module, images: np.ndarray, *, attribute: str) -> np.ndarray:
    """Returns log-odds `[n]` of `attribute` for uint8 `images` `[n, h, w, 3]`."""
    column, found = classifiers.attribute_index(classifier, attribute), []
    for first in range(0, len(images), MEASURED_AT_ONCE):
        found.append(np.asarray(_log_odds(classifier, image_io.from_uint8(images[first : first + MEASURED_AT_ONCE]))))
    return np.concatenate(found)[:, column]


def kernel_ridge(
    images: np.ndarray, labels: np.ndarray, others: np.ndarray, *, penalty: float = 0.05, width: float = 1.0
) -> np.ndarray:
    """Returns log-odds-like scores `[m]` of uint8 `others` `[m, r, r, 3]` by kernel ridge regression on pixels.

    `k(others, images) (k(images, images) + penalty)^-1 (2 labels - 1)`, `k(x, y) = exp(-|x - y|^2 / (2 width^2 s^2))`
    with the median distance s; mirrored images are regressed on too.

    Args:
        images: uint8 `[n, r, r, 3]`; labels: bool `[n]`.
        others: to be scored.
        penalty: of the regression.
        width: of the kernel, in median distances.
    """

    def flat(x: np.ndarray) -> np.ndarray:
        return image_io.from_uint8(x).reshape(len(x), -1)

    def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        lengths = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None, :]
        return np.maximum(lengths - 2 * x @ y.T, 0)

    x, y = flat(np.concatenate([images, images[:, :, ::-1]])), np.tile(2.0 * labels - 1, 2)
    distances = squared(x, x)
    scale = 2 * width**2 * np.median(distances)
    weights = np.linalg.solve(np.exp(-distances / scale) + penalty * np.eye(len(x)), y - y.mean())
    return np.exp(-squared(flat(others), x) / scale) @ weights + y.mean()


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How answers agree with labels: counts of the four cases, the share of right ones and its 95 % interval."""

    present_found: int
    present_missed: int
    absent_found: int
    absent_missed: int

    @property
    def total(self) -> int:
        """Number of images."""
        return self.present_found + self.present_missed + self.absent_found + self.absent_missed

    @property
    def accuracy(self) -> float:
        """Share of right answers, from 0 to 1."""
        return (self.present_found + self.absent_found) / self.total

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % interval of the accuracy (Wilson 1927)."""
        n, p, z = self.total, self.accuracy, 1.96
        centre, reach = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return tuple(float(x / (1 + z * z / n)) for x in (centre - reach, centre + reach))

    def line(self) -> str:
        """Returns the figures as one line of text."""
        low, high = self.interval()
        return (
            f"{100 * self.accuracy:.1f} % right ({100 * low:.1f} to {100 * high:.1f}) of {self.total}: present "
            f"{self.present_found} found, {self.present_missed} missed; absent {self.absent_found} found, "
            f"{self.absent_missed} missed"
        )


def agreement(log_odds: np.ndarray, labels: np.ndarray) -> Agreement:
    """Returns how the signs of `log_odds` `[n]` agree with bool `labels` `[n]`."""
    said = log_odds > 0
    cases = (said & labels, ~said & labels, ~said & ~labels, said & ~labels)
    return Agreement(*(int(case.sum()) for case in cases))
