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


def _pairs(ws: Array) -> tuple[Array, Array]:
    return ws[:, None, :], ws[None, :, :]


def cosine_spread(ws: Array) -> Array:
    """Returns `mean_ij |1 - cos(w_i, w_j)|` over all pairs of layers of `ws` `[num_ws, w_dim]`.

    Marinescu et al. 2020, "Bayesian Image Reconstruction using Deep Generative Models"; 0 for equal latents.
    """
    unit = ws / jnp.sqrt(jnp.sum(jnp.square(ws), axis=1, keepdims=True) + jnp.finfo(ws.dtype).tiny)
    return jnp.mean(jnp.abs(1 - unit @ unit.T))


def geocross(ws: Array) -> Array:
    """Returns the mean squared angle between all pairs of layers of `ws` `[num_ws, w_dim]`, times `w_dim / 8`.

    `mean_ij (2 atan2(|w_i - w_j|, |w_i + w_j|))^2 w_dim / 8`, exact for latents of one length (Menon et al. 2020,
    "PULSE", published code); 0 for equal latents, where its gradient is taken as 0.
    """
    one, other = _pairs(ws)
    apart = jnp.sum(jnp.square(one - other), axis=-1)
    differ = apart > 0
    length = jnp.sqrt(jnp.where(differ, apart, 1))
    together = jnp.sqrt(jnp.where(differ, jnp.sum(jnp.square(one + other), axis=-1), 1))
    angle = jnp.where(differ, 2 * jnp.arctan2(length, together), 0)
    return jnp.mean(jnp.square(angle)) * (ws.shape[1] / 8)


def rising(distances: Array, *, gap: float) -> Array:
    """Returns what `distances` `[n]` lack of rising by `gap` from one to the next, the first from 0.

    `sum_k relu(gap - a_k) + relu(gap - (a_{k+1} - a_k))` over k below n - 1, and `relu(gap - a_0)` for a single one
    (SPHInX, released code). A scalar, 0 where each lies at least `gap` beyond the one before.
    """
    if len(distances) == 1:
        return jnp.maximum(gap - distances[0], 0)
    lacking = jnp.stack([distances[:-1], distances[1:] - distances[:-1]])
    return jnp.sum(jnp.maximum(gap - lacking, 0))
