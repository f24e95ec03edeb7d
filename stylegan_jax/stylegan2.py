# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN") in Flax NNX.

Batches are `[n, ...]`, images and feature maps `[n, h, w, c]`, images about [-1, 1] and unclipped. `b16` is the block
of resolution 16; a feature map is named by the layer that it enters.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import generator, layers, parameters
from stylegan_jax import mapping as _mapping
from stylegan_jax import noise as _noise
from stylegan_jax.ops import minibatch, resample

Features = Mapping[str, Array | Callable[[Array], Array]]
ARCHITECTURES = ("skip", "orig", "resnet")


def channel_widths(resolution: int, *, channel_base: int = 32768, channel_max: int = 512) -> tuple[int, ...]:
    """Returns the published widths `min(channel_base / r, channel_max)` for r = 4, 8, ..., resolution."""
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two from 4 on, got {resolution}")
    return tuple(min(channel_base >> i, channel_max) for i in range(2, resolution.bit_length()))


def _check(config: "GeneratorConfig | DiscriminatorConfig") -> None:
    if not config.widths or min(config.widths) < 1:
        raise ValueError(f"widths must hold the channels at 4, 8, ..., got {config.widths}")
    if config.architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {config.architecture!r}; known: {', '.join(ARCHITECTURES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(generator.Pyramid):
    """What determines a generator's function beside its weights.

    `widths` are the channels at 4, 8, ..., resolution; `embed_features` and `layer_features` default to `w_dim`;
    blocks of at least `bfloat16_from` pixels compute in bfloat16 (None: all in the dtype of the latents).
    """

    widths: tuple[int, ...]
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    image_channels: int = 3
    mapping_layers: int = 8
    embed_features: int | None = None
    layer_features: int | None = None
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.995
    architecture: str = "skip"
    activation: str = "lrelu"
    conv_clamp: float | None = None
    use_noise: bool = True
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)
    bfloat16_from: int | None = None

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(generator.Pyramid):
    """What determines a discriminator's function beside its weights; see `GeneratorConfig`."""

    widths: tuple[int, ...]
    c_dim: int = 0
    image_channels: int = 3
    architecture: str = "resnet"
    activation: str = "lrelu"
    epilogue_activation: str = "lrelu"
    conv_clamp: float | None = None
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)
    minibatch_group_size: int | None = 4
    minibatch_channels: int = 1
    cmap_dim: int | None = None
    mapping_layers: int = 8
    embed_features: int | None = None
    layer_features: int | None = None
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    bfloat16_from: int | None = None

    def __post_init__(self):
        _check(self)


def _block_dtype(config: "GeneratorConfig | DiscriminatorConfig", resolution: int, dtype: jnp.dtype) -> jnp.dtype:
    low = config.bfloat16_from is not None and resolution >= config.bfloat16_from
    return jnp.bfloat16 if low else dtype


class SynthesisBlock(nnx.Module):
    """One resolution of the synthesis network: up to two convolutions, a shortcut and a ToRGB."""

    def __init__(self, config: GeneratorConfig, index: int, *, rngs: nnx.Rngs):
        self.resolution = 4 << index
        width = config.widths[index]
        options = dict(w_dim=config.w_dim, clamp=config.conv_clamp, rngs=rngs)
        conv = dict(resolution=self.resolution, activation=config.activation, use_noise=config.use_noise, **options)
        if index == 0:
            self.const = nnx.Param(jax.random.normal(rngs.params(), (4, 4, width)))
        else:
            self.conv0 = layers.Modulated(config.widths[index - 1], width, up=True, **conv)
            if config.architecture == "resnet":
                self.skip = layers.Conv(config.widths[index - 1], width, 1, bias=False, rngs=rngs)
        self.conv1 = layers.Modulated(width, width, up=False, **conv)
        if config.architecture == "skip" or index == len(config.widths) - 1:
            self.torgb = layers.ToRGB(width, config.image_channels, **options)

    def layer_names(self) -> list[str]:
        """Names of the modulated layers of this block, in order."""
        return [name for name in ("conv0", "conv1", "torgb") if hasattr(self, name)]


