# SPDX-License-Identifier: Apache-2.0
"""Searches over weights: of the generator itself, or of small networks before it."""

from inpaint.methods.projection import Shake, split_steps
from inpaint.objective import Term
from inpaint.search import transforms
from inpaint.search.initialise import Initialisation, Mean, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam, chained, constant_adam, still
from inpaint.search.stopping import Below
from inpaint.terms import check_features, locality, term, walk_fit, walk_order
from stylegan_jax import latents
from stylegan_jax.heads import ContentHead, StyleHead
from stylegan_jax.joint import Joint, Noise, Part, Walk, Weights


def pivotal_tuning(
    *,
    steps: int = 800,
    lr: float = 0.01,
    weight_lr: float = 3e-4,
    features: str = "lpips",
    stop: float | None = 0.06,
    locality_weight: float = 0.0,
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns pivotal tuning (Roich et al. 2022, "PTI") over known pixels: a projection, then the generator's weights.

    The pivot is found as by `projector`, at a tenth of its rate; then `|x - y|^2 + d(x, y)` moves all weights of the
    synthesis network. Left alone that fits whatever is wrong with the known pixels, so it stops early. Every start has
    weights of its own: take few.

    Args:
        steps: of both phases, dealt out as 450 and 350 of 800.
        lr: of the latents; weight_lr: of the weights, by Adam at a constant rate.
        features: who compares: "lpips" as published, or "discriminator_features".
        stop: the weights are moved until d is at most this; None: to the end.
        locality_weight: of `inpaint.terms.locality`; published 0.1 where it is used, 0 by default.
        initialisation: where starts begin; by default the mean of W.
        others: more terms of the objective.
    """
    check_features(features)
    pivot, tuning = split_steps(steps, (450, 350))
    rate = adam(lr, pivot)
    base = (term(features), *others)
    near = (locality(features, locality_weight),) if locality_weight else ()
    phases = (
        Phase(
            Joint(latents.W, (Noise(),)),
            pivot,
            transforms.by_part(rate, {"noise": chained(rate, transforms.standardized_maps())}),
            (*base, term("noise_regularizer", 1e5)),
            shake=Shake(),
        ),
        Phase(
            Joint(latents.W, (Noise(), Weights())),
            tuning,
            transforms.by_part(still(), {"weights": constant_adam(weight_lr)}),
            (term("l2"), *base, *near),
            stop=None if stop is None else Below(features, stop),
        ),
    )
    return Method("pivotal_tuning", phases, initialisation or Mean())


def sphinx(
    *,
    steps: int = 5000,
    lr: float = 0.001,
    features: str = "lpips",
    feature_weight: float = 1.5,
    data: str = "l2",
    encoder: tuple[int, ...] = (256, 128, 32),
    decoder: tuple[int, ...] = (64, 128),
    content: bool = True,
    noise_maps: bool = True,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns SPHInX: heads that learn to give the image for whatever is drawn, with content and noise maps of its own.

    `|x - y|^2 + 1.5 d(x, y)` over the weights of a style head, of a content head in place of the constant input, and
    noise maps; latents and content are drawn anew at every step, which is all of the method's regularisation. The
    result is the render of one more draw.

    Args:
        steps: of Adam; lr: of all parts, that of the style head under NVlabs' schedule, of the others constant.
        features: who compares: "lpips" as published, or "discriminator_features".
        feature_weight: of that; published 0 below 256 pixels.
        data: "l2", or "drawn_l2", which degrades the render anew at every step (denoising).
        encoder, decoder: widths of the style head, see `stylegan_jax.heads.StyleHead`.
        content: search a content head, too.
        noise_maps: search noise maps, too.
        others: more terms of the objective.

    Raises:
        ValueError: for another data term, or unknown features.
    """
    check_features(features)
    if data not in ("l2", "drawn_l2"):
        raise ValueError(f"unknown data term {data!r}; known: l2, drawn_l2")
    seen = (term(features, feature_weight),) if feature_weight else ()
    parts = (*((ContentHead(),) if content else ()), *((Noise(),) if noise_maps else ()))
    phase = _heads_phase(StyleHead(encoder, decoder), parts, steps, lr, (term(data), *seen, *others))
    return Method("sphinx", (phase,), RandomMapping())


def _heads_phase(head: StyleHead, parts: tuple[Part, ...], steps: int, lr: float, terms: tuple[Term, ...]) -> Phase:
    """Returns the one phase of SPHInX: heads and what else there is, the style head alone under a schedule."""
    space, optimizer = head, adam(lr, steps)
    if parts:
        space = Joint(head, parts)
        optimizer = transforms.by_part(constant_adam(lr), {"latents": optimizer})
    return Phase(space, steps, optimizer, terms)


def attribute_walk(
    *,
    views: int = 3,
    steps: int = 5000,
    lr: float = 0.001,
    order: float = 0.5,
    gap: float = 2.0,
    features: str = "lpips",
    feature_weight: float = 1.5,
    encoder: tuple[int, ...] = (256, 128, 32),
    decoder: tuple[int, ...] = (64, 128),
    content: bool = True,
    noise_maps: bool = True,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns SPHInX' attribute walk: several images, such as one in several rotations, on one line through W+.

    `mean_k (|G(w + a_k D / |D|) - y_k|^2 + feature_weight * d) + order * rising(a)`, with the heads of `sphinx`, one
    direction for every layer, and a distance for every image but the first, which lies at 0. The problem is
    `Problem(operators.Copies(views), targets)` with targets `[views, h, w, c]`; `inpaint.edit.walk` renders what lies
    between them. It restores no single image, so no command finds it by name.

    Args:
        views: how many images there are.
        steps: of Adam; lr: of all parts, that of the style head under NVlabs' schedule, of the others constant.
        order: weight of what makes the images lie in their order; gap: least distance of neighbours, in W.
        features: who compares: "lpips" as published, or "discriminator_features".
        feature_weight: of that; published 0 below 256 pixels.
        encoder, decoder: widths of the style head.
        content, noise_maps: search a content head and noise maps, too.
        others: more terms of the objective.

    Raises:
        ValueError: for fewer than two views, or unknown features.
    """
    parts = (*((ContentHead(),) if content else ()), *((Noise(),) if noise_maps else ()), Walk(views))
    terms = (
        walk_fit(features=features, feature_weight=feature_weight),
        *((walk_order(order, gap=gap),) if order else ()),
        *others,
    )
    phase = _heads_phase(StyleHead(encoder, decoder), parts, steps, lr, terms)
    return Method("attribute_walk", (phase,), RandomMapping())
