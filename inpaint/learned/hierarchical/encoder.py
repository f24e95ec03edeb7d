# SPDX-License-Identifier: Apache-2.0
"""The encoder of masked images: two codes for every style, and the map that the skip encoder reads.

Batches are `[n, h, w, c]`, images in [-1, 1], 0 in holes; `known` is one more channel.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from inpaint.learned.hierarchical.config import HierarchicalConfig
from stylegan_jax import layers, stylegan2
from stylegan_jax.encoders.style import FINE, MIDDLE, StyleHead
from stylegan_jax.features.irse import Irse, IrseConfig
from stylegan_jax.features.vgg import Convolution
from stylegan_jax.ops import pooling, resample


def shown(images: Array, known: Array, size: int) -> Array:
    """Returns what an encoder reads, `[n, size, size, c + 1]`: the known pixels, 0 elsewhere, and where they are.

    Args:
        images: `[n, r, r, c]`.
        known: `[n, r, r]`, 1 = keep.
        size: a divisor of r; larger images are averaged down, masked as they are.
    """
    mask = known[..., None].astype(images.dtype)
    x = jnp.concatenate([jnp.where(mask > 0, images, 0), mask], -1)
    n, r, _, c = x.shape
    factor = r // size
    return x if factor == 1 else x.reshape(n, size, factor, size, factor, c).mean((2, 4))


class ResidualTrunk(nnx.Module):
    """Residual blocks of StyleGAN2's discriminator, each at half the size of the one before."""

    def __init__(self, widths: tuple[int, ...], channels: int, *, rngs: nnx.Rngs):
        trunk = stylegan2.DiscriminatorConfig(widths=widths, image_channels=channels, conv_clamp=None)
        self.resample_filter = layers.Buffer(jnp.asarray(resample.make_filter(trunk.resample_filter)))
        self.count = len(widths)
        for index in range(1, self.count):
            setattr(self, f"block{index}", stylegan2.DiscriminatorBlock(trunk, index, rngs=rngs))

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Returns the outputs of all blocks, `[n, h / 2^i, w / 2^i, c_i]`, for `x` `[n, h, w, channels]`."""
        found, image, features = [], x, None
        for index in range(self.count - 1, 0, -1):
            features, image = getattr(self, f"block{index}")(features, image, self.resample_filter[...], x.dtype)
            found.append(features)
        return tuple(found)


class PspTrunk(nnx.Module):
    """The IR-SE trunk of pSp (Richardson et al. 2021); batch normalisation uses stored moments."""

    def __init__(self, config: HierarchicalConfig, *, rngs: nnx.Rngs):
        trunk = dict(widths=config.widths, depths=config.depths, stem=config.stem, reduction=config.reduction)
        self.irse = Irse(IrseConfig(image_channels=config.image_channels + 1, **trunk), rngs=rngs)

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Returns the maps `[n, h / 2^i, w / 2^i, c_i]` at the ends of all stages, for `x` `[n, h, w, channels]`."""
        ends = self.irse.config.stage_ends
        found = self.irse(x, ends)
        return tuple(found[end] for end in ends)


