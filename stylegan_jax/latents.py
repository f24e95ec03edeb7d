# SPDX-License-Identifier: Apache-2.0
"""Latent spaces of a style-based generator, the exact lifts between them, and the statistics of W.

A variable describes one image: Z `[z_dim]`, W `[w_dim]` (one latent for all layers), W+ `[num_ws, w_dim]`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from stylegan_jax import generator

Generator = generator.StyleGenerator
WStatistics = generator.WStatistics


@dataclasses.dataclass(frozen=True)
class Space:
    """A latent space: the shape of its variable, and the way from a variable to `ws`.

    `shape(config)` is the shape of one variable; `to_ws(generator, v, c)` returns `[num_ws, w_dim]` for one variable
    and one label `[c_dim]` (or None); `rank` orders the spaces from coarse to fine.
    """

    name: str
    rank: int
    shape: Callable[[Any], tuple[int, ...]]
    to_ws: Callable[[Generator, Array, Array | None], Array]


def _map_one(generator: Generator, z: Array, c: Array | None) -> Array:
    return generator.mapping(z[None], None if c is None else c[None])[0]


def _tile(generator: Generator, w: Array) -> Array:
    return jnp.broadcast_to(w[None], (generator.config.num_ws, w.shape[0]))


Z = Space("z", 0, lambda config: (config.z_dim,), lambda g, v, c: _tile(g, _map_one(g, v, c)))
W = Space("w", 1, lambda config: (config.w_dim,), lambda g, v, c: _tile(g, v))
WPLUS = Space("w+", 2, lambda config: (config.num_ws, config.w_dim), lambda g, v, c: v)
SPACES = {space.name: space for space in (Z, W, WPLUS)}


def lift(generator: Generator, v: Array, *, source: Space, target: Space, c: Array | None = None) -> Array:
    """Returns the variable of `target` that gives the same image as `v` does in `source`.

    Args:
        generator: whose spaces these are.
        v: one variable of `source`.
        source, target: spaces; `target` must be the finer one.
        c: label `[c_dim]` of a conditional generator (needed from Z).

    Raises:
        ValueError: where `target` is coarser than `source`.
    """
    if target.rank < source.rank:
        raise ValueError(f"cannot lift from {source.name} to the coarser {target.name}; order: {', '.join(SPACES)}")
    if target is source:
        return v
    ws = source.to_ws(generator, v, c)
    return ws[0] if target is W else ws


def random_labels(key: Array, c_dim: int, n: int) -> Array | None:
    """Returns `n` one-hot labels `[n, c_dim]` of uniformly drawn classes, or None for an unconditional generator."""
    if not c_dim:
        return None
    return jax.nn.one_hot(jax.random.randint(key, (n,), 0, c_dim), c_dim)


def estimate_w_statistics(
    key: Array, generator: Generator, *, samples: int = 10_000, transform: Callable[[Array], Array] | None = None
) -> WStatistics:
    """Returns the mean and covariance of `mapping(z)`, or of what `transform` makes of it, in the dtype of the weights.

    Args:
        key: of the normal `z`, and of uniform labels for a conditional generator.
        generator: whose mapping network is sampled.
        samples: number of `z`, at least 2; taken 1,000 at a time. Where w is z, they are known without any.
        transform: of w `[n, w_dim]`, shape for shape; None leaves it.

    Raises:
        ValueError: too few samples, or a transform where w is z.
    """
    if samples < 2:
        raise ValueError(f"statistics of W need at least 2 samples, got {samples}")
    known, mapping = generator.known_w_statistics(), generator.mapping
    if known is not None and transform is not None:
        raise ValueError("this generator maps no latents: w is z, and has no other statistics")
    if known is not None:
        return known
    dtype = mapping.fc0.weight.dtype
    z_key, c_key = jax.random.split(key)
    z = jax.random.normal(z_key, (samples, mapping.z_dim), dtype)
    c = random_labels(c_key, mapping.c_dim, samples)
    run = jax.jit(lambda network, z, c: network(z, c) if transform is None else transform(network(z, c)))
    w = np.empty((samples, mapping.w_dim))  # float64, and held once
    for i in range(0, samples, 1000):
        w[i : i + 1000] = run(mapping, z[i : i + 1000], None if c is None else c[i : i + 1000].astype(dtype))
    mean = w.mean(0)
    w -= mean
    return WStatistics(jnp.asarray(mean, dtype), jnp.asarray(w.T @ w / (samples - 1), dtype))
