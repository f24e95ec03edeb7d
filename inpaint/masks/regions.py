# SPDX-License-Identifier: Apache-2.0
"""Fixed regions: centre, halves, and mouth and eyes of an aligned face. They take a key and ignore it.

Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole. Fractions are of the side, x to the right, y down.
"""

import numpy as np
from jax import Array

from inpaint.masks import conditions, raster

SIDES = ("upper", "lower", "left", "right")

# Mouth below the eyes, in distances between the eyes: an average face. The mean of 2,000 aligned portraits shows eyes
# and lips within about 0.01 of the side of where this puts them.
MOUTH_DROP = 1.05


def landmarks(*, drop: float = MOUTH_DROP) -> np.ndarray:
    """Returns where the alignment rule puts left eye, right eye and mouth of an upright face, in fractions of the side.

    `image_io.crop_aligned` crops a square of side `s = 1.6 max(2 |u|, 1.8 |v|)` around `e + 0.25 v`, with u from eye
    to eye, v from their middle e to the mouth. With `|u| = 1, |v| = drop`: eyes at `(0.5 -+ 0.5/s, 0.5 - 0.25 drop/s)`,
    mouth at `(0.5, 0.5 + 0.75 drop/s)`.

    Args:
        drop: |v| / |u|.

    Returns:
        `[3, 2]`, (x, y).
    """
    side = 1.6 * max(2.0, 1.8 * drop)
    eyes_y, mouth_y = 0.5 - 0.25 * drop / side, 0.5 + 0.75 * drop / side
    return np.array([[0.5 - 0.5 / side, eyes_y], [0.5 + 0.5 / side, eyes_y], [0.5, mouth_y]])


def centre(key: Array, size: int, *, share: float = 0.25) -> np.ndarray:
    """Returns a centred square hole of a given share of the area.

    Its side is the whole number nearest to `size * sqrt(share)` that can be centred exactly (as even or odd as `size`).

    Args:
        key: ignored.
        size: height and width in pixels.
        share: of the area, in (0, 1).

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a share outside (0, 1), or a size below 8.
    """
    size = conditions.check_size(size)
    conditions.check_share(share)
    margin = int(np.clip(round(size * (1 - share**0.5) / 2), 1, (size - 1) // 2))
    hole = np.zeros((size, size), bool)
    hole[margin : size - margin, margin : size - margin] = True
    return conditions.to_known(hole)


def halves(key: Array, size: int, *, side: str) -> np.ndarray:
    """Returns one half as hole; of an odd size, upper and left halves leave out the middle line.

    Args:
        key: ignored.
        size: height and width in pixels.
        side: the missing one: "upper", "lower", "left" or "right".

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for an unknown side, or a size below 8.
    """
    size = conditions.check_size(size)
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; known: {', '.join(SIDES)}")
    hole = np.zeros((size, size), bool)
    half = size // 2
    hole[slice(half) if side in ("upper", "left") else slice(half, None)] = True
    return conditions.to_known(hole if side in ("upper", "lower") else hole.T)


def mouth(key: Array, size: int) -> np.ndarray:
    """Returns an ellipse over the mouth of a face aligned as by `image_io.crop_aligned`: 14.9 % of the area.

    Around the mouth of `landmarks()` (0.5, 0.746), half axes 0.25 across and 0.19 down: lips with room for any
    expression, from the tip of the nose to the chin.

    Args:
        key: ignored.
        size: height and width in pixels.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a size below 8.
    """
    size = conditions.check_size(size)
    hole = np.zeros((size, size), bool)
    raster.draw_ellipse(hole, size * landmarks()[2], size * np.array([0.25, 0.19]))
    return conditions.to_known(hole)


def eyes(key: Array, size: int) -> np.ndarray:
    """Returns a rectangle over both eyes and brows of a face aligned as by `image_io.crop_aligned`: 12 % of the area.

    Around the middle of the eyes of `landmarks()` (0.5, 0.418), 0.3 to both sides, 0.11 up (brows) and 0.09 down.

    Args:
        key: ignored.
        size: height and width in pixels.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a size below 8.
    """
    size = conditions.check_size(size)
    hole = np.zeros((size, size), bool)
    middle = landmarks()[:2].mean(0)
    raster.draw_rectangle(hole, size * (middle - [0.3, 0.11]), size * np.array([0.6, 0.2]))
    return conditions.to_known(hole)
