# SPDX-License-Identifier: Apache-2.0
"""Laws of compositing, driven through one table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inpaint
from inpaint.blend.extension import extended

SIZE = 32
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[4:28, 4:28] = 0
SOFT = KNOWN.copy()
SOFT[3, :], SOFT[4, :] = 0.75, 0.25
BLENDS = {
    "hard": inpaint.hard,
    "feathered": inpaint.feathered,
    "feathered wide": functools.partial(inpaint.feathered, sigma=3.0),
    "poisson": inpaint.poisson,
    "harmonised": inpaint.harmonised,
    "carried": functools.partial(inpaint.carried, reach=2.0),
}
every = pytest.mark.parametrize("name", BLENDS)
# Which part of a constant difference between render and image is made up for: next to the border and in the middle
# of a hole of 24 pixels, at least and at most.
OFFSETS = {
    "hard": ((0, 0), (0, 0)),
    "feathered": ((0.7, 1), (0, 1e-5)),
    "feathered wide": ((0.7, 1), (0, 1e-5)),
    "poisson": ((1, 1), (1, 1)),
    "harmonised": ((0.98, 1), (0.98, 1)),
    "carried": ((0.4, 1), (0, 1e-3)),
}


def random_image(seed, *lead):
    return np.random.default_rng(seed).uniform(-1, 1, (*lead, SIZE, SIZE, 3)).astype(np.float32)


@every
@pytest.mark.parametrize("known", [KNOWN, SOFT], ids=["hard mask", "soft mask"])
def test_known_pixels_are_bit_identical(name, known):
    """Where known is 1 the composite is the input, bit for bit; everywhere it is in range."""
    image = random_image(0)
    result = np.asarray(BLENDS[name](random_image(1) * 3, image, known))
    np.testing.assert_array_equal(result[known == 1], image[known == 1])
    assert np.abs(result).max() <= 1 and result.dtype == np.float32


@every
def test_constant_difference(name):
    """Of a render that is darker than the image by a constant, each blend makes up for its part, and none for more."""
    image = random_image(0) / 2
    result = np.asarray(BLENDS[name](image - 0.4, image, KNOWN))
    part = (result - (image - 0.4)) / 0.4
    for place, (low, high) in zip((part[4, 4:28], part[15:17, 15:17]), OFFSETS[name], strict=True):
        assert low - 1e-4 <= place.min() and place.max() <= high + 1e-4


@every
def test_gradients_are_finite(name):
    """The composite can be an objective's: derivatives by render and image are finite, and 0 by what is replaced."""
    weights = random_image(3)

    def loss(render, image):
        return jnp.sum(weights * BLENDS[name](render, image, SOFT))

    by_render, by_image = jax.jit(jax.grad(loss, (0, 1)))(random_image(1) / 2, random_image(0) / 2)
    assert np.isfinite(by_render).all() and np.isfinite(by_image).all()
    assert np.abs(by_render).max() > 0 and (np.asarray(by_image)[SOFT == 0] == 0).all()


@every
def test_agreeing_render_is_the_result(name):
    """A render that agrees on the known pixels is left as it is in the hole."""
    render = random_image(0)
    image = np.where(KNOWN[..., None] > 0, render, 0.5)
    np.testing.assert_allclose(BLENDS[name](render, image, KNOWN), render, atol=1e-6)


@every
def test_hole_of_the_input_does_not_matter(name):
    """The composite never depends on what the input held in the hole, even where that is not finite."""
    image, hole = random_image(0), KNOWN[..., None] == 0
    expected = BLENDS[name](random_image(1), image, KNOWN)
    for filling in (random_image(2), np.float32(np.nan)):
        np.testing.assert_array_equal(BLENDS[name](random_image(1), np.where(hole, filling, image), KNOWN), expected)


