# SPDX-License-Identifier: Apache-2.0
"""What a classifier says of an image `[h, w, 3]` in [-1, 1], as a term of an objective."""

import jax
import jax.numpy as jnp
from jax import Array

from stylegan_jax import classifiers

SHIFT = 2  # pixels, of the shifted views


def views(image: Array) -> Array:
    """Returns an image `[h, w, c]` as it is, mirrored, smoothed, and shifted to four sides, `[7, h, w, c]`.

    A face keeps its attributes in all of them; a pattern that only fools a classifier seldom does.
    """
    height, width, _ = image.shape
    padded = jnp.pad(image, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    corners = [(0, SHIFT), (2 * SHIFT, SHIFT), (SHIFT, 0), (SHIFT, 2 * SHIFT)]
    shifted = [padded[top : top + height, left : left + width] for top, left in corners]
    inner = padded[SHIFT - 1 : SHIFT + height + 1, SHIFT - 1 : SHIFT + width + 1]
    rows = (inner[:-2] + 2 * inner[1:-1] + inner[2:]) / 4
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return jnp.stack([image, image[:, ::-1], smooth, *shifted])


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
