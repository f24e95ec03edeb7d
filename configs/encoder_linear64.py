# SPDX-License-Identifier: Apache-2.0
"""The linear encoder of the 64x64 demo generator, fitted on the 2,000 'train' portraits of faces64.npz.

python -m inpaint train --data faces64.npz --split train --generator faces64 --output runs/encoder64_linear \
    --initial runs/encoder64/model --config configs/encoder_linear64.py

Inversions begin with the guesses of a trained encoder (configs/encoder_faces64.py). Mirrored portraits would double
their time and bring less than 0.1 dB (docs/demo_model.md).
"""

from inpaint.learned.linear_encoder import LinearEncoderTrainConfig


def get_config(variant: str = "") -> LinearEncoderTrainConfig:
    """Returns the settings; the variant "smoke" is a fit of few components to a generator of 16 px."""
    if variant == "smoke":
        return LinearEncoderTrainConfig(components=3, seen=8, inversion_steps=2, batch=4)
    return LinearEncoderTrainConfig(x_flip=False)
