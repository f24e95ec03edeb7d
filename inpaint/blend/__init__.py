# SPDX-License-Identifier: Apache-2.0
"""Compositing: known pixels from the input, the hole from a render. Leading axes before `[h, w, c]` are broadcast."""

from inpaint.blend.feathered import feathered
from inpaint.blend.hard import hard

__all__ = ["feathered", "hard"]
