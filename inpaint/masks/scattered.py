# SPDX-License-Identifier: Apache-2.0
"""Random rectangles, squares and pixels. Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole."""

import numpy as np
from jax import Array

from inpaint.masks import conditions

_CANDIDATES = 4096
_ROUNDS = 16


def rectangles(key: Array, size: int, *, low: float = 0.1, high: float = 0.4) -> np.ndarray:
    """Returns one random rectangle whose share of the area lies in [low, high].

    Upper and left edge are uniform in [m, 0.6 size), lower and right edge from one pixel farther to size - m, drawn
    anew until the share is in the band. The source keeps m = 10 pixels of 512; here m = round(10 size / 512), at least
    1, so that small masks have the same distribution.

    Args:
        key: of JAX.
        size: height and width in pixels.
        low, high: band of the hole share.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a band that is reversed or that none of 65,536 rectangles meets, or a size below 8.

    Source: Filipovski (regular masks), `mask_generator.py` of its code.
    """
    size = conditions.check_size(size)
    conditions.check_band(low, high)
    rng = conditions.host_generator(key)
    margin = max(1, round(10 * size / 512))
    for _ in range(_ROUNDS):
        begin = rng.integers(margin, int(np.ceil(0.6 * size)), (_CANDIDATES, 2))
        end = rng.integers(begin + 1, size - margin)
        share = (end - begin).prod(-1) / size**2
        fitting = np.flatnonzero((low <= share) & (share <= high))
        if len(fitting):
            (top, left), (bottom, right) = begin[fitting[0]], end[fitting[0]]
            hole = np.zeros((size, size), bool)
            hole[top:bottom, left:right] = True
            return conditions.to_known(hole)
    raise ValueError(
        f"none of {_ROUNDS * _CANDIDATES} random rectangles at {size} px has a hole share in [{low:g}, {high:g}]; "
        f"the largest possible one is {((size - 1 - 2 * margin) / size) ** 2:.3f}; widen the band"
    )


def squares(key: Array, size: int, *, side: float = 85 / 256) -> np.ndarray:
    """Returns one square hole at a random place, wholly inside, every place equally probable.

    Args:
        key: of JAX.
        size: height and width in pixels.
        side: of the square, in fractions of the image's, in (0, 1); rounded to whole pixels.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a side outside (0, 1), or a size below 8.

    Source: DiFaI: 85 pixels of 256.
    """
    size = conditions.check_size(size)
    if not 0 < side < 1:
        raise ValueError(f"a square's side must lie strictly between 0 and 1 (of the image's), got {side:g}")
    pixels = int(np.clip(round(side * size), 1, size - 1))
    top, left = conditions.host_generator(key).integers(0, size - pixels + 1, 2)
    hole = np.zeros((size, size), bool)
    hole[top : top + pixels, left : left + pixels] = True
    return conditions.to_known(hole)


def noise(key: Array, size: int, *, share: float = 0.8) -> np.ndarray:
    """Returns `round(share * size^2)` single hole pixels, every choice of them equally probable.

    The source decides for each pixel alone, so its share varies from mask to mask; an exact share makes masks of one
    kind equally hard at every size.

    Args:
        key: of JAX.
        size: height and width in pixels.
        share: of the pixels, in (0, 1).

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a share outside (0, 1), or a size below 8.

    Source: Filipovski (noise masks): 80 % of the pixels.
    """
    size = conditions.check_size(size)
    conditions.check_share(share)
    count = int(np.clip(round(share * size**2), 1, size**2 - 1))
    hole = np.zeros(size**2, bool)
    hole[conditions.host_generator(key).choice(size**2, count, replace=False, shuffle=False)] = True
    return conditions.to_known(hole.reshape(size, size))
