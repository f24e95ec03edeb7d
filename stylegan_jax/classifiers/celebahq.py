# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's classifiers of single attributes of CelebA-HQ (Karras et al. 2019, appendix C, for linear separability).

Each is a discriminator of progressive growing (Karras et al. 2018) without minibatch deviation and, as published,
without blur. Batches are `[n, h, w, c]`, images FFHQ-aligned faces in [-1, 1], red first.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers, parameters, stylegan1
from stylegan_jax.classifiers.attributes import AttributeNetwork, check_attributes, check_images, check_sign, resize
from stylegan_jax.ops import convolution, resample


@dataclasses.dataclass(frozen=True, kw_only=True)
class CelebaHqConfig:
    """What determines a classifier beside its weights.

    `attributes` is the one attribute that it knows; `widths` are the channels at 4, 8, ..., resolution;
    `dense_features`, the width of the first dense layer, defaults to `widths[0]`; `blur` says whether images are
    filtered by [1, 2, 1] in front of every halving. `present_sign` is -1 where a negative logit means present, as in
    the one published use of these networks that tells (DiffPure), and 1 where a positive one does.
    """

    attributes: tuple[str, ...]
    widths: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    dense_features: int | None = None
    blur: bool = False
    present_sign: int = -1

    def __post_init__(self):
        check_attributes(self.attributes)
        check_sign(self.present_sign)
        if len(self.attributes) != 1:
            raise ValueError(f"this network answers one attribute, got {', '.join(self.attributes)}")
        if not self.widths or min(self.widths) < 1 or (self.dense_features is not None and self.dense_features < 1):
            raise ValueError(
                f"widths must hold the channels at 4, 8, ..., got {self.widths}, and dense_features be positive or "
                f"None, got {self.dense_features}"
            )

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return 2 << len(self.widths)


def _leaky(x: Array) -> Array:
    return jnp.where(x >= 0, x, x * 0.2)


class HalvingConv(stylegan1.EqualConv):
    """A 3x3 convolution of scaled weights and the mean of 2x2 neighbours: `[n, 2h, 2w, in] -> [n, h, w, out]`."""

    def __init__(self, in_channels: int, out_channels: int, *, blur: bool, rngs: nnx.Rngs):
        super().__init__(in_channels, out_channels, 3, rngs=rngs)
        self.blur = blur

    def __call__(self, x: Array) -> Array:
        if self.blur:
            return self.down(x)
        # The mean is taken before the convolution, where it is cheaper; both are linear.
        y = resample.upfirdn2d(x, jnp.asarray(stylegan1.BOX), padding=(1, 1, 1, 1))
        return convolution.conv2d_down(y, self._scaled_weight(x.dtype)) + self._bias(x.dtype)


class Block(nnx.Module):
    """One resolution above 4x4: two convolutions, the second one at half the size."""

    def __init__(self, width: int, below: int, *, blur: bool, rngs: nnx.Rngs):
        self.conv0 = stylegan1.EqualConv(width, width, 3, rngs=rngs)
        self.conv1 = HalvingConv(width, below, blur=blur, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return _leaky(self.conv1(_leaky(self.conv0(x))))


class Epilogue(nnx.Module):
    """The end at 4x4: a convolution and two dense layers, `[n, 4, 4, c] -> [n, 1]`."""

    def __init__(self, width: int, features: int, *, rngs: nnx.Rngs):
        self.conv = stylegan1.EqualConv(width, width, 3, rngs=rngs)
        self.fc = stylegan1.EqualDense(16 * width, features, rngs=rngs)
        self.out = layers.Dense(features, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = _leaky(self.conv(x))
        return self.out(_leaky(self.fc(x.reshape(x.shape[0], -1))))


def shrink(images: Array, size: int) -> Array:
    """Returns `images` `[n, h, w, c]` as `[n, size, size, c]`.

    Squares of a whole multiple of `size` are averaged over blocks of pixels, as the authors do; what they leave open,
    other sizes, is resampled bilinearly, antialiased where it shrinks.
    """
    n, height, width, channels = images.shape
    factor = height // size
    if factor < 1 or (height, width) != (factor * size, factor * size):
        return resize(images, size)
    return images.reshape(n, size, factor, size, factor, channels).mean((2, 4))


class CelebaHqClassifier(AttributeNetwork):
    """The network; `classifier(images)` resizes them by `shrink`."""

    def __init__(self, config: CelebaHqConfig, *, rngs: nnx.Rngs):
        self.config = config
        widths = config.widths
        self.fromrgb = stylegan1.EqualConv(3, widths[-1], 1, rngs=rngs)
        for index in range(1, len(widths)):
            setattr(self, f"b{4 << index}", Block(widths[index], widths[index - 1], blur=config.blur, rngs=rngs))
        features = widths[0] if config.dense_features is None else config.dense_features
        self.b4 = Epilogue(widths[0], features, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: CelebaHqConfig, arrays: Mapping[str, Array]) -> "CelebaHqClassifier":
        """Returns the network with weights `{"fromrgb/weight": [1, 1, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def logits(self, images: Array) -> Array:
        """Returns what the network itself gives, `[n, 1]`.

        Args:
            images: `[n, h, w, 3]` in [-1, 1]; other sizes than `resolution` are resized by `shrink`.

        Raises:
            ValueError: images of another shape.
        """
        check_images(images, "CelebA-HQ classifier")
        x = _leaky(self.fromrgb(shrink(images, self.resolution)))
        for index in range(len(self.config.widths) - 1, 0, -1):
            x = getattr(self, f"b{4 << index}")(x)
        return self.b4(x)

    def __call__(self, images: Array) -> Array:
        """Returns log-odds `[n, 1]`, positive for present: `2 present_sign logit`.

        The authors turn the logit l into the probabilities `softmax([l, -l])`, which differ by `2 l` in log-odds.

        Args:
            images: `[n, h, w, 3]` in [-1, 1]; other sizes than `resolution` are resized by `shrink`.

        Raises:
            ValueError: images of another shape.
        """
        return 2 * self.config.present_sign * self.logits(images)
