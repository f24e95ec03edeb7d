# SPDX-License-Identifier: Apache-2.0
"""The residual trunk "IR-SE" of ArcFace (Deng et al. 2019) with squeeze and excitation (Hu et al. 2018).

Face recognition and the encoders pSp, e4e and ReStyle share it. Batches are `[n, h, w, c]`, images in [-1, 1], red
first. Batch normalisation uses stored moments: a result never depends on what else is in the batch.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import parameters
from stylegan_jax.dcgan import BatchNorm
from stylegan_jax.features.vgg import Convolution

EPSILON = 1e-5  # of batch normalisation
SLOPE = 0.25  # of a fresh PReLU at negative values


@dataclasses.dataclass(frozen=True, kw_only=True)
class IrseConfig:
    """What determines a trunk beside its weights: channels and number of units of its stages (each halves the size),
    channels of the first convolution and of the images, and by what the width is divided inside squeeze and excitation
    (0: there is none)."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    stem: int = 64
    image_channels: int = 3
    reduction: int = 16

    def __post_init__(self):
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.widths, *self.depths) < 1:
            raise ValueError(f"widths and depths must be as many and positive, got {self.widths}, {self.depths}")
        if self.stem < 1 or self.image_channels < 1 or not 0 <= self.reduction <= min(self.widths):
            raise ValueError(
                "stem and image_channels must be positive and reduction at most the smallest width, got "
                f"{self.stem}, {self.image_channels}, {self.reduction}"
            )

    @property
    def units(self) -> tuple[tuple[int, int, int], ...]:
        """Input channels, output channels and stride of every unit."""
        widths = [w for width, depth in zip(self.widths, self.depths, strict=True) for w in (width,) * depth]
        first = {0, *itertools.accumulate(self.depths)}
        return tuple(
            (before, width, 2 if i in first else 1)
            for i, (before, width) in enumerate(zip((self.stem, *widths), widths, strict=False))
        )

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index of the last unit of every stage; (2, 6, 20, 23) in the network of 50 layers."""
        return tuple(end - 1 for end in itertools.accumulate(self.depths))


def prelu(x: Array, slope: Array) -> Array:
    """Returns `x` `[n, h, w, c]` where it is positive, elsewhere `slope` `[c]` times `x`."""
    return jnp.where(x > 0, x, x * slope.astype(x.dtype)[None, None, None])


class Unit(nnx.Module):
    """A residual unit, `[n, h, w, in] -> [n, h / stride, w / stride, out]`, sizes rounded up.

    `shortcut(x) + excite(norm1(conv1(prelu(conv0(norm0(x))))))`; the shortcut takes every stride-th pixel, and is a
    1x1 convolution with normalisation where the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, reduction: int, rngs: nnx.Rngs):
        if in_channels != out_channels:
            self.shortcut_conv = Convolution(in_channels, out_channels, 1, stride=stride, bias=False, rngs=rngs)
            self.shortcut_norm = BatchNorm(out_channels, epsilon=EPSILON, rngs=rngs)
        self.norm0 = BatchNorm(in_channels, epsilon=EPSILON, rngs=rngs)
        self.conv0 = Convolution(in_channels, out_channels, 3, padding=1, bias=False, rngs=rngs)
        self.slope = nnx.Param(jnp.full((out_channels,), SLOPE))
        self.conv1 = Convolution(out_channels, out_channels, 3, stride=stride, padding=1, bias=False, rngs=rngs)
        self.norm1 = BatchNorm(out_channels, epsilon=EPSILON, rngs=rngs)
        if reduction:
            self.squeeze = Convolution(out_channels, out_channels // reduction, 1, bias=False, rngs=rngs)
            self.excite = Convolution(out_channels // reduction, out_channels, 1, bias=False, rngs=rngs)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        if hasattr(self, "shortcut_conv"):
            shortcut = self.shortcut_norm(self.shortcut_conv(x))
        else:
            shortcut = x[:, :: self.stride, :: self.stride]
        x = prelu(self.conv0(self.norm0(x)), self.slope[...])
        x = self.norm1(self.conv1(x))
        if hasattr(self, "squeeze"):
            gate = self.excite(jax.nn.relu(self.squeeze(x.mean((1, 2), keepdims=True))))
            x = x * jax.nn.sigmoid(gate)
        return shortcut + x


class Irse(nnx.Module):
    """A 3x3 convolution and stages of residual units; every stage begins by halving the size."""

    def __init__(self, config: IrseConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.conv = Convolution(config.image_channels, config.stem, 3, padding=1, bias=False, rngs=rngs)
        self.norm = BatchNorm(config.stem, epsilon=EPSILON, rngs=rngs)
        self.slope = nnx.Param(jnp.full((config.stem,), SLOPE))
        for i, (before, width, stride) in enumerate(config.units):
            setattr(self, f"unit{i}", Unit(before, width, stride=stride, reduction=config.reduction, rngs=rngs))

    @classmethod
    def from_arrays(cls, config: IrseConfig, arrays: Mapping[str, Array]) -> "Irse":
        """Returns the trunk with weights `{"conv/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array, units: Collection[int]) -> dict[int, Array]:
        """Returns `{unit: its output}`, computing no further than the last of them.

        Args:
            images: `[n, h, w, image_channels]` in [-1, 1].
            units: indices; `config.stage_ends` are the ones that encoders read.

        Returns:
            `[n, h / 2^s, w / 2^s, c_s]` for every unit of stage s = 1, 2, ..., sizes rounded up.

        Raises:
            ValueError: images of other shape, or a unit that does not exist.
        """
        channels, count = self.config.image_channels, len(self.config.units)
        if images.ndim != 4 or images.shape[3] != channels:
            raise ValueError(f"IR-SE: images must be [n, h, w, {channels}], got {list(images.shape)}")
        if not units or not set(units) <= set(range(count)):
            raise ValueError(f"IR-SE: units must be numbers from 0 to {count - 1}, got {list(units)}")
        x, found = prelu(self.norm(self.conv(images)), self.slope[...]), {}
        for i in range(max(units) + 1):
            x = getattr(self, f"unit{i}")(x)
            if i in units:
                found[i] = x
        return found
