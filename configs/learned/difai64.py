# SPDX-License-Identifier: Apache-2.0
"""DiFaI (Yoon et al. 2022) on the 64x64 demo generator, at a size that can be shipped.

python -m inpaint train --data faces64.npz --split train --generator faces64 --output runs/difai64 \
    --config configs/learned/difai64.py

Variants, after a colon: "spade" and "no_region_norm" are the ablations of the paper's table 3, "smoke" is one step on a
generator of 16 px. Smaller than the paper in everything; the latents come from the generator's own encoder.
"""

import dataclasses

from inpaint.learned.difai.losses import LossWeights
from inpaint.learned.difai.train import DifaiTrainConfig

# The two ablations differ only in learned vectors: SPADE's norm has none, the norm that region normalisation replaced
# would have; the paper's figures of both are as near (SSIM 0.816 and 0.817).
VARIANTS = {
    "": {},
    "spade": {"norm": "image", "affine": "none"},
    "no_region_norm": {"norm": "image", "affine": "masked"},
}


def get_config(variant: str = "") -> DifaiTrainConfig:
    """Returns the settings of a variant."""
    if variant == "smoke":
        return DifaiTrainConfig(
            encoder_widths=(6, 6),
            widths=(6, 6, 4),
            hidden=4,
            coarse_seen=8,
            coarse_widths=(4, 4),
            directions=3,
            discriminator_widths=(4, 4),
            images=2,
            batch=2,
            snapshot_images=2,
        )
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(filter(None, VARIANTS))} and smoke")
    config = DifaiTrainConfig(
        encoder_widths=(16, 32, 48, 48),
        widths=(48, 48, 32, 16, 16),
        hidden=8,
        coarse_seen=16,
        coarse_widths=(24, 32, 48),
        directions=8,
        distance=0.6,
        noise="none",
        discriminator_widths=(16, 32, 64, 64),
        # A budget of minutes: what is known weighs more, so that it is learned first.
        weights=LossWeights(adversarial=0.1, ssim=0.5, style=20.0, hole=3.0, valid=4.0, perceptual=0.3),
        taps=("b64", "b32"),
        features_interval=4,
        images=10_000,
        batch=4,
        lr=2e-3,
        discriminator_lr=1e-3,
        beta1=0.5,
        beta2=0.99,
        coarse_lr=2e-3,
        ema_images=1_600.0,
        masks=("strokes_and_square", "strokes_and_square", "strokes:0.2-0.5", "brush:0.2-0.6", "rectangles:0.1-0.4"),
        half=True,
        snapshot_images=1_000,
    )
    return dataclasses.replace(config, **VARIANTS[variant])
