# SPDX-License-Identifier: Apache-2.0
"""Laws of compositing, driven through one table."""

import functools

import numpy as np
import pytest

import inpaint

SIZE = 32
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[4:28, 4:28] = 0
SOFT = KNOWN.copy()
SOFT[3, :], SOFT[4, :] = 0.75, 0.25
BLENDS = {
    "hard": inpaint.hard,
    "feathered": inpaint.feathered,
    "feathered wide": functools.partial(inpaint.feathered, sigma=3.0),
}
every = pytest.mark.parametrize("name", BLENDS)


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
def test_deep_in_the_hole_is_the_render(name):
    """Farther from the border than any blur reaches, the composite is the clipped render."""
    render = random_image(1) * 2
    result = np.asarray(BLENDS[name](render, random_image(0), KNOWN))
    np.testing.assert_allclose(result[14:18, 14:18], np.clip(render, -1, 1)[14:18, 14:18], atol=1e-6)


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
