# SPDX-License-Identifier: Apache-2.0
"""Restoration by the hierarchical inpainter in the generator's folder.

python -m inpaint restore --config configs/learned/hierarchical.py --samples 8 --generator checkpoints/ffhq256 \
    --image photo.jpg --mask hole.png --output out/hierarchical

The same as `--method hierarchical`. With the variant "refined" (`--config FILE:refined`) a search goes on from each
sample for 30 steps.
"""

from inpaint.config import RestoreConfig
from inpaint.named_methods import named


def get_config(variant: str = "") -> RestoreConfig:
    """Returns the settings; the variant "refined" adds a search, "smoke" is a few seconds' worth."""
    config = named("hierarchical")
    if variant in ("refined", "smoke"):
        config.search.steps = 30 if variant == "refined" else 2
    if variant == "smoke":
        config.search.starts, config.search.keep = 2, 1
    return config
