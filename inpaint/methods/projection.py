# SPDX-License-Identifier: Apache-2.0
"""Projections of images onto a generator, with their data terms over known pixels alone."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.objective import Context, Term
from inpaint.search import transforms
from inpaint.search.initialise import Encoded, Initialisation, Mean
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam, chained, constant_adam
from inpaint.terms import check_features, term
from stylegan_jax import latents
from stylegan_jax.joint import Joint, Noise


def split_steps(steps: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Returns `steps` dealt out by `shares`, at least one to each.

    Raises:
        ValueError: where there are fewer steps than shares.
    """
    if steps < len(shares):
        raise ValueError(f"the method has {len(shares)} phases and needs at least a step for each, got {steps}")
    total, found, left = sum(shares), [], steps
    for i, share in enumerate(shares[:-1]):
        count = min(max(1, round(steps * share / total)), left - (len(shares) - 1 - i))
        found.append(count)
        left -= count
    return (*found, left)


@dataclasses.dataclass(frozen=True)
class Shake:
    """Adds normal noise to the latents, of `size * w_deviation * max(0, 1 - t / until)^2` (NVlabs' projector)."""

    size: float = 0.05
    until: float = 0.75

    def __call__(self, key: Array, ws: Array, context: Context, t: Array) -> Array:
        size = self.size * context.w_deviation * jnp.square(jnp.maximum(0.0, 1.0 - t / self.until))
        return ws + (size * jax.random.normal(key, ws.shape[-1:], ws.dtype)).astype(ws.dtype)[None, :]


