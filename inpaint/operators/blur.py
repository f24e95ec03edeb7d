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

from inpaint.operators.protocol import Operator, check_image


def _convolve(image: Array, kernel: np.ndarray) -> Array:
    """Returns `[h, w, c]` convolved with a kernel `[odd, odd]` that is its own mirror image."""
    up, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = jnp.pad(image, ((up, up), (across, across), (0, 0)), mode="symmetric")
    done = lax.conv_general_dilated(
        jnp.moveaxis(padded, -1, 0)[..., None],
        jnp.asarray(kernel, image.dtype)[..., None, None],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(done[..., 0], 0, -1)


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
        radius = max(1, math.ceil(4 * self.sigma))
        taps = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / self.sigma))
        taps /= taps.sum()
        return _convolve(_convolve(image, taps[:, None]), taps[None])


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
        return _convolve(image, _path(self.length, self.angle))
