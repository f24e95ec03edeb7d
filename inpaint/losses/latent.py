# SPDX-License-Identifier: Apache-2.0
"""Priors over `ws` `[num_ws, w_dim]`, from the statistics of W; means over layers and dimensions.

For `w = mapping(z)` the expected value of `mahalanobis` is 1.
"""

import jax.numpy as jnp
from jax import Array


def mean_distance(ws: Array, mean: Array) -> Array:
    """Returns `mean_l |w_l - mean|^2 / w_dim` for `ws` `[num_ws, w_dim]` and `mean` `[w_dim]`."""
    return jnp.mean(jnp.square(ws - mean[None, :]))


def mahalanobis(ws: Array, mean: Array, whitening: Array) -> Array:
    """Returns `mean_l |A^T (w_l - mean)|^2 / w_dim`, A = `whitening` `[w_dim, w_dim]` with `A A^T` the inverse
    covariance of W (the P-norm of Zhu et al. 2020, "Improved StyleGAN Embedding", in plain W).

    `mean` is one for all layers, `[w_dim]`, or one for each, `[num_ws, w_dim]`.
    """
    return jnp.mean(jnp.square((ws - jnp.atleast_2d(mean)) @ whitening))
