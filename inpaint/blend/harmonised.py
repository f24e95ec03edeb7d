# SPDX-License-Identifier: Apache-2.0
"""Pasting a render whose colours are fitted to the pixels around the hole."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.blend.hard import hard
from inpaint.metrics.hole_quality import ring

PRIOR_PIXELS = 4.0  # how many pixels of a band the belief in an unchanged render outweighs
PRIOR_VARIANCE = 0.04  # of those pixels' colours: the contrast of a face on which gains are believed


@functools.partial(jax.jit, static_argnames=("width", "gain"))
def harmonised(render: Array, image: Array, known: Array, *, width: int = 4, gain: bool = True) -> Array:
    """Returns the composite with a render whose colours agree with the known pixels near the hole.

    Every channel becomes `g (render - m) + m + o`, with m the render's mean over a band of known pixels around the
    hole, and g and o the posterior mode of a linear fit of `image` there (transfer of means and contrasts as in
    Reinhard et al. 2001, by regression): with n pixels in the band,
    `g = (n cov(render, image) + n_0 v_0) / (n var(render) + n_0 v_0)` and `o = n / (n + n_0) mean(image - render)`, n_0
    being 4 pixels and v_0 0.04. So a band of few pixels, or of one colour, changes little, and an empty one nothing.

    Args:
        render: `[..., h, w, c]`.
        image: `[h, w, c]` in [-1, 1]; its values in the hole do not matter.
        known: `[h, w]` in [0, 1], 1 = keep. Pixels above 1/2 near one that is not are the band, and count by it.
        width: of the band, in pixels, at least 1.
        gain: fit contrasts too; otherwise g is 1.

    Returns:
        `[..., h, w, c]`, clipped; where known is 1 it equals `image` bit for bit.
    """
    render, image = jnp.clip(jnp.asarray(render), -1, 1), jnp.asarray(image)
    known = jnp.asarray(known, image.dtype)
    image = jnp.where(known[..., None] > 0, image, 0)
    weight = (ring((known <= 0.5).astype(image.dtype), width=width) * known)[..., None]
    count = weight.sum()

    def mean(x: Array) -> Array:
        return (weight * x).sum((0, 1), keepdims=True) / jnp.maximum(count, 1)

    def one(render: Array) -> Array:
        middle, offset = mean(render), count / (count + PRIOR_PIXELS) * mean(image - render)
        centred, prior = render - middle, PRIOR_PIXELS * PRIOR_VARIANCE
        slope = count * mean(centred * (image - mean(image))) + prior
        slope = slope / (count * mean(jnp.square(centred)) + prior) if gain else jnp.ones_like(middle)
        return slope * centred + middle + offset

    flat = render.reshape(-1, *render.shape[-3:])
    return hard(jax.vmap(one)(flat).reshape(render.shape), image, known)
