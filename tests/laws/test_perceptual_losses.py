# SPDX-License-Identifier: Apache-2.0
"""Laws of the losses that ask a network, and of the priors beside the statistics of W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint import losses

SIZE = 8
RNG = np.random.default_rng(0)
PREDICTION, TARGET = (jnp.asarray(RNG.uniform(-1, 1, (SIZE, SIZE, 3)), jnp.float32) for _ in range(2))
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[2:6, 3:7] = 0


@pytest.mark.parametrize("practice", losses.PRACTICES)
def test_what_stands_in_the_hole_is_equal(practice):
    """In the hole both images agree, elsewhere they are themselves; what the target hides is never seen."""
    hidden = jnp.where(KNOWN[..., None] > 0, TARGET, jnp.nan)
    image, target = losses.masked_pair(PREDICTION, hidden, jnp.asarray(KNOWN), practice=practice)
    hole = KNOWN == 0
    np.testing.assert_array_equal(image[hole], target[hole])
    np.testing.assert_array_equal(image[~hole], PREDICTION[~hole])
    np.testing.assert_array_equal(target[~hole], TARGET[~hole])
    filling = np.asarray(image[hole])
    assert (filling == 0).all() == (practice == "zero")
    assert (filling == np.asarray(PREDICTION[hole])).all() == (practice == "fill")
    again = losses.masked_pair(PREDICTION, TARGET, jnp.asarray(KNOWN), practice=practice)
    np.testing.assert_array_equal(again, (image, target))


def test_unknown_practice():
    with pytest.raises(ValueError, match="unknown practice 'blank'; known: fill, zero, white, noise"):
        losses.masked_pair(PREDICTION, TARGET, jnp.asarray(KNOWN), practice="blank")


def test_adversarial_is_finite_and_falls():
    """For every logit it is finite, positive, and the smaller the more real the image seems."""
    logits = jnp.linspace(-200, 200, 41)
    found = jax.vmap(lambda logit: losses.adversarial(lambda x: logit + 0 * x.sum((1, 2, 3)), PREDICTION))(logits)
    assert np.isfinite(found).all() and (np.diff(found) <= 0).all() and (found >= 0).all()
    np.testing.assert_allclose(found[0], 200, rtol=1e-6)
    assert losses.adversarial(lambda x: 0 * x.sum((1, 2, 3)), PREDICTION) == pytest.approx(np.log(2), rel=1e-6)


def test_discriminator_distance_against_numpy():
    """It is 0 for equal images, and a mean of relative errors elsewhere."""

    def features(images):
        return {"fine": images, "coarse": 10 * images.reshape(len(images), 4, 2, 4, 2, 3).mean((2, 4))}

    assert losses.discriminator_distance(features, TARGET, TARGET) == 0
    found = losses.discriminator_distance(features, PREDICTION, TARGET)
    pairs = zip(*(features(jnp.stack([PREDICTION, TARGET])).values()), strict=False)
    one, other = (list(x) for x in pairs)
    expected = np.mean([np.abs(a - b).mean() / np.abs(b).mean() for a, b in zip(one, other, strict=True)])
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_filled_hole_earns_nothing():
    """Where a target is filled with the prediction's own pixels, brighter ones are no way to a smaller distance."""

    def distance(image):
        pair = losses.masked_pair(image, TARGET, jnp.asarray(KNOWN), practice="fill")
        return losses.discriminator_distance(lambda x: {"pixels": x}, *pair)

    gradient = jax.grad(distance)(PREDICTION)
    assert not np.asarray(gradient[KNOWN == 0]).any() and np.asarray(gradient[KNOWN == 1]).any()


def test_views_are_the_same_picture():
    """One is the image, one its mirror image moved down, one smoothed and moved to the right; a flat image stays."""
    found, image = np.asarray(losses.views(PREDICTION)), np.asarray(PREDICTION)
    assert found.shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(found[0], image)
    np.testing.assert_array_equal(found[1, 2:], image[:-2, ::-1])
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    smooth = [[np.einsum("ij,ijc->c", kernel, image[y - 1 : y + 2, x - 1 : x + 2]) for x in (2, 3)] for y in (3, 4)]
    np.testing.assert_allclose(found[2, 3:5, 4:6], smooth, atol=1e-6)
    np.testing.assert_allclose(losses.views(jnp.full((SIZE, SIZE, 3), 0.3)), 0.3, rtol=1e-6)


class Brightness:
    """A classifier of images that are brighter than grey."""

    attributes = ("bright", "red")
    resolution = SIZE

    def __call__(self, images):
        return jnp.stack([10 * images.mean((1, 2, 3)), images[..., 0].mean((1, 2))], -1)


@pytest.mark.parametrize("robust", [True, False])
def test_attribute_loss(robust):
    """Its gradient brightens for target 1 and darkens for 0, also where the image leaves the range."""

    def loss(image, target):
        return losses.attribute_loss(Brightness(), image, attribute="Bright", target=target, robust=robust)

    image = PREDICTION.at[0, 0].set(1.5)
    for target in (1.0, 0.0):
        gradient = np.asarray(jax.grad(loss)(image, target))
        assert (np.sign(gradient) == (-1 if target else 1)).all()
    expected = np.log1p(np.exp(-10 * float(jnp.clip(image, -1, 1).mean())))
    if not robust:
        assert loss(image, 1.0) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="no attribute 'brigth'; perhaps bright"):
        losses.attribute_loss(Brightness(), image, attribute="brigth", target=1.0)


def test_style_spread_against_numpy(x64):
    """It is 0 with a gradient of 0 for equal latents, and the mean distance to the first elsewhere."""
    ws = np.random.default_rng(1).normal(size=(4, 5))
    expected = np.mean([np.linalg.norm(w - ws[0]) for w in ws[1:]])
    assert losses.style_spread(jnp.asarray(ws)) == pytest.approx(expected, rel=1e-12)
    same = jnp.tile(jnp.asarray(ws[:1]), (4, 1))
    assert losses.style_spread(same) == 0 and not np.asarray(jax.grad(losses.style_spread)(same)).any()
    assert losses.style_spread(same[:1]) == 0


def test_p_space_undoes_the_activation(x64):
    """LeakyReLU with slope 5 is the inverse of that with slope 0.2."""
    x = jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(losses.p_space(jnp.where(x >= 0, x, 0.2 * x)), x, rtol=1e-15)