def projector(
    *,
    steps: int = 1000,
    lr: float = 0.1,
    features: str = "lpips",
    noise_weight: float = 1e5,
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns NVlabs' projector (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", app. D).

    Features of known pixels in W and noise maps together, from the mean of W, latents shaken over three quarters of the
    steps, noise maps kept standard and held to be white. The hole of the target holds the render's own pixels; the
    published tool has no mask. Its distance of VGG features is LPIPS by the published VGG.

    Args:
        steps, lr: of Adam under NVlabs' schedule.
        features: who compares: "lpips" as published, or "discriminator_features".
        noise_weight: of the noise regulariser.
        initialisation: where starts begin; by default the mean of W.
        others: more terms of the objective.
    """
    check_features(features)
    rate = adam(lr, steps)
    optimizer = transforms.by_part(rate, {"noise": chained(rate, transforms.standardized_maps())})
    terms = (term(features), term("noise_regularizer", noise_weight), *others)
    phase = Phase(Joint(latents.W, (Noise(),)), steps, optimizer, terms, shake=Shake())
    return Method("projector", (phase,), initialisation or Mean())


def brgm(*, steps: int = 5000, lr: float = 0.1, features: str = "lpips", others: tuple[Term, ...] = ()) -> Method:
    """Returns the MAP estimate of Marinescu et al. 2020, "Bayesian Image Reconstruction using Deep Generative Models".

    `d(x, y) + 0.001 |x - y|^2 + 100 |w - mean|^2 / deviation^2 + 3 mean |1 - cos(w_i, w_j)|` in W+ from the mean of W,
    with white in the hole of both and pixel levels from 0 to 255, as its TensorFlow code has it; the jitter of one
    scalar at the beginning is left out.

    Args:
        steps, lr: of Adam under NVlabs' schedule.
        features: who compares: "lpips" as published, or "discriminator_features".
        others: more terms of the objective.
    """
    check_features(features)
    terms = (
        term(features, practice="white"),
        term("l2", 0.001 * 127.5**2),
        term("deviation", 100.0),
        term("cosine_spread", 3.0),
        *others,
    )
    return Method("brgm", (Phase(latents.WPLUS, steps, adam(lr, steps), terms),), Mean())


def improved_embedding(
    *, steps: int = 1300, lr: float = 0.01, features: str = "lpips", prior: float = 0.001, others: tuple[Term, ...] = ()
) -> Method:
    """Returns the embedding of Zhu et al. 2020, "Improved StyleGAN Embedding" (II2S): W+ with the P-norm prior.

    `|x - y|^2 + d(x, y) + prior |v|^2`, v being the whitened `LeakyReLU_5(w)`, from the mean of W, fresh noise at every
    step, over known pixels.

    Args:
        steps, lr: of Adam at a constant rate.
        features: who compares: "lpips" as published, or "discriminator_features".
        prior: weight of the P-norm.
        others: more terms of the objective.
    """
    check_features(features)
    terms = (term("l2"), term(features), term("p_norm", prior), *others)
    return Method("improved_embedding", (Phase(latents.WPLUS, steps, constant_adam(lr), terms, "fresh"),), Mean())


def in_domain(
    *,
    steps: int = 100,
    lr: float = 0.01,
    features: str = "lpips",
    feature_weight: float = 5e-5,
    encoder_weight: float = 2.0,
    noise: str = "none",
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns in-domain inversion (Zhu et al. 2020): W+ from an encoder's guess, held where the encoder agrees.

    `|x - y|^2 + feature_weight * d(x, y) + encoder_weight * |w - E(x)|^2`, the last in units of W's covariance.
    Published without the last term where a mask is given (`encoder_weight` 0), and for features of VGG.

    Args:
        steps, lr: of Adam at a constant rate.
        features: who compares: "lpips" (published: VGG's features), or "discriminator_features".
        feature_weight, encoder_weight: of the terms.
        noise: what noise inputs get, "none", "const" or "fresh".
        others: more terms of the objective.
    """
    check_features(features)
    weights = {features: feature_weight, "encoder_consistency": encoder_weight}
    terms = (term("l2"), *(term(name, weight, practice="zero") for name, weight in weights.items() if weight), *others)
    return Method("in_domain", (Phase(latents.WPLUS, steps, constant_adam(lr), terms, noise),), Encoded(0.0))


def style_deltas(
    *,
    steps: int = 300,
    lr: float = 0.05,
    features: str = "lpips",
    spread: float = 2e-4,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns a search in W and then W+ that pays for leaving W (the regulariser of Tov et al. 2021, "e4e").

    `|x - y|^2 + 0.8 d(x, y) + spread * mean_l |w_l - w_0|`. Published as a loss of an encoder's training, of which
    weights are taken; the schedule and the order of spaces are ours.

    Args:
        steps: of both spaces together, half each; lr: of Adam under NVlabs' schedule.
        features: who compares: "lpips" as published, or "discriminator_features".
        spread: weight of the distance from W.
        others: more terms of the objective.
    """
    check_features(features)
    terms = (term("l2"), term(features, 0.8), *others)
    coarse, fine = split_steps(steps, (1, 1))
    phases = (
        Phase(latents.W, coarse, adam(2 * lr, coarse), terms),
        Phase(latents.WPLUS, fine, adam(lr, fine), (*terms, term("style_spread", spread))),
    )
    return Method("style_deltas", phases, Mean())


def style_space(
    *, steps: int = 300, lr: float = 0.02, features: str = "lpips", others: tuple[Term, ...] = ()
) -> Method:
    """Returns a search in W and then in StyleSpace (Wu et al. 2021, "StyleSpace Analysis"): the styles themselves.

    `|x - y|^2 + 0.8 d(x, y)`; the source has edits in this space but no restoration, so schedule and terms are ours.

    Args:
        steps: of both spaces together, half each; lr: of Adam in StyleSpace, under NVlabs' schedule.
        features: who compares, "lpips" or "discriminator_features".
        others: more terms of the objective.
    """
    check_features(features)
    terms = (term("l2"), term(features, 0.8), *others)
    coarse, fine = split_steps(steps, (1, 1))
    phases = (
        Phase(latents.W, coarse, adam(0.1, coarse), terms),
        Phase(latents.S, fine, adam(lr, fine), terms),
    )
    return Method("style_space", phases, Mean())
