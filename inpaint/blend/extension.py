# SPDX-License-Identifier: Apache-2.0
"""Continuing what is known of a field of pixels smoothly into a hole.

Nothing lies outside of the image: pixels at its border have two or three neighbours (natural borders), so nothing
wraps around from one side to the other.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

MOST_STEPS = 10_000  # of conjugate gradient; a bound that is met by nothing but huge holes that are hardly screened
LEVEL_WEIGHT = 0.25  # of a coarse grid: about the inverse energy of its hats, which in two dimensions is that of all


def _inside(shape: tuple[int, ...]) -> dict[tuple[int, int], Array]:
    """Returns, for every step (axis, shift) of `jnp.roll`, where the neighbour is in the image and did not wrap."""
    found = {}
    for axis in (1, 2):
        along = [1, 1, 1]
        along[axis] = shape[axis]
        place = jnp.broadcast_to(jnp.arange(shape[axis]).reshape(along), (1, *shape[1:]))
        found |= {(axis, 1): place > 0, (axis, -1): place < shape[axis] - 1}
    return found


def _differences(x: Array) -> Array:
    """Returns the sum of a pixel's differences to its neighbours: the negative 5-point Laplacian of `[c, h, w]`."""
    # Rolling and masking makes one loop of it; padding takes four times as long on a CPU.
    inside = _inside(x.shape)
    return sum(jnp.where(there, x - jnp.roll(x, shift, axis), 0) for (axis, shift), there in inside.items())


def _coarser(x: Array) -> Array:
    """Returns `[c, ceil(h / 2), ceil(w / 2)]` sums of `[c, h, w]` under bilinear hats; its transpose interpolates."""
    hat = jnp.asarray([0.25, 0.75, 0.75, 0.25], x.dtype)
    pads = [(1, 1 + side % 2) for side in x.shape[1:]]
    kernel = (hat[:, None] * jnp.broadcast_to(hat, (4, 4)))[None, None]
    return jax.lax.conv_general_dilated(x[:, None], kernel, (2, 2), pads, precision=jax.lax.Precision.HIGHEST)[:, 0]


def _levels(free: Array) -> list[Array]:
    """Returns, for every coarser grid, 1 where all its pixels are free, `[1, ceil(h / 2), ceil(w / 2)]` and so on."""
    levels = [free]
    while min(levels[-1].shape[1:]) > 4:
        fine = levels[-1]
        pads = [(0, 0), *[(0, side % 2) for side in fine.shape[1:]]]
        one = jnp.ones((), fine.dtype)
        levels.append(jax.lax.reduce_window(fine, one, jax.lax.min, (1, 2, 2), (1, 2, 2), pads))
    return levels[1:]


def _over_levels(residual: Array, levels: Sequence[Array]) -> Array:
    """Returns the sum over coarser grids of `residual` `[c, h, w]` restricted and interpolated back."""
    if not levels:
        return jnp.zeros_like(residual)
    coarse = levels[0] * _coarser(residual)
    coarse = levels[0] * (LEVEL_WEIGHT * coarse + _over_levels(coarse, levels[1:]))
    return jax.linear_transpose(_coarser, residual)(coarse)[0]


def _preconditioner(free: Array, diagonal: Array, *, multilevel: bool) -> Callable[[Array], Array]:
    levels = _levels(free) if multilevel else []
    return lambda residual: free * (residual / diagonal + _over_levels(residual, levels))


@functools.partial(jax.jit, static_argnames="order")
def extended(values: Array, known: Array, *, screening: float = 0.0, order: int = 1) -> Array:
    """Returns the smoothest field that goes on with `values`.

    It minimises `sum_i k_i / (1 - k_i) |u_i - v_i|^2 + <u, (D + s)^order u>`, with D the negative 5-point Laplacian
    and s the screening. Where k is 1, u is v; where k is 0, only smoothness counts, and `(D + s)^order u = 0`: of order
    1 a membrane (harmonic without screening), of order 2 a thin plate (biharmonic), and so on. With s above 0 it is
    the mean of a Gaussian random field, given v, whose precision is `(D + s)^order`; its covariance is about Matérn's
    of smoothness `order - 1` and scale `s^(-1/2)` (Lindgren, Rue and Lindström 2011, section 2.2).

    Solved by conjugate gradient to about the precision of the dtype, in no more than 10,000 steps. Membranes are
    preconditioned over all scales (Bramble, Pasciak and Xu 1990), since they reach across every hole; higher orders by
    their diagonal, so they need screening. Derivatives are those of the solution, not of the steps to it.

    Args:
        values: `[h, w, c]`, finite; those where known is 0 do not matter.
        known: `[h, w]` in [0, 1], 1 = keep.
        screening: s in 1 / pixel^2, at least 0. Without any, a field of which nothing is known is 0.
        order: at least 1.

    Returns:
        `[h, w, c]`.
    """
    values, known = jnp.moveaxis(values, -1, 0), known[None]
    fixed, values = known >= 1, jnp.where(known > 0, values, 0)
    pull = jnp.where(fixed, 0, known) / jnp.where(fixed, 1, 1 - known)
    free = jnp.where(fixed, 0, 1).astype(values.dtype)

    def rough(u: Array) -> Array:
        for _ in range(order):
            u = _differences(u) + screening * u
        return u

    neighbours = sum(there.astype(values.dtype) for there in _inside(values.shape).values())
    # About the diagonal of what is solved. An image of one pixel has no neighbours, hence the maximum.
    diagonal = jnp.maximum((neighbours + screening) ** order + pull, jnp.finfo(values.dtype).tiny)
    start = jnp.where(fixed, values, 0)
    # The right side and every step are 0 on fixed pixels, so they never move.
    step, _ = jax.scipy.sparse.linalg.cg(
        lambda u: free * (pull * u + rough(free * u)),
        free * (pull * values - rough(start)),
        M=_preconditioner(free, diagonal, multilevel=order == 1),
        tol=float(jnp.finfo(values.dtype).eps) ** 0.75,
        maxiter=MOST_STEPS,
    )
    return jnp.moveaxis(start + free * step, 0, -1)
