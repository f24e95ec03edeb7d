# SPDX-License-Identifier: Apache-2.0
"""Pasting without a blend band."""

import jax.numpy as jnp
from jax import Array


def hard(render: Array, image: Array, known: Array) -> Array:
    """Returns `known * image + (1 - known) * clip(render, -1, 1)`.

    Args:
        render: `[..., h, w, c]`.
        image: `[h, w, c]` in [-1, 1]; its values in the hole do not matter.
        known: `[h, w]` in [0, 1], 1 = keep.

    Returns:
        `[..., h, w, c]`; where known is 1 it equals `image` bit for bit.
    """
    render, image = jnp.clip(jnp.asarray(render), -1, 1), jnp.asarray(image)
    known = jnp.asarray(known, image.dtype)[..., None]
    lead = (1,) * (render.ndim - 3)
    known, image = known.reshape(lead + known.shape), image.reshape(lead + image.shape)
    return jnp.where(known == 1, image, jnp.where(known == 0, render, known * image + (1 - known) * render))
