# SPDX-License-Identifier: Apache-2.0
"""An encoder of images with holes into W+, small enough for a demo model."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers, stylegan2
from stylegan_jax.ops import resample


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedEncoderConfig:
    """What determines a masked encoder beside its weights.

    Attributes:
        widths: channels at 4, 8, ..., the resolution of the images.
        image_channels: of the images; the mask is one more.
        num_ws, w_dim: of the generator.
        features: width of the dense layer before the latents.
    """

    widths: tuple[int, ...]
    image_channels: int = 3
    num_ws: int
    w_dim: int
    features: int = 256

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return 2 << len(self.widths)


def check_shapes(images: Array, known: Array, *, resolution: int, channels: int) -> None:
    """Raises ValueError unless images are `[n, resolution, resolution, channels]` and known lacks only the channels."""
    size = (resolution, resolution)
    if images.shape[1:] != (*size, channels) or known.shape != (images.shape[0], *size):
        raise ValueError(
            f"encoder: images must be [n, {resolution}, {resolution}, {channels}] and known without the channels, got "
            f"{list(images.shape)} and {list(known.shape)}"
        )


class MaskedEncoder(nnx.Module):
    """Maps images with holes to latents in W+: the residual trunk of StyleGAN2's discriminator and two dense layers.

    What is hidden is filled with 0, and `known` is one more input channel. The latents are `mean + scale * offsets`,
    with the mean and the standard deviations of W.
    """

    def __init__(self, config: MaskedEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        trunk = stylegan2.DiscriminatorConfig(
            widths=config.widths, image_channels=config.image_channels + 1, conv_clamp=None
        )
        self.resample_filter = layers.Buffer(jnp.asarray(resample.make_filter(trunk.resample_filter)))
        for index in range(1, len(config.widths)):
            setattr(self, f"b{4 << index}", stylegan2.DiscriminatorBlock(trunk, index, rngs=rngs))
        self.fc = layers.Dense(16 * config.widths[0], config.features, activation="lrelu", rngs=rngs)
        self.out = layers.Dense(config.features, config.num_ws * config.w_dim, rngs=rngs)
        # A new encoder says the mean of W, whatever it sees.
        self.out.weight[...] = jnp.zeros_like(self.out.weight[...])
        self.mean = layers.Buffer(jnp.zeros((config.w_dim,)))
        self.scale = layers.Buffer(jnp.ones((config.w_dim,)))

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def __call__(self, images: Array, known: Array) -> Array:
        """Returns latents `[n, num_ws, w_dim]` for `images` `[n, r, r, c]` in [-1, 1] and `known` `[n, r, r]`."""
        config = self.config
        check_shapes(images, known, resolution=config.resolution, channels=config.image_channels)
        shown = known[..., None].astype(images.dtype)
        x, image = None, jnp.concatenate([jnp.where(shown > 0, images * shown, 0), shown], -1)
        for index in range(len(config.widths) - 1, 0, -1):
            x, image = getattr(self, f"b{4 << index}")(x, image, self.resample_filter[...], images.dtype)
        offsets = self.out(self.fc(x.reshape(x.shape[0], -1))).reshape(-1, config.num_ws, config.w_dim)
        return self.mean[...][None, None] + self.scale[...][None, None] * offsets
