# SPDX-License-Identifier: Apache-2.0
"""Rounding to the levels of a file."""

import dataclasses

import jax
from jax import Array

from inpaint.operators.protocol import Operator, widened
from inpaint.operators.straight_through import clip_through, round_through


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantise(Operator):
    """`y = 2 round(L (clip(x) + 1) / 2) / L - 1`, L + 1 = 2^bits levels from -1 to 1; its gradient is 1 everywhere.

    With 8 bits it is what a PNG file keeps of an image. Alone it has no `known`: it hides no pixel and shows none
    exactly. After or before a mask it leaves the mask's, since a photograph is no more exact than its file.

    Attributes:
        bits: 1 to 8.
    """

    linear = False
    pointwise = True
    bits: int = dataclasses.field(default=8, metadata={"static": True})

    def __post_init__(self):
        if self.bits not in range(1, 9):
            raise ValueError(f"an image is rounded to 1 to 8 bits, got {self.bits}")
        object.__setattr__(self, "bits", int(self.bits))

    @property
    def faithful(self) -> bool:
        """Whether this is the rounding of an 8-bit file."""
        return self.bits == 8

    def __call__(self, image: Array) -> Array:
        """Returns the rounded values, of the shape of `image` `[h, w, c]`."""
        wide = image.astype(widened(image.dtype))
        half = (2**self.bits - 1) / 2
        return (round_through((clip_through(wide) + 1) * half) / half - 1).astype(image.dtype)
