# SPDX-License-Identifier: Apache-2.0
"""Editing images in W and W+: directions from the weights or from a classifier, moving along them, mixing styles; and
what lies between results of searches in any space.

A direction is a unit vector `[w_dim]`, latents are `[..., num_ws, w_dim]`, layers are a range `(first, last)` of their
second last axis, both included.
"""

from inpaint.edit.blended import interpolate, redraw, walk
from inpaint.edit.boundaries import (
    Boundary,
    fit_attribute,
    fit_direction,
    orthogonalise,
    read_direction,
    write_direction,
)
from inpaint.edit.factorisation import sefa, style_matrix
from inpaint.edit.moves import mix, move, spread

__all__ = [
    "Boundary",
    "fit_attribute",
    "fit_direction",
    "interpolate",
    "mix",
    "move",
    "orthogonalise",
    "read_direction",
    "redraw",
    "sefa",
    "spread",
    "style_matrix",
    "walk",
    "write_direction",
]
