# SPDX-License-Identifier: Apache-2.0
"""What every degradation offers. Images are `[h, w, c]` in [-1, 1]; a measurement's shape is the operator's own."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array


class Operator:
    """A degradation `y = A(x)` of one image; what it does not override is that of a linear, deterministic operator.

    Subclasses are frozen dataclasses and pytrees: arrays are leaves, sizes and options are static.

    Attributes:
        linear: whether `operator(image)` is linear in the image, so that `adjoint` exists.
        random: whether `simulate` draws, so that it needs a key.
        pointwise: whether each value of the measurement comes from one place of the image alone, at the same place.
        faithful: whether the values that it leaves are the image's own, up to the rounding of an 8-bit file.
        rank: how many axes one measurement has.
        known: the pixels that the measurement shows as they are, `[h, w]` in [0, 1], or None where it shows none.
    """

    linear: ClassVar[bool] = True
    random: ClassVar[bool] = False
    pointwise: ClassVar[bool] = False
    faithful: ClassVar[bool] = False
    rank: ClassVar[int] = 3
    known: ClassVar[Array | None] = None

    def __call__(self, image: Array) -> Array:
        """Returns the measurement of `image` `[h, w, c]`: deterministic and differentiable; of noise, the mean."""
        raise NotImplementedError

    def surrogate(self, key: Array, image: Array) -> Array:
        """Returns a differentiable measurement of `image` `[h, w, c]` that draws afresh what the truth draws."""
        return self(image)

    def simulate(self, key: Array | None, image: Array) -> Array:
        """Returns the true degradation of `image` `[h, w, c]`, not always differentiable nor fit for `jit`.

        `key` may be None where the operator is not `random`.
        """
        return self(image)

    def adjoint(self, measurement: Array) -> Array:
        """Returns `A'(y)` `[h, w, c]` of a measurement, with `<A x, y> = <x, A' y>`.

        Raises:
            TypeError: where the operator is not linear.
            ValueError: for a measurement of another shape.
        """
        if not self.linear:
            raise TypeError(f"{type(self).__name__} is not linear and has no adjoint; ask its .linear first")
        image = jax.ShapeDtypeStruct(self._image_shape(measurement.shape), measurement.dtype)
        expected = jax.eval_shape(self, image).shape
        if expected != measurement.shape:
            raise ValueError(f"the measurement must be {list(expected)}, got {list(measurement.shape)}")
        return jax.linear_transpose(self, image)(measurement)[0]

    def _image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the images that have measurements of this shape."""
        return measurement_shape

    @property
    def weight(self) -> Array:
        """How much each value of the measurement counts, 0 = not at all: a scalar, or what broadcasts to it."""
        return jnp.ones(())


def check_image(image: Array, work: str) -> None:
    """Raises ValueError unless `image` is `[h, w, c]`; `work` says what it is for."""
    if image.ndim != 3:
        raise ValueError(f"{work} needs an image [h, w, c], got {list(image.shape)}; let it come earlier")


def widened(dtype: jnp.dtype) -> jnp.dtype:
    """Returns float32 for narrower types, which cannot tell 256 levels and have no Fourier transform; else `dtype`."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
