# SPDX-License-Identifier: Apache-2.0
"""A ResNet-50 that answers all 40 attributes of CelebA at once (He et al. 2016; the network of Anycost GAN, Lin et al.
2021).

Batches are `[n, h, w, c]`, images FFHQ-aligned faces in [-1, 1], red first, not normalised further. It is the variant
with the stride in the 3x3 convolution of a bottleneck. Batch normalisation uses stored moments: an answer never depends
on what else is in the batch.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import dcgan, parameters
from stylegan_jax.classifiers.attributes import CELEBA, AttributeNetwork, check_attributes, check_images, check_sign
from stylegan_jax.ops import convolution, pooling

EPSILON = 1e-5  # of batch normalisation
EXPANSION = 4  # how much wider a bottleneck ends than it is inside
CLASSES = 2  # absent, present


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttributeResNetConfig:
    """What determines a classifier beside its weights.

    `stem` are the channels of the first convolution, `widths` those inside the bottlenecks of every stage and `depths`
    their numbers; `resolution`, a multiple of `2^(stages + 1)`, is the size that images are brought to. `present_sign`
    is 1 where the second class of every pair means present, as in the published network, and -1 where the first does.
    """

    attributes: tuple[str, ...] = CELEBA
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    stem: int = 64
    resolution: int = 256
    present_sign: int = 1

    def __post_init__(self):
        check_attributes(self.attributes)
        check_sign(self.present_sign)
        if len(self.widths) != len(self.depths) or not self.widths or min(*self.widths, *self.depths, self.stem) < 1:
            raise ValueError(
                f"widths and depths must be as many, and positive as stem is, got {self.widths}, {self.depths}, "
                f"{self.stem}"
            )
        halvings = 1 << len(self.widths) + 1
        if self.resolution < 1 or self.resolution % halvings:
            raise ValueError(f"resolution must be a multiple of {halvings}, got {self.resolution}")

    @property
    def blocks(self) -> dict[str, tuple[int, int, int]]:
        """Input channels, channels inside and stride of every bottleneck, by its name."""
        found, before = {}, self.stem
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), 1):
            for i in range(depth):
                found[f"stage{stage}_{i}"] = before, width, 2 if stage > 1 and i == 0 else 1
                before = EXPANSION * width
        return found


def halve(x: Array, weight: Array) -> Array:
    """Returns a convolution of stride 2 with `k // 2` zeros on every side, of images of even size.

    Args:
        x: `[n, 2h, 2w, in]`.
        weight: `[k, k, in, out]`, k odd and at least 3.

    Returns:
        `[n, h, w, out]`.
    """
    rows, columns = (size // 2 for size in x.shape[1:3])
    # `convolve_down` itself puts one row of zeros in front.
    more = weight.shape[0] // 2 - 1
    x = jnp.pad(x, ((0, 0), (more, 0), (more, 0), (0, 0)))
    return dcgan.convolve_down(x, weight)[:, :rows, :columns]


class NormedConvolution(dcgan.Layer):
    """A convolution without bias and batch normalisation, `[n, h, w, in] -> [n, h / stride, w / stride, out]`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, rngs: nnx.Rngs):
        super().__init__((kernel, kernel, inputs, outputs), bias=None, norm=outputs, epsilon=EPSILON, rngs=rngs)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        weight = self.weight[...].astype(x.dtype)
        kernel = weight.shape[0]
        if self.stride == 2 and kernel > 1:
            return self.norm(halve(x, weight))
        return self.norm(convolution.conv2d(x[:, :: self.stride, :: self.stride], weight, kernel // 2))


class Bottleneck(nnx.Module):
    """A residual unit, `[n, h, w, in] -> [n, h / stride, w / stride, 4 width]`: 1x1, 3x3 with the stride, 1x1.

    `relu(shortcut(x) + conv3(relu(conv2(relu(conv1(x))))))`; the shortcut is a convolution where the shape changes.
    """

    def __init__(self, inputs: int, width: int, *, stride: int, rngs: nnx.Rngs):
        outputs = EXPANSION * width
        self.conv1 = NormedConvolution(inputs, width, 1, rngs=rngs)
        self.conv2 = NormedConvolution(width, width, 3, stride=stride, rngs=rngs)
        self.conv3 = NormedConvolution(width, outputs, 1, rngs=rngs)
        if stride != 1 or inputs != outputs:
            self.shortcut = NormedConvolution(inputs, outputs, 1, stride=stride, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.conv3(jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x)))))
        return jax.nn.relu(y + (self.shortcut(x) if hasattr(self, "shortcut") else x))


def fit(images: Array, size: int) -> Array:
    """Returns `images` `[n, h, w, c]` as `[n, size, size, c]`, interpolated linearly, corners upon corners, unfiltered,
    as Anycost GAN's code does it."""
    return images if images.shape[1:3] == (size, size) else pooling.resize_corners(images, (size, size))


class AttributeResNet(AttributeNetwork):
    """The network; `classifier(images)` resizes them as its authors do, by `fit`."""

    def __init__(self, config: AttributeResNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stem = NormedConvolution(3, config.stem, 7, stride=2, rngs=rngs)
        for name, (inputs, width, stride) in config.blocks.items():
            setattr(self, name, Bottleneck(inputs, width, stride=stride, rngs=rngs))
        outputs = CLASSES * len(config.attributes)
        shape = (EXPANSION * config.widths[-1], outputs)
        self.head = dcgan.Layer(shape, bias=(outputs,), norm=0, epsilon=EPSILON, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: AttributeResNetConfig, arrays: Mapping[str, Array]) -> "AttributeResNet":
        """Returns the network with weights `{"stem/weight": [7, 7, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def logits(self, images: Array) -> Array:
        """Returns the logits of both classes of every attribute, `[n, attributes, 2]`.

        Args:
            images: `[n, h, w, 3]` in [-1, 1]; other sizes than `resolution` are resized by `fit`.

        Raises:
            ValueError: images of another shape.
        """
        check_images(images, "attribute ResNet")
        x = jax.nn.relu(self.stem(fit(images, self.resolution)))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for name in self.config.blocks:
            x = getattr(self, name)(x)
        x = self.head.biased(x.mean((1, 2)) @ self.head.weight[...].astype(x.dtype))
        return x.reshape(len(x), len(self.attributes), CLASSES)

    def __call__(self, images: Array) -> Array:
        """Returns log-odds `[n, attributes]`, positive for present: the difference of the two logits.

        Args:
            images: `[n, h, w, 3]` in [-1, 1]; other sizes than `resolution` are resized by `fit`.

        Raises:
            ValueError: images of another shape.
        """
        logits = self.logits(images)
        return self.config.present_sign * (logits[..., 1] - logits[..., 0])