@every
def test_leading_axes_are_broadcast(name):
    """Many renders of one image are blended as each alone."""
    renders, image = random_image(1, 2, 3), random_image(0)
    together = np.asarray(BLENDS[name](renders, image, SOFT))
    assert together.shape == renders.shape
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(together[i, j], BLENDS[name](renders[i, j], image, SOFT), atol=1e-6)


def test_hard_mixes_by_known():
    """Between 0 and 1, known is the share of the input."""
    result = np.asarray(inpaint.hard(np.full((SIZE, SIZE, 3), -1.0), np.full((SIZE, SIZE, 3), 1.0), SOFT))
    np.testing.assert_allclose(result[..., 0], 2 * SOFT - 1, atol=1e-6)
    render = random_image(1)
    np.testing.assert_array_equal(np.asarray(inpaint.hard(render, random_image(0), KNOWN))[8, 8], render[8, 8])


def test_feathering_removes_the_step_at_the_border():
    """A constant mismatch leaves no visible step at the border, and fades monotonically into the hole."""
    render, image = np.full((SIZE, SIZE, 3), -0.5, np.float32), np.full((SIZE, SIZE, 3), 0.5, np.float32)
    row = np.asarray(inpaint.feathered(render, image, KNOWN))[16, :16, 0]
    step = np.abs(np.diff(row)).max()
    assert step < 0.5 and np.abs(np.diff(np.asarray(inpaint.hard(render, image, KNOWN))[16, :, 0])).max() == 1
    assert (np.diff(row) <= 1e-6).all() and row[0] == 0.5 and row[-1] == pytest.approx(-0.5, abs=1e-6)


def cases():
    """Returns masks of 12 x 12 pixels: at the image's border, inside it, and soft."""
    border, inside = np.ones((12, 12)), np.ones((12, 12))
    border[3:, 7:] = 0
    inside[2:9, 3:10], inside[5, 6] = 0, 1
    soft = inside * np.random.default_rng(5).uniform(0, 1, (12, 12))
    return {"border": border, "inside": inside, "soft": soft}


def dense(values, known, screening, order):
    """Returns what `extended` should: the minimum of its sum of squares, by a dense solve."""
    sides = [len(known)] * 2
    path = 2 * np.eye(sides[0]) - np.eye(sides[0], k=1) - np.eye(sides[0], k=-1)
    path[0, 0] = path[-1, -1] = 1
    rough = np.kron(path, np.eye(sides[1])) + np.kron(np.eye(sides[0]), path) + screening * np.eye(sides[0] * sides[1])
    rough = np.linalg.matrix_power(rough, order)
    flat, k = values.reshape(-1, values.shape[-1]), known.reshape(-1)
    free = k < 1
    pull = k[free] / (1 - k[free])
    solution = flat.copy()
    target = pull[:, None] * flat[free] - rough[np.ix_(free, ~free)] @ flat[~free]
    solution[free] = np.linalg.solve(rough[np.ix_(free, free)] + np.diag(pull), target)
    return solution.reshape(values.shape)


@pytest.mark.parametrize("screening, order", [(0.0, 1), (0.1, 1), (0.5, 2), (0.0, 2), (1.0, 3)])
@pytest.mark.parametrize("case", ["border", "inside", "soft"])
def test_conjugate_gradient_against_a_dense_solve(case, screening, order, x64):
    """In double precision the extension is that of a dense solve to 1e-9, at the image's border and for soft masks."""
    values, known = np.random.default_rng(0).uniform(-1, 1, (12, 12, 2)), cases()[case]
    found = extended(jnp.asarray(values), jnp.asarray(known), screening=screening, order=order)
    np.testing.assert_allclose(found, dense(values, known, screening, order), atol=1e-9)


