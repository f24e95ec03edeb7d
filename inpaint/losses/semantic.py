# SPDX-License-Identifier: Apache-2.0
"""What a classifier says of an image `[h, w, 3]` in [-1, 1], as a term of an objective."""

import jax
import jax.numpy as jnp
from jax import Array

from stylegan_jax import classifiers

SHIFT = 2  # pixels, of the moved views


def views(image: Array) -> Array:
    """Returns an image `[h, w, c]` as it is, mirrored and moved down, and smoothed and moved to the right,
    `[3, h, w, c]`.

    A face keeps its attributes in all of them; a pattern that only fools a classifier seldom does.
    """
    height, width, _ = image.shape
    border = SHIFT + 1  # one pixel more for the smoothing
    padded = jnp.pad(image, ((border, border), (border, border), (0, 0)), mode="edge")
    mirrored = padded[1 : 1 + height, border : border + width][:, ::-1]
    moved = padded[SHIFT : SHIFT + height + 2, : width + 2]
    rows = (moved[:-2] + 2 * moved[1:-1] + moved[2:]) / 4
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return jnp.stack([image, mirrored, smooth])


def attribute_loss(
    classifier: classifiers.Classifier, image: Array, *, attribute: str, target: float, robust: bool = True
) -> Array:
    """Returns the cross entropy of the probability of `attribute` to `target`; a scalar.

    Args:
        classifier: see `stylegan_jax.classifiers`.
        image: `[h, w, 3]` in [-1, 1]; what lies outside is clipped, with a gradient as if it were not.
        attribute: its name.
        target: probability wanted, 1 for present, 0 for absent.
        robust: the mean over `views` rather than the image alone.

    Raises:
        ValueError: an unknown attribute.
    """
    image = image + jax.lax.stop_gradient(jnp.clip(image, -1, 1) - image)
    seen = views(image) if robust else image[None]
    return jnp.mean(classifiers.cross_entropy(classifiers.log_odds(classifier, seen, attribute), target))
