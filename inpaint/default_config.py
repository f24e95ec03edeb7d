# SPDX-License-Identifier: Apache-2.0
"""The default config file of `python -m inpaint restore`; apart from the types, since config files are run anew."""

from inpaint.config import RestoreConfig, SearchConfig


def get_config(variant: str = "") -> RestoreConfig:
    """Returns the default settings, for the flag `--config`; the variant "smoke" is a few seconds' worth."""
    if variant == "smoke":
        return RestoreConfig(search=SearchConfig(steps=4, starts=2, keep=1, pool=4))
    return RestoreConfig()