class PyramidHeads(nnx.Module):
    """A feature pyramid and a head for every style, as pSp has them, whose last layer gives both codes."""

    def __init__(self, config: HierarchicalConfig, widths: tuple[int, int, int], *, rngs: nnx.Rngs):
        fine, middle, coarse = widths
        self.config = config
        self.lateral0 = Convolution(middle, coarse, 1, rngs=rngs)
        self.lateral1 = Convolution(fine, coarse, 1, rngs=rngs)
        last = (config.size // 16).bit_length() - 1
        for i in range(config.num_ws):
            count = last + (i >= MIDDLE) + (i >= FINE)
            head = StyleHead(coarse, config.head_width, convolutions=count, out=2 * config.code_dim, rngs=rngs)
            setattr(self, f"head{i}", head)

    def __call__(self, fine: Array, middle: Array, coarse: Array) -> Array:
        """Returns codes `[n, num_ws, 2, code_dim]` for maps at 1/4, 1/8 and 1/16 of the size, `[n, h_i, w_i, c_i]`."""
        middle = pooling.resize_corners(coarse, middle.shape[1:3]) + self.lateral0(middle)
        fine = pooling.resize_corners(middle, fine.shape[1:3]) + self.lateral1(fine)
        config = self.config
        levels = [(coarse, middle, fine)[(i >= MIDDLE) + (i >= FINE)] for i in range(config.num_ws)]
        codes = jnp.stack([getattr(self, f"head{i}")(level) for i, level in enumerate(levels)], 1)
        return codes.reshape(*codes.shape[:2], 2, config.code_dim)


class DenseHeads(nnx.Module):
    """Two dense layers behind the coarsest map, for all styles together."""

    def __init__(self, config: HierarchicalConfig, widths: tuple[int, int, int], *, rngs: nnx.Rngs):
        self.config = config
        side = config.size // 16
        self.fc = layers.Dense(side * side * widths[-1], config.head_width, activation="lrelu", rngs=rngs)
        self.out = layers.Dense(config.head_width, config.num_ws * 2 * config.code_dim, rngs=rngs)

    def __call__(self, fine: Array, middle: Array, coarse: Array) -> Array:
        """Returns codes `[n, num_ws, 2, code_dim]` for maps `[n, h_i, w_i, c_i]`; only the last is read."""
        x = self.out(self.fc(coarse.reshape(coarse.shape[0], -1)))
        return x.reshape(-1, self.config.num_ws, 2, self.config.code_dim)


class Encoder(nnx.Module):
    """Maps `[masked image, mask]` to two codes for every style and to the map at a quarter of the size."""

    def __init__(self, config: HierarchicalConfig, *, rngs: nnx.Rngs):
        self.config = config
        if config.backbone == "psp":
            self.trunk, widths = PspTrunk(config, rngs=rngs), config.widths[-3:]
        else:
            self.trunk = ResidualTrunk(config.widths, config.image_channels + 1, rngs=rngs)
            widths = config.widths[2::-1]
        heads = PyramidHeads if config.heads == "convolutional" else DenseHeads
        self.heads = heads(config, widths, rngs=rngs)

    @property
    def fine_channels(self) -> int:
        """Channels of the map that the skip encoder reads."""
        return self.config.widths[1 if self.config.backbone == "psp" else 2]

    def __call__(self, images: Array, known: Array, *, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Returns codes `[n, num_ws, 2, code_dim]` and the map `[n, size / 4, size / 4, c]`.

        Args:
            images: `[n, r, r, c]` in [-1, 1].
            known: `[n, r, r]`, 1 = keep.
            dtype: of the trunk's computations.
        """
        x = shown(images, known, self.config.size).astype(dtype)
        fine, middle, coarse = self.trunk(x)[-3:]
        codes = self.heads(*(jnp.asarray(m, images.dtype) for m in (fine, middle, coarse)))
        return codes, fine


def second_encoder(config: HierarchicalConfig, *, rngs: nnx.Rngs) -> ResidualTrunk:
    """Returns the encoder that reads the masked image, the mask and the first result (DivInversion)."""
    return ResidualTrunk(config.second_widths, 2 * config.image_channels + 1, rngs=rngs)


def second_features(trunk: ResidualTrunk, images: Array, known: Array, first: Array, *, size: int) -> Array:
    """Returns its map `[n, size / 4, size / 4, c]`.

    Args:
        trunk: of `second_encoder`.
        images: `[n, r, r, c]`.
        known: `[n, r, r]`.
        first: the first result `[n, r, r, c]`.
        size: of what the trunk reads.
    """
    seen = shown(images, known, size)
    again = shown(first, jnp.ones_like(known), size)[..., :-1]
    return trunk(jnp.concatenate([seen, jax.lax.convert_element_type(again, seen.dtype)], -1))[-1]
