# SPDX-License-Identifier: Apache-2.0
"""Losses for one image: over measurements, latents, noise maps and what networks see. Each returns a scalar."""

from inpaint.losses.data import (
    expected_l2,
    floored,
    gradient_l1,
    halved,
    high_band_mismatch,
    l1,
    l2,
    laplacian_l1,
    shifted_l2,
    window_l1,
    window_weight,
)
from inpaint.losses.latent import (
    cosine_spread,
    displacement,
    geocross,
    mahalanobis,
    mean_distance,
    p_space,
    rising,
    style_spread,
)
from inpaint.losses.noise import noise_regularizer
from inpaint.losses.perceptual import (
    PRACTICES,
    adversarial,
    discriminator_distance,
    masked_pair,
    saturating_adversarial,
)
from inpaint.losses.semantic import attribute_loss, views

__all__ = [
    "PRACTICES",
    "adversarial",
    "attribute_loss",
    "cosine_spread",
    "discriminator_distance",
    "displacement",
    "expected_l2",
    "floored",
    "geocross",
    "gradient_l1",
    "halved",
    "high_band_mismatch",
    "l1",
    "l2",
    "laplacian_l1",
    "mahalanobis",
    "masked_pair",
    "mean_distance",
    "noise_regularizer",
    "p_space",
    "rising",
    "saturating_adversarial",
    "shifted_l2",
    "style_spread",
    "views",
    "window_l1",
    "window_weight",
]
