# SPDX-License-Identifier: Apache-2.0
"""Operators in float64 against plain definitions: lax with dilations, numpy loops, explicit per-sample kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from stylegan_jax import mapping
from stylegan_jax.ops import activation, convolution, minibatch, modulated_conv, resample

LAYOUT = ("NHWC", "HWIO", "NHWC")
FILTERS = {
    "4 taps": (1, 3, 3, 1),
    "3 taps": (1, 2, 1),
    "5 asymmetric": (1, 4, 2, 3, 5),
    "asymmetric": (1, 2, 5, 3),
    "8 separable": (1, 2, 3, 5, 4, 3, 2, 2),
    "1 tap": (1,),
}


@pytest.fixture(autouse=True)
def strictly(x64, strict_types):
    """All laws here hold in float64 without implicit promotion."""


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def reference(x, weight, *, stride=1, dilation=1, padding=(0, 0)):
    return lax.conv_general_dilated(
        x, weight, (stride,) * 2, (padding,) * 2, lhs_dilation=(dilation,) * 2, dimension_numbers=LAYOUT
    )


def same(x, weight):
    return convolution.conv2d(x, weight, 1)


def transposed(x, weight):
    return reference(x, jnp.flip(weight, (0, 1)), dilation=2, padding=(2, 2))


# Each: ours, the definition by lax, shape of x, size of the kernel. Kernels wide beside the image take another way.
CONVOLUTIONS = {
    "3x3 same": (same, functools.partial(reference, padding=(1, 1)), (2, 5, 4, 3), 3),
    "3x3 valid": (convolution.conv2d, reference, (2, 5, 4, 3), 3),
    "3x3 same, wide": (same, functools.partial(reference, padding=(1, 1)), (2, 2, 3, 72), 3),
    "3x3 valid, wide": (convolution.conv2d, reference, (1, 3, 3, 108), 3),
    "1x1": (convolution.conv2d, reference, (2, 3, 4, 3), 1),
    "down": (convolution.conv2d_down, functools.partial(reference, stride=2), (2, 7, 5, 3), 3),
    "up": (convolution.conv2d_up, transposed, (2, 3, 4, 3), 3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name):
    """Values, both gradients and the second-order gradients equal those of lax."""
    ours, theirs, shape, kernel = CONVOLUTIONS[name]
    x, weight = normal(0, *shape), normal(1, kernel, kernel, shape[3], shape[3] * 2 // 3)
    cotangent = normal(2, *jax.eval_shape(theirs, x, weight).shape)

    @functools.partial(jax.jit, static_argnums=0)
    def judge(function, x, weight):
        """Returns value, gradients, and the gradients of a value that itself holds a gradient, as R1 does."""

        def penalty(x, weight):
            gradient = jax.grad(lambda x: jnp.sum(jnp.sin(function(x, weight)) * cotangent))(x)
            return jnp.sum(jnp.square(gradient))

        value, pull_back = jax.vjp(function, x, weight)
        return value, pull_back(cotangent), jax.grad(penalty, argnums=(0, 1))(x, weight)

    for got, wanted in zip(*(jax.tree.leaves(judge(f, x, weight)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10)


def test_convolution_gradients_numerically():
    """The written derivatives, which call each other, agree with differences to second order in reverse mode."""
    function = jax.jit(lambda x, w: jnp.tanh(convolution.conv2d_up(same(x, w), w)))
    check_grads(function, (normal(0, 1, 2, 2, 2), 0.5 * normal(1, 3, 3, 2, 2)), order=2, modes=["rev"], atol=1e-4)


def test_up_and_down_are_adjoint():
    """`<down(x), y> = <x, up(y)>` with input and output channels exchanged."""
    weight, x, y = normal(0, 3, 3, 3, 2), normal(1, 2, 9, 7, 3), normal(2, 2, 4, 3, 2)
    left = jnp.sum(convolution.conv2d_down(x, weight) * y)
    right = jnp.sum(x * convolution.conv2d_up(y, weight.swapaxes(2, 3)))
    assert left == pytest.approx(float(right), abs=1e-11)


def upfirdn_by_loops(x, taps, up, down, padding, gain):
    """Returns zero-insertion, padding, true convolution and decimation, written out in numpy."""
    top, bottom, left, right = padding
    n, height, width, channels = x.shape
    inserted = np.zeros((n, height * up, width * up, channels))
    inserted[:, ::up, ::up] = x
    inserted = np.pad(inserted, ((0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)), (0, 0)))
    inserted = inserted[:, max(-top, 0) :, max(-left, 0) :]
    inserted = inserted[:, : inserted.shape[1] - max(-bottom, 0), : inserted.shape[2] - max(-right, 0)]
    kernel = (np.outer(taps, taps) if taps.ndim == 1 else taps)[::-1, ::-1] * gain
    t = len(kernel)
    rows, columns = inserted.shape[1] - t + 1, inserted.shape[2] - t + 1
    result = np.zeros((n, rows, columns, channels))
    for i in range(rows):
        for j in range(columns):
            result[:, i, j] = np.einsum("nhwc,hw->nc", inserted[:, i : i + t, j : j + t], kernel)
    return result[:, ::down, ::down]


RATES = [(1, 1, (4, 3, 2, 4)), (2, 1, (4, 5, 5, 4)), (1, 2, (5, 4, 4, 5)), (2, 2, (8, -1, 6, 3))]


@pytest.mark.parametrize("name", FILTERS)
def test_resampling(name):
    """Values equal the loops for every filter, rate and padding (also cropping), and the gradient is the adjoint."""
    taps, x = resample.make_filter(FILTERS[name]), normal(0, 2, 6, 7, 2)
    for up, down, padding in RATES:

        @jax.jit
        def judge(x, other, y, up=up, down=down, padding=padding):
            """Returns the result for x, and both sides of the adjoint's identity at x and at another image."""
            options = dict(up=up, down=down, padding=padding, gain=1.7)
            result, pull_back = jax.vjp(lambda x: resample.upfirdn2d(x, jnp.asarray(taps), **options), x)
            y = y[:, : result.shape[1], : result.shape[2]]
            (adjoint,) = pull_back(y)
            left = [jnp.sum(result * y), jnp.sum(resample.upfirdn2d(other, jnp.asarray(taps), **options) * y)]
            return result, left, [jnp.sum(x * adjoint), jnp.sum(other * adjoint)]

        result, left, right = judge(x, normal(1, *x.shape), normal(2, 2, 40, 40, 2))
        expected = upfirdn_by_loops(np.asarray(x), taps.astype(np.float64), up, down, padding, 1.7)
        np.testing.assert_allclose(result, expected, atol=1e-12)
        np.testing.assert_allclose(left, right, atol=1e-10)
        assert abs(left[0] - left[1]) > 1e-3


