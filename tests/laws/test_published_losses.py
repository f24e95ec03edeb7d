# SPDX-License-Identifier: Apache-2.0
"""What published methods say of their losses, as facts with numbers; and the terms against blur."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, signal

from inpaint import losses


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def known(size=12, *, hole=(slice(4, 9), slice(3, 8))):
    found = np.ones((size, size))
    found[hole] = 0
    return jnp.asarray(found)


@pytest.mark.parametrize("window", [7, 6, 1, 3])
def test_window_weights(window, x64):
    """As SciPy counts them, mirrored at the borders, even windows too; all known: 0; a single missing pixel: 1 / w^2 on
    the square around it and 0 on itself."""
    mask = np.asarray(jax.random.bernoulli(jax.random.key(0), 0.6, (16, 16)), float)
    box = np.full((window, window), 1 / window**2)
    expected = signal.convolve2d(1 - mask, box, mode="same", boundary="symm") * mask
    found = losses.window_weight(jnp.asarray(mask), window=window)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert not losses.window_weight(jnp.ones((16, 16)), window=window).any()
    single = np.asarray(losses.window_weight(known(16, hole=(8, 8)), window=window))
    assert np.count_nonzero(single > 1e-12) == window**2 - 1 and single[8, 8] == 0
    np.testing.assert_allclose(single[single > 1e-12], 1 / window**2, rtol=1e-9)


def test_window_l1_is_a_sum(x64):
    """It sums over pixels and channels, as published."""
    one, other, weight = normal(0, 5, 5, 3), normal(1, 5, 5, 3), jax.random.uniform(jax.random.key(2), (5, 5))
    expected = (np.asarray(weight)[..., None] * np.abs(one - other)).sum()
    assert losses.window_l1(one, other, weight) == pytest.approx(expected, rel=1e-12)


def test_the_discriminators_word_is_finite(x64):
    """Both forms are finite, with finite gradients, for logits of +-500, and monotone; the saturating one is
    log(1 - sigmoid)."""
    logits = jnp.linspace(-500, 500, 101)
    for form, sign in ((losses.adversarial, -1), (losses.saturating_adversarial, -1)):
        value = jax.vmap(
            jax.value_and_grad(lambda x, form=form: form(lambda image: image[:, 0, 0, 0], x.reshape(1, 1, 1)))
        )
        values, gradients = value(logits)
        assert np.isfinite(values).all() and np.isfinite(gradients).all()
        assert (sign * np.diff(values) >= 0).all() and (np.diff(values[45:56]) != 0).all()
    small = losses.saturating_adversarial(lambda image: image[:, 0, 0, 0], jnp.full((1, 1, 1), 0.7))
    assert small == pytest.approx(math.log(1 - 1 / (1 + math.exp(-0.7))), rel=1e-12)


def test_noise_regularizer(x64):
    """A constant map counts 2 on every level of its pyramid; white noise next to nothing; neighbours alike, more."""
    levels = {8: 1, 16: 2, 32: 3}
    for size, count in levels.items():
        assert float(losses.noise_regularizer({"a": jnp.ones((size, size))})) == pytest.approx(2 * count, rel=1e-12)
    white = losses.noise_regularizer({"a": normal(0, 64, 64)})
    smooth = losses.noise_regularizer({"a": jnp.asarray(ndimage.uniform_filter(np.asarray(normal(0, 64, 64)), 3) * 3)})
    assert white < 0.02 < smooth
    both = losses.noise_regularizer({"a": normal(0, 16, 16), "b": normal(1, 4, 4)})
    one, other = (losses.noise_regularizer({"x": x}) for x in (normal(0, 16, 16), normal(1, 4, 4)))
    assert float(both) == pytest.approx(float(one + other), rel=1e-12)


@pytest.mark.parametrize("name", ["geocross", "cosine_spread"])
def test_spreads_of_latents(name, x64):
    """0, with a finite gradient, for equal latents; the known value for opposite ones; independent of their order."""
    loss, w = getattr(losses, name), normal(0, 512)
    equal = jnp.broadcast_to(w, (4, 512))
    value, gradient = jax.value_and_grad(loss)(equal)
    assert float(value) == pytest.approx(0, abs=1e-9) and np.isfinite(gradient).all()
    # Half of all pairs are opposite.
    opposite = loss(jnp.stack([w, -w]))
    assert float(opposite) == pytest.approx(
        {"geocross": math.pi**2 * 512 / 8 / 2, "cosine_spread": 1.0}[name], rel=1e-9
    )
    ws = normal(1, 5, 512)
    assert float(loss(ws)) == pytest.approx(float(loss(ws[::-1])), rel=1e-12)


def test_geocross_is_the_angle(x64):
    """For latents of one length it is the mean squared angle between them, times the width over 8."""
    ws = np.array(normal(0, 4, 16))
    ws /= np.linalg.norm(ws, axis=1, keepdims=True)
    angle = np.arccos(np.clip(ws @ ws.T, -1, 1))
    np.fill_diagonal(angle, 0)
    assert losses.geocross(jnp.asarray(ws)) == pytest.approx((angle**2).mean() * 2, rel=1e-9)


def test_a_floor_has_no_gradient_below(x64):
    """Above it the error counts as it is; below it the value is the floor."""
    value = jax.value_and_grad(lambda x: losses.floored(x, 0.5))
    assert [float(x) for x in value(0.7)] == [0.7, 1.0] and [float(x) for x in value(0.2)] == [0.5, 0.0]


DIFFERENCES = {"gradient_l1": [-1.0, 1.0], "laplacian_l1": [1.0, -2.0, 1.0]}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences(name, x64):
    """As NumPy counts them over known neighbours; blind to a constant and to the hole; not to blur."""
    loss, taps = getattr(losses, name), np.asarray(DIFFERENCES[name])
    one, other, mask = normal(0, 12, 12, 3), normal(1, 12, 12, 3), np.asarray(known())
    error = np.asarray(one - other)
    found = []
    for axis in (0, 1):
        difference = np.apply_along_axis(lambda x: np.convolve(x, taps[::-1], "valid"), axis, error)
        touched = np.apply_along_axis(lambda x: np.convolve(x, np.ones(len(taps)), "valid"), axis, mask)
        found.append(np.abs(difference[touched == len(taps)]).ravel())
    assert loss(one, other, jnp.asarray(mask)) == pytest.approx(np.concatenate(found).mean(), rel=1e-12)
    inside = one.at[4:9, 3:8].set(7.0) + 0.3
    assert loss(inside, one, jnp.asarray(mask)) == pytest.approx(0, abs=1e-12)
    blurred = jnp.asarray(ndimage.gaussian_filter(np.asarray(one), (1, 1, 0)))
    assert loss(blurred, one, jnp.asarray(mask)) > 0.1


def test_shifts_are_compared_where_they_are_known(x64):
    """A constant image and error have the plain value; what lies beyond the border or in the hole is not looked at."""
    one, mask = jnp.full((12, 12, 3), 0.25), known()
    target = jnp.where(mask[..., None] > 0, one, jnp.nan)
    assert losses.shifted_l2(one, target, mask) == pytest.approx(0, abs=1e-15)
    assert losses.shifted_l2(one + 0.5, target, mask) == pytest.approx(0.25, rel=1e-12)
    step = jnp.zeros((12, 12, 3)).at[6:].set(1.0)
    # Of eleven pairs of rows, one differs, in two of five shifts.
    assert losses.shifted_l2(step, step, jnp.ones((12, 12))) == pytest.approx(2 * (1 / 11) / 5, rel=1e-12)


def test_detail_in_the_hole(x64):
    """0 for a texture that goes on in the hole, large for a blurred one, 0 where nothing can be measured."""
    texture, mask = normal(0, 40, 40, 3), known(40, hole=(slice(12, 28), slice(12, 28)))
    blurred = jnp.asarray(ndimage.gaussian_filter(np.asarray(texture), (2, 2, 0)))
    value = jax.value_and_grad(losses.high_band_mismatch)
    assert value(texture, texture, mask)[0] < 0.05
    found, gradient = value(blurred, texture, mask)
    assert found > 4 and np.isfinite(gradient).all() and np.abs(gradient)[mask == 0].max() > 0
    scattered = jnp.asarray(np.indices((40, 40)).sum(0) % 2, float)
    assert value(texture, texture, scattered)[0] == 0 and not np.asarray(value(texture, texture, scattered)[1]).any()
