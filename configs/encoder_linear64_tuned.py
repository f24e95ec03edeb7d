# SPDX-License-Identifier: Apache-2.0
"""The linear encoder of the 64x64 demo generator, trained on to make images instead of the latents of inversions.

python -m inpaint train --data faces64.npz --split train --generator faces64 --output runs/encoder64_tuned \
    --initial runs/encoder64_linear/model --config configs/encoder_linear64_tuned.py
"""

from inpaint.learned.masked_encoder import EncoderTrainConfig


def get_config(variant: str = "") -> EncoderTrainConfig:
    """Returns the settings; the variant "smoke" is one step on a generator of 16 px."""
    if variant == "smoke":
        return EncoderTrainConfig(features_weight=0.0, images=4, batch=4, generated=0, mask_pool=4)
    return EncoderTrainConfig(images=4_800, batch=32, generated=0, lr=0.0005, mask_pool=1_000, snapshot_images=1_600)
