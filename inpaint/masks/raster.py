# SPDX-License-Identifier: Apache-2.0
"""Drawing on boolean canvases `[h, w]`, True = drawn.

Coordinates are pixels, (x, y) with the origin in the upper left corner, so that pixel `[i, j]` has its centre at
(j + 0.5, i + 0.5). A pixel is drawn where its centre lies in the shape. Shapes may leave the canvas.
"""

import numpy as np


def _centres(start: float, stop: float, limit: int) -> slice:
    """Returns the pixels whose centres lie in [start, stop]."""
    first = min(max(int(np.ceil(start - 0.5)), 0), limit)
    return slice(first, min(max(int(np.floor(stop - 0.5)) + 1, first), limit))


def draw_segment(canvas: np.ndarray, begin: np.ndarray, end: np.ndarray, width: float) -> None:
    """Draws the points within `width / 2` of a segment, its ends round; a disc where `begin` equals `end`.

    Args:
        canvas: `[h, w]` bool, changed in place.
        begin, end: `[2]`, (x, y) in pixels.
        width: in pixels.
    """
    (ax, ay), (bx, by), radius = np.asarray(begin, float), np.asarray(end, float), width / 2
    rows = _centres(min(ay, by) - radius, max(ay, by) + radius, canvas.shape[0])
    columns = _centres(min(ax, bx) - radius, max(ax, bx) + radius, canvas.shape[1])
    x = np.arange(columns.start, columns.stop)[None, :] + (0.5 - ax)
    y = np.arange(rows.start, rows.stop)[:, None] + (0.5 - ay)
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy
    along = np.clip((x * dx + y * dy) / length2, 0, 1) if length2 > 0 else np.zeros((1, 1))
    canvas[rows, columns] |= (x - along * dx) ** 2 + (y - along * dy) ** 2 <= radius * radius


def draw_polyline(canvas: np.ndarray, points: np.ndarray, width: float) -> None:
    """Draws segments between consecutive points, joints and ends round; one point is a disc.

    Args:
        canvas: `[h, w]` bool, changed in place.
        points: `[n, 2]`, (x, y) in pixels, n >= 1.
        width: in pixels.
    """
    begins, ends = (points[:-1], points[1:]) if len(points) > 1 else (points, points)
    for begin, end in zip(begins, ends, strict=True):
        draw_segment(canvas, begin, end, width)


def draw_rectangle(canvas: np.ndarray, corner: np.ndarray, sides: np.ndarray) -> None:
    """Fills the rectangle from `corner` `[2]`, (x, y), with `sides` `[2]` to the right and down, in pixels."""
    (x, y), (width, height) = corner, sides
    canvas[_centres(y, y + height, canvas.shape[0]), _centres(x, x + width, canvas.shape[1])] = True


def draw_ellipse(canvas: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> None:
    """Fills the ellipse around `centre` `[2]`, (x, y), with half axes `radii` `[2]` across and down, in pixels."""
    x = (np.arange(canvas.shape[1])[None, :] + 0.5 - centre[0]) / radii[0]
    y = (np.arange(canvas.shape[0])[:, None] + 0.5 - centre[1]) / radii[1]
    canvas |= x * x + y * y <= 1
