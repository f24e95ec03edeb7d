# SPDX-License-Identifier: Apache-2.0
"""Compressed sensing: a few random sums over the whole image, `m = round(ratio h w c)` of them.

An image `[h, w, c]` is flattened channel by channel, each of them row by row, to n = h w c values. Both operators are
scaled so that `E |A d|^2 = |d|^2` for every d.

Source of the circulant one: intermediate layer optimisation (Daras et al. 2021) and SPHInX, there without the scale.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from inpaint.operators.protocol import Operator, widened

Shape = tuple[int, int, int]

MOST_ENTRIES = 2**29  # of a dense matrix: 2 GiB


def _sizes(shape: Shape, ratio: float) -> tuple[Shape, int, int]:
    """Returns the shape as whole numbers, how many values it has, and how many are measured."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"compressed sensing needs the shape (h, w, c) of images, got {tuple(shape)}")
    if not 0 < ratio <= 1:
        raise ValueError(f"the ratio of measurements to values must be above 0 and at most 1, got {ratio}")
    values = math.prod(shape)
    return tuple(int(n) for n in shape), values, max(1, round(ratio * values))


class _Sensing(Operator):
    """What both have in common: images of one shape, flattened, and measurements `[m]`."""

    rank = 1
    shape: Shape

    def _flat(self, image: Array) -> Array:
        if image.shape != self.shape:
            raise ValueError(f"it was drawn for images {list(self.shape)}, got {list(image.shape)}")
        return jnp.moveaxis(image, -1, 0).reshape(-1)

    def _image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PartialCirculant(_Sensing):
    """`y = (g * (s x))[i]`: random signs, circular convolution with normal noise, and m values kept of n.

    Needs O(n) memory and O(n log n) time, so that it serves images of any size.

    Attributes:
        signs: s `[n]`, -1 or 1.
        filter: g `[n]`, normal with standard deviation `1 / sqrt(m)`.
        indices: i `[m]`, ascending, none twice.
        shape: (h, w, c) of the images.
    """

    signs: Array
    filter: Array
    indices: Array
    shape: Shape = dataclasses.field(metadata={"static": True})

    @classmethod
    def draw(cls, key: Array, shape: Shape, *, ratio: float = 0.01) -> "PartialCirculant":
        """Returns the operator that a key stands for.

        Args:
            key: of JAX.
            shape: (h, w, c) of the images.
            ratio: m / n, in (0, 1].

        Raises:
            ValueError: for another shape or ratio.
        """
        shape, values, count = _sizes(shape, ratio)
        signs, noise, places = jax.random.split(key, 3)
        return cls(
            jax.random.rademacher(signs, (values,), jnp.float32),
            jax.random.normal(noise, (values,), jnp.float32) * count**-0.5,
            jnp.sort(jax.random.choice(places, values, (count,), replace=False)),
            shape,
        )

    def __call__(self, image: Array) -> Array:
        """Returns `[m]` of an image of the operator's shape `[h, w, c]`."""
        dtype = widened(image.dtype)
        flat = self._flat(image).astype(dtype) * self.signs.astype(dtype)
        spectrum = jnp.fft.rfft(flat) * jnp.fft.rfft(self.filter.astype(dtype))
        return jnp.fft.irfft(spectrum, flat.size)[self.indices].astype(image.dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseGaussian(_Sensing):
    """`y = M x` with independent normal entries: the textbook's measurement, for small images.

    Attributes:
        matrix: M `[m, n]`, normal with standard deviation `1 / sqrt(m)`.
        shape: (h, w, c) of the images.
    """

    matrix: Array
    shape: Shape = dataclasses.field(metadata={"static": True})

    @classmethod
    def draw(cls, key: Array, shape: Shape, *, ratio: float = 0.01) -> "DenseGaussian":
        """Returns the operator that a key stands for.

        Args:
            key: of JAX.
            shape: (h, w, c) of the images.
            ratio: m / n, in (0, 1].

        Raises:
            ValueError: for another shape or ratio, or a matrix of more than `MOST_ENTRIES`.
        """
        shape, values, count = _sizes(shape, ratio)
        if values * count > MOST_ENTRIES:
            raise ValueError(
                f"a dense matrix [{count}, {values}] would take {values * count / 2**28:.1f} GiB; take fewer "
                "measurements or the partial circulant"
            )
        return cls(jax.random.normal(key, (count, values), jnp.float32) * count**-0.5, shape)

    def __call__(self, image: Array) -> Array:
        """Returns `[m]` of an image of the operator's shape `[h, w, c]`."""
        return jnp.matmul(self.matrix.astype(image.dtype), self._flat(image), precision=lax.Precision.HIGHEST)
