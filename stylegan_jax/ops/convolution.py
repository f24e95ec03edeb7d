# SPDX-License-Identifier: Apache-2.0
"""Plain, stride-2 and transposed convolutions over `[n, h, w, c]` with `[kh, kw, in, out]` weights.

The derivative of each is written with the others, so all can be differentiated any number of times in reverse mode
(R1 needs two). Two forms differ from what XLA would derive, both chosen for speed on XLA:CPU and unmeasured elsewhere:
the weight gradient is one matrix product per kernel tap, and the transposed convolution is one ordinary convolution to
its four output phases.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _correlate(x: Array, weight: Array, padding: int, stride: int = 1) -> Array:
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, weight, (stride, stride), pads, dimension_numbers=_LAYOUT)


def _transpose_weight(weight: Array) -> Array:
    return jnp.flip(weight, (0, 1)).swapaxes(2, 3)


def _tap_products(wide: Array, narrow: Array, kernel: int, stride: int) -> Array:
    """Returns `out[i, j] = sum_{n, y, x} wide[n, stride*y + i, stride*x + j, :] outer narrow[n, y, x, :]`."""
    height, width = narrow.shape[1:3]
    narrow = narrow.reshape(-1, narrow.shape[3])

    def product(i: int, j: int) -> Array:
        window = wide[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        return window.reshape(-1, wide.shape[3]).T @ narrow

    return jnp.stack([jnp.stack([product(i, j) for j in range(kernel)]) for i in range(kernel)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x: Array, weight: Array, padding: int = 0) -> Array:
    """Returns the correlation of `x` with `weight`, stride 1.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`.
        padding: zeros added on every side.

    Returns:
        `[n, h + 2*padding - k + 1, w + 2*padding - k + 1, out]`.
    """
    if weight.shape[:2] == (1, 1) and padding == 0:
        return x @ weight[0, 0]
    return _correlate(x, weight, padding)


def _conv2d_forward(x: Array, weight: Array, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return conv2d(x, weight, padding), (x, weight)


def _conv2d_backward(padding: int, residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = residual
    kernel = weight.shape[0]
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    d_x = conv2d(cotangent, _transpose_weight(weight), kernel - 1 - padding)
    return d_x, _tap_products(padded, cotangent, kernel, 1)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@jax.custom_vjp
def conv2d_down(x: Array, weight: Array) -> Array:
    """Returns the correlation of `x` with `weight`, stride 2, no padding.

    Args:
        x: `[n, 2h + 1, 2w + 1, in]`.
        weight: `[3, 3, in, out]`.

    Returns:
        `[n, h, w, out]`.
    """
    return _correlate(x, weight, 0, stride=2)


def _conv2d_down_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_down(x, weight), (x, weight)


def _conv2d_down_backward(residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = residual
    return conv2d_up(cotangent, weight.swapaxes(2, 3)), _tap_products(x, cotangent, 3, 2)


conv2d_down.defvjp(_conv2d_down_forward, _conv2d_down_backward)


@jax.custom_vjp
def conv2d_up(x: Array, weight: Array) -> Array:
    """Returns the transposed convolution of `x` with `weight`, stride 2: the adjoint of `conv2d_down`.

    `y[2i + a, 2j + b] += x[i, j] @ weight[a, b]`; output phase (0 or 1) along one axis sees taps (2, 0) or (1) of the
    kernel, so all four phases come from one 2x2 convolution to `4 * out` channels followed by depth-to-space.

    Args:
        x: `[n, h, w, in]`.
        weight: `[3, 3, in, out]`.

    Returns:
        `[n, 2h + 1, 2w + 1, out]`.
    """
    n, height, width, _ = x.shape
    out = weight.shape[3]
    zero = jnp.zeros_like(weight[0])
    rows = jnp.stack([jnp.stack([weight[2], weight[0]]), jnp.stack([zero, weight[1]])])
    zero = jnp.zeros_like(rows[:, :, 0])
    phases = jnp.stack(
        [jnp.stack([rows[:, :, 2], rows[:, :, 0]], axis=2), jnp.stack([zero, rows[:, :, 1]], axis=2)], axis=1
    )
    kernel = phases.transpose(2, 3, 4, 0, 1, 5).reshape(2, 2, -1, 4 * out)
    y = _correlate(x, kernel, 1).reshape(n, height + 1, width + 1, 2, 2, out)
    y = y.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height + 2, 2 * width + 2, out)
    return y[:, :-1, :-1]


def _conv2d_up_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_up(x, weight), (x, weight)


def _conv2d_up_backward(residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = residual
    d_weight = _tap_products(cotangent, x, 3, 2).swapaxes(2, 3)
    return conv2d_down(cotangent, weight.swapaxes(2, 3)), d_weight


conv2d_up.defvjp(_conv2d_up_forward, _conv2d_up_backward)
