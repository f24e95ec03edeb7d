# SPDX-License-Identifier: Apache-2.0
"""Encoders of whole images into W+ with one head for every latent: pSp, e4e, and ReStyle's over StyleGAN2 and 3.

Batches are `[n, h, w, c]`, images in [-1, 1], red first. What an encoder gives are offsets from `average`, the mean of
W; `stylegan_jax.encoders.encode` adds them, resizes images and runs ReStyle's loop.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers, parameters
from stylegan_jax.encoders.resnet import Resnet, ResnetConfig
from stylegan_jax.features.irse import Irse, IrseConfig
from stylegan_jax.features.vgg import Convolution
from stylegan_jax.ops import pooling

TRUNKS = ("irse", "resnet")
SLOPE = 0.01  # of the leaky ReLU in heads
# The latents from these numbers on read the second and the third map of a pyramid.
MIDDLE, FINE = 3, 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """What determines an encoder's trunk and what is put into it and comes out, beside its weights.

    Attributes:
        trunk: "irse" or "resnet".
        widths, depths: channels and number of units of its stages.
        stem: channels of the first convolution of "irse"; that of "resnet" has those of the first stage.
        reduction: of squeeze and excitation in "irse" (0: there is none).
        image_channels: channels that the encoder takes; of ReStyle's encoders the image's and the reconstruction's.
        size: (height, width) of images in pixels.
        num_ws, w_dim: of the generator.
        iterations: how often a ReStyle encoder looks, unless told otherwise; None for one that looks at the image
            alone, once.
    """

    trunk: str = "irse"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    stem: int = 64
    reduction: int = 16
    image_channels: int = 3
    size: tuple[int, int] = (256, 256)
    num_ws: int = 18
    w_dim: int = 512
    iterations: int | None = None

    def __post_init__(self):
        if self.trunk not in TRUNKS:
            raise ValueError(f"trunk must be one of {', '.join(TRUNKS)}, got {self.trunk!r}")
        if min(*self.size, self.num_ws, self.w_dim, self.image_channels) < 1:
            raise ValueError(
                "size, num_ws, w_dim and image_channels must be positive, got "
                f"{self.size}, {self.num_ws}, {self.w_dim}, {self.image_channels}"
            )
        if self.iterations is not None and (self.iterations < 1 or self.image_channels % 2):
            raise ValueError(
                "an encoder with iterations takes as many channels of the image as of the reconstruction, got "
                f"iterations {self.iterations} and image_channels {self.image_channels}"
            )

    @property
    def trunk_config(self) -> IrseConfig | ResnetConfig:
        """The config of the trunk."""
        shared = dict(widths=self.widths, depths=self.depths, image_channels=self.image_channels)
        if self.trunk == "resnet":
            return ResnetConfig(**shared)
        return IrseConfig(**shared, stem=self.stem, reduction=self.reduction)

    def build_trunk(self, *, rngs: nnx.Rngs) -> Irse | Resnet:
        """Returns the trunk, with new weights."""
        return (Resnet if self.trunk == "resnet" else Irse)(self.trunk_config, rngs=rngs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleEncoderConfig(TrunkConfig):
    """What determines an encoder with one head for every latent, beside its weights; see `TrunkConfig`.

    Attributes:
        pyramid: heads read three maps of a feature pyramid (pSp, e4e), otherwise all read the trunk's last map.
        progressive: the first latent is for all layers and the others are offsets from it (e4e and its family).
    """

    pyramid: bool = True
    progressive: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.pyramid and len(self.widths) < 3:
            raise ValueError(f"a pyramid needs a trunk of three stages or more, got {len(self.widths)}")
        last = max(self.size) >> len(self.widths)
        if last < 2 or max(self.size) != 1 << len(self.widths) + last.bit_length() - 1:
            raise ValueError(
                f"the larger of size must be a power of two and at least {2 << len(self.widths)}, got {self.size}"
            )

    @property
    def convolutions(self) -> tuple[int, ...]:
        """Number of convolutions in every head: each halves the map, until one pixel is left."""
        last = (max(self.size) >> len(self.widths)).bit_length() - 1
        return tuple(last + (self.level(i) if self.pyramid else 0) for i in range(self.num_ws))

    def level(self, index: int) -> int:
        """Returns which map the latent of this number reads: 0 the trunk's last one, 2 the largest of a pyramid."""
        return (index >= MIDDLE) + (index >= FINE) if self.pyramid else 0


