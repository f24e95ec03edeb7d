# SPDX-License-Identifier: Apache-2.0
"""Mask generators `f(key, size, *, options) -> known`, `[size, size]` float32, exactly 1 (keep) or 0 (hole).

A mask depends on `key`, `size` and the options alone; every mask has at least one hole pixel and one known pixel.
Drawn shapes live in the unit square, so one key gives (up to its pixels) one shape at every size. `parse` makes a
generator from a text such as "strokes:0.2-0.3"; `KNOWN` says what there is.
"""

from inpaint.masks.drawings import quickdraw
from inpaint.masks.files import from_files
from inpaint.masks.freeform import BRUSH_BANDS, brushes
from inpaint.masks.irregular import strokes, strokes_and_square
from inpaint.masks.regions import centre, eyes, halves, mouth
from inpaint.masks.scattered import noise, rectangles, squares
from inpaint.masks.specs import KNOWN, Generator, parse

__all__ = [
    "BRUSH_BANDS",
    "KNOWN",
    "Generator",
    "brushes",
    "centre",
    "eyes",
    "from_files",
    "halves",
    "mouth",
    "noise",
    "parse",
    "quickdraw",
    "rectangles",
    "squares",
    "strokes",
    "strokes_and_square",
]
