# SPDX-License-Identifier: Apache-2.0
"""Hierarchical encoding (Dündar 2024) on the 64x64 demo generator, at a size that can be shipped.

python -m inpaint train --data faces64.npz --split train --generator faces64 --output runs/hierarchical64 \
    --config configs/learned/hierarchical64.py

Smaller than the paper in everything, and unlike it in four settings, which a budget of minutes asks for: output styles
are counted from the generator's own encoder, a third of the images teach latents alone, half of a batch are real
images, and the game is played late and in every fourth step only. Variants: "smoke", and the rows of the paper's
table 2 (`FILE:divinversion`, see `inpaint.learned.hierarchical.config.ABLATION`).
"""

from inpaint.learned.hierarchical.config import ABLATION
from inpaint.learned.hierarchical.training import HierarchicalTrainConfig

MASKS = ("brush:0-1", "strokes:0.1-0.5", "strokes:0.2-0.3", "rectangles", "centre", "lower_half", "upper_half", "mouth")


def get_config(variant: str = "") -> HierarchicalTrainConfig:
    """Returns the settings; the variant "smoke" is one step on a generator of 16 px."""
    small = dict(backbone="residual", heads="dense", start="encoder", noise="none")
    if variant == "smoke":
        sizes = dict(widths=(8, 8, 8, 8, 8), head_width=8, code_dim=4, hidden=8, skip_widths=(8, 8, 8))
        return HierarchicalTrainConfig(**(small | sizes | {"start": "mean"}), images=8, batch=8, snapshot_images=8)
    return HierarchicalTrainConfig(
        **small,
        **ABLATION.get(variant, {}),
        widths=(64, 64, 40, 24, 12),
        head_width=64,
        code_dim=32,
        hidden=32,
        skip_widths=(48, 40, 40),
        second_widths=(40, 24, 12),
        images=60_000,
        warm_images=20_000,
        batch=8,
        generated=4,
        lr=0.002,
        beta1=0.5,
        discriminator_lr=0.0005,
        masks=MASKS,
        real="all",
        adversarial_interval=4,
        adversarial_from=36_000,
        r1_gamma=0.0,
        ema_images=4_000.0,
        snapshot_images=2_000,
    )
