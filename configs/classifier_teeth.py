# SPDX-License-Identifier: Apache-2.0
"""A classifier of visible teeth, for `--attribute teeth_visible=1`, on the labels of faces64.npz.

python -m inpaint train --data faces64.npz --split train --check tune --output runs/teeth \
    --config configs/classifier_teeth.py

The variant "second" (`--config configs/classifier_teeth.py:second`) is a network of another architecture, seed and
augmentation, which no search sees: it judges whether a constraint was obeyed.
"""

from inpaint.learned.attribute_classifier import ClassifierTrainConfig


def get_config(variant: str = "") -> ClassifierTrainConfig:
    """Returns the settings; the variant "smoke" is a few steps of a tiny network."""
    if variant == "smoke":
        return ClassifierTrainConfig(resolution=8, widths=(4, 4), convolutions=1, features=4, images=32, batch=8)
    if variant == "second":
        return ClassifierTrainConfig(
            widths=(24, 32, 48, 48, 64), kernel=5, convolutions=1, features=32, blur=0.1, noise=0.5, cutout=0.5, seed=1
        )
    return ClassifierTrainConfig()
