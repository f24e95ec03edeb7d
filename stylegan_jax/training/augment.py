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


def another_view(key: Array, image: Array, *, reach: float = 0.1) -> Array:
    """Returns a face `[h, w, 3]` mirrored, shifted, zoomed and lit differently, at random, but still the same.

    Args:
        key: of the changes.
        image: values about [-1, 1].
        reach: largest shift to each side, as a share of the height; the zoom reaches a fifth farther.
    """
    flip, zoom, shift, light, contrast, colour = jax.random.split(key, 6)
    image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)
    size = image.shape[0]
    scale = jnp.exp(jax.random.uniform(zoom, (), minval=-1.2 * reach, maxval=1.2 * reach))
    # Zoom about the centre, then shift.
    move = size / 2 * (1 - scale) + jax.random.uniform(shift, (2,), minval=-reach, maxval=reach) * size
    image = jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.stack([scale, scale]), move, "linear", antialias=False
    )
    mean = image.mean()
    image = mean + (image - mean) * jnp.exp(jax.random.uniform(contrast, (), minval=-0.3, maxval=0.3))
    tint = 0.1 * jax.random.normal(colour, (3,))
    return image + 0.3 * jax.random.uniform(light, (), minval=-1.0) + tint[None, None, :]


def blurred(image: Array, passes: int) -> Array:
    """Returns `image` `[h, w, c]` after `passes` of the filter 1 2 1 in both directions."""
    for _ in range(passes):
        padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        image = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return image
