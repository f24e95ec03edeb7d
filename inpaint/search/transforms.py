# SPDX-License-Identifier: Apache-2.0
"""Steps that published methods take and optax does not have, as optax transformations.

Those that put a variable back onto a set come last in a chain: their updates lead to the nearest point of the set that
the updates before them make for.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array


def unit_rows(x: Array) -> Array:
    """Returns `x` `[..., d]` with every row divided by its length; rows of length 0, or not finite, become 0."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    fine = jnp.isfinite(length) & (length > 0)
    return jnp.where(fine, x / jnp.where(fine, length, 1), 0)


@functools.cache
def normalized_gradient(lr: float) -> optax.GradientTransformation:
    """Returns gradient descent by steps of one length: `v - lr * g / |g|`, for each row (last axis) by itself.

    Poirier-Ginter and Lalonde 2023, "Robust Unsupervised StyleGAN Image Restoration".
    """

    def update(gradient, state, params=None):
        return jax.tree.map(lambda g: -lr * unit_rows(g), gradient), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _landing(project: Callable[[Array, Array], Array]) -> optax.GradientTransformation:
    """Returns the transformation whose updates lead to `project(where they would have led, where they began)`."""

    def update(updates, state, params):
        return jax.tree.map(lambda u, p: project(p + u, p) - p, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@functools.cache
def on_sphere(*, axes: int = 1) -> optax.GradientTransformation:
    """Keeps every vector (the last `axes` axes) at the length that it has: `v |v_0| / |v|`.

    Menon et al. 2020, "PULSE": where normal latents of many dimensions lie.
    """

    def project(moved: Array, before: Array) -> Array:
        over = tuple(range(-axes, 0))
        length = jnp.sqrt(jnp.sum(jnp.square(moved), axis=over, keepdims=True))
        radius = jnp.sqrt(jnp.sum(jnp.square(before), axis=over, keepdims=True))
        return moved * (radius / jnp.maximum(length, jnp.finfo(moved.dtype).tiny))

    return _landing(project)


def standardized(x: Array) -> Array:
    """Returns a map `[h, w]` shifted to mean 0 and scaled to a root mean square of 1."""
    x = x - jnp.mean(x)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x)))


@functools.cache
def standardized_maps() -> optax.GradientTransformation:
    """Brings every map `[h, w]` back to mean 0 and root mean square 1 (Karras et al. 2020, appendix D)."""
    return _landing(lambda moved, before: standardized(moved))


@functools.cache
def clipped(low: float, high: float) -> optax.GradientTransformation:
    """Keeps values in `[low, high]` (Yeh et al. 2017)."""
    return _landing(lambda moved, before: jnp.clip(moved, low, high))


def onto_l1_ball(x: Array, radius: float) -> Array:
    """Returns the point `[...]` nearest to `x` `[...]` with `sum |x| <= radius`.

    By sorting (Duchi et al. 2008, "Efficient Projections onto the l1-Ball", figure 1): values shrink by one threshold.
    """
    size = jnp.sort(jnp.abs(x).reshape(-1))[::-1]
    excess = (jnp.cumsum(size) - radius) / jnp.arange(1, size.shape[0] + 1, dtype=x.dtype)
    last = jnp.sum(size > excess) - 1
    threshold = jnp.maximum(excess[last], 0)
    return jnp.where(jnp.sum(size) <= radius, x, jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0))


class _Center(NamedTuple):
    center: optax.Params


def _began(params: optax.Params) -> _Center:
    # A copy: the variable that it began with is consumed by the first step.
    return _Center(jax.tree.map(jnp.copy, params))


@functools.cache
def within_l1_ball(radius: float) -> optax.GradientTransformation:
    """Keeps every array within an L1 distance of where it began (Daras et al. 2021, "Intermediate Layer
    Optimization")."""
    if not radius > 0:
        raise ValueError(f"the radius of an L1 ball must be above 0, got {radius}")

    def update(updates, state, params):
        def land(u: Array, p: Array, center: Array) -> Array:
            return center + onto_l1_ball(p + u - center, radius) - p

        return jax.tree.map(land, updates, params, state.center), state

    return optax.GradientTransformation(_began, update)


@functools.cache
def held(weight: float) -> optax.GradientTransformation:
    """Adds the gradient of `weight * |v - v_0|^2 / |v_0|^2` to that of every array, v_0 being where it began.

    It comes first in a chain. Adam, which divides each gradient by its size, would otherwise take as long steps where
    nothing but rounding pulls (a feature map behind a hole) as where the image does.
    """
    if not weight > 0:
        raise ValueError(f"the weight that holds a variable must be above 0, got {weight}")

    def update(gradient, state, params):
        def pull(g: Array, p: Array, center: Array) -> Array:
            size = jnp.maximum(jnp.sum(jnp.square(center)), jnp.finfo(center.dtype).tiny)
            return g + 2 * weight * (p - center) / size

        return jax.tree.map(pull, gradient, params, state.center), state

    return optax.GradientTransformation(_began, update)


def by_part(
    default: optax.GradientTransformation, parts: Mapping[str, optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Returns the optimiser of a joint variable `{"latents": ..., "noise": ...}`, equal ones once.

    Args:
        default: of all parts that are not named.
        parts: optimisers of parts by name, the latents being "latents".
    """
    return _by_part(default, tuple(sorted(parts.items(), key=lambda item: item[0])))


@functools.cache
def _by_part(default: optax.GradientTransformation, parts: tuple) -> optax.GradientTransformation:
    named = dict(parts)

    def label(variable):
        return {name: name if name in named else "" for name in variable}

    return optax.partition({"": default} | named, label)
