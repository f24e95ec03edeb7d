# SPDX-License-Identifier: Apache-2.0
"""Region normalisation, and its modulation by an image: the norms of DiFaI's decoder.

Feature maps are `[n, h, w, c]`, `known` is `[n, r, r]` with 1 = keep, 0 = hole, of a size r that is a multiple of h.
Statistics are taken over the positions of one region of one image, so that a result does not depend on the other images
of a batch. The published code takes them over the whole batch: `across_batch`, for training only.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from inpaint.learned.difai import spectral

EPSILON = 1e-5


def resized_mask(known: Array, size: int) -> Array:
    """Returns `known` `[n, r, r]` at another size, `[n, size, size, 1]`, 0 or 1: of a block its upper left pixel.

    That is nearest-neighbour interpolation as PyTorch does it, which SPADE and region normalisation take.
    """
    factor = known.shape[1] // size
    return (known[:, ::factor, ::factor] > 0.5).astype(known.dtype)[..., None]


def resized_image(image: Array, size: int, *, resize: str) -> Array:
    """Returns `image` `[n, r, r, c]` at a smaller size `[n, size, size, c]`: the "mean" of a block, or the "nearest"
    pixel, its upper left one."""
    n, r, _, c = image.shape
    factor = r // size
    if resize == "nearest":
        return image[:, ::factor, ::factor]
    return image.reshape(n, size, factor, size, factor, c).mean((2, 4))


def _normalised_region(x: Array, region: Array, axes: tuple[int, ...]) -> Array:
    share = jnp.mean(region, axes, keepdims=True)
    # An empty region has no mean; what is divided by is then 1, and the result 0.
    inverse = 1 / jnp.where(share > 0, share, 1)
    mean = jnp.mean(x * region, axes, keepdims=True) * inverse
    centred = (x - mean) * region
    variance = jnp.mean(jnp.square(centred), axes, keepdims=True) * inverse
    return centred * jax.lax.rsqrt(variance + EPSILON * inverse)


def region_normalise(x: Array, region: Array, *, across_batch: bool = False) -> Array:
    """Returns `x` normalised within `region` and within the rest of the image, each by its own mean and variance.

    `(x - mean_r) / sqrt(variance_r + epsilon / share_r)` per channel and region r, with the share of the positions that
    are in it (Yu et al. 2020, "Region Normalization for Image Inpainting", equations 1 to 5; epsilon over the share is
    what their code computes, a batch norm of the whole map with the rest set to the region's mean).

    Args:
        x: `[n, h, w, c]`.
        region: `[n, h, w, 1]`, 1 or 0; a region without positions is no error.
        across_batch: take the statistics over all images together. Results then depend on the batch.

    Returns:
        `[n, h, w, c]`, computed in float32 at least, in the dtype of `x`.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    region, axes = region.astype(wide.dtype), (0, 1, 2) if across_batch else (1, 2)
    found = _normalised_region(wide, region, axes) + _normalised_region(wide, 1 - region, axes)
    return found.astype(x.dtype)


def normalise(x: Array, *, across_batch: bool = False) -> Array:
    """Returns `(x - mean) / sqrt(variance + epsilon)` per channel of `x` `[n, h, w, c]`: instance normalisation, or
    with `across_batch` batch normalisation."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = (0, 1, 2) if across_batch else (1, 2)
    centred = wide - jnp.mean(wide, axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axes, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


NORMS = ("region", "image")
AFFINES = ("masked", "unmasked", "none")
RESIZES = ("mean", "nearest")


class Norm(nnx.Module):
    """Normalises `[n, h, w, c]` within regions, or whole images, and scales and shifts the result by learned vectors.

    `norm` "region": `masked` affine: `y = rn (1 + g_r) + b_r` with the vectors of the region r that a position is in;
    "unmasked": as the published code of region normalisation has it, which adds the shifts of both regions everywhere;
    "none": without vectors. `norm` "image": instance normalisation, with one pair of vectors unless `affine` is "none".
    """

    def __init__(self, channels: int, *, norm: str, affine: str, rngs: nnx.Rngs):
        self.norm = norm
        self.affine = affine
        regions = 2 if norm == "region" else 1
        dtype = jax.eval_shape(lambda: jax.random.normal(jax.random.key(0), ())).dtype
        self.scale = None if affine == "none" else nnx.Param(jnp.zeros((regions, channels), dtype))
        self.shift = None if affine == "none" else nnx.Param(jnp.zeros((regions, channels), dtype))

    def __call__(self, x: Array, region: Array, *, across_batch: bool = False) -> Array:
        """Returns the normalised map; `region` `[n, h, w, 1]` is 1 for the first pair of vectors."""
        if self.norm == "region":
            x, parts = region_normalise(x, region, across_batch=across_batch), (region, 1 - region)
        else:
            x, parts = normalise(x, across_batch=across_batch), (jnp.ones_like(region),)
        if self.affine == "none":
            return x
        scale, shift = (v[...].astype(x.dtype)[:, None, None, None] for v in (self.scale, self.shift))
        found = x * (1 + sum(part.astype(x.dtype) * s for part, s in zip(parts, scale, strict=True)))
        if self.affine == "unmasked":
            return found + jnp.sum(shift, 0)
        return found + sum(part.astype(x.dtype) * s for part, s in zip(parts, shift, strict=True))


class Modulated(nnx.Module):
    """Spatially adaptive normalisation: `norm(x) (1 + gamma(condition)) + beta(condition)`.

    gamma and beta are two convolutions behind a common one with ReLU (Park et al. 2019, "Semantic Image Synthesis with
    Spatially-Adaptive Normalization", equation 1, whose norm is a batch norm; DiFaI's decoder has a region norm).
    """

    def __init__(
        self,
        channels: int,
        *,
        condition_channels: int,
        hidden: int,
        norm: str,
        affine: str,
        resize: str,
        rngs: nnx.Rngs,
    ):
        self.resize = resize
        self.norm = Norm(channels, norm=norm, affine=affine, rngs=rngs)
        self.shared = spectral.Conv(condition_channels, hidden, 3, spectral=False, gain=2**0.5, rngs=rngs)
        # Scale and shift as one convolution: two of half the channels take longer.
        self.modulation = spectral.Conv(hidden, 2 * channels, 3, spectral=False, gain=0.1, rngs=rngs)

    def __call__(self, x: Array, condition: Array, known: Array, *, across_batch: bool = False) -> Array:
        """Returns the modulated map of `x` `[n, h, w, c]` for `condition` `[n, r, r, k]` and `known` `[n, r, r]`."""
        size = x.shape[1]
        hidden = jax.nn.relu(self.shared(resized_image(condition, size, resize=self.resize).astype(x.dtype)))
        gamma, beta = jnp.split(self.modulation(hidden), 2, axis=-1)
        return self.norm(x, resized_mask(known, size), across_batch=across_batch) * (1 + gamma) + beta
