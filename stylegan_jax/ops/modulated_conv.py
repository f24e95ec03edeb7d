# SPDX-License-Identifier: Apache-2.0
"""Modulated convolution (StyleGAN2, Karras et al. 2020, equations 1-3), with the modulation on the activations.

`w'[i, o] = s[i] w[i, o]`, `w''[o] = w'[o] / sqrt(sum_{i, k} w'[i, o, k]^2 + 1e-8)`. Scaling the input by `s` and the
output by the demodulation leaves one kernel for the whole batch, so a `vmap` over samples stays one convolution.
"""

import jax.numpy as jnp
from jax import Array, lax

from stylegan_jax.ops import convolution, resample

EPSILON = 1e-8


def demodulation(weight: Array, styles: Array) -> Array:
    """Returns `rsqrt(sum_{k, i} (weight * style)^2 + 1e-8)`: `[n, out]` for `[k, k, in, out]` and `[n, in]`."""
    energy = jnp.sum(jnp.square(weight), axis=(0, 1))
    return lax.rsqrt(jnp.square(styles) @ energy + EPSILON)


def convolve_up(x: Array, weight: Array, taps: Array) -> Array:
    """Returns `x` `[n, h, w, in]` convolved with `[3, 3, in, out]` at twice the size: transposed, then FIR x4."""
    t = taps.shape[0]
    before, after = (t + 1) // 2 - 1, (t - 2) // 2
    y = convolution.conv2d_up(x, weight)
    return resample.upfirdn2d(y, taps, padding=(before, after, before, after), gain=4.0)


def modulated_conv2d(x: Array, weight: Array, styles: Array, *, demodulate: bool = True, up_taps: Array | None = None):
    """Returns the modulated convolution of `x`.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`, k odd.
        styles: `[n, in]`.
        demodulate: normalise every output filter to unit energy.
        up_taps: resampling filter of an up-convolution; None keeps the size.

    Returns:
        `[n, h, w, out]`, or `[n, 2h, 2w, out]` with `up_taps`.
    """
    scaled = x * styles.astype(x.dtype)[:, None, None, :]
    kernel = weight.astype(x.dtype)
    if up_taps is None:
        y = convolution.conv2d(scaled, kernel, weight.shape[0] // 2)
    else:
        y = convolve_up(scaled, kernel, up_taps)
    if demodulate:
        y = y * demodulation(weight, styles).astype(x.dtype)[:, None, None, :]
    return y
