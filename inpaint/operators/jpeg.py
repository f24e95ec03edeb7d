# SPDX-License-Identifier: Apache-2.0
"""JPEG files (ITU-T T.81): what is left of an image in one, and a differentiable account of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from inpaint.operators.protocol import Operator, check_image, widened
from inpaint.operators.straight_through import clip_through, round_softly, round_through
from stylegan_jax import image_io

# Tables K.1 and K.2 of the standard, for quality 50; the second is 99 wherever it is not given.
_LUMINANCE = """
    16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
    18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99
"""
_CHROMINANCE = "17 18 24 47   18 21 26 66   24 26 56 99   47 66 99 99"

# From R, G, B to Y, Cb, Cr about 0 (JFIF), and back.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_FROM_YCC = np.linalg.inv(_TO_YCC)

# libjpeg calculates with whole numbers, so that exact halves are frequent. This much, more than what float32 loses and
# less than any other difference, decides them as libjpeg does; up, where nothing else is said.
_LEAN = 2.0**-9


@functools.lru_cache(maxsize=128)
def quantisation_tables(quality: int) -> np.ndarray:
    """Returns the steps `[2, 8, 8]` of luminance and chrominance at a quality from 1 to 100, as libjpeg scales them.

    `clip(floor((t s + 50) / 100), 1, 255)`, s = 5000 // quality below 50 and 200 - 2 quality from there.
    """
    tables = np.full((2, 8, 8), 99)
    tables[0] = np.array(_LUMINANCE.split(), int).reshape(8, 8)
    tables[1, :4, :4] = np.array(_CHROMINANCE.split(), int).reshape(4, 4)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((tables * scale + 50) // 100, 1, 255)


def _cosines(dtype: np.dtype) -> Array:
    """Returns the orthonormal DCT-II, `[frequency, sample]` of 8."""
    frequency, sample = np.arange(8)[:, None], np.arange(8) + 0.5
    return jnp.asarray(np.cos(np.pi / 8 * frequency * sample) * np.where(frequency == 0, 0.125, 0.25) ** 0.5, dtype)


def _levels(values: Array) -> Array:
    """Returns `[...]` as whole levels from -128 to 127."""
    return round_through(clip_through((values + 0.5) / 127.5) * 127.5 - 0.5 + _LEAN)


def _coded(planes: Array, steps: Array) -> Array:
    """Returns planes `[n, h, w]` of levels about 0 as their quantised blocks of 8x8 show them, in whole levels."""
    count, height, width = planes.shape
    # Blocks that the image does not fill are filled with its last rows and columns.
    padded = jnp.pad(planes, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = padded.reshape(count, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8)
    cosines, steps = _cosines(planes.dtype), steps[None, None, :, None, :]
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    # libjpeg has its coefficients in eighths, and rounds halves of steps away from 0.
    coefficients = round_through(8 * product("ui,naibj,vj->naubv", cosines, blocks, cosines) + _LEAN) / 8
    coefficients = round_softly(coefficients / steps + 1e-5 * jnp.sign(coefficients)) * steps
    blocks = product("ui,naubv,vj->naibj", cosines, coefficients, cosines)
    return _levels(blocks.reshape(padded.shape)[:, :height, :width])


def _alternating(columns: int, first: float, dtype: np.dtype) -> Array:
    """Returns `[1, 1, columns]`, which decides halves one way in even columns and the other way in odd ones."""
    return jnp.asarray(np.where(np.arange(columns) % 2, -first, first)[None, None], dtype)


def _halve(planes: Array) -> Array:
    """Returns the means of squares of 2x2 as whole levels, `[n, ceil(h / 2), ceil(w / 2)]`."""
    count, height, width = planes.shape
    planes = jnp.pad(planes, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    means = planes.reshape(count, planes.shape[1] // 2, 2, planes.shape[2] // 2, 2).mean((2, 4))
    return round_through(means + _alternating(means.shape[2], -_LEAN, means.dtype))


def _double(planes: Array) -> Array:
    """Returns `[n, 2 h, 2 w]` in whole levels, along each axis 3/4 of the nearer and 1/4 of the farther value."""
    for axis in (1, 2):
        size = planes.shape[axis]
        around = jnp.pad(planes, [(1, 1) if axis == a else (0, 0) for a in range(3)], mode="edge")
        before, after = (lax.slice_in_dim(around, i, i + size, axis=axis) for i in (0, 2))
        pair = jnp.stack([0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after], axis + 1)
        planes = pair.reshape([2 * n if axis == a else n for a, n in enumerate(planes.shape)])
    return round_through(planes + _alternating(planes.shape[2], _LEAN, planes.dtype))


def _transformed(image: Array, matrix: np.ndarray) -> Array:
    return jnp.matmul(image, jnp.asarray(matrix.T, image.dtype), precision=lax.Precision.HIGHEST)


@jax.jit  # with the steps as an argument, so that all qualities share a program where nothing else is compiled
def _shown(image: Array, steps: Array) -> Array:
    """Returns what a file with these quantisation steps `[2, 8, 8]` shows of `[h, w, c]`, 1 or 3 channels."""
    height, width, channels = image.shape
    levels = _levels(image * 127.5 - 0.5)
    if channels == 1:
        coded = _coded(levels[None, ..., 0], steps[0])[0, ..., None]
    else:
        # Levels about 0 stand for levels from 0 to 255 less 128, which is what a grey has for Y and 0 for Cb and Cr.
        planes = jnp.moveaxis(round_through(_transformed(levels, _TO_YCC)), -1, 0)
        colours = _double(_coded(_halve(planes[1:]), steps[1]))[:, :height, :width]
        planes = jnp.concatenate([_coded(planes[:1], steps[0]), colours])
        coded = _levels(_transformed(jnp.moveaxis(planes, 0, -1), _FROM_YCC))
    return (coded + 0.5) / 127.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Jpeg(Operator):
    """What a JPEG file keeps of an image `[h, w, 3]`, colour at half the size (4:2:0), or of `[h, w, 1]`, grey.

    `simulate` writes and reads the file with Pillow. `operator(image)` does the same sums (colour transform, means of
    2x2 of the colours, DCT of blocks of 8x8, rounding to the quantisation steps, and back) and differs from the file
    only where libjpeg's integer DCT puts a coefficient on the other side of the middle between two steps. The gradient
    of clipping and of rounding to levels is 1, that of rounding to quantisation steps is of `round_softly`.

    Attributes:
        quality: 1 to 100, as in Pillow.
    """

    linear = False
    quality: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if self.quality not in range(1, 101):
            raise ValueError(f"the quality of JPEG must be a whole number from 1 to 100, got {self.quality}")
        object.__setattr__(self, "quality", int(self.quality))

    def __call__(self, image: Array) -> Array:
        """Returns `[h, w, c]` in [-1, 1] for 1 or 3 channels."""
        check_image(image, "JPEG")
        if image.shape[-1] not in (1, 3):
            raise ValueError(f"JPEG needs 1 or 3 channels, got an image {list(image.shape)}")
        wide = image.astype(widened(image.dtype))
        return _shown(wide, jnp.asarray(quantisation_tables(self.quality), wide.dtype)).astype(image.dtype)

    def simulate(self, key: Array | None, image: Array) -> Array:
        """Returns the image `[h, w, c]` in [-1, 1] that the JPEG file of `image` shows; not under `jit`."""
        check_image(image, "JPEG")
        return jnp.asarray(image_io.jpeg_round_trip(np.asarray(image), quality=self.quality), image.dtype)
