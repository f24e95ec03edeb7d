# SPDX-License-Identifier: Apache-2.0
"""Choosing among starts by what the search knows."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import inpaint
from inpaint.search import selection

KNOWN = np.ones((4, 4), np.float32)
KNOWN[:, 2:] = 0


def make_result(scores, holes, *, known_values=None):
    """Returns a result whose start s shows holes[s] in the hole and known_values[s] elsewhere."""
    scores = np.asarray(scores, np.float32)
    raw = np.zeros((*scores.shape, 4, 4, 3), np.float32)
    raw[..., 2:, :] = np.asarray(holes, np.float32)[..., None, None, None]
    if known_values is not None:
        raw[..., :2, :] = np.asarray(known_values, np.float32)[..., None, None, None]
    ws = np.arange(scores.size, dtype=np.float32).reshape(*scores.shape, 1, 1)
    problem = inpaint.Problem.observe(np.zeros((4, 4, 3), np.float32), inpaint.operators.Mask.checked(KNOWN))
    if scores.ndim == 2:
        problem = inpaint.Problem.stack([problem] * len(scores))
    nothing = np.zeros(scores.shape)
    return inpaint.Result(problem, ws, ws, raw, scores, {}, nothing, nothing > 0, nothing, None, scores.size)


def test_best_is_by_score():
    """The lowest scores come first, ties by number, infinite ones last."""
    result = make_result([0.3, np.inf, 0.1, 0.1], [0.0, 0.1, 0.2, 0.3])
    chosen = inpaint.select(result, keep=4)
    assert chosen.starts.tolist() == [2, 3, 0, 1]
    assert chosen.ws[:, 0, 0].tolist() == [2, 3, 0, 1] and chosen.scores[0] == np.float32(0.1)
    np.testing.assert_array_equal(chosen.images, result.raw[[2, 3, 0, 1]])
    assert inpaint.select(result).starts.tolist() == [2]


def test_diverse_wants_good_starts_that_differ_in_the_hole():
    """After the best come good ones that differ most from all chosen; bad ones are left out, known pixels ignored."""
    result = make_result(
        [0.10, 0.11, 0.12, 0.13, 0.50], [0.0, 0.1, 0.9, -0.5, -1.0], known_values=[0.0, 1.0, 0.0, 0.0, 1.0]
    )
    assert inpaint.select(result, keep=3, by="diverse").starts.tolist() == [0, 2, 3]
    assert inpaint.select(result, keep=4, by="diverse").starts.tolist() == [0, 2, 3, 1]
    assert sorted(inpaint.select(result, keep=5, by="diverse").starts) == [0, 1, 2, 3, 4]
    assert inpaint.select(result, keep=3).starts.tolist() == [0, 1, 2]


def test_clustered_takes_the_best_of_every_kind():
    """Holes fall into three groups, far apart; of each the lowest score is taken, and the lowest of all comes first."""
    holes = [0.0, 0.02, 0.9, 0.88, -0.6, -0.62, 0.05]
    result = make_result([0.12, 0.10, 0.14, 0.13, 0.11, 0.15, 0.13], holes, known_values=[0, 1, 0, 1, 0, 1, 0])
    assert inpaint.select(result, keep=3, by="clustered").starts.tolist() == [1, 4, 3]
    # Two of the groups are nearer to each other than the third.
    assert inpaint.select(result, keep=2, by="clustered").starts.tolist() == [1, 3]
    assert inpaint.select(result, keep=7, by="clustered").starts.tolist() == [1, 4, 0, 3, 6, 2, 5]
    # A start of its own kind but far worse takes no part.
    assert inpaint.select(make_result([0.1, 0.11, 0.5], [0, 0.1, 1.0]), keep=2, by="clustered").starts.tolist() == [
        0,
        1,
    ]


def test_central_takes_the_middle():
    """The hole nearest to all others comes first, whatever the order of good scores."""
    result = make_result([0.10, 0.11, 0.12, 0.13, 0.14, 0.90], [-0.5, 0.5, 0.1, 0.0, -0.05, 0.02])
    assert inpaint.select(result, keep=2, by="central").starts.tolist() == [3, 4]


def test_distances_of_holes():
    """Root mean squares over the hole; without one, over the image."""
    result = make_result([0.1, 0.2], [0.0, 0.5], known_values=[0.0, 1.0])
    found = selection.hole_distances(KNOWN, result.raw)
    np.testing.assert_allclose(found, [[0, 0.5], [0.5, 0]], atol=1e-7)
    for nothing in (None, np.ones((4, 4))):
        np.testing.assert_allclose(selection.hole_distances(nothing, result.raw)[0, 1], np.sqrt(0.625), rtol=1e-6)


def test_a_diverged_start_is_chosen_last():
    """A start with an infinite score and a broken render is only taken when all are."""
    result = make_result([0.1, np.inf, 0.2], [0.0, np.nan, 0.1])
    for by in ("diverse", "clustered", "central"):
        assert sorted(inpaint.select(result, keep=2, by=by).starts) == [0, 2]
        assert sorted(inpaint.select(result, keep=3, by=by).starts) == [0, 1, 2]


def test_batches_are_chosen_image_by_image():
    """Each image of a batch is judged alone."""
    result = make_result([[0.2, 0.1], [0.1, 0.2]], [[0.0, 0.1], [0.2, 0.3]])
    chosen = inpaint.select(result, keep=1)
    assert chosen.starts.tolist() == [[1], [0]] and chosen.ws[:, 0, 0, 0].tolist() == [1, 2]
    assert chosen.images.shape == (2, 1, 4, 4, 3) and chosen.images[:, 0, 0, 3, 0].tolist() == [
        np.float32(0.1),
        np.float32(0.2),
    ]


@pytest.mark.parametrize("by", selection.RULES)
def test_selection_never_sees_truth(by):
    """A rule gets problem, renders, scores and a count; what the hole of the image held is gone from the problem."""
    assert list(inspect.signature(selection.RULES[by]).parameters)[:4] == ["problem", "raw", "scores", "keep"]
    mask = inpaint.operators.Mask.checked(KNOWN)
    image = np.random.default_rng(0).uniform(-1, 1, (4, 4, 3)).astype(np.float32)
    changed = np.where(KNOWN[..., None] > 0, image, -image)
    one, other = (inpaint.Problem.observe(x, mask) for x in (image, changed))
    np.testing.assert_array_equal(one.measurement, other.measurement)
    assert set(vars(one)) == {"operator", "measurement", "expected"} and one.expected is None
    assert jnp.all(one.measurement[:, 2:] == 0)


def test_selection_refuses():
    """Unknown rules and counts out of range are named."""
    result = make_result([0.1, 0.2], [0.0, 0.1])
    with pytest.raises(ValueError, match="unknown selection 'truth'; known: best, diverse, clustered, central"):
        inpaint.select(result, by="truth")
    for keep in (0, 3):
        with pytest.raises(ValueError, match=rf"keep must be 1 to 2 .*got {keep}"):
            inpaint.select(result, keep=keep)
