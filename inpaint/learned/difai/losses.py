# SPDX-License-Identifier: Apache-2.0
"""The losses of DiFaI; each is a scalar, the mean over images `[n, h, w, c]` in [-1, 1].

Sums over positions and channels are divided by the number of all of them, not by those of the region, which is the
convention of partial convolutions (Liu et al. 2018), where the weight 120 comes from.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from inpaint import metrics
from inpaint.learned.difai import normalisation

# A mean of SSIM's factors below this counts as this: a root has no derivative at 0.
_SSIM_FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the losses in equation 11, where `perceptual` has none, which is 1."""

    adversarial: float = 0.5
    ssim: float = 0.5
    style: float = 120.0
    hole: float = 3.0
    valid: float = 0.5
    perceptual: float = 1.0


PRINTED = (0.5, 120.0, 3.0, 0.5)
PRINTED_NAMES = ("adversarial", "ssim", "style", "hole", "valid")
# What each assignment gives the name that gets no printed value.
UNPRINTED = types.MappingProxyType({name: 0.5 if name != "style" else 120.0 for name in PRINTED_NAMES})


def printed_weights(*, missing: str = "ssim", value: float | None = None) -> LossWeights:
    """Returns the weights of section 3.1, which names five (adv, ssim, sty, hole, valid) and prints four values.

    The values are dealt in order, leaving out one name. By default that is "ssim": 120 is then the style loss's weight,
    as in partial convolutions and region normalisation, whose losses these are, and hole and valid get 3 and 0.5, near
    the usual 6 and 1; whether the first 0.5 is meant for "adv" or for "ssim" cannot be told, so both have it.

    Args:
        missing: the name that is left out: adversarial, ssim, style, hole or valid.
        value: its weight; None: 0.5, and 120 for style.

    Raises:
        ValueError: for another name.
    """
    if missing not in PRINTED_NAMES:
        raise ValueError(f"missing must be one of {', '.join(PRINTED_NAMES)}, got {missing!r}")
    dealt = dict(zip((name for name in PRINTED_NAMES if name != missing), PRINTED, strict=True))
    return LossWeights(**dealt, **{missing: UNPRINTED[missing] if value is None else value})


def masked_distance(a: Array, b: Array, region: Array) -> Array:
    """Returns `mean |a - b| * region` over everything, for `[n, h, w, c]` and `region` `[n, h, w]` (the hole: L_hole,
    what is known: L_valid)."""
    return jnp.mean(jnp.abs(a - b) * region[..., None])


def ms_ssim_loss(images: Array, truth: Array) -> Array:
    """Returns `1 - mean MS-SSIM` of `[n, h, w, c]` (equation 8), with as many scales as the size has.

    Raises:
        ValueError: for images with a side below 11.
    """
    values = jax.vmap(lambda a, b: metrics.ms_ssim(a, b, floor=_SSIM_FLOOR))(images, truth)
    return 1 - jnp.mean(values)


def feature_loss(found: Mapping[str, Array], wanted: Mapping[str, Array], region: Array) -> Array:
    """Returns `sum_i mean |F_i(found) m - F_i(wanted) m|`, one of the two sums of L_per (equation 6).

    Args:
        found, wanted: feature maps `[n, h_i, w_i, c_i]` by name.
        region: m, `[n, h, w]`, resized to every map.
    """
    return sum(
        masked_distance(found[name], wanted[name], _resized(region, found[name])) for name in sorted(wanted)
    ) * jnp.ones(())


def gram(features: Array) -> Array:
    """Returns the Gram matrices `[n, c, c]` of `[n, h, w, c]`, divided by h w c."""
    n, h, w, c = features.shape
    flat = features.reshape(n, h * w, c)
    return jnp.einsum("npi,npj->nij", flat, flat) / (h * w * c)


def style_loss(found: Mapping[str, Array], wanted: Mapping[str, Array], region: Array) -> Array:
    """Returns `sum_k mean |Gram(F_k(found) m) - Gram(F_k(wanted) m)|`, one of the two sums of L_style (equation 7).

    The equation multiplies Gram matrices by the mask, which has another shape; so features are masked before, as in
    partial convolutions.

    Args:
        found, wanted: feature maps `[n, h_i, w_i, c_i]` by name.
        region: m, `[n, h, w]`, resized to every map.
    """
    total = jnp.zeros(())
    for name in sorted(wanted):
        m = _resized(region, wanted[name])[..., None]
        total += jnp.mean(jnp.abs(gram(found[name] * m) - gram(wanted[name] * m)))
    return total


