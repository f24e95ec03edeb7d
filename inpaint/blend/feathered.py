# SPDX-License-Identifier: Apache-2.0
"""Carrying the mismatch at the hole's border softly into the hole."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.blend.hard import hard


def _blur(x: Array, sigma: float) -> Array:
    """Returns `[h, w, c]` blurred by a Gaussian; nothing lies outside the image."""
    reach = max(int(3 * sigma + 0.5), 1)
    taps = jnp.exp(-0.5 * jnp.square(jnp.arange(-reach, reach + 1, dtype=x.dtype) / sigma))
    taps = taps / taps.sum()
    for axis in (0, 1):
        pads = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(x, pads)
        size = x.shape[axis]
        x = sum(taps[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * reach + 1))
    return x


@functools.partial(jax.jit, static_argnames="sigma")
def feathered(render: Array, image: Array, known: Array, *, sigma: float = 1.5) -> Array:
    """Returns a composite without a step at the border of the hole; known pixels stay as they are.

    The difference `image - render` of the known pixels is continued into the hole by a normalised Gaussian blur, and
    fades with the distance from the border: `render + min(1, 2 b(known)) * b(known (image - render)) / b(known)`.

    Args:
        render: `[..., h, w, c]`.
        image: `[h, w, c]` in [-1, 1].
        known: `[h, w]` in [0, 1], 1 = keep.
        sigma: of the blur, in pixels.

    Returns:
        `[..., h, w, c]`; where known is 1 it equals `image` bit for bit.
    """
    render, image = jnp.clip(jnp.asarray(render), -1, 1), jnp.asarray(image)
    known = jnp.asarray(known, image.dtype)
    image = jnp.where(known[..., None] > 0, image, 0)  # a NaN in the hole would pass through the blur
    share = _blur(known[..., None], sigma)

    def one(render: Array) -> Array:
        carried = _blur(known[..., None] * (image - render), sigma) / jnp.maximum(share, 1e-6)
        return jnp.clip(render + jnp.minimum(2 * share, 1) * carried, -1, 1)

    flat = render.reshape(-1, *render.shape[-3:])
    return hard(jax.vmap(one)(flat).reshape(render.shape), image, known)
