# SPDX-License-Identifier: Apache-2.0
"""FIR resampling of `[n, h, w, c]` images: zero-insert, pad, convolve, decimate.

A filter is `[t, t]` (two-dimensional) or `[t]` (applied along x, then along y). It is a constant of the network: no
gradient is taken with respect to it.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = tuple[int, int, int, int]  # top, bottom, left, right; negative crops

SEPARABLE_FROM = 8  # filters with at least this many taps are stored as [t]


def make_filter(taps: Sequence[float]) -> np.ndarray:
    """Returns the filter of 1-D `taps`, normalised to sum 1: their outer product `[t, t]`, or `[t]` from 8 taps on."""
    taps = np.asarray(taps, np.float32)
    if taps.ndim != 1 or not taps.size or taps.sum() == 0:
        raise ValueError(f"resample filter must be a non-empty list of taps with a non-zero sum, got {taps.tolist()}")
    if taps.size < SEPARABLE_FROM:
        taps = np.outer(taps, taps)
    return taps / taps.sum()


def _filter_once(x: Array, taps: Array, up: tuple[int, int], down: tuple[int, int], padding: Padding) -> Array:
    """Resamples with a `[ty, tx]` filter by sums of shifted slices, which XLA fuses into one loop."""
    taps = jnp.flip(taps, (0, 1))
    rows, columns = taps.shape
    top, bottom, left, right = padding
    config = ((0, 0, 0), (top, bottom + up[0] - 1, up[0] - 1), (left, right + up[1] - 1, up[1] - 1), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    height = (x.shape[1] - rows) // down[0] + 1
    width = (x.shape[2] - columns) // down[1] + 1
    terms = (
        taps[i, j] * x[:, i : i + (height - 1) * down[0] + 1 : down[0], j : j + (width - 1) * down[1] + 1 : down[1]]
        for i in range(rows)
        for j in range(columns)
    )
    return functools.reduce(jnp.add, terms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _resample(x: Array, taps: Array, up: tuple[int, int], down: tuple[int, int], padding: Padding) -> Array:
    return _filter_once(x, taps, up, down, padding)


def _resample_forward(x, taps, up, down, padding):
    return _resample(x, taps, up, down, padding), (x.shape, taps)


def _resample_backward(up, down, padding, residual, cotangent):
    # The adjoint is a resampling with the flipped filter and the two rates exchanged. Derived by autodiff instead, it
    # becomes one padded sum per tap and is several times slower.
    shape, taps = residual
    before = (taps.shape[0] - 1 - padding[0], taps.shape[1] - 1 - padding[2])
    after = tuple(
        shape[1 + axis] * up[axis] - cotangent.shape[1 + axis] * down[axis] + padding[2 * axis] - up[axis] + 1
        for axis in (0, 1)
    )
    adjoint_padding = (before[0], after[0], before[1], after[1])
    d_x = _resample(cotangent, jnp.flip(taps, (0, 1)), down, up, adjoint_padding)
    return d_x, jnp.zeros_like(taps)


_resample.defvjp(_resample_forward, _resample_backward)


def upfirdn2d(
    x: Array, taps: Array, *, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0), gain: float = 1.0
) -> Array:
    """Returns `x` upsampled by zero insertion, padded, convolved with `taps` (a true convolution) and decimated.

    Args:
        x: `[n, h, w, c]`.
        taps: `[t, t]` or separable `[t]`.
        up, down: integer rates.
        padding: zeros at top, bottom, left, right of the zero-inserted image; negative values crop.
        gain: factor on the result.

    Returns:
        `[n, (h*up + top + bottom - t) // down + 1, ..., c]`.
    """
    taps = lax.stop_gradient(taps).astype(x.dtype)
    if taps.ndim == 2:
        return _resample(x, taps * jnp.asarray(gain, x.dtype), (up, up), (down, down), padding)
    top, bottom, left, right = padding
    scaled = taps * jnp.asarray(gain**0.5, x.dtype)
    x = _resample(x, scaled[None, :], (1, up), (1, down), (0, 0, left, right))
    return _resample(x, scaled[:, None], (up, 1), (down, 1), (top, bottom, 0, 0))


def upsample2d(x: Array, taps: Array) -> Array:
    """Returns `x` `[n, h, w, c]` at twice the size, `[n, 2h, 2w, c]`, brightness preserved."""
    before, after = (taps.shape[0] + 1) // 2, (taps.shape[0] - 2) // 2
    return upfirdn2d(x, taps, up=2, padding=(before, after, before, after), gain=4.0)


def downsample2d(x: Array, taps: Array) -> Array:
    """Returns `x` `[n, 2h, 2w, c]` at half the size, `[n, h, w, c]`."""
    before, after = (taps.shape[0] - 1) // 2, (taps.shape[0] - 2) // 2
    return upfirdn2d(x, taps, down=2, padding=(before, after, before, after))
