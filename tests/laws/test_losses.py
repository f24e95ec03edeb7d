# SPDX-License-Identifier: Apache-2.0
"""Laws of data terms and priors, driven through tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint import losses
from inpaint.operators import Mask
from stylegan_jax.latents import WStatistics

DATA = {"l2": (losses.l2, 4.0), "l1": (losses.l1, 2.0)}  # and the value for a constant error of 2
data_terms = pytest.mark.parametrize("name", DATA)
SIZE = 6


def make_mask(seed, share):
    known = (np.random.default_rng(seed).random((SIZE, SIZE)) > share).astype(np.float32)
    known[0, 0], known[-1, -1] = 1, 0
    return Mask.checked(known)


def random_image(seed):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (SIZE, SIZE, 3)), jnp.float32)


def test_expected_pixels_of_the_hole():
    """0 where block means agree in the hole, whatever is known or varies within blocks; without a hole 0; gradients."""
    image, known = random_image(0), jnp.ones((SIZE, SIZE)).at[2:5, 1:4].set(0).at[0, 0].set(0.5)
    expected = np.asarray(image).reshape(3, 2, 3, 2, 3).mean((1, 3))
    assert losses.expected_l2(image, expected, known) == pytest.approx(0, abs=1e-12)
    touched = np.asarray(known).reshape(3, 2, 3, 2).min((1, 3)) < 1
    assert losses.expected_l2(image, np.where(touched[..., None], expected, 7), known) == pytest.approx(0, abs=1e-12)
    assert losses.expected_l2(image, expected + 2, known) == pytest.approx(4, rel=1e-5)
    assert losses.expected_l2(image, expected + 2, jnp.ones((SIZE, SIZE))) == 0
    for shown in (known, jnp.ones_like(known)):
        assert np.isfinite(jax.grad(losses.expected_l2)(image, expected, shown)).all()


@data_terms
def test_zero_at_equality_only(name, strict_types):
    """A term is 0 where prediction and measurement agree, positive elsewhere, and symmetric."""
    loss, mask = DATA[name][0], make_mask(0, 0.5)
    one, other = mask(random_image(0)), mask(random_image(1))
    assert loss(one, one, mask.weight) == 0
    assert loss(one, other, mask.weight) > 0
    assert loss(one, other, mask.weight) == loss(other, one, mask.weight)


@data_terms
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_size_of_the_hole_does_not_scale(name, share):
    """A constant error has the same value whatever the mask, hard or soft."""
    loss, expected = DATA[name]
    mask = make_mask(1, share)
    soft = Mask.checked(mask.known * 0.3)
    for operator in (mask, soft):
        measurement = operator(jnp.full((SIZE, SIZE, 3), -1.0))
        value = loss(operator(jnp.full((SIZE, SIZE, 3), 1.0)), measurement, operator.weight)
        assert value == pytest.approx(expected, rel=1e-6)


@data_terms
def test_mean_over_known_pixels(name):
    """The value is the mean over known values as numpy counts them."""
    loss, power = DATA[name][0], {"l2": 2, "l1": 1}[name]
    mask, image, target = make_mask(2, 0.4), random_image(0), random_image(1)
    expected = (np.abs(np.asarray(image - target)) ** power)[np.asarray(mask.known) == 1].mean()
    assert loss(mask(image), mask(target), mask.weight) == pytest.approx(expected, rel=1e-5)


@data_terms
def test_no_gradient_from_the_hole(name):
    """The gradient is finite, 0 in the hole and nonzero elsewhere, even where the images agree."""
    loss, mask = DATA[name][0], make_mask(3, 0.5)
    target = mask(random_image(1))
    gradient = np.asarray(jax.grad(lambda x: loss(mask(x), target, mask.weight))(random_image(0)))
    known = np.asarray(mask.known) == 1
    assert np.isfinite(gradient).all() and (gradient[~known] == 0).all() and (gradient[known] != 0).all()
    at_equality = jax.grad(lambda x: loss(x, target, mask.weight))(target)
    assert jnp.isfinite(at_equality).all()


@data_terms
def test_images_do_not_mix(name):
    """In a batch, the value and gradient of each image are its own, whatever the other's mask and error."""
    loss = DATA[name][0]
    masks = [make_mask(4, 0.2), make_mask(5, 0.8)]
    images, targets = [random_image(0), random_image(1) * 100], [random_image(2), random_image(3)]

    def value(image, mask, target):
        return loss(mask(image), mask(target), mask.weight)

    def stack(*trees):
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    batch = (stack(*images), stack(*masks), stack(*targets))
    values, gradients = jax.vmap(jax.value_and_grad(value))(*batch)
    for i in (0, 1):
        alone, gradient = jax.value_and_grad(value)(images[i], masks[i], targets[i])
        assert values[i] == pytest.approx(float(alone), rel=1e-6)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-5, atol=1e-9)


def make_statistics():
    """Returns draws of a correlated W `[n, 5]` and its statistics."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    return w, WStatistics(jnp.asarray(w.mean(0)), jnp.asarray(np.cov(w, rowvar=False)))


def test_priors_against_numpy(x64, strict_types):
    """Both priors are 0 at the mean and what numpy computes elsewhere; each layer counts alike."""
    w, statistics = make_statistics()
    whitening = statistics.whitening(floor=0)
    mean = statistics.mean
    assert losses.mean_distance(jnp.tile(mean, (3, 1)), mean) == 0
    assert losses.mahalanobis(jnp.tile(mean, (3, 1)), mean, whitening) == 0
    ws = jnp.asarray(w[:3])
    centred = w[:3] - np.asarray(mean)
    expected = (centred**2).sum(-1).mean() / 5
    assert losses.mean_distance(ws, mean) == pytest.approx(expected, rel=1e-12)
    precision = np.linalg.inv(np.asarray(statistics.covariance))
    expected = np.einsum("li,ij,lj->l", centred, precision, centred).mean() / 5
    assert losses.mahalanobis(ws, mean, whitening) == pytest.approx(expected, rel=1e-9)
    assert losses.mahalanobis(ws[::-1], mean, whitening) == pytest.approx(expected, rel=1e-9)


def test_mahalanobis_is_one_on_average(x64):
    """Over draws of W its mean is 1, and the whitened draws are uncorrelated."""
    w, statistics = make_statistics()
    whitening = statistics.whitening(floor=0)
    assert losses.mahalanobis(jnp.asarray(w), statistics.mean, whitening) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(whitening.T @ statistics.covariance @ whitening, np.eye(5), atol=1e-9)


def test_whitening_of_a_singular_covariance(x64):
    """A direction without variance is treated as having a share of the largest: large, but finite."""
    statistics = WStatistics(jnp.zeros(2), jnp.diag(jnp.asarray([4.0, 0.0])))
    value = losses.mahalanobis(jnp.asarray([[0.0, 1.0]]), statistics.mean, statistics.whitening(floor=1e-3))
    assert value == pytest.approx(1 / 0.004 / 2)
