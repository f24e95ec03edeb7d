# SPDX-License-Identifier: Apache-2.0
"""Masks from image files. Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole."""

import os
import pathlib

import numpy as np
from jax import Array

from inpaint.masks import conditions
from stylegan_jax import image_io

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def from_files(key: Array, size: int, *, path: str | os.PathLike, polarity: str = "white_hole") -> np.ndarray:
    """Returns a mask file, or a random one of a folder, at the size wanted; pixels not wholly known are hole.

    Args:
        key: chooses among the image files of a folder, sorted by name; ignored for a file.
        size: height and width in pixels; the mask must be square.
        path: an image file or a folder.
        polarity: "white_hole" (white is to be restored) or "black_hole".

    Returns:
        known `[size, size]`.

    Raises:
        stylegan_jax.image_io.ImageError: for missing or unreadable files, a folder without images, a mask that is not
            square, or one without hole or without known pixels.
        ValueError: for an unknown polarity, or a size below 8.
    """
    size = conditions.check_size(size)
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not files:
            raise image_io.ImageError(f"{path} holds no mask files ({', '.join(SUFFIXES)})")
        path = files[conditions.host_generator(key).integers(len(files))]
    known = image_io.read_mask(path, polarity=polarity)
    if known.shape[0] != known.shape[1]:
        raise image_io.ImageError(f"mask {path} is {known.shape[1]}x{known.shape[0]}; it must be square")
    if known.shape[0] != size:
        known = image_io.resize_mask(known, size)
    known = (known >= 1).astype(np.float32)
    if known.min() == known.max():
        raise image_io.ImageError(
            f"mask {path} has no {'hole' if known.max() else 'known pixels'} at {size} px (is its polarity inverted?)"
        )
    return known
