# SPDX-License-Identifier: Apache-2.0
"""Priors over the noise maps of a generator."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from inpaint.losses.data import halved


def noise_regularizer(maps: Mapping[str, Array]) -> Array:
    """Returns how far noise maps `{name: [r, r]}` are from white noise: squared correlations of neighbours.

    `sum_i sum_k mean(n (n shifted right))^2 + mean(n (n shifted down))^2`, over maps i and, for each, its pyramid k of
    means of 2x2 down to 8 pixels (Karras et al. 2020, "Analyzing and Improving the Image Quality
    of StyleGAN", appendix D).
    """
    total = jnp.zeros(())
    for noise in maps.values():
        while True:
            for axis in (0, 1):
                total = total + jnp.square(jnp.mean(noise * jnp.roll(noise, 1, axis)))
            if noise.shape[0] <= 8:
                break
            noise = halved(noise[..., None])[..., 0]
    return total
