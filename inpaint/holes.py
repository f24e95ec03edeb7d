# SPDX-License-Identifier: Apache-2.0
"""Changing masks: growing and shrinking holes, and what to write into them before pixels are averaged.

Masks are `known` `[h, w]` float32 in [0, 1], 1 = keep, 0 = hole; images `[h, w, c]`.
"""

import numpy as np
from scipy import ndimage


def grown(known: np.ndarray, radius: int) -> np.ndarray:
    """Returns `known` `[h, w]` with holes larger by `radius` pixels to all sides, or smaller where it is negative.

    The hole grows by the square of side `2 radius + 1`; grey levels grow with it.
    """
    if not radius:
        return known
    change = ndimage.minimum_filter if radius > 0 else ndimage.maximum_filter
    return change(known, size=2 * abs(radius) + 1, mode="nearest")


def share(known: np.ndarray) -> float:
    """Returns which part of the pixels of `known` `[h, w]` is hole, in [0, 1]."""
    return float(1 - known.mean(dtype=np.float64))


def filled(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns `[h, w, c]` with every hole filled smoothly from around it.

    What lay in the hole then cannot leak into known pixels when the image is resampled. Known pixels are averaged in
    blocks of 2x2, 4x4 and so on, weighted by `known`; a pixel of the hole takes the smallest block that holds a known
    one.

    Args:
        image: `[h, w, c]`; its values in the hole do not matter.
        known: `[h, w]`; a pixel counts as hole where it is 0.
    """
    if (known > 0).all():
        return image
    height, width = known.shape
    known = known[..., None]
    image = np.where(known > 0, image, np.zeros((), image.dtype))
    if not known.any() or max(height, width) == 1:
        return image
    pads = ((0, height % 2), (0, width % 2), (0, 0))

    def halved(x: np.ndarray) -> np.ndarray:
        x = np.pad(x, pads)
        return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]

    weight = halved(known)
    small = halved(known * image) / np.maximum(weight, np.finfo(weight.dtype).tiny)
    small = filled(small, np.minimum(weight[..., 0], 1))
    repeated = small.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(known > 0, image, repeated)
