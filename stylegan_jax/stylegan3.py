# SPDX-License-Identifier: Apache-2.0
"""The StyleGAN3 generator (Karras et al. 2021, "Alias-Free Generative Adversarial Networks"), T and R, in Flax NNX.

Batches are `[n, ...]`, images and feature maps `[n, h, w, c]`, images about [-1, 1] and unclipped. Frequencies and
rates are per image width: a layer of rate 64 has 64 samples across the image, and a margin around it. The
discriminator is the one of StyleGAN2. Evaluation only: the running magnitudes are buffers that nothing updates.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from stylegan_jax import generator, layers
from stylegan_jax import mapping as _mapping
from stylegan_jax.ops import convolution, filter_design, filtered_lrelu, modulated_conv


def channel_widths(
    resolution: int,
    *,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
) -> tuple[int, ...]:
    """Returns the published widths `min(channel_base / 2 / cutoff, channel_max)` of all layers but the last.

    StyleGAN3-R doubles `channel_base` and `channel_max`.
    """
    cutoffs = _geometric(first_cutoff, resolution / 2, num_layers, num_critical)
    return tuple(int(np.rint(min(channel_base / 2 / cutoff, channel_max))) for cutoff in cutoffs[:-1])


def _geometric(first: float, last: float, num_layers: int, num_critical: int) -> np.ndarray:
    """Returns `first * (last / first)^min(i / (num_layers - num_critical), 1)` for i = 0 ... num_layers."""
    exponents = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    return first * (last / first) ** exponents


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What determines a generator's function beside its weights.

    `widths` are the channels of all layers but the last, which makes the image; the last `num_critical` layers sample
    at exactly twice their cutoff; `last_stopband` is relative to the last cutoff; `margin` is in pixels of each
    layer. `kernel` 1 and `radial_filters` make StyleGAN3-R. Layers with a sampling rate of at least `bfloat16_from`
    compute in bfloat16 (None: all in the dtype of the latents).
    """

    widths: tuple[int, ...]
    resolution: int
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    image_channels: int = 3
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float | None = 0.998
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband: float = 2**0.3
    margin: int = 10
    output_scale: float = 0.25
    kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    radial_filters: bool = False
    conv_clamp: float | None = 256.0
    bfloat16_from: int | None = None

    def __post_init__(self):
        if self.resolution < 4 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution must be a power of two from 4 on, got {self.resolution}")
        if not 0 <= self.num_critical < len(self.widths) or min(self.widths) < 1:
            raise ValueError(f"{self.num_critical} critical layers and widths {self.widths} make no network")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        if not 0.5 <= self.first_cutoff <= self.resolution / 2 or self.first_stopband < 0.5 or self.last_stopband < 1:
            raise ValueError(
                f"bands must rise from 0.5 on, got first cutoff {self.first_cutoff}, first stopband "
                f"{self.first_stopband}, last stopband {self.last_stopband} times the last cutoff"
            )

    @property
    def num_ws(self) -> int:
        """Number of latents that the synthesis network takes: one for the input and one for each layer."""
        return len(self.widths) + 2

    @property
    def activations(self) -> int:
        """Number of values in the signals that the activations of one image meet, on their finer grid."""
        return sum(s.out_channels * (s.out_size * s.down) ** 2 for s in layer_shapes(self))

    @property
    def num_layers(self) -> int:
        """Number of layers before the one that makes the image."""
        return len(self.widths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Sizes, rates and bands of one layer, sizes in pixels; the transition bands reach `half_width` off the cutoff."""

    name: str
    is_torgb: bool
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_rate: int
    out_rate: int
    middle_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    kernel: int
    filter_size: int
    radial: bool

    @property
    def up(self) -> int:
        """Rate between the input and the activation."""
        return self.middle_rate // self.in_rate

    @property
    def down(self) -> int:
        """Rate between the activation and the output."""
        return self.middle_rate // self.out_rate

    @property
    def up_taps(self) -> int:
        """Length of the upsampling filter; 1 for none."""
        return self.filter_size * self.up if self.up > 1 and not self.is_torgb else 1

    @property
    def down_taps(self) -> int:
        """Length of the downsampling filter; 1 for none."""
        return self.filter_size * self.down if self.down > 1 and not self.is_torgb else 1

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after, on the grid of the activation; negative crops."""
        total = (self.out_size - 1) * self.down + 1 - (self.in_size + self.kernel - 1) * self.up
        total += self.up_taps + self.down_taps - 2
        before = (total + self.up) // 2
        return before, total - before


def layer_shapes(config: GeneratorConfig) -> tuple[LayerShape, ...]:
    """Returns every layer of the synthesis network in order (Karras et al. 2021, section 3.2 and appendix C)."""
    count = config.num_layers
    last_cutoff = config.resolution / 2
    cutoffs = _geometric(config.first_cutoff, last_cutoff, count, config.num_critical)
    stopbands = _geometric(config.first_stopband, last_cutoff * config.last_stopband, count, config.num_critical)
    rates = [2 ** math.ceil(math.log2(min(2 * stopband, config.resolution))) for stopband in stopbands]
    half_widths = [max(s, r / 2) - c for s, r, c in zip(stopbands, rates, cutoffs, strict=True)]
    sizes = [rate + 2 * config.margin for rate in rates[:-2]] + [config.resolution] * 2
    channels = [*config.widths, config.image_channels]
    found = []
    for i in range(count + 1):
        j, is_torgb = max(i - 1, 0), i == count
        shape = LayerShape(
            name=f"L{i}_{sizes[i]}_{channels[i]}",
            is_torgb=is_torgb,
            in_channels=channels[j],
            out_channels=channels[i],
            in_size=sizes[j],
            out_size=sizes[i],
            in_rate=rates[j],
            out_rate=rates[i],
            middle_rate=max(rates[j], rates[i]) * (1 if is_torgb else config.lrelu_upsampling),
            in_cutoff=float(cutoffs[j]),
            out_cutoff=float(cutoffs[i]),
            in_half_width=float(half_widths[j]),
            out_half_width=float(half_widths[i]),
            kernel=1 if is_torgb else config.kernel,
            filter_size=config.filter_size,
            radial=config.radial_filters and i < count - config.num_critical,
        )
        found.append(shape)
    return tuple(found)


def design_filters(shape: LayerShape) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns the upsampling filter `[t]` and the downsampling filter `[t]` (radial: `[t, t]`) of a layer.

    Each is a low-pass filter at the rate of the activation, with the cutoff and the transition band of the signal on
    its side; float32, and None where the layer has no such filter.
    """
    up, down = None, None
    if shape.up_taps > 1:
        band = dict(cutoff=shape.in_cutoff, width=2 * shape.in_half_width, rate=shape.middle_rate)
        up = filter_design.design_lowpass(shape.up_taps, **band).astype(np.float32)
    if shape.down_taps > 1:
        band = dict(cutoff=shape.out_cutoff, width=2 * shape.out_half_width, rate=shape.middle_rate)
        design = filter_design.design_radial_lowpass if shape.radial else filter_design.design_lowpass
        down = design(shape.down_taps, **band).astype(np.float32)
    return up, down


class SynthesisInput(nnx.Module):
    """Fourier features under a rotation and a shift that `w` decides: `w` `[n, w_dim]` to `[n, size, size, c]`.

    `transform` `[3, 3]` is the user's own: the image moves by its inverse.
    """

    def __init__(self, config: GeneratorConfig, shape: LayerShape, *, rngs: nnx.Rngs):
        channels = shape.in_channels
        # Uniform over the disc below the cutoff (Karras et al. 2021, section 3.1).
        radius = shape.in_cutoff * jnp.sqrt(jax.random.uniform(rngs.params(), (channels,)))
        angle = 2 * math.pi * jax.random.uniform(rngs.params(), (channels,))
        self.freqs = layers.Buffer(jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=1))
        self.phases = layers.Buffer(jax.random.uniform(rngs.params(), (channels,)) - 0.5)
        self.transform = layers.Buffer(jnp.eye(3))
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (channels, channels)))
        self.affine = layers.Dense(config.w_dim, 4, rngs=rngs)
        self.affine.weight[...] = jnp.zeros((config.w_dim, 4))
        self.affine.bias[...] = jnp.asarray([1.0, 0.0, 0.0, 0.0])
        self.size, self.rate, self.bandwidth = shape.in_size, shape.in_rate, shape.in_cutoff

    def _coordinates(self, w: Array, transform: Array | None) -> Array:
        """Returns the matrix `[n, 3, 3]` from image coordinates to those of the features."""
        transform = self.transform[...].astype(w.dtype)[None] if transform is None else transform
        t = self.affine(w)
        t = t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True)
        zero, one = jnp.zeros_like(t[:, 0]), jnp.ones_like(t[:, 0])
        c, s, x, y = t.T
        rotation = jnp.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)
        shift = jnp.stack([one, zero, -x, zero, one, -y, zero, zero, one], axis=1).reshape(-1, 3, 3)
        return jnp.matmul(rotation, shift, precision="highest") @ transform

    def __call__(self, w: Array, transform: Array | None = None) -> Array:
        """Returns the features; `transform` `[n, 3, 3]` takes the place of the stored one."""
        matrix, freqs = self._coordinates(w, transform), self.freqs[...].astype(w.dtype)
        phases = self.phases[...].astype(w.dtype)[None, :] + jnp.einsum("ck,nk->nc", freqs, matrix[:, :2, 2])
        freqs = jnp.einsum("ck,nkl->ncl", freqs, matrix[:, :2, :2])
        # Frequencies that a scaling transform moves beyond the band fade out, those beyond half the rate are gone.
        norm = jnp.linalg.norm(freqs, axis=2)
        amplitudes = jnp.clip(1 - (norm - self.bandwidth) / (self.rate / 2 - self.bandwidth), 0, 1)
        grid = (jnp.arange(self.size, dtype=w.dtype) + 0.5 - self.size / 2) / self.rate
        x = freqs[:, None, None, :, 0] * grid[None, None, :, None]
        y = freqs[:, None, None, :, 1] * grid[None, :, None, None]
        waves = jnp.sin(2 * math.pi * (x + y + phases[:, None, None, :])) * amplitudes[:, None, None, :]
        weight = self.weight[...].astype(w.dtype) / math.sqrt(self.weight.shape[1])
        return waves @ weight


class SynthesisLayer(nnx.Module):
    """A modulated convolution and a filtered leaky ReLU; the last layer is linear and makes the image."""

    def __init__(self, config: GeneratorConfig, shape: LayerShape, *, rngs: nnx.Rngs):
        kernel = (shape.kernel, shape.kernel, shape.in_channels, shape.out_channels)
        self.weight = nnx.Param(jax.random.normal(rngs.params(), kernel))
        self.bias = nnx.Param(jnp.zeros((shape.out_channels,)))
        self.affine = layers.Dense(config.w_dim, shape.in_channels, bias_init=1.0, rngs=rngs)
        self.magnitude_ema = layers.Buffer(jnp.ones(()))
        for name, taps in zip(("up_filter", "down_filter"), design_filters(shape), strict=True):
            if taps is not None:
                setattr(self, name, layers.Buffer(jnp.asarray(taps)))
        self.shape, self.clamp = shape, config.conv_clamp

    def _convolve(self, x: Array, styles: Array) -> Array:
        """Returns the modulated convolution with full padding, `[n, h + k - 1, w + k - 1, out]`.

        The gain by the running magnitude of the input comes after demodulation, which would undo it. Normalising the
        styles matters only beside the 1e-8 of the demodulation; the original takes their mean square over the batch,
        here it is over the sample, so that samples stay independent.
        """
        weight = self.weight[...]
        gain = jax.lax.rsqrt(self.magnitude_ema[...])
        if self.shape.is_torgb:
            styles = styles / math.sqrt(math.prod(weight.shape[:3]))
            gains = jnp.broadcast_to(gain[None, None], (1, weight.shape[3]))
        else:
            weight = weight * jax.lax.rsqrt(jnp.mean(jnp.square(weight), axis=(0, 1, 2), keepdims=True))
            styles = styles * jax.lax.rsqrt(jnp.mean(jnp.square(styles), axis=1, keepdims=True))
            gains = modulated_conv.demodulation(weight, styles) * gain
        scaled = x * styles.astype(x.dtype)[:, None, None, :]
        y = convolution.conv2d(scaled, weight.astype(x.dtype), self.shape.kernel - 1)
        return y * gains.astype(x.dtype)[:, None, None, :]

    def __call__(self, x: Array, w: Array) -> Array:
        """Applies the layer to `x` `[n, h, w, in]` with `w` `[n, w_dim]`."""
        linear = self.shape.is_torgb
        return filtered_lrelu.filtered_lrelu(
            self._convolve(x, self.affine(w)),
            self.bias[...],
            up_taps=self.up_filter[...] if self.shape.up_taps > 1 else None,
            down_taps=self.down_filter[...] if self.shape.down_taps > 1 else None,
            up=self.shape.up,
            down=self.shape.down,
            padding=self.shape.padding,
            slope=1.0 if linear else 0.2,
            gain=1.0 if linear else math.sqrt(2),
            clamp=self.clamp,
        )


class Synthesis(nnx.Module):
    """The synthesis network: `ws [n, num_ws, w_dim]` to images `[n, r, r, channels]`."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        shapes = layer_shapes(config)
        self.input = SynthesisInput(config, shapes[0], rngs=rngs)
        self.layer_names = tuple(shape.name for shape in shapes)
        for shape in shapes:
            setattr(self, shape.name, SynthesisLayer(config, shape, rngs=rngs))

    def affines(self) -> dict[str, tuple[int, layers.Dense]]:
        """Returns the index of its w and the affine layer of "input" and of every layer, `{"L0_36_512": (1, affine)}`.

        Those of "input" are a rotation and a shift of the image, `[w_dim, 4]`.
        """
        names = ("input", *self.layer_names)
        return {name: (index, getattr(self, name).affine) for index, name in enumerate(names)}

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Returns no shape at all: StyleGAN3 has no noise inputs."""
        return {}

    def forward(
        self,
        ws: Array,
        *,
        noise: str | Array | Mapping[str, Array] = "const",
        transform: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Returns images and the feature maps met on the way.

        Args:
            ws: `[n, num_ws, w_dim]`.
            noise: has no effect; taken, so that StyleGAN2 and 3 are called alike. A dictionary must be empty.
            transform: of the input's coordinates, `[n, 3, 3]`, in place of the stored one: the image moves by its
                inverse.

        Returns:
            Images `[n, r, r, channels]`, and the output of "input" and of every layer, `{"L0_36_512": map}`.

        Raises:
            ValueError: for `ws` of another shape, or noise maps.
        """
        config = self.config
        if ws.ndim != 3 or ws.shape[1:] != (config.num_ws, config.w_dim):
            raise ValueError(f"ws must be [n, {config.num_ws}, {config.w_dim}], got {list(ws.shape)}")
        if isinstance(noise, Mapping) and noise:
            raise ValueError(f"no noise input at {', '.join(sorted(noise))}; StyleGAN3 has none")
        maps = {"input": self.input(ws[:, 0], transform)}
        x = maps["input"]
        for i, name in enumerate(self.layer_names):
            layer = getattr(self, name)
            low = config.bfloat16_from is not None and layer.shape.out_rate >= config.bfloat16_from
            x = layer(x.astype(jnp.bfloat16 if low else ws.dtype), ws[:, i + 1])
            maps[name] = x
        return x.astype(ws.dtype) * config.output_scale, maps

    def __call__(
        self,
        ws: Array,
        *,
        noise: str | Array | Mapping[str, Array] = "const",
        transform: Array | None = None,
    ) -> Array:
        """Returns images `[n, r, r, channels]`; the arguments are those of `forward`."""
        return self.forward(ws, noise=noise, transform=transform)[0]


class Generator(generator.StyleGenerator):
    """Mapping and synthesis network together; called as `stylegan2.Generator` is."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.mapping = _mapping.Mapping(
            z_dim=config.z_dim,
            c_dim=config.c_dim,
            w_dim=config.w_dim,
            num_layers=config.mapping_layers,
            lr_multiplier=config.mapping_lr_multiplier,
            has_average=config.w_avg_beta is not None,
            rngs=rngs,
        )
        self.synthesis = Synthesis(config, rngs=rngs)
