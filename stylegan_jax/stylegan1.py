# SPDX-License-Identifier: Apache-2.0
"""StyleGAN1 (Karras et al. 2019, "A Style-Based Generator Architecture") as rosinality's PyTorch code base trains it.

Batches are `[n, ...]`, images and feature maps `[n, h, w, c]`, images about [-1, 1] and unclipped. `b16` is the block
of resolution 16, step 2 of progressive growing; every block above 4x4 starts with an up-convolution.

It differs from NVIDIA's StyleGAN1: every weight, also of the mapping, the noise and the image layers, is scaled by
`sqrt(2 / fan_in)`; leaky ReLUs have no gain; both layers of a block add the same noise map; up-convolutions from 128
pixels on are a quarter as large.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import generator, layers, parameters
from stylegan_jax import noise as _noise
from stylegan_jax.ops import convolution, minibatch, resample

BLUR = resample.make_filter((1, 2, 1))
BOX = resample.make_filter((1, 1))
INSTANCE_EPSILON = 1e-5


def _check_widths(widths: tuple[int, ...]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must hold the channels at 4, 8, ..., got {widths}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(generator.Pyramid):
    """What determines a generator's function beside its weights.

    `widths` are the channels at 4, 8, ..., resolution; up-convolutions of blocks of at least `quarter_from` pixels are
    divided by 4 (rosinality's fused layers average what they should add up).
    """

    widths: tuple[int, ...]
    z_dim: int = 512
    mapping_layers: int = 8
    image_channels: int = 3
    quarter_from: int = 128

    def __post_init__(self):
        _check_widths(self.widths)

    @property
    def w_dim(self) -> int:
        """Width of an intermediate latent, here always that of z."""
        return self.z_dim

    @property
    def c_dim(self) -> int:
        """Number of labels: 0, these networks are unconditional."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(generator.Pyramid):
    """What determines a discriminator's function beside its weights; see `GeneratorConfig`.

    `from_rgb_activation` puts a leaky ReLU behind the layers that read images. Networks are trained either with or
    without it, and some code loads those trained with it into a network without.
    """

    widths: tuple[int, ...]
    image_channels: int = 3
    from_rgb_activation: bool = True

    def __post_init__(self):
        _check_widths(self.widths)

    @property
    def c_dim(self) -> int:
        """Number of labels: 0, these networks are unconditional."""
        return 0


def _leaky(x: Array) -> Array:
    return jnp.where(x >= 0, x, x * 0.2)


def _scaled(weight: nnx.Param, fan_in: int, dtype: jnp.dtype) -> Array:
    return (weight[...] * math.sqrt(2 / fan_in)).astype(dtype)


def _step_index(step: int | None, steps: int) -> int:
    index = steps - 1 if step is None else step
    if not 0 <= index < steps:
        raise ValueError(f"step must be from 0 (4 px) to {steps - 1} ({2 << steps} px), got {step}")
    return index


def _blends(step: int, alpha: float | Array) -> bool:
    """Returns whether the image of the step before is mixed in; a traced `alpha` always counts."""
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 (the step before) to 1 (this step alone), got {alpha}")
    return step > 0 and not (isinstance(alpha, int | float) and alpha == 1)


class EqualDense(nnx.Module):
    """Computes `x @ weight * sqrt(2 / in) + bias`, `[n, in] -> [n, out]`."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros((out_features,)))

    def __call__(self, x: Array) -> Array:
        return x @ _scaled(self.weight, self.weight.shape[0], x.dtype) + self.bias[...].astype(x.dtype)[None]


class EqualConv(nnx.Module):
    """Computes a convolution with `weight * sqrt(2 / fan_in)` plus bias, `[n, h, w, in] -> [n, h', w', out]`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (kernel, kernel, in_channels, out_channels)))
        self.bias = nnx.Param(jnp.zeros((out_channels,)))

    def _scaled_weight(self, dtype: jnp.dtype) -> Array:
        return _scaled(self.weight, math.prod(self.weight.shape[:3]), dtype)

    def _bias(self, dtype: jnp.dtype) -> Array:
        return self.bias[...].astype(dtype)[None, None, None]

    def __call__(self, x: Array) -> Array:
        weight = self._scaled_weight(x.dtype)
        return convolution.conv2d(x, weight, weight.shape[0] // 2) + self._bias(x.dtype)

    def up(self, x: Array, *, gain: float) -> Array:
        """Returns the layer applied at twice the size, times `gain` before the bias, then blurred.

        A transposed convolution and the mean of 2x2 neighbours: times 4, this is a convolution of the image doubled by
        repetition.
        """
        y = convolution.conv2d_up(x, self._scaled_weight(x.dtype))
        y = resample.upfirdn2d(y, jnp.asarray(BOX), gain=gain) + self._bias(x.dtype)
        return resample.upfirdn2d(y, jnp.asarray(BLUR), padding=(1, 1, 1, 1))

    def down(self, x: Array) -> Array:
        """Returns the layer applied to the blurred `x`, at half the size (the mean of 2x2 neighbours)."""
        y = resample.upfirdn2d(x, jnp.asarray(BLUR), padding=(1, 1, 1, 1))
        # The mean is taken before the convolution, where it is cheaper; both are linear.
        y = resample.upfirdn2d(y, jnp.asarray(BOX), padding=(1, 1, 1, 1))
        return convolution.conv2d_down(y, self._scaled_weight(x.dtype)) + self._bias(x.dtype)


class MappingNetwork(nnx.Module):
    """Maps latents to intermediate latents `w`: unit second moment, then dense layers with leaky ReLUs."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.z_dim, self.c_dim, self.w_dim = config.z_dim, 0, config.w_dim
        self.num_layers = config.mapping_layers
        for i in range(self.num_layers):
            setattr(self, f"fc{i}", EqualDense(config.z_dim, config.w_dim, rngs=rngs))
        self.w_avg = layers.Buffer(jnp.zeros((config.w_dim,)))

    def __call__(self, z: Array, c: Array | None = None) -> Array:
        """Returns `w` `[n, w_dim]` for `z` `[n, z_dim]`, before truncation; labels `c` must be None."""
        if c is not None:
            raise ValueError("mapping: c is given, but these networks are unconditional")
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"mapping: z must be [n, {self.z_dim}], got {list(z.shape)}")
        x = layers.normalize_second_moment(z)
        for i in range(self.num_layers):
            x = _leaky(getattr(self, f"fc{i}")(x))
        return x


class Style(nnx.Module):
    """Adds noise, applies a leaky ReLU, and sets mean and deviation of every channel (AdaIN): `[n, h, w, c]` to same.

    `y = gamma(w) * (x - mean) / sqrt(variance + 1e-5) + beta(w)` over the pixels of one sample and channel.
    """

    def __init__(self, width: int, *, w_dim: int, rngs: nnx.Rngs):
        self.noise_strength = nnx.Param(jnp.zeros((width,)))
        self.affine = EqualDense(w_dim, 2 * width, rngs=rngs)
        self.affine.bias[...] = jnp.concatenate([jnp.ones((width,)), jnp.zeros((width,))])

    def __call__(self, x: Array, w: Array, noise: Array | None) -> Array:
        """Applies the layer; `w` `[n, w_dim]`, `noise` `[n or 1, h, w]` or None."""
        if noise is not None:
            strength = _scaled(self.noise_strength, x.shape[3], x.dtype)
            x = x + noise.astype(x.dtype)[..., None] * strength[None, None, None]
        x = _leaky(x)
        x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True) + INSTANCE_EPSILON)
        gamma, beta = jnp.split(self.affine(w)[:, None, None, :], 2, axis=3)
        return x * gamma + beta


class SynthesisBlock(nnx.Module):
    """One resolution of the synthesis network: constant or up-convolution, convolution, two styles, ToRGB."""

    def __init__(self, config: GeneratorConfig, index: int, *, rngs: nnx.Rngs):
        width, resolution = config.widths[index], 4 << index
        if index == 0:
            self.const = nnx.Param(jax.random.normal(rngs.params(), (4, 4, width)))
        else:
            self.conv0 = EqualConv(config.widths[index - 1], width, 3, rngs=rngs)
        self.style0 = Style(width, w_dim=config.w_dim, rngs=rngs)
        self.conv1 = EqualConv(width, width, 3, rngs=rngs)
        self.style1 = Style(width, w_dim=config.w_dim, rngs=rngs)
        self.torgb = EqualConv(width, config.image_channels, 1, rngs=rngs)
        self.noise_const = layers.Buffer(jax.random.normal(rngs.params(), (resolution, resolution)))
        self.gain = 1.0 if resolution >= config.quarter_from else 4.0

    def __call__(self, x: Array | None, ws: Array, noise: Array | None) -> Array:
        """Returns features `[n, r, r, c]` for those of the block before (None at 4x4) and `ws` `[n, 2, w_dim]`."""
        if x is None:
            x = jnp.broadcast_to(self.const[...][None].astype(ws.dtype), (ws.shape[0], *self.const.shape))
        else:
            x = self.conv0.up(x, gain=self.gain)
        x = self.style0(x, ws[:, 0], noise)
        return self.style1(self.conv1(x), ws[:, 1], noise)


class Synthesis(nnx.Module):
    """The synthesis network: `ws [n, num_ws, w_dim]` to images `[n, r, r, channels]`."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        for index in range(len(config.widths)):
            setattr(self, f"b{4 << index}", SynthesisBlock(config, index, rngs=rngs))

    def blocks(self) -> list[tuple[str, SynthesisBlock]]:
        """Returns (name, block) from 4x4 up."""
        return [(f"b{4 << i}", getattr(self, f"b{4 << i}")) for i in range(len(self.config.widths))]

    def affines(self) -> dict[str, tuple[int, EqualDense]]:
        """Returns the index of its w and the affine layer of every style, `{"b8/style0": (2, affine), ...}`."""
        styles = ((f"{name}/style{j}", getattr(block, f"style{j}")) for name, block in self.blocks() for j in (0, 1))
        return {name: (index, style.affine) for index, (name, style) in enumerate(styles)}

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Returns the shape of every noise map, one for a block: `{"b4": (4, 4), "b8": (8, 8), ...}`."""
        return {f"b{4 << i}": (4 << i, 4 << i) for i in range(len(self.config.widths))}

    def noise_maps(self, noise: str | Array | Mapping[str, Array], n: int, dtype: jnp.dtype) -> dict[str, Array]:
        """Returns the map of every block with noise, `{"b8": [n or 1, 8, 8], ...}`, see `noise.maps`."""
        return _noise.maps(noise, dict(self.blocks()), n, dtype)

    def __call__(
        self,
        ws: Array,
        *,
        noise: str | Array | Mapping[str, Array] = "const",
        step: int | None = None,
        alpha: float | Array = 1.0,
    ) -> Array:
        """Returns images `[n, r, r, channels]`.

        `alpha * image + (1 - alpha) * double(image of the step before)` (Karras et al. 2018, progressive growing).

        Args:
            ws: `[n, num_ws, w_dim]`, two for each block; those of blocks beyond `step` do nothing.
            noise: see `noise_maps`.
            step: the block whose image is returned, of `4 << step` pixels; None means the last one.
            alpha: how far the last block has been faded in, from 0 to 1.

        Raises:
            ValueError: for wrong shapes, unknown names, or a step or alpha that does not exist.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            raise ValueError(f"ws must be [n, {self.config.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        last = _step_index(step, len(self.config.widths))
        blends = _blends(last, alpha)
        maps = self.noise_maps(noise, ws.shape[0], ws.dtype)
        blocks, x, before = self.blocks(), None, None
        for index, (name, block) in enumerate(blocks[: last + 1]):
            before, x = x, block(x, ws[:, 2 * index : 2 * index + 2], maps.get(name))
        image = blocks[last][1].torgb(x)
        if not blends:
            return image
        coarse = blocks[last - 1][1].torgb(before)
        return alpha * image + (1 - alpha) * jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)


class Generator(generator.StyleGenerator):
    """Mapping and synthesis network together."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.mapping = MappingNetwork(config, rngs=rngs)
        self.synthesis = Synthesis(config, rngs=rngs)

    def __call__(
        self,
        z: Array,
        c: Array | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: str | Array | Mapping[str, Array] = "const",
        step: int | None = None,
        alpha: float | Array = 1.0,
    ) -> Array:
        """Returns images `[n, r, r, channels]` about [-1, 1] for `z` `[n, z_dim]`; see `map` and `Synthesis`."""
        ws = self.map(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise=noise, step=step, alpha=alpha)


def mix_styles(ws: Array, other: Array, *, first: int, last: int) -> Array:
    """Returns `ws` `[n, num_ws, w_dim]` with the latents of blocks `first` to `last` (0 is 4x4) taken from `other`.

    Style mixing (Karras et al. 2019, section 3.1).

    Raises:
        ValueError: for different shapes, or blocks that do not exist.
    """
    if ws.ndim != 3 or ws.shape != other.shape:
        raise ValueError(f"ws and other must be [n, num_ws, w_dim] alike, got {list(ws.shape)}, {list(other.shape)}")
    if not 0 <= first <= last < ws.shape[1] // 2:
        raise ValueError(f"blocks must be within 0 to {ws.shape[1] // 2 - 1}, got {first} to {last}")
    block = jnp.arange(ws.shape[1]) // 2
    return jnp.where(((block >= first) & (block <= last))[None, :, None], other, ws)


class DiscriminatorBlock(nnx.Module):
    """One resolution of the discriminator above 4x4: FromRGB and two convolutions, the second one at half the size."""

    def __init__(self, config: DiscriminatorConfig, index: int, *, rngs: nnx.Rngs):
        width = config.widths[index]
        self.fromrgb = EqualConv(config.image_channels, width, 1, rngs=rngs)
        self.conv0 = EqualConv(width, config.widths[index - 1], 3, rngs=rngs)
        self.conv1 = EqualConv(config.widths[index - 1], config.widths[index - 1], 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Returns features at half the size for those that enter."""
        return _leaky(self.conv1.down(_leaky(self.conv0(x))))


class DiscriminatorEpilogue(nnx.Module):
    """The 4x4 end of the discriminator: deviation over the whole batch, a convolution and two dense layers."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        width = config.widths[0]
        self.fromrgb = EqualConv(config.image_channels, width, 1, rngs=rngs)
        self.conv = EqualConv(width + 1, width, 3, rngs=rngs)
        self.fc = EqualDense(16 * width, width, rngs=rngs)
        self.out = EqualDense(width, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Returns logits `[n, 1]` for features `[n, 4, 4, c]`."""
        x = _leaky(self.conv(minibatch.minibatch_stddev(x, group_size=None)))
        return self.out(_leaky(self.fc(x.reshape(x.shape[0], -1))))


class Discriminator(nnx.Module):
    """The discriminator: images `[n, r, r, channels]` to logits `[n]`, positive for real; samples of a batch meet."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.config = config
        for index in range(1, len(config.widths)):
            setattr(self, f"b{4 << index}", DiscriminatorBlock(config, index, rngs=rngs))
        self.b4 = DiscriminatorEpilogue(config, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: DiscriminatorConfig, arrays: Mapping[str, Array]) -> "Discriminator":
        """Returns the discriminator with weights `{"b4/conv/weight": ..., ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def _read(self, index: int, images: Array) -> Array:
        x = getattr(self, f"b{4 << index}").fromrgb(images)
        return _leaky(x) if self.config.from_rgb_activation else x

    def __call__(
        self, images: Array, c: Array | None = None, *, step: int | None = None, alpha: float | Array = 1.0
    ) -> Array:
        """Returns logits `[n]`.

        Args:
            images: `[n, r, r, channels]` with `r = 4 << step`.
            c: labels, which must be None.
            step: the block that reads the images; None means the last one.
            alpha: how far that block has been faded in, from 0 (the next one reads the halved images) to 1.

        Raises:
            ValueError: for images of another size, labels, or a step or alpha that does not exist.
        """
        last = _step_index(step, len(self.config.widths))
        size = (4 << last, 4 << last, self.config.image_channels)
        if images.ndim != 4 or images.shape[1:] != size:
            raise ValueError(
                f"discriminator: images must be [n, {size[0]}, {size[1]}, {size[2]}], got {list(images.shape)}"
            )
        if c is not None:
            raise ValueError("discriminator: c is given, but these networks are unconditional")
        blends = _blends(last, alpha)
        x = self._read(last, images)
        for index in range(last, 0, -1):
            x = getattr(self, f"b{4 << index}")(x)
            if index == last and blends:
                coarse = resample.upfirdn2d(images, jnp.asarray(BOX), down=2)
                x = alpha * x + (1 - alpha) * self._read(last - 1, coarse)
        return self.b4(x)[:, 0]
