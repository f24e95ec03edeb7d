# SPDX-License-Identifier: Apache-2.0
"""Missing pixels."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.operators.protocol import Operator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask(Operator):
    """Shows the pixels where `known` is above 0 and nothing of the others: `A(x) = x` there, 0 elsewhere.

    `known` `[h, w]` in [0, 1] may be soft: values between count by that much, and are blended in the composite.
    """

    pointwise = True
    faithful = True
    known: Array = dataclasses.field()  # without a default, whatever the protocol's is

    @classmethod
    def checked(cls, known: Array) -> "Mask":
        """Returns the mask after checking it.

        Args:
            known: `[h, w]`, 1 = keep, 0 = hole.

        Raises:
            ValueError: for another rank, values outside [0, 1], or a mask without hole or without known pixels.
        """
        if known.ndim != 2:
            raise ValueError(f"a mask must be [h, w], got {list(known.shape)}")
        low, high = float(known.min()), float(known.max())
        if not (0 <= low and high <= 1):
            raise ValueError(f"a mask must lie in [0, 1] (1 = keep, 0 = hole), got {low:g} to {high:g}")
        if high == 0:
            raise ValueError("the mask hides every pixel: nothing is known (is its polarity inverted?)")
        if low == 1:
            raise ValueError("the mask has no hole: nothing is to be restored (is its polarity inverted?)")
        return cls(jnp.asarray(known, jnp.float32))

    @property
    def weight(self) -> Array:
        """`known` as `[h, w, 1]`."""
        return self.known[..., None]

    def __call__(self, image: Array) -> Array:
        """Returns `[h, w, c]`, 0 where nothing is known."""
        if image.shape[-3:-1] != self.known.shape[-2:]:
            size, shape = list(self.known.shape), list(image.shape[:2])
            raise ValueError(f"the mask is {size} but the image is {shape}; resize one of them")
        return jnp.where(self.known[..., None] > 0, image, jnp.zeros((), image.dtype))
