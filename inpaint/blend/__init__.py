# SPDX-License-Identifier: Apache-2.0
"""Compositing: known pixels from the input, the hole from a render. Leading axes before `[h, w, c]` are broadcast."""

from inpaint.blend.carried import carried
from inpaint.blend.expected import correction, expected
from inpaint.blend.feathered import feathered
from inpaint.blend.hard import hard
from inpaint.blend.harmonised import harmonised
from inpaint.blend.poisson import poisson

__all__ = ["carried", "correction", "expected", "feathered", "hard", "harmonised", "poisson"]
