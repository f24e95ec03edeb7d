# SPDX-License-Identifier: Apache-2.0
"""Seamless cloning: the render's gradients with the known pixels' colours."""

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.blend.extension import extended
from inpaint.blend.hard import hard


@jax.jit
def poisson(render: Array, image: Array, known: Array) -> Array:
    """Returns the composite whose differences between neighbours in the hole are those of the render.

    It solves `laplace f = laplace render` in the hole with `f = image` on the known pixels (Pérez, Gangnet and Blake
    2003, eq. 3 and 7), as `render + e` with `laplace e = 0` in the hole and `e = image - render` around it. At the
    borders of the image no difference is asked for (natural borders). The render's own colour does not matter: its
    mismatch at the border reaches the whole hole, however deep.

    A pixel that is known by a share k pulls e to its `image - render` with weight `k / (1 - k)`, where differences
    between neighbours have weight 1, and is mixed in as by `hard`.

    Args:
        render: `[..., h, w, c]`; not clipped before, since clipping would change its gradients.
        image: `[h, w, c]` in [-1, 1]; its values in the hole do not matter.
        known: `[h, w]` in [0, 1], 1 = keep. Where nothing is known, the render stays as it is.

    Returns:
        `[..., h, w, c]`, clipped; where known is 1 it equals `image` bit for bit.
    """
    render, image = jnp.asarray(render), jnp.asarray(image)
    known = jnp.asarray(known, image.dtype)
    image = jnp.where(known[..., None] > 0, image, 0)
    flat = render.reshape(-1, *render.shape[-3:])
    moved = jax.vmap(lambda one: one + extended(image - one, known))(flat)
    return hard(moved.reshape(render.shape), image, known)
