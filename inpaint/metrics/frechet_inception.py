# SPDX-License-Identifier: Apache-2.0
"""The Frechet inception distance (FID) between two sets of images, read one after the other and never held together.

Images are uint8 `[h, w, c]`, c of 1 (repeated) or 3, all of one set of one size. Two conventions are in use, whose
figures differ and must not be compared:

| convention | input of the network | covariance divided by |
|---|---|---|
| `pytorch_fid` | levels / 255, bilinear to 299 px between centres of pixels, no filter, `2 x - 1` | n - 1 |
| `nvlabs` | levels, bilinear to 299 px at `i h / 299` (TensorFlow 1), `(x - 128) / 128` | n |

FID falls with the number of images (its bias is about proportional to 1 / n): compare at equal numbers only.
"""

import functools
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from inpaint.metrics.frechet import FeatureStatistics, frechet_distance
from stylegan_jax import image_io
from stylegan_jax.features import inception
from stylegan_jax.features.inception import Inception

CHUNK = 8  # images that go through the network together
ROWS_AT_ONCE = 512  # features that are gathered before their covariance is taken


class _Convention(NamedTuple):
    prepare: Callable[[Array], Array]
    ddof: int


def _pytorch_fid(levels: Array) -> Array:
    return 2 * inception.resize(levels / 255) - 1


def _nvlabs(levels: Array) -> Array:
    return inception.from_bytes(inception.resize_tensorflow(levels))


_CONVENTIONS = {"pytorch_fid": _Convention(_pytorch_fid, 1), "nvlabs": _Convention(_nvlabs, 0)}
CONVENTIONS = tuple(_CONVENTIONS)


class InceptionStatistics(NamedTuple):
    """Mean `mu` `[d]` and covariance `sigma` `[d, d]` of a set's features, and where they come from, as far as known:
    the number of images, the convention, and the content hash of the network."""

    mu: np.ndarray
    sigma: np.ndarray
    count: int | None = None
    convention: str | None = None
    network: str | None = None


def _known(convention: str) -> _Convention:
    if convention not in _CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    return _CONVENTIONS[convention]


# Two programs, since sets of different sizes then share the network's, which takes long to compile.
@functools.partial(jax.jit, static_argnames="convention")
def _prepared(images: Array, *, convention: str) -> Array:
    return _known(convention).prepare(jnp.broadcast_to(images, (*images.shape[:3], 3)).astype(jnp.float32))


@functools.partial(jax.jit, static_argnames="definition")
def _through(weights, images: Array, *, definition) -> Array:
    return nnx.merge(definition, weights)(images)


def inception_features(
    network: Inception, images: np.ndarray, *, convention: str = "pytorch_fid", chunk: int = CHUNK
) -> np.ndarray:
    """Returns the features `[n, d]` (d = 2048 for the published network) of `images`.

    Args:
        network: the network of 2015.
        images: uint8 `[n, h, w, c]`.
        convention: one of `CONVENTIONS`.
        chunk: images that go through the network together; the last ones are filled up, so it changes nothing else.

    Raises:
        ValueError: for other images, or an unknown convention.
    """
    images = np.asarray(images)
    _known(convention)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise ValueError(f"images must be uint8 [n, h, w, 1 or 3], got {images.dtype} {list(images.shape)}")
    definition, weights = nnx.split(network)
    found = [np.zeros((0, network.config.features), np.float32)]
    # As for all metrics: some accelerators would round the factors of products.
    with jax.default_matmul_precision("highest"):
        for first in range(0, len(images), chunk):
            index = np.minimum(np.arange(first, first + chunk), len(images) - 1)
            prepared = _prepared(jnp.asarray(images[index]), convention=convention)
            found.append(np.asarray(_through(weights, prepared, definition=definition)))
    return np.concatenate(found)[: len(images)]


