# SPDX-License-Identifier: Apache-2.0
"""The convolutional features of VGG-16 and VGG-19 (Simonyan and Zisserman 2015), and what trunks of features share.

Batches are `[n, h, w, c]`. A trunk takes images that its user has normalised (`imagenet` from [-1, 1]) and gives the
feature maps that are asked for by name, computing no further than the last of them. Dense layers are left out.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from stylegan_jax import parameters

# Of the training images in [0, 1], red, green, blue: what every torchvision network was trained with. They are part of
# the network, and float32 as its weights are, also where it computes in float64.
IMAGENET_MEAN = np.float32((0.485, 0.456, 0.406))
IMAGENET_DEVIATION = np.float32((0.229, 0.224, 0.225))


def imagenet(images: Array) -> Array:
    """Returns `((images + 1) / 2 - mean) / deviation` of ImageNet's channels, the input of torchvision's networks.

    Args:
        images: `[n, h, w, 3]` in [-1, 1], red first.

    Returns:
        `[n, h, w, 3]`.
    """
    mean, deviation = (v.astype(images.dtype)[None, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return ((images + 1) / 2 - mean) / deviation


class Convolution(nnx.Module):
    """Computes a plain convolution with bias, `[n, h, w, in] -> [n, h', w', out]`; `padding` zeros on every side.

    `kernel` and `padding` are one number, or one for rows and one for columns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        spread = math.sqrt(2 / (size[0] * size[1] * in_channels))
        weight = spread * jax.random.normal(rngs.params(), (*size, in_channels, out_channels))
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(jnp.zeros((out_channels,), weight.dtype)) if bias else None
        self.stride = stride
        self.padding = padding if isinstance(padding, tuple) else (padding, padding)

    def __call__(self, x: Array) -> Array:
        rows, columns = self.padding
        x = lax.conv_general_dilated(
            x,
            self.weight[...].astype(x.dtype),
            (self.stride, self.stride),
            ((rows, rows), (columns, columns)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x if self.bias is None else x + self.bias[...].astype(x.dtype)[None, None, None]


def max_pool(x: Array, window: int, *, stride: int, padding: int = 0, ceil: bool = False) -> Array:
    """Returns the largest value of every window, `[n, h, w, c] -> [n, h', w', c]`.

    Args:
        x: `[n, h, w, c]`.
        window: rows and columns of a window.
        stride: from one window to the next.
        padding: rows and columns on every side that never win.
        ceil: keep a last window that reaches beyond the map, instead of dropping what it would cover.

    Returns:
        `h' = 1 + floor((h + 2 padding - window) / stride)`, with `ceil` rounded up; columns alike.
    """
    beyond = [-(size + 2 * padding - window) % stride if ceil else 0 for size in x.shape[1:3]]
    pads = ((0, 0), *((padding, padding + more) for more in beyond), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def wanted_taps(taps: Iterable[str], known: Collection[str], trunk: str) -> list[str]:
    """Returns `taps` as a list.

    Raises:
        ValueError: a name that is not among `known`, those of the network `trunk`; or no name.
    """
    taps = list(taps)
    unknown = [tap for tap in taps if tap not in known]
    if unknown or not taps:
        named = f"no feature {', '.join(unknown)}" if unknown else "no feature was asked for"
        raise ValueError(f"{trunk}: {named}; there are {', '.join(known)}")
    return taps


def check_images(images: Array, smallest: int, trunk: str) -> None:
    """Refuses what the network `trunk` cannot take.

    Raises:
        ValueError: images that are not `[n, h, w, 3]`, or have fewer than `smallest` rows or columns.
    """
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < smallest:
        raise ValueError(
            f"{trunk}: images must be [n, h, w, 3] with at least {smallest} rows and columns, got {list(images.shape)}"
        )


def tapped(x: Array, layers: Iterable[tuple[str, Callable[[Array], Array]]], taps: list[str]) -> dict[str, Array]:
    """Runs named layers on `x` `[n, h, w, c]` one after the other, up to the last of `taps`.

    Returns:
        {tap: what came out of the layer of that name `[n, h', w', c']`}, in the order of `taps`.
    """
    found: dict[str, Array] = {}
    for name, layer in layers:
        x = layer(x)
        if name in taps:
            found[name] = x
            if len(found) == len(set(taps)):
                break
    return {tap: found[tap] for tap in taps}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VggConfig:
    """What determines a trunk beside its weights: channels of the five blocks, and convolutions in each."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)

    def __post_init__(self):
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.widths, *self.depths) < 1:
            raise ValueError(f"widths and depths must be as many and positive, got {self.widths}, {self.depths}")

    @property
    def taps(self) -> dict[str, int]:
        """Names and channels of the feature maps: `relu1_2` follows the second convolution of the first block."""
        blocks = enumerate(zip(self.widths, self.depths, strict=True), 1)
        return {f"relu{b}_{i}": width for b, (width, depth) in blocks for i in range(1, depth + 1)}


VGG16 = VggConfig()
VGG19 = VggConfig(depths=(2, 2, 4, 4, 4))


class Vgg(nnx.Module):
    """Blocks of 3x3 convolutions with ReLU; a 2x2 maximum pool in front of every block but the first."""

    def __init__(self, config: VggConfig, *, rngs: nnx.Rngs):
        self.config = config
        before = 3
        for tap, width in config.taps.items():
            setattr(self, tap.replace("relu", "conv"), Convolution(before, width, 3, padding=1, rngs=rngs))
            before = width

    @classmethod
    def from_arrays(cls, config: VggConfig, arrays: Mapping[str, Array]) -> "Vgg":
        """Returns the trunk with weights `{"conv1_1/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array, taps: Iterable[str]) -> dict[str, Array]:
        """Returns `{tap: features}` of normalised images.

        Args:
            images: `[n, h, w, 3]`, from `imagenet`.
            taps: names from `config.taps`.

        Returns:
            `[n, h / 2^(b-1), w / 2^(b-1), c_b]` for every feature of block b, sizes rounded down.

        Raises:
            ValueError: an unknown name, or images too small for the blocks asked for.
        """
        taps = wanted_taps(taps, self.config.taps, "VGG")
        check_images(images, 1 << max(int(tap[4:].split("_")[0]) - 1 for tap in taps), "VGG")
        return tapped(images, ((tap, functools.partial(self._layer, tap)) for tap in self.config.taps), taps)

    def _layer(self, tap: str, x: Array) -> Array:
        if tap.endswith("_1") and tap != "relu1_1":
            x = max_pool(x, 2, stride=2)
        return jax.nn.relu(getattr(self, tap.replace("relu", "conv"))(x))
