# SPDX-License-Identifier: Apache-2.0
"""Rounding and clipping as they are, with gradients that help a search; all of them act on arrays `[...]`."""

import jax
import jax.numpy as jnp
from jax import Array

# How much of the cubic the gradient of soft rounding has; the rest is 1.
CUBIC_SHARE = 0.8


@jax.custom_jvp
def round_through(x: Array) -> Array:
    """Returns `[...]` rounded to whole numbers; the gradient is 1."""
    return jnp.round(x)


@round_through.defjvp
def _(primals, tangents):
    return round_through(*primals), tangents[0]


@jax.custom_jvp
def round_softly(x: Array) -> Array:
    """Returns `[...]` rounded to whole numbers, with the gradient of `s (round(x) + r^3) + (1 - s) x`, s = 0.8.

    r is what rounding removes, `x - round(x)`: between whole numbers, where a small change decides, the gradient is
    0.8, on them, where it decides nothing, 0.2.

    Source: the cubic is of Shin and Song 2017; the share and the rounding as it is, of the robust-unsupervised code.
    """
    return jnp.round(x)


@round_softly.defjvp
def _(primals, tangents):
    rounded = round_softly(*primals)
    slope = 3 * CUBIC_SHARE * jnp.square(primals[0] - rounded) + (1 - CUBIC_SHARE)
    return rounded, slope * tangents[0]


@jax.custom_jvp
def clip_through(x: Array) -> Array:
    """Returns `[...]` clipped to [-1, 1]; the gradient is 1, so that what lies outside is drawn back."""
    return jnp.clip(x, -1, 1)


@clip_through.defjvp
def _(primals, tangents):
    return clip_through(*primals), tangents[0]


@jax.custom_jvp
def clip_softly(x: Array) -> Array:
    """Returns `[...]` clipped to [-1, 1], with the gradient of `2 sigmoid(x)`: 0.5 in the middle, 0.39 at the ends.

    Source: the robust-unsupervised code, `sigmoid(2 (u - 1/2))` for u in [0, 1].
    """
    return jnp.clip(x, -1, 1)


@clip_softly.defjvp
def _(primals, tangents):
    passed = jax.nn.sigmoid(primals[0])
    return clip_softly(*primals), 2 * passed * (1 - passed) * tangents[0]
