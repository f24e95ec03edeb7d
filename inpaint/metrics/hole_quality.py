# SPDX-License-Identifier: Apache-2.0
"""Quality of a filled hole without the truth: its blur, noise and seam against a ring of known pixels around it.

Images are one `[h, w, c]` in [-1, 1], c of 1 or 3, clipped to that range (batches by `jax.vmap`); all is measured on
their luminance. Masks `[h, w]` are meant to be binary; of soft ones, pixels known to less than a half are hole.

Blur and noise are read from small windows that lie in one region entirely, so the seam does not enter, and the shape
of a region does not matter: every window of a stationary texture has the same expectation. A region with fewer than
16 such windows (or pairs of pixels, for the seam) is too small to measure, and the value is NaN: so it is for holes
of scattered pixels. Against a ring without any detail (flat colour) ratios are infinite, NaN if the hole is flat too.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from inpaint.metrics.colour import luminance

RING_WIDTH = 8  # pixels: wide enough for 5 x 5 windows, near enough to resemble what the hole should hold
MINIMUM = 16  # windows or pairs of pixels
SECOND_DIFFERENCE = (1.0, -2.0, 1.0)
BINOMIAL = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def ring(hole: Array, *, width: int = RING_WIDTH) -> Array:
    """Returns the known pixels within `width` pixels (the larger of the distances along x and y) of the hole.

    Args:
        hole: `[h, w]`, a pixel above 1/2 is hole.
        width: pixels.

    Returns:
        `[h, w]`, 1 on the ring and 0 elsewhere, of the hole's dtype.

    Raises:
        ValueError: for another shape or a width below 1.
    """
    hole = jnp.asarray(hole)
    if hole.ndim != 2 or width < 1:
        raise ValueError(f"ring needs a hole [h, w] and a width of at least 1, got {list(hole.shape)} and {width}")
    inside = hole if hole.dtype == bool else hole > 0.5
    near = _window_extreme(inside, width, lax.max, "SAME")
    return (near & ~inside).astype(hole.dtype)


def _window_extreme(region: Array, reach: int, extreme, padding: str) -> Array:
    """Returns the maximum or minimum of a bool `region` `[h, w]` in windows of `2 reach + 1` pixels, axis by axis."""
    start = -jnp.inf if extreme is lax.max else jnp.inf
    values = region.astype(jnp.float32)
    for window in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        values = lax.reduce_window(values, jnp.float32(start), extreme, window, (1, 1), padding)
    return values > 0


def _split(image: Array, known: Array, width: int) -> tuple[Array, Array, Array]:
    """Returns luminance, hole and ring, all `[h, w]`, the last two bool."""
    values = _luminance(image, known)
    hole = jnp.asarray(known) < 0.5
    return values, hole, ring(hole, width=width)


def _luminance(image: Array, region: Array) -> Array:
    values, shape = luminance(jnp.clip(jnp.asarray(image), -1, 1)), jnp.shape(region)
    if values.shape != shape or min(shape) < len(BINOMIAL):
        raise ValueError(
            f"an image of {len(BINOMIAL)} x {len(BINOMIAL)} pixels or more and its mask [h, w] are needed, "
            f"got an image of {list(values.shape)} and a mask {list(shape)}"
        )
    return values


def _filtered(values: Array, taps: Sequence[float]) -> Array:
    """Returns `[h, w]` filtered by symmetric `taps` along both axes, where all of them fit."""
    for axis in (0, 1):
        length = values.shape[axis] - len(taps) + 1
        values = sum(tap * lax.slice_in_dim(values, i, i + length, axis=axis) for i, tap in enumerate(taps))
    return values


def _mean_within(values: Array, region: Array) -> Array:
    """Returns the mean of windowed `values` over windows inside a bool `region` `[h, w]`; NaN where they are few."""
    reach = (region.shape[0] - values.shape[0]) // 2
    inside = _window_extreme(region, reach, lax.min, "VALID")
    return _ratio_of_sums(values, inside)


def _ratio_of_sums(values: Array, counted: Array) -> Array:
    count = jnp.sum(counted, dtype=values.dtype)
    mean = jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(count, 1)
    return jnp.where(count >= MINIMUM, mean, jnp.nan)


def laplacian_variance_ratio(image: Array, known: Array, *, width: int = RING_WIDTH) -> Array:
    """Returns the variance of the 4-neighbour Laplacian in the hole over that in the ring.

    Only 3 x 3 windows inside one region count.

    Args:
        image: `[h, w, c]`.
        known: `[h, w]`, 1 = known, 0 = hole.
        width: of the ring, in pixels.

    Returns:
        Scalar, 1 for a hole as sharp as its surroundings, below 1 for a blurred one; NaN where a region is too small.
    """
    values, hole, around = _split(image, known, width)
    middle = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle

    def variance(region: Array) -> Array:
        return _mean_within(jnp.square(laplacian - _mean_within(laplacian, region)), region)

    return variance(hole) / variance(around)


def high_band_ratio(image: Array, known: Array, *, width: int = RING_WIDTH) -> Array:
    """Returns the power of high spatial frequencies in the hole over that in the ring.

    The high band is the image less its 5 x 5 binomial low-pass (a Gaussian of standard deviation 1 pixel), with
    response `1 - cos^4(pi f_x) cos^4(pi f_y)`: half at a frequency of 0.18 cycles per pixel, 1 at 0.5. A hole is no
    rectangle, so there is no Fourier transform of it; the mean square over all 5 x 5 windows inside the region is the
    integral of the region's power spectrum times the squared response, whatever the shape. Reaches lower
    frequencies than the Laplacian, whose response grows as f^2.

    Args:
        image: `[h, w, c]`.
        known: `[h, w]`, 1 = known, 0 = hole.
        width: of the ring, in pixels.

    Returns:
        Scalar, 1 for a hole as detailed as its surroundings, below 1 for a blurred one; NaN where a region is too
        small.
    """
    values, hole, around = _split(image, known, width)
    power = jnp.square(values[2:-2, 2:-2] - _filtered(values, BINOMIAL))
    return _mean_within(power, hole) / _mean_within(power, around)


def noise_level(image: Array, region: Array) -> Array:
    """Returns Immerkær's estimate of the standard deviation of white noise in a region.

    `sqrt(pi/2) / (6 |O|) sum_O |I * [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]|` over the centres O of 3 x 3 windows inside
    the region (Immerkær 1996). The filter removes what is locally a plane; texture and edges that remain count as
    noise, so compare the hole's value with the ring's.

    Args:
        image: `[h, w, c]`.
        region: `[h, w]`, a pixel above 1/2 is in the region: `1 - known`, or `ring(1 - known)`.

    Returns:
        Scalar in units of the luminance in [-1, 1]; NaN where the region is too small.
    """
    response = jnp.abs(_filtered(_luminance(image, region), SECOND_DIFFERENCE))
    # The taps' squares sum to 36, and the mean of |x| of a Gaussian is sqrt(2/pi) standard deviations.
    return (jnp.pi / 2) ** 0.5 / 6 * _mean_within(response, jnp.asarray(region) > 0.5)


def seam_contrast(image: Array, known: Array, *, width: int = RING_WIDTH) -> Array:
    """Returns the mean jump across the hole's boundary over the mean difference of neighbours in the ring.

    Args:
        image: `[h, w, c]`.
        known: `[h, w]`, 1 = known, 0 = hole.
        width: of the ring, in pixels.

    Returns:
        Scalar, about 1 for a seam that cannot be seen; pairs of 4-neighbours are compared, on the boundary one in the
        hole and one known. NaN with fewer than 16 pairs on the boundary or in the ring.
    """
    values, hole, around = _split(image, known, width)
    jumps, crossing, inner = [], [], []
    for axis in (0, 1):
        pairs = [
            (lax.slice_in_dim(x, 1, None, axis=axis), lax.slice_in_dim(x, 0, -1, axis=axis))
            for x in (values, hole, around)
        ]
        jumps.append(jnp.abs(pairs[0][0] - pairs[0][1]).ravel())
        crossing.append((pairs[1][0] ^ pairs[1][1]).ravel())
        inner.append((pairs[2][0] & pairs[2][1]).ravel())
    jump = jnp.concatenate(jumps)
    return _ratio_of_sums(jump, jnp.concatenate(crossing)) / _ratio_of_sums(jump, jnp.concatenate(inner))