def _stacked(images: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Yields `[rows, h, w, c]` (the last one shorter) of images `[h, w, c]`, which must all have one shape."""
    waiting, shape = [], None
    for number, image in enumerate(images):
        image = np.asarray(image)
        shape = image.shape if shape is None else shape
        if image.shape != shape:
            raise ValueError(
                f"image {number} is {list(image.shape)}, those before it {list(shape)}; FID needs sets of one size"
            )
        waiting.append(image)
        if len(waiting) == rows:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def inception_statistics(
    network: Inception,
    images: Iterable[np.ndarray],
    *,
    convention: str = "pytorch_fid",
    network_hash: str | None = None,
    chunk: int = CHUNK,
) -> InceptionStatistics:
    """Returns mean and covariance of the features of a set, of which `chunk` images are held at a time.

    Args:
        network: the network of 2015.
        images: uint8 `[h, w, c]` each, of one shape; see `read_images`.
        convention: one of `CONVENTIONS`.
        network_hash: content hash of the network's checkpoint, to be kept with the statistics.
        chunk: images that go through the network together.

    Raises:
        ValueError: for fewer than two images, sizes that differ, other images, or features that are not finite.
    """
    found, gathered = FeatureStatistics.empty(network.config.features), []
    for stack in _stacked(images, chunk):
        gathered.append(inception_features(network, stack, convention=convention, chunk=chunk))
        if not np.isfinite(gathered[-1]).all():
            raise ValueError("the network gives NaN or infinite features; is its checkpoint damaged?")
        if sum(map(len, gathered)) >= ROWS_AT_ONCE:
            found, gathered = found.update(np.concatenate(gathered)), []
    if gathered:
        found = found.update(np.concatenate(gathered))
    if found.count < 2:
        raise ValueError(f"FID needs at least 2 images in each set, got {found.count}")
    sigma = found.covariance(ddof=_known(convention).ddof)
    return InceptionStatistics(found.mean, sigma, found.count, convention, network_hash)


def inception_distance(real: InceptionStatistics, made: InceptionStatistics) -> float:
    """Returns the FID `|m_r - m_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^1/2)` (Heusel et al. 2017, equation 6).

    Args:
        real: statistics of true images, `mu` `[d]` and `sigma` `[d, d]`.
        made: those of restored or generated ones.

    Returns:
        A squared distance, not negative; 0 up to rounding for equal sets.

    Raises:
        ValueError: where both are known to be of different conventions or networks, or differ in their features.
    """
    for name, ours, theirs in (
        ("conventions", real.convention, made.convention),
        ("networks", real.network, made.network),
    ):
        if None not in (ours, theirs) and ours != theirs:
            raise ValueError(f"statistics of different {name} cannot be compared: {ours} and {theirs}")
    # Covariances are divided already: with two rows and ddof 1 they stay as they are.
    return frechet_distance(*(FeatureStatistics(2, one.mu, one.sigma) for one in (real, made)), ddof=1)


def holds_statistics(path: str | os.PathLike) -> bool:
    """Returns whether `path` is an npz with the arrays mu and sigma."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_statistics(path: str | os.PathLike) -> InceptionStatistics:
    """Returns the statistics in an npz with `mu` `[d]` and `sigma` `[d, d]`, as pytorch-fid writes it.

    Files of `write_statistics` also say where they come from; of others the convention is the reader's to know.

    Raises:
        ValueError: where the file is no such npz, or holds other shapes or values that are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mu, sigma = (np.asarray(file[name], np.float64) for name in ("mu", "sigma"))
            convention, network = (str(file[name]) if name in file else None for name in ("convention", "network"))
            count = int(file["count"]) if "count" in file else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no readable npz with the arrays mu and sigma: {error}") from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"{path}: mu must be [d] and sigma [d, d], got {list(mu.shape)} and {list(sigma.shape)}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"{path}: mu or sigma holds NaN or infinity")
    return InceptionStatistics(mu, sigma, count, convention, network)


def write_statistics(path: str | os.PathLike, statistics: InceptionStatistics) -> None:
    """Writes an npz with `mu` `[d]` and `sigma` `[d, d]` (float64), which pytorch-fid reads too, and what is known of
    their origin; whole or not at all."""
    arrays = {name: np.asarray(value) for name, value in statistics._asdict().items() if value is not None}

    def write(partial: str) -> None:
        with open(partial, "wb") as file:
            np.savez(file, **arrays)

    image_io.write_atomically(path, write)


def _from_folder(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[np.ndarray]:
    shape = None
    for file in files:
        levels = image_io.read_picture(file).levels
        shape = levels.shape if shape is None else shape
        if levels.shape != shape:
            raise ValueError(
                f"{folder}: {file.relative_to(folder)} has {levels.shape[0]} x {levels.shape[1]} pixels, "
                f"{files[0].relative_to(folder)} {shape[0]} x {shape[1]}; FID needs sets of one size, resize them alike"
            )
        yield levels


def _from_npz(path: pathlib.Path, chosen: np.ndarray | None) -> Iterator[np.ndarray]:
    # Member by member: np.load would unpack all images at once.
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        shape, _, _ = _npy_header(file)
        for i in range(shape[0]):
            try:
                pixels = np.frombuffer(file.read(int(np.prod(shape[1:]))), np.uint8).reshape(shape[1:])
            except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{path} is damaged in image {i}: {error}") from error
            if chosen is None or chosen[i]:
                yield pixels


def _npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _open_npz(path: pathlib.Path, split: str | None) -> Iterator[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            if "images" not in names:
                raise ValueError(f"it has no array 'images', but {', '.join(names)}")
            with archive.open("images.npy") as file:
                shape, columns_first, dtype = _npy_header(file)
        if len(shape) != 4 or dtype != np.uint8 or shape[3] not in (1, 3) or columns_first:
            raise ValueError(f"images must be uint8 [n, h, w, 1 or 3], got {dtype} {list(shape)}")
        chosen = None
        if split is not None:
            if "split" not in names:
                raise ValueError(f"it has no array 'split', so split {split!r} cannot be followed")
            with np.load(path, allow_pickle=False) as arrays:
                chosen = arrays["split"] == split
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an npz of images: {error}") from error
    if not (shape[0] if chosen is None else chosen.sum()):
        raise ValueError(f"no images in {path}" + (f" with split {split!r}" if split else ""))
    return _from_npz(path, chosen)


def read_images(path: str | os.PathLike, *, split: str | None = None) -> Iterator[np.ndarray]:
    """Returns the images below a folder (by name), or of an npz, as uint8 `[h, w, c]`, read when they are asked for.

    Args:
        path: a folder, or an npz with `images` (uint8 `[n, h, w, c]`) and perhaps `split`.
        split: take only the images of an npz whose `split` is this.

    Raises:
        ValueError: where there are none; later, where one is damaged or has another size than the first.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a folder of images or an npz file")
    if not path.is_dir():
        return _open_npz(path, split)
    if split is not None:
        raise ValueError(f"split {split!r} needs an npz file, {path} is a folder")
    suffixes = image_io.file_suffixes()
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise ValueError(f"no images in {path}")
    return _from_folder(path, files)
