# SPDX-License-Identifier: Apache-2.0
"""DCGAN (Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs").

Batches are `[n, ...]`, images and feature maps `[n, h, w, c]`, images in [-1, 1] (the generator ends in a tanh).
`b16` is the block whose larger side has 16 pixels; all but `b4` double (generator) or halve (discriminator).

There is no mapping network: z itself is the one `w` that the synthesis network takes, so the spaces Z, W and W+ hold
the same latents. There are no noise inputs either. Batch normalisation uses stored moments, so that a result never
depends on what else is in the batch; only `forward_batch`, which training uses, takes the batch's own.

Both known layouts are the same function of different settings, at 64 pixels:
PyTorch's (convolutions of 4x4 without biases) `kernel=4, bias=False, widths=(512, 256, 128, 64)`;
TensorFlow's (5x5, "SAME", with biases) `kernel=5, bias=True, widths=(512, 512, 256, 128)` for the generator and
`(512, 256, 128, 64)` for the discriminator. The first layer is called a transposed convolution of 4x4 there and a dense
layer here: on a single pixel they are one.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import generator, layers, parameters
from stylegan_jax.ops import convolution

KERNELS = (4, 5)
LEAK = 0.2
WEIGHT_SPREAD = 0.02  # standard deviation of fresh weights (Radford et al. 2016, section 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Architecture:
    """What both networks share; `widths` are the channels at 4, 8, ..., resolution / 2."""

    widths: tuple[int, ...]
    image_channels: int = 3
    kernel: int = 4
    bias: bool = False
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must hold the channels at 4, 8, ..., resolution / 2, got {self.widths}")
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be 4 (PyTorch's layout) or 5 (TensorFlow's), got {self.kernel}")

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return 4 << len(self.widths)

    @property
    def c_dim(self) -> int:
        """Number of labels: 0, these networks are unconditional."""
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(_Architecture):
    """What determines a generator's function beside its weights.

    `widths` are the channels at 4, 8, ..., resolution / 2; `kernel` (4 or 5) is that of the transposed convolutions,
    which have biases where `bias` is set; `norm_epsilon` is added to the variances of batch normalisation.
    """

    z_dim: int = 100

    @property
    def w_dim(self) -> int:
        """Width of an intermediate latent, which is z."""
        return self.z_dim

    @property
    def num_ws(self) -> int:
        """Number of latents that the synthesis network takes: one."""
        return 1

    @property
    def activations(self) -> int:
        """Number of values in the outputs of all blocks for one image."""
        return sum((4 << i) ** 2 * width for i, width in enumerate((*self.widths, self.image_channels)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(_Architecture):
    """What determines a discriminator's function beside its weights; see `GeneratorConfig`."""


