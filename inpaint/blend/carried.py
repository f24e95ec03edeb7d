# SPDX-License-Identifier: Apache-2.0
"""Carrying what the render misses of the known pixels into the hole."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.blend.extension import extended
from inpaint.blend.hard import hard


@functools.partial(jax.jit, static_argnames="order")
def _carried(render: Array, image: Array, known: Array, screening: Array, *, order: int) -> Array:
    image = jnp.where(known[..., None] > 0, image, 0)  # a NaN in the hole would pass through the differences
    flat = jnp.clip(render, -1, 1).reshape(-1, *render.shape[-3:])
    moved = jax.vmap(lambda one: one + extended(image - one, known, screening=screening, order=order))(flat)
    return hard(moved.reshape(render.shape), image, known)


def carried(render: Array, image: Array, known: Array, *, reach: float = 4.0, order: int = 3) -> Array:
    """Returns the render plus the expectation of its residual in the hole, given that of the known pixels.

    `render + E[e | e = image - render where known]`, e being a Gaussian random field of mean 0 and Matérn covariance:
    simple kriging of the residual (Matheron 1963). It solves `(s - laplace)^order e = 0` in the hole with
    `s = 8 (order - 1) / reach^2` (Lindgren, Rue and Lindström 2011, section 2.2). A hole that is thin beside `reach` is
    filled as if the residual were interpolated, with slopes and curvatures; deep in a wide hole the render stays.

    A pixel that is known by a share k is a measurement of precision `k / (1 - k)` (see `inpaint.blend.extension`), and
    is mixed in as by `hard`.

    Args:
        render: `[..., h, w, c]`.
        image: `[h, w, c]` in [-1, 1]; its values in the hole do not matter.
        known: `[h, w]` in [0, 1], 1 = keep.
        reach: distance at which the correlation of residuals has fallen to about 0.13, in pixels, above 0. The steps
            of the solver grow with its power `order`.
        order: 2 continues slopes, 3 curvatures too; at least 2.

    Returns:
        `[..., h, w, c]`, clipped; where known is 1 it equals `image` bit for bit.

    Raises:
        ValueError: for another reach or order.
    """
    if not 0 < reach < float("inf") or order < 2:
        raise ValueError(f"reach must be above 0 and finite and order at least 2, got {reach} and {order}")
    render, image = jnp.asarray(render), jnp.asarray(image)
    screening = jnp.asarray(8 * (order - 1) / reach**2, image.dtype)
    return _carried(render, image, jnp.asarray(known, image.dtype), screening, order=order)
