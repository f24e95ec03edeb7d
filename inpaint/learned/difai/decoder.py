# SPDX-License-Identifier: Apache-2.0
"""DiFaI's generator G: a SPADE encoder of the known pixels, and the SPARN decoder, which is modulated by the condition.

Everything is `[n, h, w, c]`. The names of blocks say their resolution, as in the generators: `b8` works at 8 x 8.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from inpaint.learned.difai import normalisation, spectral

_SLOPE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What determines G beside its weights.

    Attributes:
        image_channels: of images.
        encoder_widths: channels of the encoder's convolutions of stride 2, from the resolution down to 4 x 4.
        widths: channels of the decoder's blocks at 4, 8, ..., the resolution.
        hidden: channels between condition and modulation.
        norm: "region" (SPARN), or "image": instance normalisation in its place.
        affine: see `normalisation.Norm`.
        resize: how the condition is made smaller, the "mean" of blocks or the "nearest" pixel. The paper does not say;
            SPADE's code takes the nearest, since its conditions are labels, which have no mean.
    """

    image_channels: int = 3
    encoder_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    widths: tuple[int, ...] = (1024, 1024, 1024, 512, 256, 128, 64)
    hidden: int = 128
    norm: str = "region"
    affine: str = "masked"
    resize: str = "mean"

    def __post_init__(self):
        if len(self.widths) != len(self.encoder_widths) + 1 or len(self.widths) < 2:
            raise ValueError(
                "the decoder has a block at 4 pixels and one for every halving of the encoder, so one width more than "
                f"it; got {len(self.widths)} and {len(self.encoder_widths)}"
            )
        if min(*self.widths, *self.encoder_widths, self.hidden, self.image_channels) < 1:
            raise ValueError("widths, hidden and image_channels must be positive")
        allowed = {"norm": normalisation.NORMS, "affine": normalisation.AFFINES, "resize": normalisation.RESIZES}
        for name, known in allowed.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.norm == "image" and self.affine == "unmasked":
            raise ValueError('affine "unmasked" is about two regions, which norm "image" does not have')

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return 2 << len(self.widths)


class KnownEncoder(nnx.Module):
    """SPADE's image encoder: convolutions of stride 2 with instance normalisation, `[n, r, r, c] -> [n, 4, 4, k]`.

    Its two dense layers, which give a distribution, are left out: the decoder takes the map itself.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.resolution = config.resolution
        before = config.image_channels
        for index, width in enumerate(config.encoder_widths):
            setattr(self, f"b{config.resolution >> (index + 1)}", spectral.Conv(before, width, 3, rngs=rngs))
            before = width

    def __call__(self, images: Array, *, across_batch: bool = False) -> Array:
        """Returns the map at 4 x 4 of `images` `[n, r, r, c]`."""
        x, size = images, self.resolution
        while size > 4:
            x = x if size == self.resolution else jax.nn.leaky_relu(x, _SLOPE)
            size //= 2
            x = normalisation.normalise(getattr(self, f"b{size}").halve(x), across_batch=across_batch)
        return x


class Block(nnx.Module):
    """A residual block of SPADE with the norms of the config: `[n, h, w, in] -> [n, h, w, out]`.

    `x_s + conv1(act(norm1(conv0(act(norm0(x))))))`; the shortcut x_s is x, or where the channels change
    `conv_s(norm_s(x))`, 1 x 1 and without activation.
    """

    def __init__(self, in_channels: int, out_channels: int, config: DecoderConfig, *, rngs: nnx.Rngs):
        middle = min(in_channels, out_channels)

        def norm(channels: int) -> normalisation.Modulated:
            return normalisation.Modulated(
                channels,
                condition_channels=config.image_channels,
                hidden=config.hidden,
                norm=config.norm,
                affine=config.affine,
                resize=config.resize,
                rngs=rngs,
            )

        self.norm0, self.norm1 = norm(in_channels), norm(middle)
        self.conv0 = spectral.Conv(in_channels, middle, 3, rngs=rngs)
        self.conv1 = spectral.Conv(middle, out_channels, 3, rngs=rngs)
        self.changes = in_channels != out_channels
        if self.changes:
            self.norm_s = norm(in_channels)
            self.conv_s = spectral.Conv(in_channels, out_channels, 1, bias=False, rngs=rngs)

    def __call__(self, x: Array, condition: Array, known: Array, *, across_batch: bool = False) -> Array:
        """Returns the block's output for `condition` `[n, r, r, k]` and `known` `[n, r, r]`."""

        def normed(norm: normalisation.Modulated, x: Array) -> Array:
            return norm(x, condition, known, across_batch=across_batch)

        y = self.conv0(jax.nn.leaky_relu(normed(self.norm0, x), _SLOPE))
        y = self.conv1(jax.nn.leaky_relu(normed(self.norm1, y), _SLOPE))
        return y + (self.conv_s(normed(self.norm_s, x)) if self.changes else x)


class Decoder(nnx.Module):
    """G: known pixels through the encoder, then blocks with nearest-neighbour doubling between them, then tanh."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = KnownEncoder(config, rngs=rngs)
        self.head = spectral.Conv(config.encoder_widths[-1], config.widths[0], 3, spectral=False, rngs=rngs)
        before = config.widths[0]
        for index, width in enumerate(config.widths):
            setattr(self, f"b{4 << index}", Block(before, width, config, rngs=rngs))
            before = width
        self.to_image = spectral.Conv(before, config.image_channels, 3, spectral=False, rngs=rngs)

    def __call__(
        self,
        images: Array,
        styles: Array,
        known: Array,
        *,
        across_batch: bool = False,
        dtype: jnp.dtype | None = None,
    ) -> Array:
        """Returns the completed images, `G(I_masked, I_style', M)` (equation 5).

        Args:
            images: `[n, r, r, c]`; what is not known has no influence.
            styles: style images `[n, r, r, c]`; only their holes have influence (equation 4).
            known: `[n, r, r]`, 1 = keep, 0 = hole.
            across_batch: normalise over all images together, in training only; results then depend on the batch.
            dtype: of convolutions, such as bfloat16; statistics of norms stay float32. None: of `images`.

        Returns:
            `[n, r, r, c]` in [-1, 1], in known pixels too what the decoder makes of them.

        Raises:
            ValueError: for images of another size.
        """
        config = self.config
        expected = (config.resolution, config.resolution, config.image_channels)
        if images.shape[1:] != expected or styles.shape != images.shape or known.shape != images.shape[:3]:
            raise ValueError(
                f"images and styles must be [n, {', '.join(map(str, expected))}] and known [n, {expected[0]}, "
                f"{expected[1]}]; got {list(images.shape)}, {list(styles.shape)} and {list(known.shape)}"
            )
        shown = (known > 0.5)[..., None]
        kept = jnp.where(shown, images, 0)
        condition = jnp.where(shown, images, styles)
        wide = dtype or images.dtype
        x = self.head(self.encoder(kept.astype(wide), across_batch=across_batch))
        for index in range(len(config.widths)):
            x = x if index == 0 else x.repeat(2, 1).repeat(2, 2)
            block = getattr(self, f"b{4 << index}")
            x = block(x, condition.astype(wide), known.astype(wide), across_batch=across_batch)
        x = self.to_image(jax.nn.leaky_relu(x, _SLOPE))
        return jnp.tanh(x.astype(images.dtype))
