# SPDX-License-Identifier: Apache-2.0
"""A small convolutional classifier of aligned faces, which `python -m inpaint train` can train."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers
from stylegan_jax.classifiers import attributes as _attributes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionalConfig:
    """What determines a classifier beside its weights.

    Attributes:
        attributes: names of what it answers.
        resolution: of the images that it looks at; every stage but the last halves it.
        widths: channels of the stages.
        kernel: of the convolutions.
        convolutions: in each stage.
        features: width of the dense layer that reads the last stage.
    """

    attributes: tuple[str, ...]
    resolution: int = 64
    widths: tuple[int, ...] = (16, 32, 48, 64)
    kernel: int = 3
    convolutions: int = 2
    features: int = 64

    def __post_init__(self):
        _attributes.check_attributes(self.attributes)
        if not self.widths or min(self.widths) < 1 or self.kernel % 2 == 0 or self.convolutions < 1:
            raise ValueError(
                f"widths {self.widths}, kernel {self.kernel} and {self.convolutions} convolutions make no classifier"
            )
        if self.resolution % (1 << len(self.widths) - 1):
            raise ValueError(
                f"{len(self.widths)} stages cannot halve {self.resolution} px {len(self.widths) - 1} times"
            )


class ConvolutionalClassifier(_attributes.AttributeNetwork):
    """Maps images `[n, h, w, 3]` in [-1, 1] to log-odds `[n, attributes]`; other sizes than its own are resampled.

    Stages of convolutions with leaky ReLU, halved by averages of 2 x 2, then a dense layer that sees every position:
    faces are aligned, so where something is says what it is.
    """

    def __init__(self, config: ConvolutionalConfig, *, rngs: nnx.Rngs):
        self.config, before = config, 3
        for name, width in self._convolutions():
            setattr(self, name, layers.Conv(before, width, config.kernel, activation="lrelu", rngs=rngs))
            before = width
        side = config.resolution >> (len(config.widths) - 1)
        self.dense = layers.Dense(side * side * before, config.features, activation="lrelu", rngs=rngs)
        self.out = layers.Dense(config.features, len(config.attributes), rngs=rngs)

    def _convolutions(self) -> list[tuple[str, int]]:
        count = range(self.config.convolutions)
        return [(f"stage{i}_conv{j}", width) for i, width in enumerate(self.config.widths) for j in count]

    def __call__(self, images: Array) -> Array:
        """Returns log-odds `[n, attributes]` of `images` `[n, h, w, 3]` in [-1, 1], each of its own image alone.

        Raises:
            ValueError: images of another shape.
        """
        _attributes.check_images(images, "classifier")
        x = _attributes.resize(images, self.config.resolution)
        for i in range(len(self.config.widths)):
            if i:
                n, h, w, c = x.shape
                x = x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))
            for j in range(self.config.convolutions):
                x = getattr(self, f"stage{i}_conv{j}")(x)
        return self.out(self.dense(jnp.reshape(x, (len(x), -1))))
