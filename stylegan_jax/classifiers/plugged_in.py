# SPDX-License-Identifier: Apache-2.0
"""A user's own network as a classifier. Images are `[n, h, w, 3]` in [-1, 1], red first."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from stylegan_jax.classifiers.attributes import AttributeNetwork, check_attributes, check_images, check_sign, resize


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionConfig:
    """What a `FunctionClassifier` knows of its function.

    `attributes` are the names of its answers, `resolution` the size of the images that it takes, in pixels; `columns`
    says which of its outputs they are (None: all, in this order); `present_sign` is -1 where a negative output means
    present.
    """

    attributes: tuple[str, ...]
    resolution: int
    columns: tuple[int, ...] | None = None
    present_sign: int = 1

    def __post_init__(self):
        check_attributes(self.attributes)
        check_sign(self.present_sign)
        if self.resolution < 1:
            raise ValueError(f"resolution must be positive, got {self.resolution}")
        if self.columns is not None and (len(self.columns) != len(self.attributes) or min(self.columns) < 0):
            raise ValueError(
                f"columns must be one number from 0 on for each of {len(self.attributes)} attributes, got "
                f"{list(self.columns)}"
            )


def _columns(outputs: Array, columns: tuple[int, ...] | None, count: int) -> Array:
    """Returns the `columns` of `outputs` `[n]` or `[n, k]` as `[n, count]`; None takes all of them.

    Raises:
        ValueError: an array of another shape, or with fewer columns.
    """
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    needed = count if columns is None else max(columns) + 1
    if outputs.ndim != 2 or outputs.shape[1] < needed or (columns is None and outputs.shape[1] != count):
        raise ValueError(f"the function must return logits [n, {needed}], got {list(outputs.shape)}")
    return outputs if columns is None else outputs[:, jnp.asarray(columns)]


class FunctionClassifier(AttributeNetwork):
    """A function of images, or a Flax NNX module, as a classifier.

    The weights of a module are this one's too: arguments, not constants, of a jitted function that takes it.

        classifier = FunctionClassifier(network, FunctionConfig(attributes=("Smiling",), columns=(31,), resolution=224))
    """

    def __init__(self, function: Callable[[Array], Array], config: FunctionConfig):
        self.function = function
        self.config = config

    def __call__(self, images: Array) -> Array:
        """Returns log-odds `[n, attributes]`, positive for present.

        Args:
            images: `[n, h, w, 3]` in [-1, 1]; other sizes than `resolution` are resampled bilinearly, antialiased.

        Raises:
            ValueError: images of another shape, or a function that returns too few or too many logits.
        """
        check_images(images, "function classifier")
        outputs = self.function(resize(images, self.resolution))
        return self.config.present_sign * _columns(outputs, self.config.columns, len(self.attributes))
