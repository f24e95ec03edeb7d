# SPDX-License-Identifier: Apache-2.0
"""Fewer pixels: each is a weighted mean of the many that it stands for."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from inpaint.operators.protocol import Operator, check_image


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2, 0 from |x| = 2 on."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _box(x: np.ndarray) -> np.ndarray:
    return (np.abs(x) < 0.5).astype(np.float64)


KERNELS = types.MappingProxyType({"box": _box, "bicubic": _cubic, "lanczos": _lanczos})


@functools.lru_cache(maxsize=64)
def _matrix(kernel: str, size: int, factor: int) -> np.ndarray:
    """Returns `[size / factor, size]`, what each output pixel takes of each input pixel; its rows sum to 1."""
    centres = (np.arange(size // factor)[:, None] + 0.5) * factor
    weights = KERNELS[kernel]((np.arange(size) + 0.5 - centres) / factor)
    return weights / weights.sum(1, keepdims=True)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Downsample(Operator):
    """`y[i] = sum_j K((j + 1/2) / f - (i + 1/2)) x[j] / sum_j K(...)`, along rows and along columns: `[h/f, w/f, c]`.

    The kernel is stretched by the factor, so that nothing is passed over (antialiasing); at the border it is cut off
    and its sum made 1 again. Both as in Pillow, whose bicubic and Lanczos of floats these are.

    Attributes:
        factor: f, a whole number of at least 2 that divides height and width.
        kernel: "box" (the mean of blocks), "bicubic" (Keys, a = -1/2) or "lanczos" (3 lobes).
    """

    factor: int = dataclasses.field(metadata={"static": True})
    kernel: str = dataclasses.field(default="bicubic", metadata={"static": True})

    def __post_init__(self):
        if self.factor != int(self.factor) or self.factor < 2:
            raise ValueError(f"an image is made smaller by a whole factor of at least 2, got {self.factor}")
        if self.kernel not in KERNELS:
            raise ValueError(f"unknown kernel {self.kernel!r}; known: {', '.join(KERNELS)}")
        object.__setattr__(self, "factor", int(self.factor))

    def __call__(self, image: Array) -> Array:
        """Returns `[h/f, w/f, c]`; bicubic and Lanczos may leave [-1, 1] a little."""
        check_image(image, "downsampling")
        height, width, channels = image.shape
        if height % self.factor or width % self.factor:
            fitting = math.gcd(height, width)
            raise ValueError(
                f"a factor of {self.factor} does not divide the image's {height}x{width}; its factors divide {fitting}"
            )
        if self.kernel == "box":
            rows, columns = height // self.factor, width // self.factor
            return image.reshape(rows, self.factor, columns, self.factor, channels).mean((1, 3))
        rows, columns = (jnp.asarray(_matrix(self.kernel, n, self.factor), image.dtype) for n in (height, width))
        return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image, precision=lax.Precision.HIGHEST)

    def _image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns, *channels = measurement_shape
        return (rows * self.factor, columns * self.factor, *channels)
