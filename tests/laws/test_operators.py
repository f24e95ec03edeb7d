# SPDX-License-Identifier: Apache-2.0
"""Laws of degradation operators, driven through one table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inpaint
from inpaint.operators import Mask

SIZE = 8
HARD = np.ones((SIZE, SIZE), np.float32)
HARD[2:5, 1:7] = 0
SOFT = HARD.copy()
SOFT[5, 1:7] = 0.25
OPERATORS = {"hard mask": Mask.checked(HARD), "soft mask": Mask.checked(SOFT)}
PIXELWISE = [name for name, operator in OPERATORS.items() if operator.known is not None]
every = pytest.mark.parametrize("name", OPERATORS)
pixelwise = pytest.mark.parametrize("name", PIXELWISE)


def random_image(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)


@every
def test_weight_fits_the_measurement(name):
    """Weights broadcast to the measurement, lie in [0, 1] and are not all 0."""
    operator = OPERATORS[name]
    measurement = operator(jnp.asarray(random_image(0)))
    assert np.broadcast_shapes(operator.weight.shape, measurement.shape) == measurement.shape
    assert operator.weight.ndim == measurement.ndim
    assert 0 <= operator.weight.min() < operator.weight.max() <= 1


@every
def test_dtype_and_differentiability(name, strict_types):
    """The measurement has the image's dtype, and its gradient is finite."""
    operator = OPERATORS[name]
    assert operator(jnp.asarray(random_image(0), jnp.bfloat16)).dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: jnp.sum(operator(x) ** 2))(jnp.asarray(random_image(0)))
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0


@every
def test_operators_are_pytrees(name):
    """A stack of operators measures under vmap what each measures alone."""
    operator = OPERATORS[name]
    images = jnp.stack([random_image(0), random_image(1)])
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), operator)
    together = jax.jit(jax.vmap(lambda operator, x: operator(x)))(stacked, images)
    np.testing.assert_array_equal(together, jnp.stack([operator(x) for x in images]))


@pixelwise
def test_hole_is_never_revealed(name):
    """What the hole holds, even nothing finite, changes neither the measurement nor the problem."""
    operator, image = OPERATORS[name], random_image(0)
    hole = np.asarray(operator.known)[..., None] == 0
    assert hole.any()
    for filling in (random_image(1), np.full_like(image, np.nan)):
        np.testing.assert_array_equal(operator(jnp.asarray(np.where(hole, filling, image))), operator(image))
    one, other = (inpaint.Problem.observe(x, operator) for x in (image, np.where(hole, random_image(1), image)))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)
    assert (np.asarray(one.measurement)[hole[..., 0]] == 0).all()


@pixelwise
def test_known_pixels_are_shown_as_they_are(name):
    """Wherever something is known the measurement is the image, and measuring twice is measuring once."""
    operator, image = OPERATORS[name], random_image(0)
    shown, known = np.asarray(operator(jnp.asarray(image))), np.asarray(operator.known)
    np.testing.assert_array_equal(shown[known > 0], image[known > 0])
    np.testing.assert_array_equal(operator(jnp.asarray(shown)), shown)


@pixelwise
def test_weight_is_known(name):
    """A pixel counts as much as it is known, and a hole has no gradient."""
    operator = OPERATORS[name]
    np.testing.assert_array_equal(operator.weight[..., 0], operator.known)
    gradient = jax.grad(lambda x: jnp.sum(operator(x)))(jnp.asarray(random_image(0)))
    np.testing.assert_array_equal(gradient, np.repeat((np.asarray(operator.known) > 0)[..., None], 3, -1))


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (np.ones((4, 4, 1)), r"must be \[h, w\], got \[4, 4, 1\]"),
        (np.full((4, 4), 1.5), r"must lie in \[0, 1\].*got 1.5 to 1.5"),
        (np.full((4, 4), -0.5), r"must lie in \[0, 1\].*got -0.5"),
        (np.full((4, 4), np.nan), r"must lie in \[0, 1\].*nan"),
        (np.zeros((4, 4)), "hides every pixel.*polarity"),
        (np.ones((4, 4)), "has no hole.*polarity"),
    ],
)
def test_masks_refuse(known, text):
    """A mask that cannot be meant is refused with its range."""
    with pytest.raises(ValueError, match=text):
        Mask.checked(known)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((SIZE, SIZE, 3), np.uint8), r"must be float \[h, w, c\].*uint8 \[8, 8, 3\]"),
        (np.zeros((SIZE, SIZE), np.float32), r"must be float \[h, w, c\].*\[8, 8\]"),
        (np.full((SIZE, SIZE, 3), 255.0, np.float32), r"finite and in \[-1, 1\].*127.5"),
        (np.full((SIZE, SIZE, 3), np.nan, np.float32), r"finite and in \[-1, 1\]"),
        (np.zeros((4, SIZE, 3), np.float32), r"the mask is \[8, 8\] but the image is \[4, 8\]; resize"),
    ],
)
def test_problems_refuse(image, text):
    """An image that does not fit is refused with what came."""
    with pytest.raises(ValueError, match=text):
        inpaint.Problem.observe(image, OPERATORS["hard mask"])


def test_problems_stack():
    """A stack carries a leading axis on every array; nothing cannot be stacked."""
    problem = inpaint.Problem.observe(random_image(0), OPERATORS["hard mask"])
    stacked = inpaint.Problem.stack([problem, problem, problem])
    assert not problem.batched and stacked.batched
    assert stacked.measurement.shape == (3, SIZE, SIZE, 3) and stacked.operator.known.shape == (3, SIZE, SIZE)
    with pytest.raises(ValueError, match="no problems"):
        inpaint.Problem.stack([])
