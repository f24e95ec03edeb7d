# SPDX-License-Identifier: Apache-2.0
"""Irregular masks from hand-drawn strokes, with the parameters of the QuickDraw irregular masks (karfly/qd-imd).

Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole. A stroke is a polyline `[n, 2]`, (x, y) in the unit
square, origin in the upper left corner.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from inpaint.masks import conditions, raster, scattered

_TRIES = 600
_PATIENCE = 20
_POINTS = 48
_UNIONS = 200


def strokes(key: Array, size: int, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Returns smooth random strokes as hole, the share of the area in [low, high].

    Number, widths, upscaling and crop as in `hole_of_strokes`; the strokes themselves come from a random walk with
    persistent curvature and a few corners instead of 22 GB of drawings.

    Args:
        key: of JAX.
        size: height and width in pixels.
        low, high: band of the hole share; by default any share, as in the source.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a band that is reversed or cannot be met, or a size below 8.

    Source: karfly/qd-imd, as used by DiFaI and Filipovski.
    """
    return conditions.to_known(hole_of_strokes(conditions.host_generator(key), size, random_stroke, low=low, high=high))


def strokes_and_square(key: Array, size: int, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Returns strokes and a square of 85/256 of the side as one hole, the share of the area in [low, high].

    Args:
        key: of JAX.
        size: height and width in pixels.
        low, high: band of the hole share; the square alone has about 0.11.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a band that is reversed or not met in 200 tries, or a size below 8.

    Source: DiFaI, section 3.1: masks of QuickDraw "combined" with squares at random places, to train and to evaluate.
    """
    conditions.check_band(low, high)
    for attempt in range(_UNIONS):
        own = jax.random.fold_in(key, attempt)
        # Strokes for what is missing, since many of them are thin.
        drawn = strokes(own, size, low=max(0.0, low - 0.11), high=high)
        known = np.minimum(drawn, scattered.squares(jax.random.fold_in(own, 1), size))
        if low <= 1 - known.mean() <= high:
            return known
    raise ValueError(f"no hole of strokes and a square has a share in [{low:g}, {high:g}] of {size} px; widen the band")


def hole_of_strokes(
    rng: np.random.Generator,
    size: int,
    stroke: Callable[[np.random.Generator], np.ndarray],
    *,
    low: float,
    high: float,
) -> np.ndarray:
    """Returns a hole drawn with strokes: `round(N(4, 2))` (at least one), each 5 to 15 pixels wide at 512.

    Strokes and widths are enlarged together by a factor in U(1, 1.5) about the middle, and what leaves the square is
    cut off. No line is thinner than one pixel, which keeps thin lines whole at small sizes.

    The band is met stroke by stroke: one that would lead above `high` (or draws nothing) is drawn anew, and further
    strokes follow while the share is below a goal, uniform in [low, min(high, low + 0.1)] (0 where `low` is 0), so
    that shares do not crowd at `low`. After 20 misfits in a row any share in the band is accepted, with fewer strokes
    too.

    Args:
        rng: draws everything.
        size: height and width in pixels.
        stroke: gives one `[n, 2]` in the unit square.
        low, high: band of the hole share.

    Returns:
        `[size, size]` bool, True = hole.

    Raises:
        ValueError: for a band that is reversed, or not met by 600 strokes, or a size below 8.
    """
    size = conditions.check_size(size)
    conditions.check_band(low, high)
    wanted = max(1, round(rng.normal(4, 2)))
    scale = rng.uniform(1, 1.5)
    goal = rng.uniform(low, min(high, low + 0.1)) if low else 0.0
    hole, drawn, misfits, share = np.zeros((size, size), bool), 0, 0, 0.0
    for _ in range(_TRIES):
        if drawn and share >= low and (misfits >= _PATIENCE or (drawn >= wanted and share >= goal)):
            break
        candidate = hole.copy()
        points = (0.5 + (stroke(rng) - 0.5) * scale) * size
        raster.draw_polyline(candidate, points, max(1.0, rng.uniform(5, 15) * scale * size / 512))
        grown = np.count_nonzero(candidate) / size**2
        if share < grown <= high and grown < 1:
            hole, drawn, misfits, share = candidate, drawn + 1, 0, grown
        else:
            misfits += 1
    if not drawn or share < low:
        raise ValueError(
            f"{_TRIES} strokes at {size} px gave no hole share in [{low:g}, {high:g}] (the nearest is {share:.3f}); "
            "widen the band"
        )
    return hole


def random_stroke(rng: np.random.Generator) -> np.ndarray:
    """Returns one stroke like a hand's, `[48, 2]` in the unit square.

    The heading turns with a curvature that is constant but for slow noise (an Ornstein-Uhlenbeck process), so strokes
    bend, wave or loop, with now and then a corner. The curve's bounding box then gets a random size and place.
    """
    steps = _POINTS - 1
    bend = rng.normal(0, 2.5) / steps
    noise, curvature = 0.0, np.empty(steps)
    for i, shock in enumerate(rng.normal(0, 1, steps)):
        noise = 0.9 * noise + 0.06 * shock
        curvature[i] = bend + noise
    corners = rng.integers(1, steps, rng.poisson(0.6))
    np.add.at(curvature, corners, rng.uniform(-2.4, 2.4, len(corners)))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(curvature)
    walk = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], -1), 0)
    walk = np.concatenate([np.zeros((1, 2)), walk])
    walk -= walk.min(0)
    # Strokes of drawings are details or outlines: extents from an eighth of the canvas to all of it.
    walk *= rng.uniform(0.125, 1) / walk.max()
    return walk + rng.uniform(0, 1, 2) * (1 - walk.max(0))