class StyleHead(nnx.Module):
    """3x3 convolutions of stride 2 with leaky ReLU, until one pixel is left, and a dense layer: `[n, h, w, in]` to
    `[n, out]`, by default as many as the convolutions have channels."""

    def __init__(
        self, in_channels: int, out_channels: int, *, convolutions: int, out: int | None = None, rngs: nnx.Rngs
    ):
        for i in range(convolutions):
            conv = Convolution(out_channels if i else in_channels, out_channels, 3, stride=2, padding=1, rngs=rngs)
            setattr(self, f"conv{i}", conv)
        self.linear = layers.Dense(out_channels, out or out_channels, rngs=rngs)
        self.convolutions = convolutions

    def __call__(self, x: Array) -> Array:
        for i in range(self.convolutions):
            x = jax.nn.leaky_relu(getattr(self, f"conv{i}")(x), SLOPE)
        return self.linear(x[:, 0, 0])


class StyleEncoder(nnx.Module):
    """A residual trunk, with or without a feature pyramid, and one head for every latent.

    pSp (Richardson et al. 2021), e4e (Tov et al. 2021) and the encoders of ReStyle (Alaluf et al. 2021), which
    "Third Time's the Charm?" (Alaluf et al. 2022) takes for StyleGAN3. `average` `[num_ws, w_dim]` is what its output
    is counted from.
    """

    def __init__(self, config: StyleEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.trunk = config.build_trunk(rngs=rngs)
        width = config.widths[-1]
        if config.pyramid:
            self.lateral0 = Convolution(config.widths[-2], width, 1, rngs=rngs)
            self.lateral1 = Convolution(config.widths[-3], width, 1, rngs=rngs)
        for i, count in enumerate(config.convolutions):
            setattr(self, f"head{i}", StyleHead(width, config.w_dim, convolutions=count, rngs=rngs))
        self.average = layers.Buffer(jnp.zeros((config.num_ws, config.w_dim)))

    @classmethod
    def from_arrays(cls, config: StyleEncoderConfig, arrays: Mapping[str, Array]) -> "StyleEncoder":
        """Returns the encoder with weights `{"trunk/conv/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def maps(self, images: Array) -> tuple[Array, ...]:
        """Returns the maps `[n, h_i, w_i, c]` that heads read, from the smallest up; see `__call__`."""
        config, ends = self.config, self.config.trunk_config.stage_ends
        if images.ndim != 4 or images.shape[3] != config.image_channels or max(images.shape[1:3]) > max(config.size):
            raise ValueError(
                f"encoder: images must be [n, h, w, {config.image_channels}] of at most {max(config.size)} pixels, got "
                f"{list(images.shape)}; `encode` resizes them"
            )
        if not config.pyramid:
            return (self.trunk(images, ends[-1:])[ends[-1]],)
        found = self.trunk(images, ends[-3:])
        coarse, middle, fine = (found[end] for end in reversed(ends[-3:]))
        middle = pooling.resize_corners(coarse, middle.shape[1:3]) + self.lateral0(middle)
        return coarse, middle, pooling.resize_corners(middle, fine.shape[1:3]) + self.lateral1(fine)

    def __call__(self, images: Array, *, stage: int | None = None) -> Array:
        """Returns latents as offsets from `average`, `[n, num_ws, w_dim]`.

        Args:
            images: `[n, h, w, image_channels]` in [-1, 1], at most as large as the larger of `config.size`.
            stage: of a progressive encoder: only the latents up to this number differ from the first one (None: all
                do, as after training).

        Raises:
            ValueError: images of another kind or too large, or a stage where there is none.
        """
        return self.latents(self.maps(images), stage=stage)

    def latents(self, maps: tuple[Array, ...], *, stage: int | None = None) -> Array:
        """Returns what `__call__` does, from the maps `[n, h_i, w_i, c]` of images."""
        config = self.config
        if stage is not None and not (config.progressive and stage >= 0):
            raise ValueError(f"stage is a number from 0 on and for progressive encoders (e4e) only, got {stage}")
        heads = [lambda i=i: getattr(self, f"head{i}")(maps[config.level(i)]) for i in range(config.num_ws)]
        if not config.progressive:
            return jnp.stack([head() for head in heads], 1)
        first, last = heads[0](), config.num_ws - 1 if stage is None else stage
        return jnp.stack([first, *(first + head() if i <= last else first for i, head in enumerate(heads[1:], 1))], 1)