def test_resampling_is_linear_to_any_order():
    """The adjoint of the adjoint is the resampling itself."""
    taps = jnp.asarray(resample.make_filter((1, 2, 5, 3)))
    function = functools.partial(resample.upfirdn2d, taps=taps, up=2, padding=(2, 1, 2, 1))
    x = normal(0, 1, 4, 4, 2)
    result, pull_back = jax.vjp(function, x)
    twice = jax.vjp(lambda y: pull_back(y)[0], result)[1](x)[0]
    np.testing.assert_allclose(twice, result, atol=1e-12)


@pytest.mark.parametrize("name", FILTERS)
def test_sizes_and_brightness(name):
    """Up doubles, down halves; away from the border a constant stays what it is where the filter allows."""
    taps, x = jnp.asarray(resample.make_filter(FILTERS[name])), jnp.ones((1, 12, 12, 1))
    assert taps.ndim == (1 if len(FILTERS[name]) >= 8 else 2) and float(taps.sum()) == pytest.approx(1)
    down = resample.downsample2d(x, taps)
    assert down.shape == (1, 6, 6, 1) and down[0, 3, 3, 0] == pytest.approx(1, abs=1e-6)
    up = resample.upsample2d(x, taps)
    assert up.shape == (1, 24, 24, 1) and up[0, 10:14, 10:14].mean() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("taps", [(), ((1, 2), (2, 1)), (1, -1)])
def test_filters_refuse(taps):
    """A filter without taps, with rows, or of sum 0 is refused."""
    with pytest.raises(ValueError, match="non-empty list of taps with a non-zero sum"):
        resample.make_filter(taps)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution(demodulate, up):
    """Scaling activations equals convolving every sample with its own modulated and demodulated kernel."""
    x, weight, styles = normal(0, 3, 4, 5, 3), normal(1, 3, 3, 3, 2), normal(2, 3, 3)
    taps = jnp.asarray(resample.make_filter((1, 2, 5, 3)), jnp.float64) if up else None

    def by_kernels(x, weight, styles):
        results = []
        for sample, style in zip(x, styles, strict=True):
            kernel = weight * style[None, None, :, None]
            if demodulate:
                kernel = kernel / jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2), keepdims=True) + 1e-8)
            if not up:
                results.append(reference(sample[None], kernel, padding=(1, 1)))
                continue
            wide = reference(sample[None], jnp.flip(kernel, (0, 1)), dilation=2, padding=(2, 2))
            results.append(resample.upfirdn2d(wide, taps, padding=(1, 1, 1, 1), gain=4.0))
        return jnp.concatenate(results)

    def ours(x, weight, styles):
        return modulated_conv.modulated_conv2d(x, weight, styles, demodulate=demodulate, up_taps=taps)

    expected, theirs = jax.vjp(by_kernels, x, weight, styles)
    result, own = jax.vjp(ours, x, weight, styles)
    assert result.shape == ((3, 8, 10, 2) if up else (3, 4, 5, 2))
    np.testing.assert_allclose(result, expected, atol=1e-11)
    cotangent = normal(3, *result.shape)
    for got, wanted in zip(own(cotangent), theirs(cotangent), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-10)


