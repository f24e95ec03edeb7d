# SPDX-License-Identifier: Apache-2.0
"""What every mask generator starts from: randomness of the host, checked sizes and shares.

Holes are drawn on boolean canvases `[size, size]`, True = hole; `to_known` turns one into a mask.
"""

import operator

import jax
import numpy as np
from jax import Array

SMALLEST = 8


def host_generator(key: Array) -> np.random.Generator:
    """Returns NumPy's Philox generator for one JAX key (typed, or raw `[words]` uint32).

    Drawing shapes is work of the host; NumPy's global random state is neither used nor changed.

    Raises:
        ValueError: for anything but one key.
    """
    try:
        words = np.asarray(jax.random.key_data(key))
    except TypeError as error:
        raise ValueError(f"a mask needs a JAX key such as jax.random.key(0): {error}") from error
    if words.ndim != 1:
        raise ValueError(f"a mask needs one key, got keys {list(words.shape[:-1])}; use one after the other")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words.tolist())))


def check_size(size: int) -> int:
    """Returns `size` as an int.

    Raises:
        ValueError: unless it is a whole number of at least 8 pixels.
    """
    try:
        pixels = operator.index(size)
    except TypeError:
        pixels = 0
    if pixels < SMALLEST:
        raise ValueError(f"a mask's size must be a whole number of at least {SMALLEST} pixels, got {size!r}")
    return pixels


def check_share(share: float) -> None:
    """Raises ValueError unless a share of the area lies strictly between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"a share of the area must lie strictly between 0 and 1, got {share:g}")


def check_band(low: float, high: float) -> None:
    """Raises ValueError unless `0 <= low < high <= 1`."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"a band of hole shares needs 0 <= low < high <= 1, got {low:g} to {high:g}")


def to_known(hole: np.ndarray) -> np.ndarray:
    """Returns a boolean `hole` `[size, size]` as `known` `[size, size]` float32, 1 = keep."""
    return np.float32(1) - hole.astype(np.float32)
