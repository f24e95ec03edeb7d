# SPDX-License-Identifier: Apache-2.0
"""Luminance of images `[h, w, c]`, in the range of the image."""

import jax.numpy as jnp
import numpy as np
from jax import Array

# As scikit-image's rgb2gray, which takes RGB values as they are; they sum to 1.
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])


def luminance(image: Array) -> Array:
    """Returns `0.2125 R + 0.7154 G + 0.0721 B` of an image.

    Args:
        image: `[h, w, 3]`, or `[h, w, 1]`, which is its own luminance. Any range.

    Returns:
        `[h, w]` in the image's range and dtype.

    Raises:
        ValueError: for other shapes, or integers.
    """
    image = jnp.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"luminance needs floats [h, w, 1 or 3], got {image.dtype} {list(image.shape)}; use vmap for a batch"
        )
    if image.shape[-1] == 1:
        return image[..., 0]
    # No matrix product: on accelerators those round float32 inputs to fewer bits.
    return jnp.sum(image * jnp.asarray(LUMINANCE, image.dtype)[None, None], axis=-1)
