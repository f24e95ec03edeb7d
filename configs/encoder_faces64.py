# SPDX-License-Identifier: Apache-2.0
"""An encoder of the 64x64 demo generator, trained on the 2,000 'train' portraits of faces64.npz and on samples.

python -m inpaint train --data faces64.npz --split train --generator faces64 --output runs/encoder64 \
    --config configs/encoder_faces64.py
"""

from inpaint.learned.masked_encoder import EncoderTrainConfig


def get_config(variant: str = "") -> EncoderTrainConfig:
    """Returns the settings; the variant "smoke" is one step on a generator of 16 px."""
    if variant == "smoke":
        return EncoderTrainConfig(widths=(8, 8, 8), features_weight=0.0, images=4, batch=4, mask_pool=4)
    return EncoderTrainConfig(
        widths=(96, 96, 64, 32, 16), features=160, images=40_000, batch=32, generated=8, snapshot_images=4_000
    )
