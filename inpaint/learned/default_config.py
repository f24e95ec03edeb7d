# SPDX-License-Identifier: Apache-2.0
"""The default config file of `python -m inpaint train`; apart from the type, since config files are run anew."""

from inpaint.learned.masked_encoder import EncoderTrainConfig


def get_config() -> EncoderTrainConfig:
    """Returns the default settings, for the flag `--config`."""
    return EncoderTrainConfig()
