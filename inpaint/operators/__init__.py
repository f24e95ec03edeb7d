# SPDX-License-Identifier: Apache-2.0
"""Degradations `y = A(x)` of one image `x` `[h, w, c]` in [-1, 1].

An operator is a pytree (its arrays may differ from image to image) with

- `operator(image) -> measurement`: differentiable;
- `operator.weight`: how much each value of the measurement counts, an array that broadcasts to it, 0 = not at all;
- `operator.known`: `[h, w]` in [0, 1], the pixels that the measurement shows as they are (1 = keep), or None where it
  shows none.
"""

from inpaint.operators.mask import Mask, Operator

__all__ = ["Mask", "Operator"]
