# SPDX-License-Identifier: Apache-2.0
"""Names of the 40 attributes of CelebA (Liu et al. 2015), and the questions that every classifier answers by them.

Images are `[n, h, w, 3]` in [-1, 1], red first. An answer is a log-odds `log(p / (1 - p))`: positive means present.
"""

import difflib
from typing import Any, Protocol, runtime_checkable

import jax
from flax import nnx
from jax import Array

# In CelebA's own order, which is that of Anycost GAN's network.
CELEBA = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)
NEAREST = 3  # names that an error proposes


@runtime_checkable
class Classifier(Protocol):
    """What says of images whether they have attributes.

    Attributes:
        attributes: names of what it answers, in the order of its columns.
        resolution: height and width of the images that it looks at, in pixels; others are resized.
    """

    attributes: tuple[str, ...]
    resolution: int

    def __call__(self, images: Array) -> Array:
        """Returns log-odds `[n, len(attributes)]` of `images` `[n, h, w, 3]`, each of its own image alone."""


class AttributeNetwork(nnx.Module):
    """A classifier that is a network; `config` holds its `attributes` and `resolution`."""

    config: Any

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of what is answered, in the order of the columns."""
        return self.config.attributes

    @property
    def resolution(self) -> int:
        """Height and width of the images that it looks at, in pixels."""
        return self.config.resolution


def check_attributes(attributes: tuple[str, ...]) -> None:
    """Refuses names that no answer could be asked by.

    Raises:
        ValueError: no name, an empty one, or two that differ at most in upper and lower case.
    """
    folded = [name.casefold() for name in attributes]
    if not folded or "" in folded or len(set(folded)) < len(folded):
        raise ValueError(f"attributes must be different names, at least one, got {', '.join(attributes) or 'none'}")


def attribute_index(classifier: Classifier, name: str) -> int:
    """Returns the column of attribute `name`, in which upper and lower case count as the same.

    Raises:
        ValueError: no such attribute; with the nearest names.
    """
    folded = [known.casefold() for known in classifier.attributes]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    near = difflib.get_close_matches(name.casefold().replace(" ", "_"), folded, NEAREST)
    shown = [classifier.attributes[folded.index(one)] for one in near] or classifier.attributes
    raise ValueError(f"no attribute {name!r}; {'perhaps' if near else 'there are'} {', '.join(shown)}")


def log_odds(classifier: Classifier, images: Array, name: str) -> Array:
    """Returns the log-odds `[n]` that `images` `[n, h, w, 3]` in [-1, 1] have the attribute `name`.

    Raises:
        ValueError: no such attribute, or images of another shape.
    """
    return classifier(images)[:, attribute_index(classifier, name)]


def cross_entropy(log_odds: Array, target: float | Array) -> Array:
    """Returns `softplus(l) - target * l`, the cross entropy of the probability `1 / (1 + exp(-l))` to `target`.

    Args:
        log_odds: l, `[...]`.
        target: the probability wanted, from 0 (absent) to 1 (present); a number, or an array like `log_odds`.

    Returns:
        An array like `log_odds`; never negative, 0 for a certain and right answer.

    Raises:
        ValueError: a number outside [0, 1].
    """
    if isinstance(target, int | float) and not 0 <= target <= 1:
        raise ValueError(f"target must be from 0 (absent) to 1 (present), got {target}")
    return jax.nn.softplus(log_odds) - target * log_odds


def check_images(images: Array, owner: str) -> None:
    """Refuses what no classifier takes; `owner` is named.

    Raises:
        ValueError: images that are not `[n, h, w, 3]`, or without pixels.
    """
    if images.ndim != 4 or images.shape[3] != 3 or not min(images.shape[1:3]):
        raise ValueError(f"{owner}: images must be [n, h, w, 3] in [-1, 1], got {list(images.shape)}")


def resize(images: Array, size: int) -> Array:
    """Returns `images` `[n, h, w, c]` as `[n, size, size, c]`, bilinearly and, where they shrink, antialiased."""
    if images.shape[1:3] == (size, size):
        return images
    return jax.image.resize(images, (len(images), size, size, images.shape[3]), "linear", antialias=True)


def check_sign(present_sign: int) -> None:
    """Refuses a `present_sign` that is not 1 or -1.

    Raises:
        ValueError: another number.
    """
    if present_sign not in (1, -1):
        raise ValueError(f"present_sign must be 1 (large means present) or -1 (small does), got {present_sign}")
