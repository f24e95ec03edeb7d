# SPDX-License-Identifier: Apache-2.0
"""Modulated convolution (StyleGAN2, Karras et al. 2020, equations 1-3), with the modulation on the activations.

`w'[i, o] = s[i] w[i, o]`, `w''[o] = w'[o] / sqrt(sum_{i, k} w'[i, o, k]^2 + 1e-8)`. Scaling the input by `s` and the
output by the demodulation leaves one kernel for the whole batch, so a `vmap` over samples stays one convolution. A
style of its own for every output filter (Poirier-Ginter and Lalonde 2023, "Robust Unsupervised StyleGAN Image
Restoration") does not factor: every sample has its own kernel then, which costs several times as much.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from stylegan_jax.ops import convolution, resample

EPSILON = 1e-8


def demodulation(weight: Array, styles: Array) -> Array:
    """Returns `rsqrt(sum_{k, i} (weight * style)^2 + 1e-8)`: `[n, out]` for `[k, k, in, out]` and `[n, in]`."""
    # Tap by tap: as one reduction XLA:CPU took most of a step's time for it at batch 1.
    energy = sum(jnp.square(weight[i, j]) for i in range(weight.shape[0]) for j in range(weight.shape[1]))
    return lax.rsqrt(jnp.square(styles) @ energy + EPSILON)


def convolve_up(x: Array, weight: Array, taps: Array) -> Array:
    """Returns `x` `[n, h, w, in]` convolved with `[3, 3, in, out]` at twice the size: transposed, then FIR x4."""
    t = taps.shape[0]
    before, after = (t + 1) // 2 - 1, (t - 2) // 2
    y = convolution.conv2d_up(x, weight)
    return resample.upfirdn2d(y, taps, padding=(before, after, before, after), gain=4.0)


def _convolve(x: Array, kernel: Array, up_taps: Array | None) -> Array:
    if up_taps is None:
        return convolution.conv2d(x, kernel, kernel.shape[0] // 2)
    return convolve_up(x, kernel, up_taps)


def _by_filter(x: Array, weight: Array, styles: Array, demodulate: bool, up_taps: Array | None) -> Array:
    kernels = weight[None] * jnp.swapaxes(styles, 1, 2)[:, None, None]
    if demodulate:
        energy = jnp.sum(jnp.square(kernels), axis=(1, 2, 3), keepdims=True)
        kernels = kernels * lax.rsqrt(energy + EPSILON)
    convolve = jax.vmap(lambda x, kernel: _convolve(x[None], kernel, up_taps)[0])
    return convolve(x, kernels.astype(x.dtype))


def modulated_conv2d(x: Array, weight: Array, styles: Array, *, demodulate: bool = True, up_taps: Array | None = None):
    """Returns the modulated convolution of `x`.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`, k odd.
        styles: `[n, in]`, or `[n, out, in]` with a style for every output filter.
        demodulate: normalise every output filter to unit energy.
        up_taps: resampling filter of an up-convolution; None keeps the size.

    Returns:
        `[n, h, w, out]`, or `[n, 2h, 2w, out]` with `up_taps`.
    """
    if styles.ndim == 3:
        return _by_filter(x, weight, styles, demodulate, up_taps)
    scaled = x * styles.astype(x.dtype)[:, None, None, :]
    kernel = weight.astype(x.dtype)
    y = _convolve(scaled, kernel, up_taps)
    if demodulate:
        y = y * demodulation(weight, styles).astype(x.dtype)[:, None, None, :]
    return y
