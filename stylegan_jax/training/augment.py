# SPDX-License-Identifier: Apache-2.0
"""Differentiable augmentation of what the discriminator sees (Karras et al. 2020, "Training GANs with Limited Data").

Each augmentation is applied to each image with probability p: translation by up to an eighth (zeros enter), brightness,
contrast, saturation, and a hole of half the size (the set of Zhao et al. 2020, "Differentiable Augmentation").
"""

import jax
import jax.numpy as jnp
from jax import Array


def _translate(key: Array, image: Array) -> Array:
    height, width, _ = image.shape
    reach = (max(height // 8, 1), max(width // 8, 1))
    shift = jax.random.randint(key, (2,), jnp.zeros(2, jnp.int32), jnp.asarray([2 * r + 1 for r in reach]))
    padded = jnp.pad(image, ((reach[0], reach[0]), (reach[1], reach[1]), (0, 0)))
    return jax.lax.dynamic_slice(padded, (shift[0], shift[1], 0), image.shape)


def _brightness(key: Array, image: Array) -> Array:
    return image + jax.random.uniform(key, (), image.dtype, -0.5, 0.5)


def _contrast(key: Array, image: Array) -> Array:
    mean = image.mean()
    return mean + (image - mean) * jax.random.uniform(key, (), image.dtype, 0.5, 1.5)


def _saturation(key: Array, image: Array) -> Array:
    grey = image.mean(-1, keepdims=True)
    return grey + (image - grey) * jax.random.uniform(key, (), image.dtype, 0.0, 2.0)


def _cutout(key: Array, image: Array) -> Array:
    height, width, _ = image.shape
    centre = jax.random.uniform(key, (2,))
    rows = jnp.abs((jnp.arange(height) + 0.5) / height - centre[0]) < 0.25
    columns = jnp.abs((jnp.arange(width) + 0.5) / width - centre[1]) < 0.25
    return jnp.where((rows[:, None] & columns[None, :])[..., None], 0, image)


AUGMENTATIONS = (_translate, _brightness, _contrast, _saturation, _cutout)


def augment(key: Array, images: Array, p: Array) -> Array:
    """Returns `images` `[n, h, w, c]` with each augmentation applied to each image with probability `p` (a scalar)."""

    def one(key: Array, image: Array) -> Array:
        for i, function in enumerate(AUGMENTATIONS):
            choose, act = jax.random.split(jax.random.fold_in(key, i))
            image = jnp.where(jax.random.uniform(choose) < p, function(act, image), image)
        return image

    return jax.vmap(one)(jax.random.split(key, images.shape[0]), images)
