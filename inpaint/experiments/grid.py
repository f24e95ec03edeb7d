# SPDX-License-Identifier: Apache-2.0
"""What an evaluation runs: methods, masks or other degradations, images and seeds, in batches of images that share a
program."""

import dataclasses
import hashlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import stylegan_jax as sg
from inpaint import masks, operators
from inpaint.config import COMPOSITES, RestoreConfig
from inpaint.experiments.assess import draw_samples
from inpaint.experiments.records import Identity, Records
from inpaint.named_methods import takes_features
from inpaint.problem import Problem
from stylegan_jax import image_io
from stylegan_jax.training import data


class Portraits(NamedTuple):
    """Images to restore: uint8 `[n, h, w, c]`, their names, and the numbers that stand for them in keys."""

    images: np.ndarray
    names: tuple[str, ...]
    ids: np.ndarray

    def take(self, index: Sequence[int]) -> "Portraits":
        """Returns those at `index`."""
        index = np.asarray(index, int)
        return Portraits(self.images[index], tuple(self.names[i] for i in index), self.ids[index])


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Returns `limit` (at most `count`) numbers below `count`, the first and the last among them, `[n]`."""
    return np.unique(np.rint(np.linspace(0, count - 1, min(limit, count))).astype(int))


def load_portraits(path: str, *, resolution: int, split: str | None = None, limit: int | None = None) -> Portraits:
    """Returns the images of a folder or an npz file at `resolution`.

    Args:
        path: see `stylegan_jax.training.data.load_named_images`.
        resolution: of the generator.
        split: of the npz.
        limit: take so many, evenly spaced, the first and the last among them.

    Raises:
        ValueError: where there are no images.
    """
    images, names = data.load_named_images(path, resolution=resolution, split=split)
    ids = np.asarray([int(n) if n.isdigit() else zlib.crc32(n.encode()) & 0x7FFFFFFF for n in names])
    found = Portraits(images, tuple(names), ids)
    if limit is None or limit >= len(names):
        return found
    if limit < 1:
        raise ValueError(f"the limit must be at least 1, got {limit}")
    return found.take(evenly_spaced(len(names), limit))


def draw_portraits(key: jax.Array, generator: sg.Generator, count: int) -> Portraits:
    """Returns `count` images `[count, h, w, c]` that the generator itself has made, rounded to 8 bits as files are:
    their truth is known, and the generator can show them."""
    images = image_io.to_uint8(draw_samples(key, generator, count))
    return Portraits(images, tuple(f"sample{i}" for i in range(count)), np.arange(count))


@dataclasses.dataclass(frozen=True)
class NamedConfig:
    """A method under the label that its rows carry."""

    label: str
    config: RestoreConfig


class Degradation(NamedTuple):
    """A degradation other than a mask, by its text (`inpaint.operators.parse`), in the place of a mask."""

    name: str


Task = masks.Generator | Degradation  # what is done to an image before it is restored


class Unit(NamedTuple):
    """Images of one method, task and seed that are restored together: `index` into the portraits."""

    method: NamedConfig
    mask: Task
    seed: int
    index: tuple[int, ...]


def draw_mask(generator: masks.Generator, image_id: int, size: int, *, seed: int) -> np.ndarray:
    """Returns the mask `[size, size]` of one image: it depends on nothing but these arguments."""
    return generator(_key(generator, image_id, seed=seed), size)


def _key(task: Task, image_id: int, *, seed: int) -> jax.Array:
    named = jax.random.fold_in(jax.random.key(seed), zlib.crc32(task.name.encode()) & 0x7FFFFFFF)
    return jax.random.fold_in(named, int(image_id))


def inputs_digest(image: np.ndarray, known: np.ndarray) -> str:
    """Returns the sha256 of an image uint8 `[h, w, c]` and its mask `[h, w]`."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.packbits(known > 0).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of methods, tasks, portraits and seeds; `mask_seed` is that of all masks and degradations."""

    methods: tuple[NamedConfig, ...]
    masks: tuple[Task, ...]
    portraits: Portraits
    seeds: tuple[int, ...]
    mask_seed: int = 0

    def known(self, mask: Task, i: int) -> np.ndarray:
        """Returns the mask `[h, w]` of portrait `i`: 0 everywhere for a degradation that shows no pixel as it is."""
        size = self.portraits.images.shape[1]
        if not isinstance(mask, Degradation):
            return draw_mask(mask, int(self.portraits.ids[i]), size, seed=self.mask_seed)
        known = self._operator(mask, i)[0].known
        return np.zeros((size, size), np.float32) if known is None else np.asarray(known)

    def _operator(self, task: Degradation, i: int) -> tuple[operators.Operator, jax.Array]:
        key, noise_key = jax.random.split(_key(task, int(self.portraits.ids[i]), seed=self.mask_seed))
        size, channels = self.portraits.images.shape[1], self.portraits.images.shape[3]
        return operators.parse(task.name, size=size, key=key, channels=channels), noise_key

    def problem(self, mask: Task, i: int) -> Problem:
        """Returns what is asked about portrait `i`."""
        truth = jnp.asarray(image_io.from_uint8(self.portraits.images[i]))
        if not isinstance(mask, Degradation):
            return Problem.observe(truth, operators.Mask.checked(self.known(mask, i)))
        operator, noise_key = self._operator(mask, i)
        return Problem.observe(truth, operator, key=noise_key)

    def wanted(
        self, records: Records, fingerprints: dict[str, str], *, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[NamedConfig, Task, int, int, bool]]:
        """Yields method, mask, seed, number of the portrait, and whether that row is finished.

        Raises:
            ValueError: where a row was made with other settings, or from another image or mask.
        """
        digests: dict[tuple[str, int], str] = {}
        for method, mask, seed in itertools.product(self.methods, self.masks, self.seeds):
            for i in range(shard[0], len(self.portraits.names), shard[1]):
                key = Identity(method.label, mask.name, self.portraits.names[i], seed)
                if key not in records.rows:
                    yield method, mask, seed, i, False
                    continue
                if (mask.name, i) not in digests:
                    digests[mask.name, i] = inputs_digest(self.portraits.images[i], self.known(mask, i))
                done = records.finished(key, fingerprints[method.label], digests[mask.name, i])
                yield method, mask, seed, i, done

    def units(
        self, records: Records, fingerprints: dict[str, str], *, batch: dict[str, int], shard: tuple[int, int] = (0, 1)
    ) -> Iterator[Unit]:
        """Yields what is not finished yet, a method at a time.

        Args:
            records: finished rows.
            fingerprints: of every method's settings, by label.
            batch: images restored together, by label.
            shard: (i, n) takes every n-th portrait, beginning with i.
        """
        open_rows = (row for row in self.wanted(records, fingerprints, shard=shard) if not row[4])
        for (label, _, seed), cell in itertools.groupby(open_rows, lambda row: (row[0].label, row[1].name, row[2])):
            rows = list(cell)
            method, mask, step = rows[0][0], rows[0][1], batch[label]
            for first in range(0, len(rows), step):
                yield Unit(method, mask, seed, tuple(row[3] for row in rows[first : first + step]))


def settings_of(method: NamedConfig, shared: dict[str, Any]) -> dict[str, Any]:
    """Returns all that decides a method's rows, JSON-like: its config without the seed, and what all methods share."""
    config = dataclasses.asdict(method.config)
    # What does not concern the method is left out, so that rows from before there was such a setting stay finished.
    # (An unknown composite has no settings; it is refused where the method is built.)
    own = COMPOSITES[method.config.composite].settings if method.config.composite in COMPOSITES else ()
    for name in {"reach", "band"} - set(own) | (set() if method.config.network else {"network"}):
        del config[name]
    left_out = ["seed", "chunk"]
    left_out += [] if takes_features(method.config) else ["features"]
    left_out += [] if method.config.search.options else ["options"]
    # Each of these is off where it is 0, and the other settings of it say nothing then.
    left_out += ["score"] if method.config.search.score == "objective" else []
    for name, of_it in (("halving", ["halving_factor"]), ("restarts", []), ("patience", ["improvement"])):
        left_out += [] if getattr(method.config.search, name) else [name, *of_it]
    config["search"] = {name: value for name, value in config["search"].items() if name not in left_out}
    return {"method": method.label, "config": config, **shared}
