# SPDX-License-Identifier: Apache-2.0
"""Restoration by the DiFaI network in the generator's folder, or another (--config.network).

python -m inpaint restore --config configs/learned/difai.py --config.network=runs/difai64/model --samples 8 \
    --image photo.jpg --mask hole.png --output out/difai

The same as `--method difai`. Variants, after a colon: "unperturbed" gives the one result that the paper's table 1 is
about, "along" also writes results along the first direction of SeFa (the paper's figure 4).
"""

from inpaint.config import RestoreConfig
from inpaint.named_methods import named


def get_config(variant: str = "") -> RestoreConfig:
    """Returns the settings of a variant; "smoke" is a few seconds' worth."""
    config = named("difai")
    options = {"": (), "unperturbed": ("distance=0",), "along": ("along=0", "reach=2"), "smoke": ()}
    if variant not in options:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(filter(None, options))}")
    config.search.options = options[variant]
    if variant in ("unperturbed", "smoke"):
        config.search.starts = config.search.keep = 1
    return config
