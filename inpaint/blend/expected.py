# SPDX-License-Identifier: Apache-2.0
"""Bringing the coarse parts of a render nearer to what is expected of them."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.blend.carried import carried


@functools.partial(jax.jit, static_argnames="share")
def correction(render: Array, means: Array, *, share: float) -> Array:
    """Returns what brings the means of a render's blocks nearer to others: `share * up(means - down(render))`.

    Args:
        render: `[..., h, w, c]`.
        means: of blocks of the image, `[s, s, c]`, s a divisor of h and w; enlarged by cubic interpolation.
        share: of the way, in [0, 1].

    Returns:
        `[..., h, w, c]`, to be added to the render.
    """
    height, width, channels = render.shape[-3:]
    rows, columns = means.shape[:2]
    if height % rows or width % columns or means.shape[2] != channels:
        raise ValueError(f"means must be of blocks of {height} x {width} x {channels} pixels, got {list(means.shape)}")
    blocks = render.reshape(*render.shape[:-3], rows, height // rows, columns, width // columns, channels)
    found = jnp.clip(blocks, -1, 1).mean((-4, -2))
    found = jnp.broadcast_to(means, found.shape) - found
    return share * jax.image.resize(found, render.shape, "cubic")


def expected(
    render: Array, image: Array, known: Array, *, means: Array, share: float = 0.6, reach: float = 4.0
) -> Array:
    """Returns the composite `carried` of a render whose coarse parts are brought nearer to what is expected of them.

    `carried(G + share * up(m - down(G)))`, m being the means of blocks that a linear encoder expects
    (`stylegan_jax.encoders.expected`). The render and the expectation err differently, and their mean errs less than
    either; what is finer than a block is the render's.

    Args:
        render: `[..., h, w, c]`.
        image: `[h, w, c]` in [-1, 1]; its values in the hole do not matter.
        known: `[h, w]` in [0, 1], 1 = keep.
        means: `[s, s, c]`, s a divisor of h and w.
        share: of the way from the render to the expectation, in [0, 1].
        reach: of `carried`, in pixels.

    Returns:
        `[..., h, w, c]`, clipped; where known is 1 it equals `image` bit for bit.

    Raises:
        ValueError: for another share or reach, or means of another size.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    render = jnp.asarray(render)
    return carried(render + correction(render, jnp.asarray(means), share=share), image, known, reach=reach)
