# SPDX-License-Identifier: Apache-2.0
"""Minibatch standard deviation (Karras et al. 2018, section 3): the one place where samples of a batch meet."""

import jax.numpy as jnp
from jax import Array


def minibatch_stddev(x: Array, *, group_size: int | None, channels: int = 1) -> Array:
    """Returns `x` with `channels` maps appended that hold each group's mean standard deviation.

    Sample `i` belongs to group `i mod (n / group)`.

    Args:
        x: `[n, h, w, c]`; n must be a multiple of the group, c of `channels`.
        group_size: samples per group (at most n); None takes the whole batch.
        channels: number of maps appended.

    Returns:
        `[n, h, w, c + channels]`.

    Raises:
        ValueError: if the batch does not divide into groups.
    """
    n, height, width, c = x.shape
    group = n if group_size is None else min(group_size, n)
    if n % group:
        raise ValueError(f"batch of {n} does not divide into groups of {group}; use a multiple of {group}")
    y = x.reshape(group, n // group, height, width, channels, c // channels)
    y = jnp.sqrt(jnp.mean(jnp.square(y - y.mean(0, keepdims=True)), axis=0) + 1e-8)
    y = y.mean(axis=(1, 2, 4))
    y = jnp.tile(y, (group, 1))[:, None, None, :]
    return jnp.concatenate([x, jnp.broadcast_to(y, (n, height, width, channels))], axis=3)
