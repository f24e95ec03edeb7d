# SPDX-License-Identifier: Apache-2.0
"""Several views of one thing."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.operators.protocol import Operator, check_image


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Copies(Operator):
    """Shows an image `count` times, `[count, h, w, c]`: the place of several targets that one search explains together,
    each by an image of its own (`inpaint.methods.attribute_walk`)."""

    rank = 4
    count: int = dataclasses.field(metadata=dict(static=True))

    def __call__(self, image: Array) -> Array:
        """Returns `[count, h, w, c]`."""
        check_image(image, "copying")
        return jnp.broadcast_to(image[None], (self.count, *image.shape))

    def _image_shape(self, measurement_shape: tuple[int, ...]) -> tuple[int, ...]:
        return measurement_shape[1:]
