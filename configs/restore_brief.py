# SPDX-License-Identifier: Apache-2.0
"""The course brief's method: plain gradient descent in W from random starts, masked squared error, no prior.

python -m inpaint restore --config configs/restore_brief.py --output out/brief

The same as `--method brief`.
"""

from inpaint.config import RestoreConfig, SearchConfig
from inpaint.named_methods import named


def get_config(variant: str = "") -> RestoreConfig:
    """Returns the settings; the variant "smoke" is a few seconds' worth."""
    config = named("brief")
    if variant == "smoke":
        config.search = SearchConfig(space="w", steps=4, mahalanobis=0.0, init="random", starts=2, keep=1)
    return config
