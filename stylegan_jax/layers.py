# SPDX-License-Identifier: Apache-2.0
"""Layers with equalised learning rate; weights are stored with unit variance and scaled when used."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax.ops import activation as _activation
from stylegan_jax.ops import convolution, modulated_conv, resample


class Buffer(nnx.Variable):
    """State of a network that no optimiser changes: filters, noise maps, the running mean of w."""


class Dense(nnx.Module):
    """Computes `activation(x @ weight * lr_multiplier / sqrt(in) + bias * lr_multiplier)`, `[n, in] -> [n, out]`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        rngs: nnx.Rngs,
    ):
        weight = jax.random.normal(rngs.params(), (in_features, out_features)) / lr_multiplier
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(jnp.full((out_features,), bias_init, weight.dtype))
        self.activation = activation
        self.lr_multiplier = lr_multiplier

    def __call__(self, x: Array) -> Array:
        weight = self.weight[...] * (self.lr_multiplier / math.sqrt(self.weight.shape[0]))
        bias = self.bias[...] * self.lr_multiplier
        return _activation.bias_act(x @ weight.astype(x.dtype), bias, activation=self.activation)


class Conv(nnx.Module):
    """Computes an equalised convolution with bias and activation, `[n, h, w, in] -> [n, h', w', out]`.

    With `rate` 2 the image is filtered and halved ("down") or doubled ("up", kernel 1 only).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        activation: str = "linear",
        bias: bool = True,
        clamp: float | None = None,
        rngs: nnx.Rngs,
    ):
        weight = jax.random.normal(rngs.params(), (kernel, kernel, in_channels, out_channels))
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(jnp.zeros((out_channels,), weight.dtype)) if bias else None
        self.activation = activation
        self.clamp = clamp

    def _scaled_weight(self, dtype: jnp.dtype) -> Array:
        return (self.weight[...] * (1 / math.sqrt(math.prod(self.weight.shape[:3])))).astype(dtype)

    def _finish(self, x: Array, gain: float) -> Array:
        bias = None if self.bias is None else self.bias[...]
        return _activation.bias_act(x, bias, activation=self.activation, gain=gain, clamp=self.clamp)

    def __call__(self, x: Array, *, gain: float = 1.0) -> Array:
        weight = self._scaled_weight(x.dtype)
        return self._finish(convolution.conv2d(x, weight, weight.shape[0] // 2), gain)

    def down(self, x: Array, taps: Array, *, gain: float = 1.0) -> Array:
        """Returns the layer applied at half the size: FIR, then a stride-2 correlation."""
        weight = self._scaled_weight(x.dtype)
        if weight.shape[0] == 1:
            return self._finish(convolution.conv2d(resample.downsample2d(x, taps), weight), gain)
        t = taps.shape[0]
        before, after = 1 + (t - 1) // 2, 1 + (t - 2) // 2
        x = resample.upfirdn2d(x, taps, padding=(before, after, before, after))
        return self._finish(convolution.conv2d_down(x, weight), gain)

    def up(self, x: Array, taps: Array, *, gain: float = 1.0) -> Array:
        """Returns a 1x1 layer applied at twice the size: convolution, then FIR upsampling."""
        y = convolution.conv2d(x, self._scaled_weight(x.dtype))
        return self._finish(resample.upsample2d(y, taps), gain)


class Modulated(nnx.Module):
    """A modulated 3x3 convolution with noise, bias and activation (StyleGAN2): `[n, h, w, in] -> [n, r, r, out]`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: bool,
        activation: str,
        use_noise: bool,
        clamp: float | None,
        rngs: nnx.Rngs,
    ):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (3, 3, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros((out_channels,)))
        self.affine = Dense(w_dim, in_channels, bias_init=1.0, rngs=rngs)
        if use_noise:
            self.noise_strength = nnx.Param(jnp.zeros(()))
            self.noise_const = Buffer(jax.random.normal(rngs.params(), (resolution, resolution)))
        self.resolution = resolution
        self.use_noise = use_noise
        self.up = up
        self.activation = activation
        self.clamp = clamp

    def __call__(self, x: Array, styles: Array, taps: Array, *, noise: Array | None, gain: float = 1.0) -> Array:
        """Applies the layer; `styles` `[n, in]` or `[n, out, in]`, `noise` `[n or 1, r, r]` or None, `taps` the filter
        of the network."""
        y = modulated_conv.modulated_conv2d(x, self.weight[...], styles, up_taps=taps if self.up else None)
        if noise is not None:
            y = y + (noise * self.noise_strength[...]).astype(y.dtype)[..., None]
        return _activation.bias_act(y, self.bias[...], activation=self.activation, gain=gain, clamp=self.clamp)


class ToRGB(nnx.Module):
    """A modulated 1x1 convolution to image channels, not demodulated: `[n, h, w, in] -> [n, h, w, channels]`."""

    def __init__(self, in_channels: int, out_channels: int, *, w_dim: int, clamp: float | None, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (1, 1, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros((out_channels,)))
        self.affine = Dense(w_dim, in_channels, bias_init=1.0, rngs=rngs)
        self.clamp = clamp

    def __call__(self, x: Array, styles: Array) -> Array:
        """Applies the layer; `styles` `[n, in]` or `[n, out, in]` as the affine gives them (the 1/sqrt(in) is applied
        here)."""
        styles = styles * (1 / math.sqrt(self.weight.shape[2]))
        y = modulated_conv.modulated_conv2d(x, self.weight[...], styles, demodulate=False)
        return _activation.bias_act(y, self.bias[...], clamp=self.clamp)


def normalize_second_moment(x: Array) -> Array:
    """Returns `x * rsqrt(mean(x^2) + 1e-8)` along the last axis of `x` `[..., c]`."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-8)
