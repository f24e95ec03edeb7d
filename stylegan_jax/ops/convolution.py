# SPDX-License-Identifier: Apache-2.0
"""Plain, stride-2 and transposed convolutions over `[n, h, w, c]` with `[kh, kw, in, out]` weights.

The derivative of each is written with the others, so all can be differentiated any number of times in reverse mode
(R1 needs two). Forms that differ from what XLA would derive were chosen for speed on XLA:CPU
(benchmarks/convolutions.py) and are unmeasured elsewhere: the weight gradient is one matrix product per kernel tap;
each of the four output phases of the transposed convolution is an ordinary convolution with those taps of the kernel
that reach it; on CPUs, the strided convolution and the input's gradient of wide kernels are a product per tap, too.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _correlate(x: Array, weight: Array, padding: int | tuple[int, int], stride: int = 1) -> Array:
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    pads = ((rows, rows), (columns, columns))
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


def _by_taps(
    x: Array, weight: Array, size: tuple[int, int], *, stride: int = 1, swapped: bool = False, turned: bool = False
) -> Array:
    """Returns the correlation of padded `x` with `weight`, one matrix product for each tap.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`.
        size: height and width of the result.
        stride: of the windows.
        swapped: `weight` is `[k, k, out, in]`; the products read it so, without a copy.
        turned: `weight` is turned by 180 degrees.
    """
    kernel, (height, width), total = weight.shape[0], size, 0.0
    contracted = (((1,), (1 if swapped else 0,)), ((), ()))
    for i in range(kernel):
        for j in range(kernel):
            window = x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            tap = weight[kernel - 1 - i, kernel - 1 - j] if turned else weight[i, j]
            total += lax.dot_general(window.reshape(-1, x.shape[3]), tap, contracted)
    return total.reshape(-1, height, width, total.shape[1])


def conv2d(x: Array, weight: Array, padding: int = 0) -> Array:
    """Returns the correlation of `x` with `weight`, stride 1.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`.
        padding: zeros added on every side.

    Returns:
        `[n, h + 2*padding - k + 1, w + 2*padding - k + 1, out]`.
    """
    return _conv2d(x, weight, padding, False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x: Array, weight: Array, padding: int, turned: bool) -> Array:
    """Returns `conv2d`; where `turned`, `weight` is `[k, k, out, in]` and turned by 180 degrees, as for the gradient of
    an input."""
    if weight.shape[:2] == (1, 1) and padding == 0:
        return x @ (weight[0, 0].T if turned else weight[0, 0])
    if not turned:
        return _correlate(x, weight, padding)
    size = tuple(length + 2 * padding - weight.shape[0] + 1 for length in x.shape[1:3])

    def by_taps(x: Array, weight: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        return _by_taps(x, weight, size, swapped=True, turned=True)

    def as_one(x: Array, weight: Array) -> Array:
        return _correlate(x, _transpose_weight(weight), padding)

    # Of a wide kernel for few pixels the copy that turns it costs more than the convolution. By the image and not by
    # the batch, of which a lane of a search knows nothing.
    if 8 * size[0] * size[1] > min(weight.shape[2:]):
        return as_one(x, weight)
    return lax.platform_dependent(x, weight, cpu=by_taps, default=as_one)


def _conv2d_forward(x: Array, weight: Array, padding: int, turned: bool) -> tuple[Array, tuple[Array, Array]]:
    return _conv2d(x, weight, padding, turned), (x, weight)


def _conv2d_backward(
    padding: int, turned: bool, residual: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, weight = residual
    kernel = weight.shape[0]
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    d_weight = _tap_products(padded, cotangent, kernel, 1)
    d_x = _conv2d(cotangent, weight, kernel - 1 - padding, not turned)
    return d_x, _transpose_weight(d_weight) if turned else d_weight


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def conv2d_down(x: Array, weight: Array) -> Array:
    """Returns the correlation of `x` with `weight`, stride 2, no padding.

    Args:
        x: `[n, 2h + 1, 2w + 1, in]`.
        weight: `[3, 3, in, out]`.

    Returns:
        `[n, h, w, out]`.
    """
    return _conv2d_down(x, weight, False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d_down(x: Array, weight: Array, swapped: bool) -> Array:
    """Returns `conv2d_down`; where `swapped`, `weight` is `[3, 3, out, in]`, as for the gradient of `conv2d_up`."""

    def by_taps(x: Array, weight: Array) -> Array:
        return _by_taps(x, weight, (x.shape[1] // 2, x.shape[2] // 2), stride=2, swapped=swapped)

    def strided(x: Array, weight: Array) -> Array:
        return _correlate(x, weight.swapaxes(2, 3) if swapped else weight, 0, stride=2)

    return lax.platform_dependent(x, weight, cpu=by_taps, default=strided)


def _conv2d_down_forward(x: Array, weight: Array, swapped: bool) -> tuple[Array, tuple[Array, Array]]:
    return _conv2d_down(x, weight, swapped), (x, weight)


def _conv2d_down_backward(swapped: bool, residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = residual
    d_weight = _tap_products(x, cotangent, 3, 2)
    if swapped:
        return conv2d_up(cotangent, weight), d_weight.swapaxes(2, 3)
    return conv2d_up(cotangent, weight.swapaxes(2, 3)), d_weight


_conv2d_down.defvjp(_conv2d_down_forward, _conv2d_down_backward)


@jax.custom_vjp
def conv2d_up(x: Array, weight: Array) -> Array:
    """Returns the transposed convolution of `x` with `weight`, stride 2: the adjoint of `conv2d_down`.

    `y[2i + a, 2j + b] += x[i, j] @ weight[a, b]`; output phase (0 or 1) along one axis sees taps (2, 0) or (1) of the
    kernel, so the four phases are convolutions with kernels of 2x2, 2x1, 1x2 and 1x1, nine products in all.

    Args:
        x: `[n, h, w, in]`.
        weight: `[3, 3, in, out]`.

    Returns:
        `[n, 2h + 1, 2w + 1, out]`.
    """
    outer = weight[::-2]
    rows = (
        (_correlate(x, outer[:, ::-2], 1), _correlate(x, outer[:, 1:2], (1, 0))),
        (_correlate(x, weight[1:2, ::-2], (0, 1)), x @ weight[1, 1]),
    )
    return _interleave(*(_interleave(even, odd, axis=2) for even, odd in rows), axis=1)


def _interleave(even: Array, odd: Array, *, axis: int) -> Array:
    """Returns `even[0], odd[0], even[1], ...` along `axis`, on which `even` is longer by one."""
    pads = [(0, 0)] * odd.ndim
    pads[axis] = (0, 1)
    both = jnp.stack([even, jnp.pad(odd, pads)], axis + 1)
    shape = (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])
    return lax.slice_in_dim(both.reshape(shape), 0, shape[axis] - 1, axis=axis)


def _conv2d_up_forward(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv2d_up(x, weight), (x, weight)


def _conv2d_up_backward(residual: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weight = residual
    d_weight = _tap_products(cotangent, x, 3, 2).swapaxes(2, 3)
    return _conv2d_down(cotangent, weight, True), d_weight


conv2d_up.defvjp(_conv2d_up_forward, _conv2d_up_backward)