def convolve_up(x: Array, weight: Array) -> Array:
    """Returns a transposed convolution of stride 2: `y[2i + a - 1, 2j + b - 1] += x[i, j] @ weight[a, b]`.

    With a kernel of 4 that is PyTorch's ConvTranspose2d with padding 1, with 5 TensorFlow's conv2d_transpose "SAME".
    All four output phases come from one ordinary convolution, followed by depth-to-space.

    Args:
        x: `[n, h, w, in]`.
        weight: `[k, k, in, out]`, k 4 or 5.

    Returns:
        `[n, 2h, 2w, out]`.
    """
    n, height, width, _ = x.shape
    kernel, out = weight.shape[0], weight.shape[3]
    taps = (kernel + 1) // 2
    weight = jnp.pad(weight, ((0, 2 * taps - kernel), (0, 2 * taps - kernel), (0, 0), (0, 0)))
    # The phase of output row 2q + r sees weight rows r, r + 2, ... from the last to the first.
    phases = weight.reshape(taps, 2, taps, 2, -1, out)[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
    y = convolution.conv2d(x, phases.reshape(taps, taps, -1, 4 * out), taps - 1)
    y = y.reshape(n, height + taps - 1, width + taps - 1, 2, 2, out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(n, 2 * (height + taps - 1), 2 * (width + taps - 1), out)
    return y[:, 1 : 2 * height + 1, 1 : 2 * width + 1]


def convolve_down(x: Array, weight: Array) -> Array:
    """Returns a convolution of stride 2: `y[i, j] = sum_{a, b} x[2i + a - 1, 2j + b - 1] @ weight[a, b]`.

    With a kernel of 4 that is PyTorch's Conv2d with padding 1, with 5 TensorFlow's conv2d "SAME" (on even sizes).
    Space-to-depth makes it an ordinary convolution.

    Args:
        x: `[n, 2h, 2w, in]`.
        weight: `[k, k, in, out]`, k 4 or 5.

    Returns:
        `[n, h, w, out]`.
    """
    kernel, out = weight.shape[0], weight.shape[3]
    taps = (kernel + 1) // 2
    weight = jnp.pad(weight, ((0, 2 * taps - kernel), (0, 2 * taps - kernel), (0, 0), (0, 0)))
    weight = weight.reshape(taps, 2, taps, 2, -1, out).transpose(0, 2, 1, 3, 4, 5).reshape(taps, taps, -1, out)
    x = jnp.pad(x, ((0, 0), (1, 2 * taps - 3), (1, 2 * taps - 3), (0, 0)))
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return convolution.conv2d(x.reshape(n, height // 2, width // 2, 4 * channels), weight)


class Moments(NamedTuple):
    """Mean and (biased) variance of every channel, `[c]` each."""

    mean: Array
    variance: Array


class BatchNorm(nnx.Module):
    """Computes `scale * (x - mean) / sqrt(variance + epsilon) + bias` with stored moments, `[n, h, w, c]` to same."""

    def __init__(self, width: int, *, epsilon: float, rngs: nnx.Rngs):
        self.scale = nnx.Param(1 + WEIGHT_SPREAD * jax.random.normal(rngs.params(), (width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.mean = layers.Buffer(jnp.zeros((width,)))
        self.variance = layers.Buffer(jnp.ones((width,)))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        return self.normalise(x, Moments(self.mean[...], self.variance[...]))

    def normalise(self, x: Array, moments: Moments) -> Array:
        """Returns `x` `[n, h, w, c]` normalised by `moments`, scaled and shifted."""
        gain = self.scale[...] * jax.lax.rsqrt(moments.variance + self.epsilon)
        offset = self.bias[...] - moments.mean * gain
        return x * gain.astype(x.dtype)[None, None, None] + offset.astype(x.dtype)[None, None, None]


def _moments_of(x: Array) -> Moments:
    return Moments(jnp.mean(x, axis=(0, 1, 2)), jnp.var(x, axis=(0, 1, 2)))


# What applies the normalisation of a named block: by stored moments, or by those of the batch.
_Normalise = Callable[[str, BatchNorm, Array], Array]


def _by_stored(name: str, norm: BatchNorm, x: Array) -> Array:
    return norm(x)


def _by_batch(seen: dict[str, Moments]) -> _Normalise:
    def normalise(name: str, norm: BatchNorm, x: Array) -> Array:
        seen[name] = _moments_of(x)
        return norm.normalise(x, seen[name])

    return normalise


class Layer(nnx.Module):
    """The weights of one block: a kernel, perhaps a bias, perhaps batch normalisation."""

    def __init__(
        self, shape: tuple[int, ...], *, bias: tuple[int, ...] | None, norm: int, epsilon: float, rngs: nnx.Rngs
    ):
        self.weight = nnx.Param(WEIGHT_SPREAD * jax.random.normal(rngs.params(), shape))
        if bias is not None:
            self.bias = nnx.Param(jnp.zeros(bias))
        if norm:
            self.norm = BatchNorm(norm, epsilon=epsilon, rngs=rngs)

    def biased(self, x: Array) -> Array:
        """Returns `x` `[n, ...]` plus the bias, where there is one."""
        if not hasattr(self, "bias"):
            return x
        bias = self.bias[...].astype(x.dtype)
        return x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


def _norms(blocks: Mapping[str, Layer]) -> dict[str, BatchNorm]:
    return {name: block.norm for name, block in blocks.items() if hasattr(block, "norm")}


class IdentityMapping(nnx.Module):
    """Stands where style-based generators map latents: w is z."""

    def __init__(self, z_dim: int):
        self.z_dim, self.c_dim, self.w_dim = z_dim, 0, z_dim

    def __call__(self, z: Array, c: Array | None = None) -> Array:
        """Returns `z` `[n, z_dim]`; labels `c` must be None."""
        if c is not None:
            raise ValueError("mapping: c is given, but these networks are unconditional")
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"mapping: z must be [n, {self.z_dim}], got {list(z.shape)}")
        return z


class Synthesis(nnx.Module):
    """The synthesis network: `ws [n, 1, z_dim]` to images `[n, r, r, channels]` in [-1, 1]."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        shared = dict(epsilon=config.norm_epsilon, rngs=rngs)
        first, k = config.widths[0], config.kernel
        bias = (4, 4, first) if config.bias else None
        self.b4 = Layer((config.z_dim, 4, 4, first), bias=bias, norm=first, **shared)
        outputs = (*config.widths[1:], config.image_channels)
        for i, (width, out) in enumerate(zip(config.widths, outputs, strict=True)):
            bias, norm = (out,) if config.bias else None, 0 if i == len(outputs) - 1 else out
            setattr(self, f"b{8 << i}", Layer((k, k, width, out), bias=bias, norm=norm, **shared))

    def blocks(self) -> dict[str, Layer]:
        """Returns the blocks by name, from 4x4 up."""
        return {f"b{4 << i}": getattr(self, f"b{4 << i}") for i in range(len(self.config.widths) + 1)}

    def affines(self) -> dict[str, tuple[int, nnx.Module]]:
        """Returns none: a DCGAN has no styles."""
        return {}

    def noise_shapes(self) -> dict[str, tuple[int, int]]:
        """Returns the shape of every noise map: there are none."""
        return {}

    def _run(self, ws: Array, normalise: _Normalise) -> Array:
        if ws.ndim != 3 or ws.shape[1:] != (1, self.config.z_dim):
            raise ValueError(f"ws must be [n, 1, {self.config.z_dim}], got {list(ws.shape)}")
        x = jnp.einsum("nz,zhwc->nhwc", ws[:, 0], self.b4.weight[...].astype(ws.dtype))
        blocks = list(self.blocks().items())
        for (name, block), (_, above) in itertools.pairwise(blocks):
            x = jax.nn.relu(normalise(name, block.norm, block.biased(x)))
            x = convolve_up(x, above.weight[...].astype(x.dtype))
        return jnp.tanh(blocks[-1][1].biased(x))

    def __call__(self, ws: Array, *, noise: str | Array | Mapping[str, Array] = "const") -> Array:
        """Returns images `[n, r, r, channels]` in [-1, 1], each a function of its own latent alone.

        Args:
            ws: `[n, 1, z_dim]`.
            noise: as style-based generators take it; there are no noise inputs, so it changes nothing.

        Raises:
            ValueError: for wrong shapes, an unknown string, or maps for noise inputs.
        """
        if isinstance(noise, str) and noise not in ("const", "none"):
            raise ValueError(f'noise must be "const", "none", a key or a dict of maps, got {noise!r}')
        if isinstance(noise, Mapping) and noise:
            raise ValueError(f"no noise input at {', '.join(sorted(noise))}; a DCGAN has none")
        return self._run(ws, _by_stored)

    def forward_batch(self, ws: Array) -> tuple[Array, dict[str, Moments]]:
        """Returns images `[n, r, r, channels]` of `ws` `[n, 1, z_dim]`, normalised by the batch, and its moments."""
        seen: dict[str, Moments] = {}
        return self._run(ws, _by_batch(seen)), seen

    def norms(self) -> dict[str, BatchNorm]:
        """Returns the batch normalisation of every block that has one."""
        return _norms(self.blocks())


class Generator(generator.StyleGenerator):
    """The generator: latents `[n, z_dim]` to images; `map` is there for what calls style-based generators."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.mapping = IdentityMapping(config.z_dim)
        self.synthesis = Synthesis(config, rngs=rngs)

    def known_w_statistics(self) -> generator.WStatistics:
        """Returns mean 0 and unit covariance: w is z."""
        dtype, size = self.synthesis.b4.weight.dtype, self.config.z_dim
        return generator.WStatistics(jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype))

    def map(
        self, z: Array, c: Array | None = None, *, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Array:
        """Returns `ws` `[n, 1, z_dim]`: latents `z` `[n, z_dim]` times `truncation_psi`, their mean being 0.

        A `truncation_cutoff` of 0 leaves them as they are; labels `c` must be None.
        """
        psi = 1.0 if truncation_cutoff == 0 else truncation_psi
        return (self.mapping(z, c) * psi)[:, None]

    def forward_batch(self, z: Array) -> tuple[Array, dict[str, Moments]]:
        """Returns images `[n, r, r, channels]` of `z` `[n, z_dim]`, normalised by the batch, and its moments."""
        return self.synthesis.forward_batch(self.map(z))

    def norms(self) -> dict[str, BatchNorm]:
        """Returns the batch normalisation of every block that has one."""
        return self.synthesis.norms()


class Discriminator(nnx.Module):
    """The discriminator: images `[n, r, r, channels]` to logits `[n]`, positive for real.

    The original ends in a sigmoid; it is left to the losses, which are exact in logits alone.
    """

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.config = config
        shared = dict(epsilon=config.norm_epsilon, rngs=rngs)
        inputs, k = (*config.widths[1:], config.image_channels), config.kernel
        for i, (width, before) in reversed(list(enumerate(zip(config.widths, inputs, strict=True)))):
            bias, norm = (width,) if config.bias else None, 0 if i == len(inputs) - 1 else width
            setattr(self, f"b{8 << i}", Layer((k, k, before, width), bias=bias, norm=norm, **shared))
        self.b4 = Layer((4, 4, config.widths[0]), bias=() if config.bias else None, norm=0, **shared)

    @classmethod
    def from_arrays(cls, config: DiscriminatorConfig, arrays: Mapping[str, Array]) -> "Discriminator":
        """Returns the discriminator with weights `{"b4/weight": [4, 4, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def blocks(self) -> dict[str, Layer]:
        """Returns the blocks by name, from the image down."""
        return {f"b{4 << i}": getattr(self, f"b{4 << i}") for i in reversed(range(len(self.config.widths) + 1))}

    def _run(self, images: Array, normalise: _Normalise) -> tuple[Array, dict[str, Array]]:
        r, channels = self.config.resolution, self.config.image_channels
        if images.ndim != 4 or images.shape[1:] != (r, r, channels):
            raise ValueError(f"discriminator: images must be [n, {r}, {r}, {channels}], got {list(images.shape)}")
        x, blocks, features = images, self.blocks(), {}
        for name, block in list(blocks.items())[:-1]:
            x = block.biased(convolve_down(x, block.weight[...].astype(x.dtype)))
            x = normalise(name, block.norm, x) if hasattr(block, "norm") else x
            x = features[name] = jnp.where(x >= 0, x, x * LEAK)
        return self.b4.biased(jnp.einsum("nhwc,hwc->n", x, self.b4.weight[...].astype(x.dtype))), features

    def __call__(self, images: Array, c: Array | None = None) -> Array:
        """Returns logits `[n]` of `images` `[n, r, r, channels]`, each of its own image alone; `c` must be None."""
        if c is not None:
            raise ValueError("discriminator: c is given, but these networks are unconditional")
        return self.forward(images)[0]

    def forward(self, images: Array) -> tuple[Array, dict[str, Array]]:
        """Returns logits `[n]` of `images` `[n, r, r, channels]` and what the activations of all blocks but the last
        give, `{"b64": [n, r / 2, r / 2, c], ...}`, each of its own image alone."""
        return self._run(images, _by_stored)

    def forward_batch(self, images: Array) -> tuple[Array, dict[str, Moments]]:
        """Returns logits `[n]` of `images` `[n, r, r, channels]`, normalised by the batch, and its moments."""
        seen: dict[str, Moments] = {}
        return self._run(images, _by_batch(seen))[0], seen

    def norms(self) -> dict[str, BatchNorm]:
        """Returns the batch normalisation of every block that has one."""
        return _norms(self.blocks())


Network = TypeVar("Network", Generator, Discriminator)


def with_moments(network: Network, moments: Mapping[str, Moments], *, share: float = 1.0) -> Network:
    """Returns a copy of `network` whose stored moments moved by `share` of the way to `moments`.

    `stored + share * (moments - stored)`; with the moments of batch after batch these are running statistics.

    Args:
        network: left as it is.
        moments: by block, `[c]` each, from `forward_batch`.
        share: 1 replaces what is stored; PyTorch's "momentum" is 0.1.
    """
    moved = nnx.clone(network)
    for name, norm in moved.norms().items():
        for stored, seen in ((norm.mean, moments[name].mean), (norm.variance, moments[name].variance)):
            stored[...] = stored[...] + share * (seen - stored[...])
    return moved


def joined(parts: list[dict[str, Moments]]) -> dict[str, Moments]:
    """Returns the moments `[c]` of the union of equally large batches from the moments of each."""
    found = {}
    for name in parts[0]:
        means = jnp.stack([part[name].mean for part in parts])
        within = jnp.mean(jnp.stack([part[name].variance for part in parts]), axis=0)
        found[name] = Moments(jnp.mean(means, axis=0), within + jnp.var(means, axis=0))
    return found