def test_demodulation_gives_unit_filters():
    """Scaling all styles changes nothing where the output is demodulated."""
    x, weight, styles = normal(0, 2, 4, 4, 3), normal(1, 3, 3, 3, 2), normal(2, 2, 3)
    one, other = (modulated_conv.modulated_conv2d(x, weight, s) for s in (styles, 100 * styles))
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("n", "group", "channels"), [(4, 4, 1), (8, 4, 2), (6, 2, 1), (2, 4, 1), (3, None, 2), (1, 4, 1)]
)
def test_minibatch_stddev(n, group, channels):
    """The appended maps are numpy's mean standard deviation over the samples i, i + n/g, ... of each group."""
    x = np.asarray(normal(0, n, 3, 2, 4))
    result = np.asarray(minibatch.minibatch_stddev(jnp.asarray(x), group_size=group, channels=channels))
    assert result.shape == (n, 3, 2, 4 + channels)
    np.testing.assert_array_equal(result[..., :4], x)
    size = n if group is None else min(group, n)
    for i in range(n):
        members = x[i % (n // size) :: n // size]
        assert len(members) == size
        deviation = np.sqrt(members.var(0) + 1e-8)
        for channel in range(channels):
            share = deviation[..., channel * (4 // channels) : (channel + 1) * (4 // channels)]
            np.testing.assert_allclose(result[i, ..., 4 + channel], share.mean(), rtol=1e-12)


def test_minibatch_groups_are_independent():
    """Changing a sample changes the statistic of its own group only."""
    x = normal(0, 8, 2, 2, 2)
    one, other = (
        np.asarray(minibatch.minibatch_stddev(y, group_size=4))[:, 0, 0, 2] for y in (x, x.at[3].multiply(9.0))
    )
    assert (one != other).tolist() == [False, True] * 4


def test_minibatch_refuses():
    """A batch that does not divide into groups is refused with the advice."""
    with pytest.raises(ValueError, match="batch of 6 does not divide into groups of 4; use a multiple of 4"):
        minibatch.minibatch_stddev(jnp.ones((6, 2, 2, 2)), group_size=4)


def test_truncation():
    """psi 1 is the identity, psi 0 the mean; a cutoff leaves later layers alone."""
    ws, mean = normal(0, 2, 4, 3), normal(1, 3)
    assert mapping.truncate(ws, mean, psi=1.0) is ws
    np.testing.assert_allclose(mapping.truncate(ws, mean, psi=0.0), jnp.tile(mean, (2, 4, 1)), atol=1e-15)
    expected = 0.3 * np.asarray(ws) + 0.7 * np.asarray(mean)
    np.testing.assert_allclose(mapping.truncate(ws, mean, psi=0.3), expected, atol=1e-14)
    cut = mapping.truncate(ws, mean, psi=0.3, cutoff=1)
    np.testing.assert_allclose(cut[:, :1], expected[:, :1], atol=1e-14)
    np.testing.assert_array_equal(cut[:, 1:], ws[:, 1:])


def test_activations():
    """Each activation is its formula with its gain; bias comes before, the clamp after and scales with the gain."""
    x = np.linspace(-3, 3, 7)
    formulas = {
        "linear": x,
        "relu": np.maximum(x, 0) * np.sqrt(2),
        "lrelu": np.where(x > 0, x, 0.2 * x) * np.sqrt(2),
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "elu": np.where(x > 0, x, np.expm1(x)),
        "softplus": np.log1p(np.exp(x)),
        "swish": x / (1 + np.exp(-x)) * np.sqrt(2),
    }
    for name, expected in formulas.items():
        np.testing.assert_allclose(activation.bias_act(jnp.asarray(x), activation=name), expected, atol=1e-12)
    assert set(formulas) | {"selu"} == set(activation.ACTIVATIONS)
    value = activation.bias_act(jnp.asarray([[1.0, -9.0, 0.1]]), jnp.asarray([1.0, 0.0, 0.0]), gain=0.5, clamp=1.5)
    np.testing.assert_allclose(value, [[0.75, -0.75, 0.05]])
    with pytest.raises(ValueError, match="unknown activation 'mish'; known: linear, relu"):
        activation.bias_act(jnp.asarray(x), activation="mish")
