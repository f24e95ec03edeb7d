# SPDX-License-Identifier: Apache-2.0
"""A start for small data: the generator first learns to decode the whitened principal components of the images.

The components of one image have zero mean and unit variance over the data, as the latents of the game that follows do,
so their decoder already turns normal latents into blurred but plausible images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def whitened_components(images: np.ndarray, count: int) -> np.ndarray:
    """Returns the first `count` principal components `[n, count]` of uint8 `images` `[n, h, w, c]`, whitened.

    Components beyond the rank of the data are zero.
    """
    flat = images.reshape(len(images), -1).astype(np.float32) / 127.5
    flat = flat - flat.mean(0)
    wide = len(images) < flat.shape[1]
    values, vectors = np.linalg.eigh(flat @ flat.T if wide else flat.T @ flat)
    order = np.argsort(values)[::-1][:count]
    kept = vectors[:, order] if wide else flat @ (vectors[:, order] / np.sqrt(np.maximum(values[order], 1e-20)))
    kept = kept * np.sqrt(len(images))
    kept[:, values[order] <= 1e-6 * values.max()] = 0
    padding = np.zeros((len(images), count - len(order)))
    return np.concatenate([kept, padding], 1).astype(np.float32)


def blurred(key: Array, components: Array, *, blur: float = 0.3) -> Array:
    """Returns `components` `[n, z_dim]` of unit variance with a share `blur` of normal noise, at unit variance again.

    A decoder trained on them decodes neighbours in latent space alike.
    """
    noise = jax.random.normal(key, components.shape, components.dtype)
    return (1 - blur**2) ** 0.5 * components + blur * noise


def pixel_distance(fake: Array, real: Array) -> Array:
    """Returns the mean absolute error of values and of differences between neighbours of images `[n, h, w, c]`."""
    error = fake - real
    rows, columns = jnp.diff(error, axis=1), jnp.diff(error, axis=2)
    return jnp.abs(error).mean() + jnp.abs(rows).mean() + jnp.abs(columns).mean()
