# SPDX-License-Identifier: Apache-2.0
"""Blur of the lens and of motion.

Beyond its border an image is continued by its mirror image, the border pixel first (`c b a | a b c`): a constant stays
constant, and no dark frame creeps in.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from inpaint.operators.protocol import Operator, check_image, widened


@functools.lru_cache(maxsize=64)
def _matrix(sigma: float, size: int) -> np.ndarray:
    """Returns `[size, size]`, what each blurred value of a line takes of each value, mirror images included."""
    radius = max(1, math.ceil(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * np.square(offsets / sigma))
    rows = np.arange(size)[:, None]
    # The line and its mirror image repeat every 2 size values.
    places = (rows + offsets) % (2 * size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, np.minimum(places, 2 * size - 1 - places)), taps / taps.sum())
    return matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianBlur(Operator):
    """The convolution with `exp(-(a^2 + b^2) / (2 sigma^2))`, cut off beyond 4 sigma along each axis, of sum 1.

    Attributes:
        sigma: in pixels, above 0.
    """

    sigma: float = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"the sigma of a blur must be a number of pixels above 0, got {self.sigma}")
        object.__setattr__(self, "sigma", float(self.sigma))

    def __call__(self, image: Array) -> Array:
        """Returns `[h, w, c]`."""
        check_image(image, "blurring")
        # On a CPU some twenty times faster than a convolution of single channels (measured at 256x256).
        rows, columns = (jnp.asarray(_matrix(self.sigma, n), image.dtype) for n in image.shape[:2])
        return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image, precision=lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=64)
def _path(length: float, angle: float) -> np.ndarray:
    """Returns `[odd, odd]`: how much of a straight path around the middle lies in each pixel."""
    direction = np.array([-math.sin(math.radians(angle)), math.cos(math.radians(angle))])  # y points down
    radius = math.ceil(length / 2 + 0.5) - 1
    edges = np.arange(-radius - 1, radius + 1) + 0.5
    with np.errstate(divide="ignore"):
        crossings = np.concatenate([edges / along for along in direction])
    cuts = np.sort(np.concatenate([[-length / 2, length / 2], crossings[np.abs(crossings) < length / 2]]))
    pixels = np.rint((cuts[1:] + cuts[:-1])[:, None] / 2 * direction).astype(int) + radius
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    np.add.at(kernel, tuple(pixels.T), np.diff(cuts))
    # Rounding must not make one end of the path heavier than the other.
    kernel += kernel[::-1, ::-1]
    return kernel / kernel.sum()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MotionBlur(Operator):
    """The mean along a straight path: each pixel counts by how much of the path, laid around the middle, lies in it.

    Attributes:
        length: of the path in pixels, above 1; an odd whole number at angle 0 is the mean of so many pixels.
        angle: of the path to the x axis, in degrees, anticlockwise as one looks at the image.
    """

    length: float = dataclasses.field(metadata={"static": True})
    angle: float = dataclasses.field(default=0.0, metadata={"static": True})

    def __post_init__(self):
        if not 1 < self.length < math.inf:
            raise ValueError(f"the length of a motion must be a number of pixels above 1, got {self.length}")
        if not math.isfinite(self.angle):
            raise ValueError(f"the angle of a motion must be a number of degrees, got {self.angle}")
        object.__setattr__(self, "length", float(self.length))
        object.__setattr__(self, "angle", float(self.angle))

    def __call__(self, image: Array) -> Array:
        """Returns `[h, w, c]`."""
        check_image(image, "blurring")
        kernel = _path(self.length, self.angle)
        up, across = (n // 2 for n in kernel.shape)
        dtype, (height, width, _) = widened(image.dtype), image.shape
        padded = jnp.pad(image.astype(dtype), ((up, up), (across, across), (0, 0)), mode="symmetric")
        # By Fourier transforms, since neither length nor angle should decide how long it takes.
        sizes = padded.shape[:2]
        spectrum = jnp.fft.rfft2(jnp.asarray(kernel, dtype), sizes)[..., None] * jnp.fft.rfft2(padded, axes=(0, 1))
        blurred = jnp.fft.irfft2(spectrum, sizes, axes=(0, 1))[2 * up :, 2 * across :]
        return blurred[:height, :width].astype(image.dtype)
