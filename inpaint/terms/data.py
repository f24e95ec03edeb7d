# SPDX-License-Identifier: Apache-2.0
"""Terms that compare a render `[h, w, c]` with the measurement, or its hole with what surrounds it, value by value.

Each returns a scalar.
"""

import dataclasses

from jax import Array

from inpaint import losses
from inpaint.objective import Candidate, Context, Term, checked_weight, known_pixels
from inpaint.problem import Problem


def l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.l2` of the measurement of the render."""
    return losses.l2(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def l1(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.l1` of the measurement of the render."""
    return losses.l1(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def drawn_l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.l2` of a measurement of the render that is drawn anew at every step (`operator.surrogate`)."""
    prediction = problem.operator.surrogate(candidate.key, candidate.image)
    return losses.l2(prediction, problem.measurement, problem.operator.weight)


def expected_l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.expected_l2`: the distance to what the encoder expects in the hole."""
    return losses.expected_l2(candidate.image, problem.expected, known_pixels(problem, "expected_l2"))


def gradient(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.gradient_l1` over known pixels."""
    return losses.gradient_l1(candidate.image, problem.measurement, known_pixels(problem, "gradient"))


def laplacian(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.laplacian_l1` over known pixels."""
    return losses.laplacian_l1(candidate.image, problem.measurement, known_pixels(problem, "laplacian"))


def high_band(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.high_band_mismatch` of the hole and its surroundings."""
    return losses.high_band_mismatch(candidate.image, problem.measurement, known_pixels(problem, "high_band"))


def shifted_l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.shifted_l2`: the data term as a mean over shifts of image and hole by a pixel."""
    return losses.shifted_l2(candidate.image, problem.measurement, known_pixels(problem, "shifted_l2"))


@dataclasses.dataclass(frozen=True)
class _WindowL1:
    window: int

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        weight = losses.window_weight(known_pixels(problem, "window_l1"), window=self.window)
        return losses.window_l1(candidate.image, problem.measurement, weight)


def window_l1(window: int, weight: float = 1.0) -> Term:
    """Returns the contextual loss `sum |W (G - y)|`, W being the share of hole pixels in a window about a known pixel.

    Yeh et al. 2017 and Filipovski et al.: a sum over pixels and channels, as published, so that their weights of the
    prior fit it.

    Args:
        window: its height and width in pixels; published: 7 at 64 pixels, 28 at 256. The window of an even one reaches
            a pixel farther to the left and up.
        weight: at least 0.

    Raises:
        ValueError: for a window below 1, or a negative weight.
    """
    if window < 1:
        raise ValueError(f"the window must be at least 1 pixel, got {window}")
    return Term("window_l1", checked_weight("window_l1", weight), _WindowL1(window), masked=True)


@dataclasses.dataclass(frozen=True)
class _FlooredL2:
    floor: float

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        return losses.floored(l2(candidate, problem, context), self.floor)


def floored_l2(floor: float, weight: float = 1.0) -> Term:
    """Returns `weight * max(l2, floor)`: a fit that is good enough is not pressed on (Menon et al. 2020, "PULSE").

    Args:
        floor: in squared units of images in [-1, 1]; 4 times what it is for images in [0, 1].
        weight: at least 0.

    Raises:
        ValueError: for a negative floor or weight.
    """
    if not floor >= 0:
        raise ValueError(f"the floor must be at least 0, got {floor}")
    return Term("floored_l2", checked_weight("floored_l2", weight), _FlooredL2(floor))
