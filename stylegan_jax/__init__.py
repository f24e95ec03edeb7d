# SPDX-License-Identifier: Apache-2.0
"""Style-based generators in JAX: networks, latent spaces, checkpoints, training."""

from stylegan_jax.checkpoint import CheckpointError, Model, info, load, save
from stylegan_jax.latents import SPACES, Host, Space, WStatistics, estimate_w_statistics, lift
from stylegan_jax.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    channel_widths,
)

__all__ = [
    "SPACES",
    "CheckpointError",
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "Host",
    "Model",
    "Space",
    "WStatistics",
    "channel_widths",
    "estimate_w_statistics",
    "info",
    "lift",
    "load",
    "save",
]
