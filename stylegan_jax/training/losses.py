# SPDX-License-Identifier: Apache-2.0
"""Losses of GAN training over logits `[n]`, images `[n, h, w, c]` and latents `[n, num_ws, w_dim]`; all are means."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from stylegan_jax import stylegan2


def generator_logistic(fake_logits: Array) -> Array:
    """Returns `mean softplus(-D(G))`, the non-saturating loss (Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


def discriminator_logistic(real_logits: Array, fake_logits: Array) -> Array:
    """Returns `mean softplus(-D(x)) + mean softplus(D(G))`."""
    return jnp.mean(jax.nn.softplus(-real_logits)) + jnp.mean(jax.nn.softplus(fake_logits))


def r1_penalty(discriminator: Callable[[Array], Array], images: Array) -> Array:
    """Returns `mean_i |d sum(D) / d x_i|^2 / 2` (Mescheder et al. 2018, equation 9, without its weight)."""
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(images)
    return 0.5 * jnp.mean(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))


def beyond_range(images: Array) -> Array:
    """Returns the mean square by which values of `images` `[n, h, w, c]` leave [-1, 1]."""
    return jnp.mean(jnp.square(jnp.maximum(jnp.abs(images) - 1, 0)))


def _deviation(x: Array, axis: int | tuple[int, ...]) -> Array:
    # A root has no derivative at 0, and images may be flat.
    return jnp.sqrt(x.var(axis) + 1e-8)


def contrast_distance(fake: Array, real: Array) -> Array:
    """Returns the squared distance between batches `[n, h, w, c]` and `[m, h, w, c]` in four figures of each channel:
    mean and spread over images of their mean value, and of their standard deviation.

    Batch normalisation hides these from a discriminator, which judges a batch of one kind at a time.
    """

    def figures(images: Array) -> Array:
        means, spreads = images.mean((1, 2)), _deviation(images, (1, 2))
        return jnp.stack([means.mean(0), _deviation(means, 0), spreads.mean(0), _deviation(spreads, 0)])

    return jnp.sum(jnp.square(figures(fake) - figures(real)))


def path_lengths(key: Array, synthesis: Callable[[Array], Array], ws: Array) -> Array:
    """Returns `|d (G(w) . y) / dw|` per sample `[n]` for normal `y` of unit image norm (StyleGAN2, section 3.2)."""

    def projected(ws: Array) -> Array:
        images = synthesis(ws)
        noise = jax.random.normal(key, images.shape, images.dtype)
        return jnp.sum(images * noise) * (images.shape[1] * images.shape[2]) ** -0.5

    gradient = jax.grad(projected)(ws)
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=1))


def feature_distance(discriminator: stylegan2.Discriminator, fake: Array, real: Array) -> Array:
    """Returns the mean over the blocks l of D of `mean |D_l(fake) - D_l(real)| / mean |D_l(real)|`.

    The features of the game's own judge measure likeness without asking for the mean of all likely details
    (Larsen et al. 2016, "Autoencoding beyond pixels").

    Args:
        discriminator: whose weights are held fixed.
        fake, real: images `[n, h, w, c]`, one of each for every pair.
    """
    ours, theirs = discriminator.forward(fake)[1], jax.lax.stop_gradient(discriminator.forward(real)[1])
    distances = [jnp.mean(jnp.abs(ours[name] - x)) / (jnp.mean(jnp.abs(x)) + 1e-8) for name, x in theirs.items()]
    return jnp.mean(jnp.stack(distances))
