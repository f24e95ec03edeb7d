# SPDX-License-Identifier: Apache-2.0
"""Free-form masks of rectangles and brush strokes, as CoModGAN and the hierarchical encoder are trained with.

Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole. Shapes live in the unit square, (x, y) from the upper
left corner.
"""

import dataclasses
import types

import numpy as np
from jax import Array

from inpaint.masks import conditions, raster

# Easy, hard and all of the hierarchical encoder; h0 to h4 are CoModGAN's evaluation bands.
BRUSH_BANDS = types.MappingProxyType(
    {
        "easy": (0.0, 0.4),
        "hard": (0.4, 1.0),
        "all": (0.0, 1.0),
        "h0": (0.0, 0.2),
        "h1": (0.2, 0.4),
        "h2": (0.4, 0.6),
        "h3": (0.6, 0.8),
        "h4": (0.8, 1.0),
    }
)

_TRIES = 500
_PREVIEW = 128
_WIDTHS = (12.0, 48.0)
_STEP = 2**0.5 / 8


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """Rectangles `[n, 2, 2]` (corner, sides) and polylines `[k, 2]` with their widths, in the unit square."""

    rectangles: np.ndarray
    polylines: list[tuple[np.ndarray, float]]
    flips: np.ndarray

    def hole(self, size: int) -> np.ndarray:
        """Returns them drawn, `[size, size]` bool."""
        hole = np.zeros((size, size), bool)
        for corner, sides in self.rectangles * size:
            raster.draw_rectangle(hole, corner, sides)
        for points, width in self.polylines:
            raster.draw_polyline(hole, points * size, width * size)
        return hole[:: 1 - 2 * int(self.flips[0]), :: 1 - 2 * int(self.flips[1])]


def brushes(key: Array, size: int, *, low: float = 0.0, high: float = 1.0, scaled_widths: bool = True) -> np.ndarray:
    """Returns random rectangles and angular brush strokes as hole, `low < share of the area < high`.

    With `c = min(low + high, 1)`: fewer than 10c rectangles with sides below 1/2, fewer than 5c with sides below 1,
    centred anywhere in the image, and fewer than 20c brush strokes of 4 to 17 turns; drawn anew until the share is in
    the band. A stroke turns about 72 degrees to alternating sides, steps N(r, r/2) clipped to [0, 2r],
    `r = sqrt(2)/8` of the side, is 12 to 48 pixels wide at 512, and stays inside. All is flipped at random.

    Deviations: places are continuous; widths grow with the size (the source: pixels at any size); for narrow bands
    near 0 the counts have a floor, where the source never draws anything.

    Args:
        key: of JAX.
        size: height and width in pixels.
        low, high: band of the hole share, both excluded; `BRUSH_BANDS` has the published ones.
        scaled_widths: False keeps widths of 12 to 48 pixels at every size, as in the source.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for a band that is reversed or that none of 500 masks meets, or a size below 8.

    Source: Zhao et al., "Large Scale Image Completion via Co-Modulated GANs" (2021), its mask generator.
    """
    size = conditions.check_size(size)
    conditions.check_band(low, high)
    rng = conditions.host_generator(key)
    unit = 512 if scaled_widths else size
    for _ in range(_TRIES):
        shapes = _shapes(rng, min(low + high, 1.0), unit)
        # Most masks miss a narrow band; a small drawing tells that at once.
        if size > _PREVIEW and not low < np.count_nonzero(shapes.hole(_PREVIEW)) / _PREVIEW**2 < high:
            continue
        hole = shapes.hole(size)
        if low < np.count_nonzero(hole) / size**2 < high:
            return conditions.to_known(hole)
    raise ValueError(
        f"none of {_TRIES} brush masks at {size} px has a hole share between {low:g} and {high:g}; widen the band"
    )


def _shapes(rng: np.random.Generator, amount: float, unit: int) -> _Shapes:
    half = _rectangles(rng, rng.integers(max(int(10 * amount), 2)), 0.5)
    full = _rectangles(rng, rng.integers(max(int(5 * amount), 1)), 1.0)
    polylines = [_brush(rng, unit) for _ in range(rng.integers(max(int(20 * amount), 2)))]
    return _Shapes(np.concatenate([half, full]), polylines, rng.integers(0, 2, 2))


def _rectangles(rng: np.random.Generator, count: int, longest: float) -> np.ndarray:
    """Returns `[count, 2, 2]`: corners and sides; the centre lies anywhere in the image."""
    sides = rng.uniform(0, longest, (count, 2))
    return np.stack([rng.uniform(0, 1, (count, 2)) - sides / 2, sides], 1)


def _brush(rng: np.random.Generator, unit: int) -> tuple[np.ndarray, float]:
    """Returns one brush stroke `[n, 2]` and its width, in the unit square."""
    turns = rng.integers(4, 18)
    spread = rng.uniform(0, 2 * np.pi / 15, 2)
    angles = rng.uniform(2 * np.pi / 5 - spread[0], 2 * np.pi / 5 + spread[1], turns)
    angles[::2] = 2 * np.pi - angles[::2]
    lengths = np.clip(rng.normal(_STEP, _STEP / 2, turns), 0, 2 * _STEP)
    points = [rng.uniform(0, 1, 2)]
    for angle, length in zip(angles, lengths, strict=True):
        points.append(np.clip(points[-1] + length * np.array([np.cos(angle), np.sin(angle)]), 0, 1))
    return np.array(points), rng.uniform(*_WIDTHS) / unit