@pytest.mark.parametrize("corner", [False, True])
def test_poisson_keeps_gradients(corner):
    """The render's colour does not matter: a constant added to it changes nothing, if it is the image it comes back,
    and in the hole the composite's Laplacian is the render's."""
    known, render, image = KNOWN.copy(), random_image(0) / 2, random_image(1)
    if corner:
        known[20:, 20:] = 0
    for constant in (0.0, 0.3, 2.0):
        np.testing.assert_allclose(inpaint.poisson(render + constant, render, known), render, atol=1e-5)
    result = np.asarray(inpaint.poisson(render / 4, image / 4, known), np.float64)
    padded = [np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge") for x in (result, render / 4)]
    curls = [x[2:, 1:-1] + x[:-2, 1:-1] + x[1:-1, 2:] + x[1:-1, :-2] - 4 * x[1:-1, 1:-1] for x in padded]
    np.testing.assert_allclose(curls[0][known == 0], curls[1][known == 0], atol=1e-4)


def test_poisson_of_a_constant_is_harmonic():
    """A constant render between a ramp's two ends becomes the ramp; nothing reaches around the image's border."""
    ramp = np.broadcast_to(np.linspace(-0.9, 0.9, SIZE, dtype=np.float32)[:, None, None], (SIZE, SIZE, 3))
    known = np.ones((SIZE, SIZE), np.float32)
    known[5:27] = 0
    np.testing.assert_allclose(inpaint.poisson(np.zeros_like(ramp), ramp, known), ramp, atol=1e-4)
    # Another colour at the right border, which would come out at the left one if neighbours wrapped around.
    known = np.zeros((SIZE, SIZE), np.float32)
    known[:, 20:] = 1
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    image[:, 28:] = -0.9
    np.testing.assert_allclose(inpaint.poisson(np.full_like(image, -0.2), image, known)[:, :28], 0.5, atol=1e-4)


@pytest.mark.parametrize("name", ["poisson", "harmonised", "carried"])
def test_nothing_known_is_the_render(name):
    """Without a known pixel there is nothing to agree with."""
    render, known = random_image(1), np.zeros((SIZE, SIZE), np.float32)
    np.testing.assert_allclose(BLENDS[name](render, random_image(0), known), render, atol=1e-6)


def test_harmonised_fits_gain_and_offset():
    """A render with less contrast and another colour comes back as the image; a band of one colour, or of one pixel,
    changes contrast and colour little."""
    image = random_image(0) / 2
    result = np.asarray(inpaint.harmonised(0.6 * image - 0.2, image, KNOWN))
    assert np.abs(result - image).max() < 0.03
    flat = np.full_like(image, 0.5)
    assert np.ptp(np.asarray(inpaint.harmonised(image, flat, KNOWN))[8:24, 8:24]) > 0
    single = np.zeros((SIZE, SIZE), np.float32)
    single[0, 0] = 1
    moved = np.asarray(inpaint.harmonised(image, np.ones_like(image), single)) - image
    assert np.abs(moved[single == 0]).max() <= (1 - image[0, 0].min()) / 5 + 1e-5


def test_carried_interpolates_thin_holes():
    """Across a scratch of two pixels a smooth residual is met to a tenth of its size; deep in a hole it is gone."""
    y, x = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    residual = (0.3 * np.sin(x / 5) * np.cos(y / 6))[..., None].repeat(3, -1).astype(np.float32)
    image = random_image(0) / 2
    known = np.ones((SIZE, SIZE), np.float32)
    known[:, 9:11] = 0
    assert np.abs(np.asarray(inpaint.carried(image - residual, image, known)) - image).max() < 0.03
    deep = np.asarray(inpaint.carried(image - residual, image, KNOWN))[15:17, 15:17]
    np.testing.assert_allclose(deep, (image - residual)[15:17, 15:17], atol=0.06)


@pytest.mark.parametrize("options", [dict(reach=0.0), dict(reach=float("inf")), dict(order=1)])
def test_carried_refuses_what_has_no_covariance(options):
    """A reach that is not above 0, and an order whose field has no variance."""
    with pytest.raises(ValueError, match="reach must be above 0 and finite and order at least 2"):
        inpaint.carried(random_image(1), random_image(0), KNOWN, **options)
