# SPDX-License-Identifier: Apache-2.0
"""A portrait that needs no download: Eileen Collins (NASA, public domain), from scikit-image."""

import jax
import numpy as np
import skimage.data

from inpaint import masks
from stylegan_jax import image_io

# Left-of-picture eye, right-of-picture eye, mouth: (x, y) in the 512x512 picture.
LANDMARKS = np.array([[203.9, 101.6], [247.4, 103.8], [223.9, 140.8]])


def portrait(size: int) -> np.ndarray:
    """Returns the portrait aligned as the demo models expect, `[size, size, 3]` float32 in [-1, 1], on 8-bit levels."""
    image = image_io.from_uint8(skimage.data.astronaut())
    return image_io.from_uint8(image_io.to_uint8(image_io.crop_aligned(image, LANDMARKS, size)))


def centre_hole(size: int) -> np.ndarray:
    """Returns `known` `[size, size]` with the central quarter of the area (25 %) as hole."""
    return masks.centre(jax.random.key(0), size)
