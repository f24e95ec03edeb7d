# SPDX-License-Identifier: Apache-2.0
"""DiFaI's losses: values computed by hand, where their gradients flow, and the signs of the game."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint import metrics
from inpaint.learned.difai import losses
from inpaint.metrics import fidelity


def random(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


@pytest.fixture
def pair():
    """Returns images, others like them `[2, 16, 16, 3]`, and known `[2, 16, 16]`."""
    known = np.ones((2, 16, 16))
    known[0, 4:12, 4:12] = known[1, 8:] = 0
    return tuple(map(jnp.asarray, (random((2, 16, 16, 3)), random((2, 16, 16, 3), 1), known)))


def test_hole_and_valid(x64, pair):
    """Both are means over all positions, their sum the whole L1; the gradient of each is 0 outside its region."""
    a, b, known = pair
    hole, valid = (losses.masked_distance(a, b, region) for region in (1 - known, known))
    np.testing.assert_allclose(hole + valid, np.abs(np.asarray(a) - np.asarray(b)).mean(), rtol=1e-9)
    share = np.asarray(known) == 0
    np.testing.assert_allclose(hole, np.abs(np.asarray(a) - np.asarray(b))[share].sum() / a.size, rtol=1e-9)
    for region in (1 - known, known):
        gradient = np.asarray(jax.grad(losses.masked_distance)(a, b, region))
        assert (gradient[np.asarray(region) == 0] == 0).all()
        np.testing.assert_allclose(np.abs(gradient[np.asarray(region) == 1]), 1 / a.size, rtol=1e-9)


def test_ms_ssim(x64, pair):
    """One minus the metric, as many scales as fit; 0 for equal images; images that oppose have a finite gradient."""
    a, b, _ = pair
    near = a + 0.1 * (b - a)
    wanted = 1 - np.mean([metrics.ms_ssim(x, y) for x, y in zip(near, a, strict=True)])
    np.testing.assert_allclose(losses.ms_ssim_loss(near, a), wanted, rtol=1e-9)
    np.testing.assert_allclose(losses.ms_ssim_loss(a, a), 0, atol=1e-9)
    large = jnp.asarray(random((1, 64, 64, 3)))
    assert fidelity.scale_count(64, 64) == 3
    opposed = jax.value_and_grad(losses.ms_ssim_loss)(-large, large)
    assert np.isfinite(opposed[0]) and np.isfinite(opposed[1]).all()
    assert not np.isfinite(jax.grad(lambda x: metrics.ms_ssim(x, large[0]))(-large[0])).all(), "the floor is needed"
    with pytest.raises(ValueError, match="SSIM|scales"):
        losses.ms_ssim_loss(a[:, :8, :8], b[:, :8, :8])


def maps(seed):
    return {"one": jnp.asarray(random((2, 16, 16, 4), seed)), "two": jnp.asarray(random((2, 4, 4, 6), seed + 1))}


def test_feature_and_style_loss(x64, pair):
    """Sums over maps of means of masked differences; Gram matrices are those of masked features."""
    known, ours, theirs = np.asarray(pair[2]), maps(2), maps(4)
    features, style = 0.0, 0.0
    for name, step in (("one", 1), ("two", 4)):
        m = known[:, ::step, ::step, None]
        a, b = np.asarray(ours[name]) * m, np.asarray(theirs[name]) * m
        features += np.abs(a - b).mean()
        grams = [np.einsum("nhwi,nhwj->nij", x, x) / x[0].size for x in (a, b)]
        style += np.abs(grams[0] - grams[1]).mean()
    np.testing.assert_allclose(losses.feature_loss(ours, theirs, pair[2]), features, rtol=1e-9)
    np.testing.assert_allclose(losses.style_loss(ours, theirs, pair[2]), style, rtol=1e-9)
    assert losses.gram(ours["two"]).shape == (2, 6, 6)


def test_printed_weights():
    """Four values in order for five names; the one that is left out keeps its own default, or what is asked for."""
    assert losses.printed_weights() == losses.LossWeights(adversarial=0.5, ssim=0.5, style=120, hole=3, valid=0.5)
    assert losses.printed_weights(missing="adversarial") == losses.printed_weights(missing="ssim")
    found = losses.printed_weights(missing="hole", value=7.0)
    assert dataclasses.astuple(found) == (0.5, 120.0, 3.0, 7.0, 0.5, 1.0)
    assert losses.printed_weights(missing="style").ssim == 120
    with pytest.raises(ValueError, match="missing must be one of adversarial, ssim"):
        losses.printed_weights(missing="perceptual")


def test_signs_of_the_game(x64):
    """The generator gains where its outputs score higher, the discriminator where real ones do."""
    real, fake = (jnp.asarray(random((2, 3, 3), seed)) for seed in range(2))
    np.testing.assert_allclose(losses.generator_loss(fake), -fake.mean(), rtol=1e-9)
    np.testing.assert_allclose(losses.discriminator_loss(real, fake), fake.mean() - real.mean(), rtol=1e-9)
    assert (jax.grad(losses.generator_loss)(fake) < 0).all()
    of_real, of_fake = jax.grad(losses.discriminator_loss, (0, 1))(real, fake)
    assert (of_real < 0).all() and (of_fake > 0).all()


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_discriminator(x64, length):
    """D(x) = <a, x> has the gradient a everywhere, so the penalty is (|a| - 1)^2, and its own gradient is finite."""
    a = random((8, 8, 3))
    a = jnp.asarray(length * a / np.linalg.norm(a))
    real, fake = (jnp.asarray(random((2, 8, 8, 3), seed)) for seed in range(2))

    def penalty(a):
        # A map of 2 x 2 equal scores, whose mean is the score.
        score = lambda x: jnp.broadcast_to(jnp.sum(x * a[None], (1, 2, 3))[:, None, None], (len(x), 2, 2))  # noqa: E731
        return losses.gradient_penalty(jax.random.key(0), score, real, fake)

    np.testing.assert_allclose(penalty(a), (length - 1) ** 2, atol=1e-5 if length == 0 else 1e-9)
    assert np.isfinite(jax.grad(penalty)(a)).all()


def identity(images):
    return {"pixels": images}


@pytest.mark.parametrize("reconstructs", ["unperturbed", "all"])
def test_what_is_compared_with_what(x64, pair, reconstructs):
    """The unperturbed output meets the truth, hole too; the perturbed one the truth where known, its style in the hole,
    and the truth in the hole only where that is asked for."""
    truth, other, known = pair
    outputs = jnp.stack([other, jnp.asarray(random(truth.shape, 2))])
    styles = jnp.stack([jnp.asarray(random(truth.shape, 3)), jnp.asarray(random(truth.shape, 4))])

    def every(x, styles=styles, reconstructs=reconstructs):
        pixels = losses.pixel_losses(x, truth, known, reconstructs=reconstructs)
        return pixels | losses.feature_losses(x, styles, truth, known, identity)

    inside = np.broadcast_to(np.asarray(known)[..., None] == 0, truth.shape)
    moved = {
        name: np.asarray(jax.grad(lambda x, name=name: every(x)[name])(outputs)) != 0
        for name in ("hole", "valid", "perceptual")
    }
    np.testing.assert_array_equal(moved["hole"][0], inside)
    assert moved["hole"][1].any() == (reconstructs == "all")
    np.testing.assert_array_equal(moved["valid"], np.stack([~inside] * 2))
    np.testing.assert_array_equal(moved["perceptual"], np.stack([~inside, inside]))
    best = jnp.stack([truth, jnp.where(inside, styles[1], truth)])
    found = every(best, reconstructs="unperturbed")
    assert set(found) == {"hole", "valid", "ssim", "perceptual", "style"}
    np.testing.assert_allclose(list(found.values()), 0, atol=1e-9)
    alone = every(outputs[:1], styles[:1])
    np.testing.assert_allclose(alone["perceptual"], losses.masked_distance(other, truth, known), rtol=1e-9)
