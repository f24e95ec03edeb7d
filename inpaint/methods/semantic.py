# SPDX-License-Identifier: Apache-2.0
"""Semantic inpainting in Z: a contextual loss over known pixels and a discriminator's word for the rest."""

import dataclasses

from jax import Array

from inpaint import losses
from inpaint.objective import Candidate, Context, Term, known_pixels
from inpaint.problem import Problem
from inpaint.search import transforms
from inpaint.search.initialise import Initialisation, RandomMapping, Uniform
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import chained, constant_adam
from inpaint.terms import check_features, term, window_l1
from stylegan_jax import latents


def filipovski(
    *,
    steps: int = 1500,
    lr: float = 0.001,
    window: int = 7,
    prior: float = 0.003,
    truncation_psi: float = 1.0,
    noise: str = "fresh",
    perceptual: str | None = None,
    perceptual_weight: float = 1000.0,
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns the method of Filipovski et al. (after Yeh et al. 2017): `sum |W (G(z) - y)| + prior * log(1 - D(G(z)))`.

    Published for a DCGAN at 64 pixels (1,500 steps, window 7) and StyleGAN1 at 256 (3,000 steps, window 28, psi 0.7,
    fresh noise), one start, and Poisson blending. Here D's logits enter in a form that is never infinite, networks
    normalise by stored moments, so that images do not depend on each other, and there may be many starts. Their closing
    suggestions are settings: features of a network in place of the window weights, and a start guided by edges
    (`inpaint.Prescreened(by=(inpaint.term("gradient"),))`, on the command line `init=edges`).

    Args:
        steps, lr: of Adam at a constant rate.
        window: of the weights W, in pixels.
        prior: weight of the discriminator's word (0: it is not asked).
        truncation_psi: pulls w to its mean; 1 leaves it.
        noise: what noise inputs get, "fresh" as published, "const" or "none".
        perceptual: "lpips" or "discriminator_features", whose distance of the known pixels, black in the hole of both,
            takes the place of the window-weighted one; None: as published.
        perceptual_weight: of that; ours, about the size of the sum that it replaces.
        initialisation: where starts begin; by default at normal latents.
        others: more terms of the objective.

    Raises:
        ValueError: for unknown features.
    """
    space = latents.Z if truncation_psi == 1 else latents.TruncatedZ(truncation_psi)
    if perceptual is None:
        context = window_l1(window)
    else:
        check_features(perceptual)
        context = term(perceptual, perceptual_weight, practice="zero")
    terms = (context, *((term("saturating_adversarial", prior),) if prior else ()), *others)
    phase = Phase(space, steps, constant_adam(lr), terms, noise)
    return Method("filipovski", (phase,), initialisation or RandomMapping())


@dataclasses.dataclass(frozen=True)
class _SummedL1:
    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        return losses.window_l1(candidate.image, problem.measurement, known_pixels(problem, "summed_l1"))


def dcgan_completion(
    *,
    steps: int = 1000,
    lr: float = 0.01,
    prior: float = 0.1,
    noise: str = "const",
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns the method of Amos 2016, "Image Completion with Deep Learning in TensorFlow": Yeh et al. with clipping.

    `sum |known (G(z) - y)| + prior * softplus(-D(G(z)))` by Adam, z drawn from and clipped to [-1, 1] after every step.
    Published for a DCGAN of 64 pixels, with a hard composite; its sampler by Hamiltonian dynamics is left out.

    Args:
        steps, lr: of Adam at a constant rate.
        prior: weight of the discriminator's word (0: it is not asked).
        noise: "const", "none" or "fresh"; a DCGAN has none.
        others: more terms of the objective.
    """
    word = (term("adversarial", prior),) if prior else ()
    terms = (Term("summed_l1", 1.0, _SummedL1(), masked=True), *word, *others)
    optimizer = chained(constant_adam(lr), transforms.clipped(-1.0, 1.0))
    return Method("dcgan_completion", (Phase(latents.Z, steps, optimizer, terms, noise),), Uniform(-1.0, 1.0))
