# SPDX-License-Identifier: Apache-2.0
"""Terms of an objective for one image: data terms over measurements, priors over latents. Each returns a scalar."""

from inpaint.losses.data import l1, l2
from inpaint.losses.latent import mahalanobis, mean_distance

__all__ = ["l1", "l2", "mahalanobis", "mean_distance"]
