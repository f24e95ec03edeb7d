# SPDX-License-Identifier: Apache-2.0
"""Two changes of size of `[n, h, w, c]` images that are no filtering: means over windows, and lines between corners."""

import jax.numpy as jnp
import numpy as np
from jax import Array


def _averages(size: int, outputs: int) -> np.ndarray:
    """Returns the matrix `[outputs, size]` of means over windows of whole pixels that may overlap."""
    matrix = np.zeros((outputs, size))
    for i in range(outputs):
        first, end = i * size // outputs, -(-(i + 1) * size // outputs)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


def _lines(size: int, outputs: int) -> np.ndarray:
    """Returns the matrix `[outputs, size]` of values on the lines between pixels; the first and the last are kept."""
    places = np.arange(outputs) * ((size - 1) / max(outputs - 1, 1))
    return np.maximum(1 - np.abs(places[:, None] - np.arange(size)[None]), 0)


def _applied(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    rows, columns = (jnp.asarray(matrix, x.dtype) for matrix in (rows, columns))
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, columns, precision="highest")


def adaptive_average_pool(x: Array, size: tuple[int, int]) -> Array:
    """Returns `x` `[n, h, w, c]` averaged to `[n, *size, c]`.

    Output row i is the mean of the rows from `floor(i h / size)` up to `ceil((i + 1) h / size)`, columns alike:
    PyTorch's AdaptiveAvgPool2d, no resampling in the usual sense.
    """
    return _applied(x, _averages(x.shape[1], size[0]), _averages(x.shape[2], size[1]))


def resize_corners(x: Array, size: tuple[int, int]) -> Array:
    """Returns `x` `[n, h, w, c]` interpolated linearly to `[n, *size, c]`, corners upon corners.

    Output row i lies at row `i (h - 1) / (size - 1)`: PyTorch's bilinear interpolation with `align_corners`.
    """
    return _applied(x, _lines(x.shape[1], size[0]), _lines(x.shape[2], size[1]))
