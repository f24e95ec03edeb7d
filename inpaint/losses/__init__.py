# SPDX-License-Identifier: Apache-2.0
"""Terms of an objective for one image: data terms over measurements, priors over latents. Each returns a scalar."""

from inpaint.losses.data import l1, l2
from inpaint.losses.latent import displacement, mahalanobis, mean_distance, p_space, style_spread
from inpaint.losses.perceptual import PRACTICES, adversarial, discriminator_distance, masked_pair
from inpaint.losses.semantic import attribute_loss, views

__all__ = [
    "PRACTICES",
    "adversarial",
    "attribute_loss",
    "discriminator_distance",
    "displacement",
    "l1",
    "l2",
    "mahalanobis",
    "masked_pair",
    "mean_distance",
    "p_space",
    "style_spread",
    "views",
]