class Synthesis(nnx.Module):
    """The synthesis network: `ws [n, num_ws, w_dim]` to images `[n, r, r, channels]`."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.resample_filter = layers.Buffer(jnp.asarray(resample.make_filter(config.resample_filter)))
        for index in range(len(config.widths)):
            setattr(self, f"b{4 << index}", SynthesisBlock(config, index, rngs=rngs))

    def blocks(self) -> list[tuple[str, SynthesisBlock]]:
        """Returns (name, block) from 4x4 up."""
        return [(f"b{4 << i}", getattr(self, f"b{4 << i}")) for i in range(len(self.config.widths))]

    def _layers(self) -> list[tuple[str, nnx.Module, int]]:
        """Returns (name, layer, index of its w); a ToRGB shares its w with the first convolution of the next block."""
        found, index = [], 0
        for block_name, block in self.blocks():
            names = block.layer_names()
            found += [(f"{block_name}/{name}", getattr(block, name), index + i) for i, name in enumerate(names)]
            index += len([name for name in names if name != "torgb"])
        return found

    def affines(self) -> dict[str, tuple[int, layers.Dense]]:
        """Returns the index of its w and the affine layer of every style, `{"b8/conv0": (1, affine), ...}`."""
        return {name: (index, layer.affine) for name, layer, index in self._layers()}

    def styles(self, ws: Array) -> dict[str, Array]:
        """Returns every layer's style (StyleSpace, Wu et al. 2021): `{"b8/conv0": [n, in], ...}` for `ws`."""
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            raise ValueError(f"ws must be [n, {self.config.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        return {name: layer.affine(ws[:, index]) for name, layer, index in self._layers()}

    def most_filters(self) -> int:
        """Returns the largest number of output filters of its layers."""
        return max(layer.bias.shape[0] for _, layer, _ in self._layers())

    def filter_styles(self, ws: Array) -> dict[str, Array]:
        """Returns a style for every output filter, `{"b8/conv0": [out, in], ...}`, of one image.

        Every filter of a layer has a latent of its own (W++ of Poirier-Ginter and Lalonde 2023, "Robust Unsupervised
        StyleGAN Image Restoration").

        Args:
            ws: `[num_ws, filters, w_dim]`; a layer with fewer filters takes the first of its latents.

        Raises:
            ValueError: for latents of another shape.
        """
        config = self.config
        wanted = (config.num_ws, self.most_filters(), config.w_dim)
        if ws.shape != wanted:
            raise ValueError(f"latents of w++ must be {list(wanted)}, got {list(ws.shape)}")
        return {name: layer.affine(ws[i, : layer.bias.shape[0]]) for name, layer, i in self._layers()}

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Returns the shape of every noise map, `{"b4/conv1": (4, 4), ...}`; empty for a network without noise."""
        return {name: layer.noise_const.shape for name, layer in self._noisy().items()}

    def _noisy(self) -> dict[str, layers.Modulated]:
        found = {name: layer for name, layer, _ in self._layers() if not name.endswith("torgb")}
        return {name: layer for name, layer in found.items() if layer.use_noise}

    def noise_maps(self, noise: str | Array | Mapping[str, Array], n: int, dtype: jnp.dtype) -> dict[str, Array]:
        """Returns the map of every layer with noise, `{"b8/conv0": [n or 1, 8, 8], ...}`, see `noise.maps`."""
        return _noise.maps(noise, self._noisy(), n, dtype)

    def forward(
        self,
        ws: Array | None = None,
        *,
        styles: Mapping[str, Array] | None = None,
        noise: str | Array | Mapping[str, Array] = "const",
        features: Features | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Returns images and the feature maps met on the way.

        Args:
            ws: `[n, num_ws, w_dim]`; may be None where `styles` are complete.
            styles: `{"b8/conv0": [n, in], ...}`, used in place of the affine of `ws`; `[n, out, in]` has a style for
                every output filter.
            noise: see `noise_maps`.
            features: replacements `[n, r, r, c]`, or functions of the map replaced, by the layer that the map enters:
                "b4/conv1" (the constant), "b16" (entering block 16), "b16/conv1" (inside it), "b16/torgb" (its output).

        Returns:
            Images `[n, r, r, channels]`, and `{name: map}` by the same names, "b16/image" being the image so far.

        Raises:
            ValueError: for missing styles, unknown names or wrong shapes.
        """
        computed = {} if ws is None else self.styles(ws)
        known = [name for name, _, _ in self._layers()]
        unknown = sorted(set(styles or {}) - set(known))
        computed.update(styles or {})
        missing = [name for name in known if name not in computed]
        if missing or unknown:
            raise ValueError(
                f"styles: missing {missing or 'none'}, unknown {unknown or 'none'}; give ws or all of them"
            )
        n, dtype = computed[known[0]].shape[0], computed[known[0]].dtype
        run = _Pass(self, computed, self.noise_maps(noise, n, dtype), dict(features or {}))
        x = jnp.broadcast_to(self.b4.const[...][None].astype(dtype), (n, *self.b4.const.shape))
        image = None
        for name, block in self.blocks():
            x, image = run.block(name, block, x, image, dtype)
        unused = sorted(set(features or {}) - set(run.maps))
        if unused:
            raise ValueError(f"no feature map enters {', '.join(unused)}; there are {', '.join(run.maps)}")
        return image, run.maps

    def __call__(
        self,
        ws: Array | None = None,
        *,
        styles: Mapping[str, Array] | None = None,
        noise: str | Array | Mapping[str, Array] = "const",
        features: Features | None = None,
    ) -> Array:
        """Returns images `[n, r, r, channels]`; the arguments are those of `forward`."""
        return self.forward(ws, styles=styles, noise=noise, features=features)[0]


@dataclasses.dataclass
class _Pass:
    """One run of the synthesis network: its inputs by layer name, and the maps recorded."""

    network: Synthesis
    styles: dict[str, Array]
    noise: dict[str, Array]
    features: dict[str, Array | Callable[[Array], Array]]
    maps: dict[str, Array] = dataclasses.field(default_factory=dict)

    def enter(self, name: str, x: Array) -> Array:
        replacement = self.features.get(name)
        if replacement is not None:
            given = replacement(x) if callable(replacement) else replacement
            if given.shape != x.shape:
                raise ValueError(f"feature map {name} must be {list(x.shape)}, got {list(given.shape)}")
            x = given.astype(x.dtype)
        self.maps[name] = x
        return x

    def conv(self, name: str, layer: layers.Modulated, x: Array, gain: float) -> Array:
        taps = self.network.resample_filter[...]
        return layer(x, self.styles[name], taps, noise=self.noise.get(name), gain=gain)

    def block(self, name: str, block: SynthesisBlock, x: Array, image: Array | None, dtype: jnp.dtype):
        config, taps = self.network.config, self.network.resample_filter[...]
        gain, shortcut = 1.0, None
        x = x.astype(_block_dtype(config, block.resolution, dtype))
        if hasattr(block, "conv0"):
            x = self.enter(name, x)
            if hasattr(block, "skip"):
                gain = math.sqrt(0.5)
                shortcut = block.skip.up(x, taps, gain=gain)
            x = self.conv(f"{name}/conv0", block.conv0, x, 1.0)
        x = self.enter(f"{name}/conv1", x)
        x = self.conv(f"{name}/conv1", block.conv1, x, gain)
        if shortcut is not None:
            x = shortcut + x
        if hasattr(block, "torgb"):
            x = self.enter(f"{name}/torgb", x)
            rgb = block.torgb(x, self.styles[f"{name}/torgb"]).astype(dtype)
            image = rgb if image is None else resample.upsample2d(image, taps) + rgb
            self.maps[f"{name}/image"] = image
        return x, image


class Generator(generator.StyleGenerator):
    """Mapping and synthesis network together."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.mapping = _mapping.Mapping(
            z_dim=config.z_dim,
            c_dim=config.c_dim,
            w_dim=config.w_dim,
            num_layers=config.mapping_layers,
            embed_features=config.embed_features,
            layer_features=config.layer_features,
            activation=config.mapping_activation,
            lr_multiplier=config.mapping_lr_multiplier,
            has_average=config.w_avg_beta is not None,
            rngs=rngs,
        )
        self.synthesis = Synthesis(config, rngs=rngs)


class DiscriminatorBlock(nnx.Module):
    """One resolution of the discriminator above 4x4: optional FromRGB, two convolutions, a shortcut."""

    def __init__(self, config: DiscriminatorConfig, index: int, *, rngs: nnx.Rngs):
        width, below = config.widths[index], config.widths[index - 1]
        options = dict(activation=config.activation, clamp=config.conv_clamp, rngs=rngs)
        if config.architecture == "skip" or index == len(config.widths) - 1:
            self.fromrgb = layers.Conv(config.image_channels, width, 1, **options)
        self.conv0 = layers.Conv(width, width, 3, **options)
        self.conv1 = layers.Conv(width, below, 3, **options)
        if config.architecture == "resnet":
            self.skip = layers.Conv(width, below, 1, bias=False, rngs=rngs)

    def __call__(self, x: Array | None, image: Array, taps: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Returns features at half the size, and the image, halved where later blocks read it again."""
        x = None if x is None else x.astype(dtype)
        if hasattr(self, "fromrgb"):
            y = self.fromrgb(image.astype(dtype))
            x = y if x is None else x + y
            image = resample.downsample2d(image, taps)
        if not hasattr(self, "skip"):
            return self.conv1.down(self.conv0(x), taps), image
        shortcut = self.skip.down(x, taps, gain=math.sqrt(0.5))
        return shortcut + self.conv1.down(self.conv0(x), taps, gain=math.sqrt(0.5)), image


class DiscriminatorEpilogue(nnx.Module):
    """The 4x4 end of the discriminator: minibatch deviation, a convolution and two dense layers."""

    def __init__(self, config: DiscriminatorConfig, *, out_features: int, rngs: nnx.Rngs):
        width = config.widths[0]
        activation = config.epilogue_activation
        if config.architecture == "skip" or len(config.widths) == 1:
            self.fromrgb = layers.Conv(config.image_channels, width, 1, activation=activation, rngs=rngs)
        channels = width + config.minibatch_channels
        self.conv = layers.Conv(channels, width, 3, activation=activation, clamp=config.conv_clamp, rngs=rngs)
        self.fc = layers.Dense(16 * width, width, activation=activation, rngs=rngs)
        self.out = layers.Dense(width, out_features, rngs=rngs)
        self.group_size, self.channels = config.minibatch_group_size, config.minibatch_channels

    def __call__(self, x: Array | None, image: Array) -> Array:
        """Returns `[n, out_features]`."""
        if hasattr(self, "fromrgb"):
            y = self.fromrgb(image)
            x = y if x is None else x + y
        if self.channels:
            x = minibatch.minibatch_stddev(x, group_size=self.group_size, channels=self.channels)
        x = self.conv(x)
        return self.out(self.fc(x.reshape(x.shape[0], -1)))


class Discriminator(nnx.Module):
    """The discriminator: images `[n, r, r, channels]` (and labels) to logits `[n]`, positive for real."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.config = config
        cmap_dim = config.widths[0] if config.cmap_dim is None else config.cmap_dim
        self.resample_filter = layers.Buffer(jnp.asarray(resample.make_filter(config.resample_filter)))
        for index in range(1, len(config.widths)):
            setattr(self, f"b{4 << index}", DiscriminatorBlock(config, index, rngs=rngs))
        self.b4 = DiscriminatorEpilogue(config, out_features=cmap_dim if config.c_dim else 1, rngs=rngs)
        if config.c_dim:
            self.mapping = _mapping.Mapping(
                z_dim=0,
                c_dim=config.c_dim,
                w_dim=cmap_dim,
                num_layers=config.mapping_layers,
                embed_features=config.embed_features,
                layer_features=config.layer_features,
                activation=config.mapping_activation,
                lr_multiplier=config.mapping_lr_multiplier,
                has_average=False,
                rngs=rngs,
            )

    @classmethod
    def from_arrays(cls, config: DiscriminatorConfig, arrays: Mapping[str, Array]) -> "Discriminator":
        """Returns the discriminator with weights `{"b4/conv/weight": ..., ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def forward(self, images: Array, c: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Returns logits `[n]` and the output of every block above 4x4, `{"b8": [n, 4, 4, c], ...}`."""
        config = self.config
        size = (config.resolution, config.resolution, config.image_channels)
        if images.ndim != 4 or images.shape[1:] != size:
            raise ValueError(f"discriminator: images must be [n, {size[0]}, {size[1]}, {size[2]}], got {images.shape}")
        x, image, maps = None, images, {}
        for index in range(len(config.widths) - 1, 0, -1):
            name = f"b{4 << index}"
            dtype = _block_dtype(config, 4 << index, images.dtype)
            x, image = getattr(self, name)(x, image, self.resample_filter[...], dtype)
            maps[name] = x
        y = self.b4(None if x is None else x.astype(images.dtype), image)
        if not config.c_dim:
            return y[:, 0], maps
        cmap = self.mapping(None, c)
        return jnp.sum(y * cmap, axis=1) * (1 / math.sqrt(cmap.shape[1])), maps

    def __call__(self, images: Array, c: Array | None = None) -> Array:
        """Returns logits `[n]` for images `[n, r, r, channels]` and labels `[n, c_dim]` (None if unconditional)."""
        return self.forward(images, c)[0]
