# SPDX-License-Identifier: Apache-2.0
"""What an evaluation runs: methods, masks, images and seeds, in batches of images that share a program."""

import dataclasses
import hashlib
import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from inpaint import masks
from inpaint.config import COMPOSITES, RestoreConfig, takes_features
from inpaint.experiments.records import Identity, Records
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


@dataclasses.dataclass(frozen=True)
class NamedConfig:
    """A method under the label that its rows carry."""

    label: str
    config: RestoreConfig


class Unit(NamedTuple):
    """Images of one method, mask and seed that are restored together: `index` into the portraits."""

    method: NamedConfig
    mask: masks.Generator
    seed: int
    index: tuple[int, ...]


def draw_mask(generator: masks.Generator, image_id: int, size: int, *, seed: int) -> np.ndarray:
    """Returns the mask `[size, size]` of one image: it depends on nothing but these arguments."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(generator.name.encode()) & 0x7FFFFFFF)
    return generator(jax.random.fold_in(key, int(image_id)), size)


def inputs_digest(image: np.ndarray, known: np.ndarray) -> str:
    """Returns the sha256 of an image uint8 `[h, w, c]` and its mask `[h, w]`."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.packbits(known > 0).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination of methods, masks, portraits and seeds; `mask_seed` is that of all masks."""

    methods: tuple[NamedConfig, ...]
    masks: tuple[masks.Generator, ...]
    portraits: Portraits
    seeds: tuple[int, ...]
    mask_seed: int = 0

    def known(self, mask: masks.Generator, i: int) -> np.ndarray:
        """Returns the mask `[h, w]` of portrait `i`."""
        size = self.portraits.images.shape[1]
        return draw_mask(mask, int(self.portraits.ids[i]), size, seed=self.mask_seed)

    def wanted(
        self, records: Records, fingerprints: dict[str, str], *, shard: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[NamedConfig, masks.Generator, int, int, bool]]:
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
    for name in {"reach", "band"} - set(own):
        del config[name]
    left_out = ["seed", "chunk"]
    left_out += [] if takes_features(method.config) else ["features"]
    left_out += [] if method.config.search.options else ["options"]
    config["search"] = {name: value for name, value in config["search"].items() if name not in left_out}
    return {"method": method.label, "config": config, **shared}
