# SPDX-License-Identifier: Apache-2.0
"""Searches that leave W+ for filters, noise maps and feature maps inside the generator."""

from inpaint.methods.projection import split_steps
from inpaint.objective import Term
from inpaint.search import transforms
from inpaint.search.initialise import Initialisation, Mean, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import chained, one_cycle_drop, scheduled_adam, sgd, still, warmup_cosine
from inpaint.terms import check_features, floored_l2, multiscale, term
from stylegan_jax import latents
from stylegan_jax.heads import MultiCode
from stylegan_jax.joint import Features, Joint, Noise


def robust_unsupervised(
    *,
    steps: int = 450,
    lr_scale: float = 1.0,
    features: str = "lpips",
    smallest: int = 16,
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns the three phases of Poirier-Ginter and Lalonde 2023, "Robust Unsupervised StyleGAN Image Restoration".

    W, W+ and a latent for every filter (W++), a third of the steps each, by steps of one length (0.08, 0.02, 0.005),
    without a schedule or a prior, minimising features over a pyramid of images (`inpaint.terms.multiscale`).

    Args:
        steps: of all phases together, at least 3.
        lr_scale: factor of all step lengths; published 1, for a W of 512 dimensions.
        features: who compares: "lpips" as published, or "discriminator_features".
        smallest: image of the pyramid, in pixels.
        initialisation: where starts begin; by default the mean of W.
        others: more terms of the objective.
    """
    terms = (multiscale(features, smallest=smallest), *others)
    spaces = ((latents.W, 0.08), (latents.WPLUS, 0.02), (latents.WPLUSPLUS, 0.005))
    counts = split_steps(steps, (1, 1, 1))
    phases = tuple(
        Phase(space, count, transforms.normalized_gradient(lr * lr_scale), terms)
        for (space, lr), count in zip(spaces, counts, strict=True)
    )
    return Method("robust_unsupervised", phases, initialisation or Mean())


def pulse(
    *, steps: int = 100, lr: float = 0.4, maps: int = 5, floor: float = 0.002, others: tuple[Term, ...] = ()
) -> Method:
    """Returns PULSE (Menon et al. 2020): normal latents on their spheres, for upsampling.

    `100 max(|D(x) - y|^2, floor) + 0.05 geocross(w)` for images in [0, 1], over latents of the Gaussian model of W and
    the coarsest noise maps, each kept at the length that it was drawn with; the best step counts.

    Args:
        steps, lr: of Adam under PULSE's schedule.
        maps: noise maps searched, from 4x4 up (0 where the generator has none).
        floor: a fit as good as this is not pressed on.
        others: more terms of the objective.
    """
    rate = scheduled_adam(one_cycle_drop(lr, steps))
    terms = (floored_l2(4 * floor, 100 / 4), term("geocross", 0.05), *others)
    space, optimizer = latents.PPLUS, chained(rate, transforms.on_sphere())
    if maps:
        space = Joint(space, (Noise(maps),))
        optimizer = transforms.by_part(optimizer, {"noise": chained(rate, transforms.on_sphere(axes=2))})
    return Method("pulse", (Phase(space, steps, optimizer, terms, keep="best"),), RandomMapping())


def intermediate_layers(
    *,
    steps: int = 150,
    lr: float = 0.1,
    features: str = "lpips",
    feature_weight: float = 1.0,
    radius: float | None = None,
    blocks: tuple[str, ...] = ("b8", "b16", "b32"),
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns intermediate layer optimisation (Daras et al. 2021, "ILO"): latents, then feature maps from inside out.

    Round k searches latents of the Gaussian model of W, the first 5 + 2k noise maps and, from the second round on, the
    map that enters block k, which begins as what the round before made; latents and noise stay on their spheres.
    `|x - y|^2 + d(x, y) + 0.01 geocross(w)`; the best step of a round counts.

    Args:
        steps: of all rounds together, dealt out as 50, 50 and then 25 for each; at least one for each.
        lr: of Adam, rising over 5 % of a round and falling over its last 75 %.
        features: who compares: "lpips" as published, or "discriminator_features".
        feature_weight: of that; 0 for compressed sensing, as published.
        radius: of the L1 ball about its beginning that a feature map stays in; None, as published by default: none.
        blocks: whose maps are searched, one more in every round.
        others: more terms of the objective.
    """
    check_features(features)
    seen = (term(features, feature_weight),) if feature_weight else ()
    terms, phases, entered = (term("l2"), *seen, term("geocross", 0.01), *others), [], ()
    for k, count in enumerate(split_steps(steps, (50, 50, *(25,) * (len(blocks) - 1)))):
        rate = scheduled_adam(warmup_cosine(lr, count, decay=0.75))
        moved = {"noise": chained(rate, transforms.on_sphere(axes=2))}
        # Maps of earlier rounds stay: what coarser blocks paint is made of them.
        moved |= {part.name: still() for part in entered}
        if k:
            part = Features(blocks[k - 1])
            moved[part.name] = rate if radius is None else chained(rate, transforms.within_l1_ball(radius))
            entered = (*entered, part)
        optimizer = transforms.by_part(chained(rate, transforms.on_sphere()), moved)
        space = Joint(latents.PPLUS, (Noise(5 + 2 * k), *entered))
        phases.append(Phase(space, count, optimizer, terms, keep="best"))
    return Method("intermediate_layers", tuple(phases), RandomMapping())


def multi_code(
    *,
    steps: int = 3000,
    lr: float = 1.0,
    codes: int = 30,
    entering: str = "b16",
    features: str = "lpips",
    feature_weight: float = 1e-4,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns mGANprior (Gu et al. 2020): several codes whose feature maps are blended inside the generator.

    `|x - y|^2 + feature_weight * d(x, y)` by plain gradient descent, black in the hole of both. Published for a
    progressive GAN, with importances that begin at 1/n and an L1 distance of VGG's features.

    Args:
        steps, lr: of gradient descent.
        codes: blended.
        entering: the layer where they are.
        features: who compares: "lpips" (published: VGG's features), or "discriminator_features".
        feature_weight: of that.
        others: more terms of the objective.
    """
    check_features(features)
    seen = (term(features, feature_weight, practice="zero"),) if feature_weight else ()
    phase = Phase(MultiCode(codes, entering), steps, sgd(lr), (term("l2"), *seen, *others))
    return Method("multi_code", (phase,), RandomMapping())
