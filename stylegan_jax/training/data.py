# SPDX-License-Identifier: Apache-2.0
"""Training images from a folder or an npz file, and batches that depend only on the seed and the step."""

import os
import pathlib

import numpy as np

from stylegan_jax import checkpoint, image_io

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class DataError(ValueError):
    """Training data that is missing or unsuitable."""


def reduce(images: np.ndarray, resolution: int) -> np.ndarray:
    """Returns uint8 `[n, r, r, c]` box-averaged down to `resolution`."""
    factor = images.shape[1] // resolution
    if images.shape[1] != images.shape[2] or factor * resolution != images.shape[1]:
        raise DataError(
            f"images are {images.shape[1]}x{images.shape[2]}; they must be square and a multiple of {resolution}"
        )
    if factor == 1:
        return images
    n, c = images.shape[0], images.shape[3]
    blocks = images.reshape(n, resolution, factor, resolution, factor, c).astype(np.float32)
    return np.rint(blocks.mean((2, 4))).astype(np.uint8)


def _from_npz(path: pathlib.Path, split: str | None) -> tuple[np.ndarray, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise DataError(f"{path} has no array 'images'; it has {', '.join(arrays.files)}")
            images = arrays["images"]
            chosen = np.ones(len(images), bool)
            if split is not None:
                if "split" not in arrays:
                    raise DataError(f"{path} has no array 'split', so split {split!r} cannot be followed")
                chosen = arrays["split"] == split
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable npz file: {error}") from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise DataError(f"{path}: images must be uint8 [n, h, w, 1 or 3], got {images.dtype} {list(images.shape)}")
    return images[chosen], [str(i) for i in np.flatnonzero(chosen)]


def _from_folder(path: pathlib.Path, resolution: int) -> tuple[np.ndarray, list[str]]:
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
    images = []
    for file in files:
        image, _ = image_io.read_image(file)
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        image = image_io.resize(image[top : top + side, left : left + side], resolution)
        images.append(image_io.to_uint8(image))
    stacked = np.stack(images) if images else np.zeros((0, resolution, resolution, 3), np.uint8)
    return stacked, [str(file.relative_to(path)) for file in files]


def has_splits(path: str | os.PathLike) -> bool:
    """Returns whether `path` is an npz whose images are divided into splits."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "split" in arrays
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def load_images(path: str | os.PathLike, *, resolution: int, split: str | None = None) -> np.ndarray:
    """Returns the training images as uint8 `[n, resolution, resolution, channels]`; see `load_named_images`."""
    return load_named_images(path, resolution=resolution, split=split)[0]


def load_named_images(
    path: str | os.PathLike, *, resolution: int, split: str | None = None
) -> tuple[np.ndarray, list[str]]:
    """Returns images as uint8 `[n, resolution, resolution, channels]`, and their names.

    Args:
        path: an npz with `images` (uint8 `[n, h, w, c]`) and perhaps `split`, or a folder of image files, which are
            cropped to their central square. Names are the numbers in the npz, or the files' paths below the folder.
        resolution: to which larger images are reduced.
        split: take only images whose `split` is this (npz).

    Raises:
        DataError: where there are no such images.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; name a folder of images or an npz file")
    if path.is_dir():
        if split is not None:
            raise DataError(f"split {split!r} needs an npz file, {path} is a folder")
        images, names = _from_folder(path, resolution)
    else:
        images, names = _from_npz(path, split)
        images = reduce(images, resolution)
    if not len(images):
        raise DataError(f"no images in {path}" + (f" with split {split!r}" if split else ""))
    return images, names


def load_labelled_images(
    path: str | os.PathLike, *, labels: str, resolution: int, split: str | None = None, channels: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 images `[n, resolution, resolution, channels]` and bool labels `[n]` of an npz.

    Args:
        path: an npz as for `load_named_images`.
        labels: its array of labels `[n]`: 1 = present, 0 = absent; images with any other number are left out.
        resolution, split: as there.
        channels: see `with_channels`.

    Raises:
        DataError: where there are no such images, no such labels, or labels of one kind only.
    """
    images, names = load_named_images(path, resolution=resolution, split=split)
    if pathlib.Path(path).is_dir():
        raise DataError(f"{path} is a folder; labels are read from an npz")
    with np.load(path, allow_pickle=False) as arrays:
        if labels not in arrays:
            raise DataError(f"{path} has no array {labels!r}; it has {', '.join(arrays.files)}")
        found = arrays[labels]
    if found.ndim != 1 or found.dtype.kind not in "biu" or len(found) <= int(names[-1]):
        raise DataError(f"{path}: labels must be one integer for each image, got {found.dtype} {list(found.shape)}")
    found = found[[int(name) for name in names]]
    certain = (found == 0) | (found == 1)
    if len(np.unique(found[certain])) < 2:
        raise DataError(f"{path}: {labels} must hold both 0 and 1, got {np.unique(found).tolist()}")
    return with_channels(images[certain], channels), found[certain] == 1


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 `images` `[n, h, w, c]` with 1 or 3 channels: colours are averaged, grey is repeated.

    Raises:
        DataError: for another number of channels.
    """
    if images.shape[3] == channels:
        return images
    if channels == 1:
        return np.rint(images.mean(-1, keepdims=True)).astype(np.uint8)
    if channels == 3 and images.shape[3] == 1:
        return images.repeat(3, 3)
    raise DataError(f"images have {images.shape[3]} channels, the generator makes {channels}")


def provenance(path: str | os.PathLike, *, split: str | None, licence: str) -> dict[str, str | None]:
    """Returns what a model trained on `path` says of its data: name, sha256 (of an npz), split and licence."""
    path = pathlib.Path(path)
    sha256 = checkpoint.file_sha256(path) if path.is_file() else None
    return {"source": path.name, "sha256": sha256, "split": split, "licence": licence}


def indices_at(n: int, step: int, *, batch: int, seed: int) -> np.ndarray:
    """Returns which of `n` images are the batch of one step, `[batch]`.

    Every pass over the data is a permutation drawn from (seed, pass), so a run resumes where it stopped.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    order = {p: np.random.default_rng((seed, int(p))).permutation(n) for p in np.unique(positions // n)}
    return np.asarray([order[p][i] for p, i in zip(positions // n, positions % n, strict=True)])


def batch_at(images: np.ndarray, step: int, *, batch: int, seed: int, x_flip: bool) -> np.ndarray:
    """Returns the batch of one step as float32 `[batch, h, w, c]` in [-1, 1]; see `indices_at`."""
    chosen = images[indices_at(len(images), step, batch=batch, seed=seed)]
    if x_flip:
        flip = np.random.default_rng((seed, step, 1)).random(batch) < 0.5
        chosen = np.where(flip[:, None, None, None], chosen[:, :, ::-1], chosen)
    return image_io.from_uint8(chosen)
