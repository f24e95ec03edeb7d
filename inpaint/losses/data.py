# SPDX-License-Identifier: Apache-2.0
"""Data terms: `sum(weight * d(prediction, measurement)) / sum(weight)`, over all values of one measurement.

The division is by this image's own weights, so neither the size of the hole nor other images change the scale.
"""

import jax.numpy as jnp
from jax import Array


def _weighted_mean(error: Array, weight: Array) -> Array:
    weight = jnp.broadcast_to(weight, error.shape).astype(error.dtype)
    return jnp.sum(weight * error) / jnp.sum(weight)


def l2(prediction: Array, measurement: Array, weight: Array) -> Array:
    """Returns the weighted mean squared error.

    Args:
        prediction, measurement: of one shape, e.g. `[h, w, c]`.
        weight: of the same rank, broadcasting to it, not all 0.
    """
    return _weighted_mean(jnp.square(prediction - measurement), weight)


def l1(prediction: Array, measurement: Array, weight: Array) -> Array:
    """Returns the weighted mean absolute error; a scalar; the arguments are those of `l2`."""
    return _weighted_mean(jnp.abs(prediction - measurement), weight)
