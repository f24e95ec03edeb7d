# SPDX-License-Identifier: Apache-2.0
"""StyleGAN1 (Karras et al. 2019, "A Style-Based Generator Architecture") as NVIDIA's own TensorFlow code computes it.

Batches are `[n, ...]`, images and feature maps `[n, h, w, c]`, images about [-1, 1] and unclipped. `b16` is the block
of resolution 16; `b16/style0` follows the up-convolution of a block (at 4x4 the constant), `b16/style1` its second
convolution. Networks are those of the end of progressive growing: the last block alone reads or writes images.

It differs from `stylegan1`, which is rosinality's: the mapping has a learning rate multiplier; every style has a noise
map of its own, whose strengths are used as stored, and a bias after the noise; styles are differences from 1; the
epsilon of the normalisation is smaller; styles, image layers of the generator and the last layer of the discriminator
are scaled by `sqrt(1 / fan_in)`, not `sqrt(2 / fan_in)`; the deviation is that of groups, not of the whole batch; both
networks may take labels. Unlike NVIDIA's code, `map` truncates nothing unless it is told to; there, 0.7 on the first 8
latents is the default.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import generator, layers, parameters, stylegan1
from stylegan_jax import noise as _noise
from stylegan_jax.ops import convolution, minibatch, resample

INSTANCE_EPSILON = 1e-8


def _check_widths(widths: tuple[int, ...]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must hold the channels at 4, 8, ..., got {widths}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(generator.Pyramid):
    """What determines a generator's function beside its weights.

    `widths` are the channels at 4, 8, ..., resolution; `layer_features`, the width inside the mapping, defaults to
    `w_dim`.
    """

    widths: tuple[int, ...]
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    image_channels: int = 3
    mapping_layers: int = 8
    layer_features: int | None = None
    mapping_lr_multiplier: float = 0.01

    def __post_init__(self):
        _check_widths(self.widths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(generator.Pyramid):
    """What determines a discriminator's function beside its weights; see `GeneratorConfig`.

    `dense_features`, the width of the first dense layer, defaults to `widths[0]`; `minibatch_channels` may be 0, for
    none.
    """

    widths: tuple[int, ...]
    c_dim: int = 0
    image_channels: int = 3
    dense_features: int | None = None
    minibatch_group_size: int | None = 4
    minibatch_channels: int = 1

    def __post_init__(self):
        _check_widths(self.widths)


def _leaky(x: Array) -> Array:
    return jnp.where(x >= 0, x, x * 0.2)


def _check_labels(owner: str, c: Array | None, c_dim: int) -> None:
    if (c is None) != (c_dim == 0):
        raise ValueError(f"{owner}: c_dim is {c_dim} but c is {'missing' if c is None else 'given'}")
    if c is not None and (c.ndim != 2 or c.shape[1] != c_dim):
        raise ValueError(f"{owner}: c must be [n, {c_dim}], got {list(c.shape)}")


class MappingDense(stylegan1.EqualDense):
    """Computes `leaky_relu(lr_multiplier * (x @ weight * sqrt(2 / in) + bias))`, `[n, in] -> [n, out]`."""

    def __init__(self, in_features: int, out_features: int, *, lr_multiplier: float, rngs: nnx.Rngs):
        super().__init__(in_features, out_features, rngs=rngs)
        self.weight[...] = self.weight[...] / lr_multiplier
        self.lr_multiplier = lr_multiplier

    def __call__(self, x: Array) -> Array:
        return _leaky(super().__call__(x) * self.lr_multiplier)


class MappingNetwork(nnx.Module):
    """Maps latents and labels to intermediate latents `w`: joined, unit second moment, dense layers.

    Labels are multiplied by a matrix as wide as z, which is neither scaled nor normalised by itself.
    """

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.z_dim, self.c_dim, self.w_dim = config.z_dim, config.c_dim, config.w_dim
        self.num_layers = config.mapping_layers
        width = config.z_dim
        if config.c_dim:
            self.embed = nnx.Param(jax.random.normal(rngs.params(), (config.c_dim, config.z_dim)))
            width *= 2
        hidden = config.w_dim if config.layer_features is None else config.layer_features
        widths = [width] + [hidden] * (self.num_layers - 1) + [config.w_dim]
        for i in range(self.num_layers):
            layer = MappingDense(widths[i], widths[i + 1], lr_multiplier=config.mapping_lr_multiplier, rngs=rngs)
            setattr(self, f"fc{i}", layer)
        self.w_avg = layers.Buffer(jnp.zeros((config.w_dim,)))

    def __call__(self, z: Array, c: Array | None = None) -> Array:
        """Returns `w` `[n, w_dim]`, before truncation, for `z` `[n, z_dim]` and labels `c` `[n, c_dim]`.

        Raises:
            ValueError: where an input is missing, superfluous or of another width.
        """
        _check_labels("mapping", c, self.c_dim)
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"mapping: z must be [n, {self.z_dim}], got {list(z.shape)}")
        x = z if c is None else jnp.concatenate([z, c @ self.embed[...].astype(c.dtype)], axis=1)
        x = layers.normalize_second_moment(x)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


class UpConv(layers.Conv):
    """A 3x3 convolution of the image doubled by repetition, then blurred: `[n, h, w, in] -> [n, 2h, 2w, out]`.

    `blur(4 * box(transposed_convolution(x)))`, the weight lying as a transposed convolution takes it, that is turned
    around in both axes with respect to the convolution of the doubled image.
    """

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        super().__init__(in_channels, out_channels, 3, bias=False, rngs=rngs)

    def __call__(self, x: Array, *, gain: float = 1.0) -> Array:
        y = convolution.conv2d_up(x, self._scaled_weight(x.dtype))
        y = resample.upfirdn2d(y, jnp.asarray(stylegan1.BOX), gain=4 * gain)
        # Not one filter [1, 3, 3, 1]: what the first one gives outside the image counts as 0 for the second.
        return resample.upfirdn2d(y, jnp.asarray(stylegan1.BLUR), padding=(1, 1, 1, 1))


class Style(nnx.Module):
    """Adds noise and bias, applies a leaky ReLU, and sets mean and deviation of every channel: `[n, h, w, c]` to same.

    `y = (scale(w) + 1) * (x - mean) / sqrt(variance + 1e-8) + shift(w)` over the pixels of one sample and channel.
    """

    def __init__(self, width: int, *, w_dim: int, resolution: int, rngs: nnx.Rngs):
        self.noise_strength = nnx.Param(jnp.zeros((width,)))
        self.noise_const = layers.Buffer(jax.random.normal(rngs.params(), (resolution, resolution)))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.affine = layers.Dense(w_dim, 2 * width, rngs=rngs)

    def __call__(self, x: Array, w: Array, noise: Array | None) -> Array:
        """Applies the layer; `w` `[n, w_dim]`, `noise` `[n or 1, h, w]` or None."""
        if noise is not None:
            x = x + noise.astype(x.dtype)[..., None] * self.noise_strength[...].astype(x.dtype)[None, None, None]
        x = _leaky(x + self.bias[...].astype(x.dtype)[None, None, None])
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True) + INSTANCE_EPSILON)
        scale, shift = jnp.split(self.affine(w)[:, None, None, :], 2, axis=3)
        return x * (scale + 1) + shift


class SynthesisBlock(nnx.Module):
    """One resolution of synthesis: constant or up-convolution, convolution, two styles; in the last block a ToRGB."""

    def __init__(self, config: GeneratorConfig, index: int, *, rngs: nnx.Rngs):
        width = config.widths[index]
        options = dict(w_dim=config.w_dim, resolution=4 << index, rngs=rngs)
        if index == 0:
            self.const = nnx.Param(jnp.ones((4, 4, width)))
        else:
            self.conv0 = UpConv(config.widths[index - 1], width, rngs=rngs)
        self.style0 = Style(width, **options)
        self.conv1 = layers.Conv(width, width, 3, bias=False, rngs=rngs)
        self.style1 = Style(width, **options)
        if index == len(config.widths) - 1:
            self.torgb = layers.Conv(width, config.image_channels, 1, rngs=rngs)

    def __call__(self, x: Array | None, ws: Array, noise: tuple[Array | None, Array | None]) -> Array:
        """Returns features `[n, r, r, c]`.

        Args:
            x: those of the block before, `[n, r/2, r/2, c']`; None at 4x4.
            ws: `[n, 2, w_dim]`.
            noise: the maps of both styles, `[n or 1, r, r]`, or None.
        """
        if x is None:
            x = jnp.broadcast_to(self.const[...][None].astype(ws.dtype), (ws.shape[0], *self.const.shape))
        else:
            x = self.conv0(x, gain=math.sqrt(2))
        x = self.style0(x, ws[:, 0], noise[0])
        return self.style1(self.conv1(x, gain=math.sqrt(2)), ws[:, 1], noise[1])


class Synthesis(stylegan1.Synthesis):
    """The synthesis network: `ws [n, num_ws, w_dim]` to images `[n, r, r, channels]`, with a noise map per latent."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        for index in range(len(config.widths)):
            setattr(self, f"b{4 << index}", SynthesisBlock(config, index, rngs=rngs))

    def _styles(self) -> dict[str, Style]:
        return {f"{b}/{s}": getattr(block, s) for b, block in self.blocks() for s in ("style0", "style1")}

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Returns the shape of every noise map: `{"b4/style0": (4, 4), "b4/style1": (4, 4), "b8/style0": ...}`."""
        return {name: style.noise_const.shape for name, style in self._styles().items()}

    def noise_maps(self, noise: str | Array | Mapping[str, Array], n: int, dtype: jnp.dtype) -> dict[str, Array]:
        """Returns the map of every style with noise, `{"b8/style0": [n or 1, 8, 8], ...}`, see `noise.maps`."""
        return _noise.maps(noise, self._styles(), n, dtype)

    def __call__(self, ws: Array, *, noise: str | Array | Mapping[str, Array] = "const") -> Array:
        """Returns images `[n, r, r, channels]`.

        Args:
            ws: `[n, num_ws, w_dim]`, two for each block.
            noise: see `noise_maps`.

        Raises:
            ValueError: for wrong shapes or unknown names.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            raise ValueError(f"ws must be [n, {self.config.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        maps, x, block = self.noise_maps(noise, ws.shape[0], ws.dtype), None, None
        for index, (name, block) in enumerate(self.blocks()):
            own = maps.get(f"{name}/style0"), maps.get(f"{name}/style1")
            x = block(x, ws[:, 2 * index : 2 * index + 2], own)
        return block.torgb(x)


class Generator(generator.StyleGenerator):
    """Mapping and synthesis network together."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.mapping = MappingNetwork(config, rngs=rngs)
        self.synthesis = Synthesis(config, rngs=rngs)


class DiscriminatorBlock(nnx.Module):
    """One resolution of the discriminator above 4x4: two convolutions, the second one at half the size."""

    def __init__(self, width: int, below: int, *, rngs: nnx.Rngs):
        self.conv0 = stylegan1.EqualConv(width, width, 3, rngs=rngs)
        self.conv1 = stylegan1.EqualConv(width, below, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Returns features `[n, r/2, r/2, c']` for those that enter, `[n, r, r, c]`."""
        return _leaky(self.conv1.down(_leaky(self.conv0(x))))


class DiscriminatorEpilogue(nnx.Module):
    """The 4x4 end of the discriminator: deviation within groups, a convolution and two dense layers."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        width = config.widths[0]
        features = width if config.dense_features is None else config.dense_features
        self.group_size, self.channels = config.minibatch_group_size, config.minibatch_channels
        self.conv = stylegan1.EqualConv(width + self.channels, width, 3, rngs=rngs)
        self.fc = stylegan1.EqualDense(16 * width, features, rngs=rngs)
        self.out = layers.Dense(features, max(config.c_dim, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Returns `[n, 1 or c_dim]` for features `[n, 4, 4, c]`."""
        if self.channels:
            x = minibatch.minibatch_stddev(x, group_size=self.group_size, channels=self.channels)
        x = _leaky(self.conv(x))
        return self.out(_leaky(self.fc(x.reshape(x.shape[0], -1))))


class Discriminator(nnx.Module):
    """The discriminator: images `[n, r, r, channels]` (and labels) to logits `[n]`, positive for real."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.fromrgb = stylegan1.EqualConv(config.image_channels, config.widths[-1], 1, rngs=rngs)
        for index in range(1, len(config.widths)):
            block = DiscriminatorBlock(config.widths[index], config.widths[index - 1], rngs=rngs)
            setattr(self, f"b{4 << index}", block)
        self.b4 = DiscriminatorEpilogue(config, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: DiscriminatorConfig, arrays: Mapping[str, Array]) -> "Discriminator":
        """Returns the discriminator with weights `{"b4/conv/weight": ..., ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def __call__(self, images: Array, c: Array | None = None) -> Array:
        """Returns logits `[n]` for images `[n, r, r, channels]` and labels `[n, c_dim]` (None if unconditional).

        With labels, the logit is `sum(outputs * c)` (Mescheder et al. 2018, "Which Training Methods for GANs do
        actually Converge?").

        Raises:
            ValueError: for images of another size, or labels missing, superfluous or of another width.
        """
        size = (self.resolution, self.resolution, self.config.image_channels)
        if images.ndim != 4 or images.shape[1:] != size:
            raise ValueError(
                f"discriminator: images must be [n, {size[0]}, {size[1]}, {size[2]}], got {list(images.shape)}"
            )
        _check_labels("discriminator", c, self.config.c_dim)
        x = _leaky(self.fromrgb(images))
        for index in range(len(self.config.widths) - 1, 0, -1):
            x = getattr(self, f"b{4 << index}")(x)
        y = self.b4(x)
        return y[:, 0] if c is None else jnp.sum(y * c, axis=1)
