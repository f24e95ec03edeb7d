# SPDX-License-Identifier: Apache-2.0
"""The residual trunk ResNet-34 (He et al. 2016) as ReStyle's encoders use it: without its first pool.

Batches are `[n, h, w, c]`, images in [-1, 1]. Batch normalisation uses stored moments.
"""

import dataclasses
import itertools
from collections.abc import Collection

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax.dcgan import BatchNorm
from stylegan_jax.features.irse import EPSILON, SLOPE, prelu
from stylegan_jax.features.vgg import Convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResnetConfig:
    """What determines a trunk beside its weights: channels and number of blocks of its stages (the first convolution
    and every stage but the first halve the size), and channels of the images."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    image_channels: int = 3

    def __post_init__(self):
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.widths, *self.depths) < 1:
            raise ValueError(f"widths and depths must be as many and positive, got {self.widths}, {self.depths}")

    @property
    def units(self) -> tuple[tuple[int, int, int], ...]:
        """Input channels, output channels and stride of every block."""
        widths = [w for width, depth in zip(self.widths, self.depths, strict=True) for w in (width,) * depth]
        first = set(itertools.accumulate(self.depths))
        return tuple(
            (before, width, 2 if i in first else 1)
            for i, (before, width) in enumerate(zip((self.widths[0], *widths), widths, strict=False))
        )

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index of the last block of every stage; (2, 6, 12, 15) in the network of 34 layers."""
        return tuple(end - 1 for end in itertools.accumulate(self.depths))


class Block(nnx.Module):
    """A residual block, `[n, h, w, in] -> [n, h / stride, w / stride, out]`, sizes rounded up.

    `relu(shortcut(x) + norm1(conv1(relu(norm0(conv0(x))))))`; the shortcut is a 1x1 convolution with normalisation
    where width or size change.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, rngs: nnx.Rngs):
        self.conv0 = Convolution(in_channels, out_channels, 3, stride=stride, padding=1, bias=False, rngs=rngs)
        self.norm0 = BatchNorm(out_channels, epsilon=EPSILON, rngs=rngs)
        self.conv1 = Convolution(out_channels, out_channels, 3, padding=1, bias=False, rngs=rngs)
        self.norm1 = BatchNorm(out_channels, epsilon=EPSILON, rngs=rngs)
        if stride > 1 or in_channels != out_channels:
            self.shortcut_conv = Convolution(in_channels, out_channels, 1, stride=stride, bias=False, rngs=rngs)
            self.shortcut_norm = BatchNorm(out_channels, epsilon=EPSILON, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if hasattr(self, "shortcut_conv") else x
        x = jax.nn.relu(self.norm0(self.conv0(x)))
        return jax.nn.relu(shortcut + self.norm1(self.conv1(x)))


class Resnet(nnx.Module):
    """A 7x7 convolution that halves the size, and stages of residual blocks."""

    def __init__(self, config: ResnetConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.widths[0]
        self.conv = Convolution(config.image_channels, width, 7, stride=2, padding=3, bias=False, rngs=rngs)
        self.norm = BatchNorm(width, epsilon=EPSILON, rngs=rngs)
        self.slope = nnx.Param(jnp.full((width,), SLOPE))
        for i, (before, width, stride) in enumerate(config.units):
            setattr(self, f"unit{i}", Block(before, width, stride=stride, rngs=rngs))

    def __call__(self, images: Array, units: Collection[int]) -> dict[int, Array]:
        """Returns `{unit: its output}`, computing no further than the last of them.

        Args:
            images: `[n, h, w, image_channels]` in [-1, 1].
            units: indices of blocks; `config.stage_ends` are the ones that encoders read.

        Returns:
            `[n, h / 2^s, w / 2^s, c_s]` for every block of stage s = 1, 2, ..., sizes rounded up.
        """
        x, found = prelu(self.norm(self.conv(images)), self.slope[...]), {}
        for i in range(max(units) + 1):
            x = getattr(self, f"unit{i}")(x)
            if i in units:
                found[i] = x
        return found
