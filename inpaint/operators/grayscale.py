# SPDX-License-Identifier: Apache-2.0
"""Lost colour."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax

from inpaint.operators.protocol import Operator, check_image

# Luma of ITU-R BT.601, of the values as they are stored (with gamma), as in JPEG and in Pillow.
LUMA = (0.299, 0.587, 0.114)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grayscale(Operator):
    """`y = 0.299 R + 0.587 G + 0.114 B`, `[h, w, 1]` in [-1, 1]."""

    pointwise = True

    def __call__(self, image: Array) -> Array:
        """Returns `[h, w, 1]` of `[h, w, 3]`."""
        check_image(image, "taking colour away")
        if image.shape[-1] != 3:
            raise ValueError(f"only an image [h, w, 3] has colour to lose, got {list(image.shape)}")
        return jnp.matmul(image, jnp.asarray(LUMA, image.dtype)[:, None], precision=lax.Precision.HIGHEST)

    def _image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*measurement_shape[:-1], 3)