def _resized(region: Array, features: Array) -> Array:
    """Returns `region` `[n, r, r]` at the size of a feature map `[n, h, w, c]`, `[n, h, w]`, the nearest pixel."""
    size = features.shape[1]
    if region.shape[1] % size:
        return jax.image.resize(region, features.shape[:3], "nearest").astype(features.dtype)
    return normalisation.resized_mask(region, size)[..., 0].astype(features.dtype)


def _scores(patches: Array) -> Array:
    """Returns one score for every image, `[n]`, the mean of its patches' `[n, h, w]`."""
    return jnp.mean(patches, (1, 2))


def generator_loss(fake: Array) -> Array:
    """Returns `-mean D(fake)`, for scores of patches `[n, h, w]`.

    Equation 9 prints `E[D(G)]` without the sign, and equation 10 prints what D *maximises*; G must then minimise the
    negative. With the sign as printed, both networks would pull in the same direction.
    """
    return -jnp.mean(_scores(fake))


def discriminator_loss(real: Array, fake: Array) -> Array:
    """Returns `mean D(fake) - mean D(real)`, to be minimised, for scores of patches `[n, h, w]`.

    The negative of what equation 10 prints, which is to be maximised; the penalty comes on top, with a plus.
    """
    return jnp.mean(_scores(fake)) - jnp.mean(_scores(real))


def gradient_penalty(key: Array, discriminator: Callable[[Array], Array], real: Array, fake: Array) -> Array:
    """Returns `mean (|grad_x D(x)|_2 - 1)^2` at random points x between real and fake images (equation 10).

    Args:
        key: says where between.
        discriminator: `[n, h, w, c]` to scores of patches `[n, h', w']`; an image's score is their mean.
        real, fake: `[n, h, w, c]`.
    """
    share = jax.random.uniform(key, (len(real), 1, 1, 1), real.dtype)
    between = real + share * (fake - real)
    gradient = jax.grad(lambda x: jnp.sum(_scores(discriminator(x))))(between)
    # Not the norm itself, whose derivative at 0 is none.
    length = jnp.sqrt(jnp.sum(jnp.square(gradient), (1, 2, 3)) + 1e-12)
    return jnp.mean(jnp.square(length - 1))


def pixel_losses(outputs: Array, truth: Array, known: Array, *, reconstructs: str = "unperturbed") -> dict[str, Array]:
    """Returns both L1 losses and that of equation 8, by the names of `LossWeights`.

    Args:
        outputs: `[1 + alpha, n, h, w, c]`, first those of the unperturbed latents, then those of alpha perturbed ones.
        truth: `[n, h, w, c]`.
        known: `[n, h, w]`.
        reconstructs: which outputs must also meet the truth in the hole (hole, ssim): "unperturbed", since a perturbed
            style image asks for another hole than the truth has, or "all". The paper does not say.
    """
    count, n = outputs.shape[:2]
    many = count if reconstructs == "all" else 1
    flat, aims = outputs.reshape(-1, *outputs.shape[2:]), jnp.tile(truth, (count, 1, 1, 1))
    shown = jnp.tile(known, (count, 1, 1))
    some, some_aims = flat[: many * n], aims[: many * n]
    return {
        "hole": masked_distance(some, some_aims, 1 - shown[: many * n]),
        "valid": masked_distance(flat, aims, shown),
        "ssim": ms_ssim_loss(some, some_aims),
    }


def feature_losses(
    outputs: Array, styles: Array, truth: Array, known: Array, features: Callable[[Array], Mapping[str, Array]]
) -> dict[str, Array]:
    """Returns the losses of equations 6 and 7, by the names of `LossWeights`.

    Where pixels are known the unperturbed output is compared with the truth; in the hole every perturbed output with
    its style image, which is what keeps results diverse.

    Args:
        outputs, styles: `[1 + alpha, n, h, w, c]`, and the style images that they were conditioned on.
        truth: `[n, h, w, c]`.
        known: `[n, h, w]`.
        features: `[m, h, w, c]` to feature maps by name.
    """
    alpha, n = outputs.shape[0] - 1, outputs.shape[1]
    flat = outputs.reshape(-1, *outputs.shape[2:])
    wanted = jnp.concatenate([truth, styles.reshape(flat.shape)[n:]])
    ours, theirs = features(flat), features(jax.lax.stop_gradient(wanted))
    totals = {}
    for name, distance in (("perceptual", feature_loss), ("style", style_loss)):
        first, later = (tuple({k: x[part] for k, x in maps.items()} for maps in (ours, theirs)) for part in _parts(n))
        totals[name] = distance(*first, known)
        if alpha:
            # A sum over alpha of means over images.
            totals[name] += alpha * distance(*later, jnp.tile(1 - known, (alpha, 1, 1)))
    return totals


def _parts(n: int) -> tuple[slice, slice]:
    return slice(None, n), slice(n, None)
