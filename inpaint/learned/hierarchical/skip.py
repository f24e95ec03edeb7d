# SPDX-License-Identifier: Apache-2.0
"""The skip encoder: what replaces a feature map of the generator, from that map and from what the encoder saw."""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers
from stylegan_jax.ops import pooling, resample

_RESAMPLE = (1.0, 3.0, 3.0, 1.0)


class _Residual(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv0 = layers.Conv(width, width, 3, activation="lrelu", rngs=rngs)
        self.conv1 = layers.Conv(width, width, 3, activation="lrelu", rngs=rngs)

    def __call__(self, x: Array) -> Array:
        # Of unit variance, as the two together are.
        return math.sqrt(0.5) * x + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class SkipEncoder(nnx.Module):
    """A UNet at the resolution of the replaced map: two halvings, and back by interpolation with additive skips."""

    def __init__(self, seen: int, channels: int, widths: tuple[int, int, int], *, rngs: nnx.Rngs):
        self.resample_filter = layers.Buffer(jnp.asarray(resample.make_filter(_RESAMPLE)))
        self.enter = layers.Conv(seen + channels, widths[0], 1, activation="lrelu", rngs=rngs)
        for i, width in enumerate(widths):
            setattr(self, f"res{i}", _Residual(width, rngs=rngs))
        for i in (0, 1):
            setattr(self, f"down{i}", layers.Conv(widths[i], widths[i + 1], 3, activation="lrelu", rngs=rngs))
            setattr(self, f"up{i}", layers.Conv(widths[i + 1], widths[i], 1, rngs=rngs))
            setattr(self, f"join{i}", _Residual(widths[i], rngs=rngs))
        self.leave = layers.Conv(widths[0], channels, 1, rngs=rngs)
        self.leave.weight[...] = jnp.zeros_like(self.leave.weight[...])

    def __call__(self, seen: Array, made: Array) -> Array:
        """Returns a map `[n, r, r, channels]`; a new network gives 0.

        Args:
            seen: the encoder's map `[n, r, r, c]`.
            made: the generator's map `[n, r, r, channels]`.
        """
        taps = self.resample_filter[...]
        x = self.res0(self.enter(jnp.concatenate([seen.astype(made.dtype), made], -1)))
        half = self.res1(self.down0.down(x, taps))
        quarter = self.res2(self.down1.down(half, taps))
        half = self.join1(half + self.up1(pooling.resize_corners(quarter, half.shape[1:3])))
        x = self.join0(x + self.up0(pooling.resize_corners(half, x.shape[1:3])))
        return self.leave(x)
