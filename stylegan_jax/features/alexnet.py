# SPDX-License-Identifier: Apache-2.0
"""The convolutional features of torchvision's AlexNet (Krizhevsky 2014, "One weird trick", without its two halves).

Batches are `[n, h, w, c]`; input and taps are those of `stylegan_jax.features.vgg`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import jax
from flax import nnx
from jax import Array

from stylegan_jax import parameters
from stylegan_jax.features.vgg import Convolution, check_images, max_pool, tapped, wanted_taps

# Kernel, stride and padding of the five convolutions, and those in front of which the map is pooled.
LAYERS = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
POOLED = ("relu2", "relu3")
# Rows and columns that an image must have at least, for every feature.
SMALLEST = {"relu1": 7, "relu2": 15, "relu3": 31, "relu4": 31, "relu5": 31}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlexNetConfig:
    """What determines a trunk beside its weights: the channels of its five convolutions."""

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)

    def __post_init__(self):
        if len(self.widths) != len(LAYERS) or min(self.widths) < 1:
            raise ValueError(f"widths must be {len(LAYERS)} positive numbers, got {self.widths}")

    @property
    def taps(self) -> dict[str, int]:
        """Names and channels of the feature maps, `relu1` to `relu5`."""
        return {f"relu{i}": width for i, width in enumerate(self.widths, 1)}


class AlexNet(nnx.Module):
    """Five convolutions with ReLU; a 3x3 maximum pool of stride 2 in front of the second and the third."""

    def __init__(self, config: AlexNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        before = 3
        for i, (width, (kernel, stride, padding)) in enumerate(zip(config.widths, LAYERS, strict=True), 1):
            layer = Convolution(before, width, kernel, stride=stride, padding=padding, rngs=rngs)
            setattr(self, f"conv{i}", layer)
            before = width

    @classmethod
    def from_arrays(cls, config: AlexNetConfig, arrays: Mapping[str, Array]) -> "AlexNet":
        """Returns the trunk with weights `{"conv1/weight": [11, 11, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array, taps: Iterable[str]) -> dict[str, Array]:
        """Returns `{tap: features}` of normalised images.

        Args:
            images: `[n, h, w, 3]`, from `imagenet`.
            taps: names from `config.taps`.

        Returns:
            `[n, h', w', c]` each, `h'` about h / 4 for `relu1`, h / 8 for `relu2`, h / 16 for the others.

        Raises:
            ValueError: an unknown name, or images too small.
        """
        taps = wanted_taps(taps, self.config.taps, "AlexNet")
        check_images(images, max(SMALLEST[tap] for tap in taps), "AlexNet")
        return tapped(images, ((tap, functools.partial(self._layer, tap)) for tap in self.config.taps), taps)

    def _layer(self, tap: str, x: Array) -> Array:
        if tap in POOLED:
            x = max_pool(x, 3, stride=2)
        return jax.nn.relu(getattr(self, tap.replace("relu", "conv"))(x))
