# SPDX-License-Identifier: Apache-2.0
"""Measurements read from files, and whole pictures brought to the generator's size to be measured."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from inpaint import losses
from inpaint.metrics.fidelity import ERROR_FLOOR
from inpaint.operators import Operator
from inpaint.problem import Problem
from stylegan_jax import image_io

TINT = 8  # levels by which the channels of a grey picture may differ, as a JPEG file in colour leaves them


def shape_of(operator: Operator, size: int, channels: int) -> tuple[int, ...]:
    """Returns the shape of what `operator` leaves of images `[size, size, channels]`."""
    return jax.eval_shape(operator, jax.ShapeDtypeStruct((size, size, channels), jnp.float32)).shape


def is_picture(shape: tuple[int, ...]) -> bool:
    """Returns whether a measurement of this shape can be looked at, and kept in a file of an image."""
    return len(shape) == 3 and shape[2] in (1, 3)


def read_levels(path: str | os.PathLike) -> np.ndarray:
    """Returns the levels `[h, w, 3]` uint8 of a file.

    Raises:
        stylegan_jax.image_io.ImageError: where it is unreadable, or has transparent pixels.
    """
    picture = image_io.read_picture(path)
    if (picture.alpha < 255).any():
        raise image_io.ImageError(
            f"{path} has transparent pixels; what a degradation hides is named in it, such as +mask:file:PATH"
        )
    return picture.levels


def as_measurement(levels: np.ndarray, shape: tuple[int, ...], *, name: str, degradation: str, size: int) -> np.ndarray:
    """Returns the measurement `[h, w, c]` in [-1, 1] that a file's levels `[h, w, 3]` are.

    Args:
        levels: uint8.
        shape: of the measurement.
        name, degradation, size: of the file, of what was done, and of the generator's images: what an error names.

    Raises:
        ValueError: where the file is of another size, or coloured where the measurement is grey; where no file can be
            a measurement of this shape.
    """
    if not is_picture(shape):
        raise ValueError(
            f"a measurement of {degradation} is no picture, but numbers {list(shape)}, and {name} cannot be one; "
            "--simulate degrades a whole picture"
        )
    height, width, channels = shape
    if levels.shape[:2] != (height, width):
        raise ValueError(
            f"{name} is {levels.shape[1]}x{levels.shape[0]}, and {degradation} leaves {width}x{height} of the "
            f"generator's {size}x{size}; --simulate degrades a whole picture"
        )
    if channels == 3:
        return image_io.from_uint8(levels)
    if np.ptp(levels.astype(int), axis=-1).max() > TINT:
        raise ValueError(f"{name} has colours, and a measurement of {degradation} is grey here")
    return image_io.from_uint8(levels).mean(-1, keepdims=True)


def central_square(levels: np.ndarray, *, size: int, channels: int) -> np.ndarray:
    """Returns the largest central square of a picture, `[size, size, channels]` in [-1, 1] on 8-bit levels.

    Args:
        levels: `[h, w, 3]` uint8.
        size: of the generator's images; another one is resampled by Lanczos.
        channels: 3, or 1 for the mean of the colours.
    """
    side = min(levels.shape[:2])
    top, left = ((n - side) // 2 for n in levels.shape[:2])
    square = image_io.from_uint8(levels[top : top + side, left : left + side])
    return with_channels(square if side == size else image_io.resize(square, size), channels)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns `image` `[h, w, 3]` on 8-bit levels, with all its channels or, for 1, with their mean `[h, w, 1]`."""
    image = image.mean(-1, keepdims=True) if channels == 1 else image
    return image_io.from_uint8(image_io.to_uint8(image))


def without_hidden(problem: Problem) -> Problem:
    """Returns a problem whose measurement holds 0 wherever it does not count, whatever a file shows there."""
    return Problem(problem.operator, jnp.where(problem.operator.weight > 0, problem.measurement, 0))


@jax.jit
def again(problem: Problem, images: jax.Array) -> jax.Array:
    """Returns the measurements `[n, ...]` of images `[n, h, w, c]`, clipped; of noise, the mean."""
    # One at a time: an operator may need a multiple of its image's memory.
    return jax.lax.map(lambda image: problem.operator(jnp.clip(image, -1, 1)), images)


@jax.jit
def psnr(problem: Problem, images: jax.Array) -> jax.Array:
    """Returns how well images `[n, h, w, c]`, clipped and measured again, meet the measurement: `[n]` in dB.

    `10 log10(4 / mean square difference)` over the values that count; of noise, the mean is compared, so that the noise
    itself is the limit. At most 106.02 dB.
    """

    def one(measured: jax.Array) -> jax.Array:
        error = losses.l2(measured, problem.measurement, problem.operator.weight)
        return 10 * jnp.log10(4 / jnp.maximum(error, ERROR_FLOOR))

    return jax.vmap(one)(again(problem, images))
