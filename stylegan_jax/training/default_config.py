# SPDX-License-Identifier: Apache-2.0
"""The default config file of `python -m stylegan_jax train`; apart from the type, since config files are run anew."""

from stylegan_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    """Returns the default settings, for the flag `--config`."""
    return TrainConfig()
