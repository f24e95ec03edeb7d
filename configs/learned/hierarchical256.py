# SPDX-License-Identifier: Apache-2.0
"""Hierarchical encoding (Dündar 2024) for a converted StyleGAN2 of FFHQ at 256 px, at full width.

python -m convert ffhq256.pkl checkpoints/ffhq256
python -m inpaint train --generator checkpoints/ffhq256 --output runs/hierarchical256 \
    --config configs/learned/hierarchical256.py

As published: generated images alone, the game in every step, weights 0.08, 1 and 1. With real images too: `--data FFHQ
--config.generated=4 --config.real=all`; with VGG's features: `--config.vgg=checkpoints/vgg16`. Variants: "smoke" (one
step of the small networks on a generator of 16 px) and the rows of the paper's table 2. Batch and length are guesses,
not measured; what a step takes `benchmarks/hierarchical_step.py` tells.
"""

from inpaint.learned.hierarchical.config import ABLATION
from inpaint.learned.hierarchical.training import HierarchicalTrainConfig


def get_config(variant: str = "") -> HierarchicalTrainConfig:
    """Returns the settings, those of the paper where it gives them."""
    if variant == "smoke":
        sizes = dict(widths=(8, 8, 8, 8, 8), head_width=8, code_dim=4, hidden=8, skip_widths=(8, 8, 8))
        small = dict(backbone="residual", heads="dense", noise="none")
        return HierarchicalTrainConfig(**small, **sizes, images=8, batch=8, snapshot_images=8)
    return HierarchicalTrainConfig(**ABLATION.get(variant, {}), images=2_000_000, batch=32, generated=32)
