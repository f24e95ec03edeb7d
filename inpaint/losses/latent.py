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


def displacement(ws: Array, reference: Array, direction: Array) -> Array:
    """Returns `mean_l <n, w_l - r_l>^2`, how far `ws` left `reference` (both `[num_ws, w_dim]`) along n = `direction`
    `[w_dim]`; what is orthogonal to n is free. A scalar."""
    return jnp.mean(jnp.square((ws - reference) @ direction))


def p_space(ws: Array) -> Array:
    """Returns `LeakyReLU_5(w)`, which undoes the last activation of a mapping network; any shape.

    In this space mapped latents are nearly normal (Zhu et al. 2020, "Improved StyleGAN Embedding", section 3.2).
    """
    return jnp.where(ws >= 0, ws, 5 * ws)


def style_spread(ws: Array) -> Array:
    """Returns `mean_l |w_l - w_0|_2` over l from 1 on, for `ws` `[num_ws, w_dim]`: how far W+ is left from W.

    The delta regularisation of Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation", equation 4,
    with a mean in place of its sum. Its gradient at equal latents is taken as 0.
    """
    squares = jnp.sum(jnp.square(ws[1:] - ws[:1]), axis=-1)
    apart = squares > 0
    return jnp.mean(jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1)), 0)) if len(ws) > 1 else jnp.zeros(())
