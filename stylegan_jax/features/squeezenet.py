# SPDX-License-Identifier: Apache-2.0
"""The convolutional features of SqueezeNet 1.1 (Iandola et al. 2016).

Batches are `[n, h, w, c]`; input and taps are those of `stylegan_jax.features.vgg`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import parameters
from stylegan_jax.features.vgg import Convolution, check_images, max_pool, tapped, wanted_taps

NAMES = ("relu1", *(f"fire{i}" for i in range(2, 10)))
POOLED = ("fire2", "fire4", "fire6")  # in front of these the map is pooled
# Rows and columns that an image must have at least, for features up to these.
SMALLEST = {"relu1": 3, "fire3": 5, "fire5": 9, "fire9": 17}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeNetConfig:
    """What determines a trunk beside its weights: the channels of the first convolution and of eight fire modules."""

    widths: tuple[int, ...] = (64, 128, 128, 256, 256, 384, 384, 512, 512)

    def __post_init__(self):
        if len(self.widths) != len(NAMES) or min(self.widths) < 1 or any(width % 8 for width in self.widths[1:]):
            raise ValueError(
                f"widths must be {len(NAMES)} positive numbers, all but the first multiples of 8, got {self.widths}"
            )

    @property
    def taps(self) -> dict[str, int]:
        """Names and channels of the feature maps: `relu1`, then `fire2` to `fire9` as the paper counts them."""
        return dict(zip(NAMES, self.widths, strict=True))


class Fire(nnx.Module):
    """A 1x1 convolution to an eighth of the width, then 1x1 and 3x3 side by side, `[n, h, w, in] -> [n, h, w, out]`."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        narrow, half = out_channels // 8, out_channels // 2
        self.squeeze = Convolution(in_channels, narrow, 1, rngs=rngs)
        self.expand1 = Convolution(narrow, half, 1, rngs=rngs)
        self.expand3 = Convolution(narrow, half, 3, padding=1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = jax.nn.relu(self.squeeze(x))
        return jax.nn.relu(jnp.concatenate([self.expand1(x), self.expand3(x)], -1))


class SqueezeNet(nnx.Module):
    """A 3x3 convolution of stride 2 and eight fire modules, with three maximum pools (3x3, stride 2) on the way."""

    def __init__(self, config: SqueezeNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.conv1 = Convolution(3, config.widths[0], 3, stride=2, rngs=rngs)
        for i, name in enumerate(NAMES[1:]):
            setattr(self, name, Fire(config.widths[i], config.widths[i + 1], rngs=rngs))

    @classmethod
    def from_arrays(cls, config: SqueezeNetConfig, arrays: Mapping[str, Array]) -> "SqueezeNet":
        """Returns the trunk with weights `{"conv1/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array, taps: Iterable[str]) -> dict[str, Array]:
        """Returns `{tap: features}` of normalised images.

        Args:
            images: `[n, h, w, 3]`, from `imagenet`.
            taps: names from `config.taps`.

        Returns:
            `[n, h', w', c]` each, `h'` about h / 2 for `relu1`, h / 4 for `fire2` and `fire3`, h / 8 for `fire4` and
            `fire5`, h / 16 for the others.

        Raises:
            ValueError: an unknown name, or images too small.
        """
        taps = wanted_taps(taps, self.config.taps, "SqueezeNet")
        last = max(NAMES.index(tap) for tap in taps)
        needed = next(size for name, size in SMALLEST.items() if last <= NAMES.index(name))
        check_images(images, needed, "SqueezeNet")
        return tapped(images, ((name, functools.partial(self._layer, name)) for name in NAMES), taps)

    def _layer(self, name: str, x: Array) -> Array:
        if name in POOLED:
            x = max_pool(x, 3, stride=2, ceil=True)
        return jax.nn.relu(self.conv1(x)) if name == "relu1" else getattr(self, name)(x)
