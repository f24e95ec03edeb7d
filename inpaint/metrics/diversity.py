# SPDX-License-Identifier: Apache-2.0
"""How much the results for one problem differ from each other.

Images are `[k, h, w, c]` in [-1, 1], k results of one problem, clipped to that range; `hole` is `[h, w]` in [0, 1]. One
result alone has no diversity: every value is NaN for k = 1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint.metrics.fidelity import mean_squared_error


def mean_pairwise_distance(items: Array, distance: Callable[[Array, Array], Array]) -> Array:
    """Returns the mean of `distance(a, b)` over the k (k - 1) / 2 unordered pairs.

    With LPIPS as the distance it is the diversity score of pluralistic inpainting (Zheng, Cham and Cai 2019).

    Args:
        items: `[k, ...]`, images or latents.
        distance: of two items to a scalar, symmetric; all pairs are computed at once by `jax.vmap`.

    Returns:
        Scalar; NaN for k = 1.

    Raises:
        ValueError: without items.
    """
    items = jnp.asarray(items)
    if not items.ndim or not len(items):
        raise ValueError(f"items must be [k, ...] with k of at least 1, got {list(items.shape)}")
    if len(items) == 1:
        return jnp.full((), jnp.nan, items.dtype)
    first, second = np.triu_indices(len(items), 1)
    return jnp.mean(jax.vmap(distance)(items[first], items[second]))


def pixel_diversity(images: Array, hole: Array) -> Array:
    """Returns the mean over pairs of the root mean square difference inside the hole.

    Args:
        images: `[k, h, w, c]`.
        hole: `[h, w]`, how much each pixel counts.

    Returns:
        Scalar in [0, 2]; NaN for k = 1 or without a hole.
    """
    images = jnp.clip(jnp.asarray(images), -1, 1)
    return mean_pairwise_distance(images, lambda a, b: jnp.sqrt(mean_squared_error(a, b, hole)))


def pixel_deviation(images: Array) -> Array:
    """Returns where results differ: the standard deviation over results of every pixel, pooled over channels.

    `sqrt(mean_c sum_k (x_k - mean x)^2 / (k - 1))`; twice its square is the mean over pairs of squared differences.

    Args:
        images: `[k, h, w, c]`.

    Returns:
        `[h, w]`, not negative; NaN for k = 1.
    """
    images = jnp.clip(jnp.asarray(images), -1, 1)
    if images.shape[0] == 1:
        return jnp.full(images.shape[1:3], jnp.nan, images.dtype)
    return jnp.sqrt(jnp.mean(jnp.var(images, axis=0, ddof=1), axis=-1))
