# SPDX-License-Identifier: Apache-2.0
"""DiFaI (Yoon et al. 2022) for 256x256 faces at the paper's size: SPADE's widths, six losses on VGG-19, WGAN-GP.

python -m convert vgg19-dcbb9e9d.pth checkpoints/vgg19
python -m inpaint train --data celebahq/ --generator checkpoints/ffhq256 --output runs/difai256 \
    --config configs/learned/difai256.py --config.features=checkpoints/vgg19

The generator's folder needs an encoder of its latents (the paper's is pSp). Variants, after a colon: "spade" and
"no_region_norm" are the ablations of the paper's table 3; "missing_NAME" deals the four printed loss weights to the
other four names (see `inpaint.learned.difai.losses.printed_weights`); "smoke" is one step on a generator of 16 px. What
the paper leaves open is told in `DifaiTrainConfig`; nobody has trained this config to the end.
"""

import dataclasses

from inpaint.learned.difai.losses import PRINTED_NAMES, printed_weights
from inpaint.learned.difai.train import DifaiTrainConfig

ABLATIONS = {"spade": {"norm": "image", "affine": "none"}, "no_region_norm": {"norm": "image", "affine": "masked"}}


def get_config(variant: str = "") -> DifaiTrainConfig:
    """Returns the settings of a variant."""
    config = DifaiTrainConfig(bfloat16=True)
    if variant.startswith("missing_"):
        return dataclasses.replace(config, weights=printed_weights(missing=variant.removeprefix("missing_")))
    if variant == "smoke":
        small = dict(encoder_widths=(6, 6), widths=(6, 6, 4), hidden=4, coarse_seen=8, coarse_widths=(4, 4))
        small |= dict(directions=3, discriminator_widths=(4, 4), images=2, batch=2, snapshot_images=2)
        return dataclasses.replace(config, **small)
    if variant and variant not in ABLATIONS:
        names = [*ABLATIONS, *(f"missing_{name}" for name in PRINTED_NAMES), "smoke"]
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(names)}")
    return dataclasses.replace(config, **ABLATIONS.get(variant, {}))
