# SPDX-License-Identifier: Apache-2.0
"""Convolutions with spectral normalisation: the weight, seen as a matrix, is divided by its largest singular value.

Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks". The singular vector `u` is kept beside
the weight; `advance` moves it one power iteration on, once for every training step.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from stylegan_jax import layers
from stylegan_jax.ops import convolution

_EPSILON = 1e-12


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), _EPSILON)


def largest_singular_value(weight: Array, u: Array) -> tuple[Array, Array]:
    """Returns `sigma = v^T W u'` after one power iteration, a scalar, and `u'` `[out]`.

    `v = W u / |W u|`, `u' = W^T v / |W^T v|`; no gradient flows through u' and v, which at the fixed point is exact.

    Args:
        weight: `[..., out]`, W is all axes but the last flattened.
        u: `[out]`.
    """
    matrix = weight.reshape(-1, weight.shape[-1])
    fixed = lax.stop_gradient(matrix)
    v = _unit(fixed @ lax.stop_gradient(u))
    u = _unit(fixed.T @ v)
    return v @ (matrix @ u), u


class Conv(nnx.Module):
    """A plain convolution `[n, h, w, in] -> [n, h', w', out]`, with spectral normalisation unless `spectral` is False.

    Kernels of 1 and 3 keep the size; `halve` is stride 2 with kernel 3 or 4. Weights are computed in the input's dtype.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        spectral: bool = True,
        gain: float = 1.0,
        rngs: nnx.Rngs,
    ):
        scale = gain / math.sqrt(kernel * kernel * in_channels)
        weight = scale * jax.random.normal(rngs.params(), (kernel, kernel, in_channels, out_channels))
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(jnp.zeros((out_channels,), weight.dtype)) if bias else None
        self.u = layers.Buffer(_unit(jax.random.normal(rngs.params(), (out_channels,)))) if spectral else None

    def effective_weight(self, dtype: jnp.dtype) -> Array:
        """Returns the weight that is convolved with, `[k, k, in, out]`."""
        weight = self.weight[...].astype(dtype)
        if self.u is None:
            return weight
        return weight / largest_singular_value(weight, self.u[...].astype(dtype))[0]

    def _biased(self, x: Array) -> Array:
        return x if self.bias is None else x + self.bias[...].astype(x.dtype)[None, None, None]

    def __call__(self, x: Array) -> Array:
        """Returns the convolution with stride 1: of kernel 4 with zeros of 1 on every side, else of the same size."""
        weight = self.effective_weight(x.dtype)
        padding = 1 if weight.shape[0] == 4 else weight.shape[0] // 2
        return self._biased(convolution.conv2d(x, weight, padding))

    def halve(self, x: Array) -> Array:
        """Returns the convolution with stride 2, zeros of 1 on every side, of `x` `[n, 2h, 2w, in]`."""
        weight = self.effective_weight(x.dtype)
        if weight.shape[0] == 3:
            # The zeros below and at the right of an even size are never reached.
            return self._biased(convolution.conv2d_down(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), weight))
        # Kernel 4 with stride 2 is kernel 2 on blocks of 2 x 2 pixels, whose weight gradient is fast on CPUs.
        x = _blocks(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        i, o = weight.shape[2:]
        weight = weight.reshape(2, 2, 2, 2, i, o).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * i, o)
        return self._biased(convolution.conv2d(x, weight))


def _blocks(x: Array) -> Array:
    """Returns `[n, h/2, w/2, 4c]`, the values of blocks of 2 x 2 pixels of `x` `[n, h, w, c]`."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def advance(network: nnx.Module) -> None:
    """Moves the singular vectors of all convolutions of `network` one power iteration on."""
    for _, module in nnx.iter_modules(network):
        if isinstance(module, Conv) and module.u is not None:
            module.u[...] = largest_singular_value(module.weight[...], module.u[...])[1]
