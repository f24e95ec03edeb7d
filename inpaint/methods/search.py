# SPDX-License-Identifier: Apache-2.0
"""The library's own methods, and the brief's, which is one of their settings."""

import dataclasses

from inpaint.objective import Term
from inpaint.search.initialise import Encoded, Initialisation, Prescreened, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam
from inpaint.terms import term
from stylegan_jax import joint, latents


def latent_search(
    *,
    space: str = "w+",
    steps: int = 150,
    coarse_share: float = 0.5,
    lr: float = 0.1,
    fine_lr: float = 0.05,
    data: str = "l2",
    mahalanobis: float = 0.02,
    mean_distance: float = 0.0,
    guess_distance: float = 0.0,
    expected: float = 0.0,
    noise: str = "const",
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns a search by Adam under NVlabs' schedule, in one space or first in W and then in W+.

    Minimises `d(G(w), y) + mahalanobis * |A^T (w - mean)|^2 / dim + mean_distance * |w - mean|^2 / dim` and, with an
    encoder E, `+ guess_distance * |A^T (w - E(y))|^2 / dim + expected * |G(w) - x_E(y)|^2` in the hole.

    Args:
        space: "z", "w", "w+" or another of `stylegan_jax.latents.SPACES`; "w+&transform" and the like search the
            rotation and shift of a StyleGAN3's input, too.
        steps: of both phases together.
        coarse_share: share of the steps spent in W before W+; 0 begins in W+ at once.
        lr: largest learning rate in Z or W, and in W+ where that is the only phase.
        fine_lr: largest learning rate of the phase in W+ that follows one in W.
        data: term of the known pixels, "l2" or "l1".
        mahalanobis, mean_distance, guess_distance: weights of the priors (0: off).
        expected: weight of the distance in the hole to what the encoder expects there (0: off).
        noise: "const" (the stored noise maps) or "none", which gives smoother images.
        initialisation: where starts begin; by default the best of 256 random latents.
        others: more terms of the objective, from `inpaint.term` and `inpaint.attribute_term`.

    Raises:
        ValueError: for unknown names or settings out of range.
    """
    space, _, part = space.partition("&")
    if space not in latents.SPACES or part not in ("", "transform"):
        known = ", ".join(latents.SPACES)
        raise ValueError(f"unknown space {space + '&' * bool(part) + part!r}; known: {known}, and each with &transform")

    def searched(latent: latents.Space) -> latents.Space:
        return joint.Joint(latent, (joint.Transform(),)) if part else latent

    if data not in ("l2", "l1"):
        raise ValueError(f"unknown data term {data!r}; known: l2, l1")
    if steps < 1 or not 0 <= coarse_share < 1:
        raise ValueError(f"need steps >= 1 and coarse_share in [0, 1), got {steps} and {coarse_share}")
    priors = {"mahalanobis": mahalanobis, "mean_distance": mean_distance, "guess_distance": guess_distance}
    weights = {data: 1.0} | priors | {"expected_l2": expected}
    terms = (*(term(name, weight) for name, weight in weights.items() if weight), *others)
    coarse = round(steps * coarse_share) if space == "w+" else 0
    phases = ()
    if coarse:
        phases += (Phase(searched(latents.W), coarse, adam(lr, coarse), terms, noise),)
    if steps > coarse:
        rate = fine_lr if coarse else lr
        phases += (Phase(searched(latents.SPACES[space]), steps - coarse, adam(rate, steps - coarse), terms, noise),)
    return Method("latent_search", phases, initialisation or Prescreened())


def encoder_search(
    *,
    steps: int = 30,
    lr: float = 0.02,
    data: str = "l2",
    guess_distance: float = 0.2,
    expected: float = 0.3,
    mahalanobis: float = 0.0,
    noise: str = "none",
    jitter: float = 0.5,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns a search in W+ by Adam that begins about an encoder's guess and is held near it.

    Minimises `d(G(w), y) + guess_distance * |A^T (w - E(y))|^2 / dim + expected * |G(w) - x_E(y)|^2 + mahalanobis *
    |A^T (w - mean)|^2 / dim`, the third in the hole alone. What is known says little about most directions of W+; the
    encoder E has learned what is likely there, so a step away from its guess has to pay for itself in known pixels (Zhu
    et al. 2020, "In-domain GAN inversion", with the distance taken in W+). Latents that are likely one by one are not
    yet the likeliest image; a linear encoder also says which pixels `x_E` it expects, and the hole is held near them.

    Args:
        steps, lr: of Adam under NVlabs' schedule.
        data: term of the known pixels, "l2" or "l1".
        guess_distance, mahalanobis: weights of the distances to the guess and to the mean of W (0: off).
        expected: weight of the distance to the expected pixels, see `stylegan_jax.encoders.expected` (0: off).
        noise: "const" (the stored noise maps) or "none"; encoders of `inpaint train` know the generator without noise.
        jitter: see `inpaint.Encoded`.
        others: more terms of the objective, from `inpaint.term` and `inpaint.attribute_term`.

    Raises:
        ValueError: for settings out of range.
    """
    found = latent_search(
        steps=steps,
        coarse_share=0,
        lr=lr,
        data=data,
        mahalanobis=mahalanobis,
        guess_distance=guess_distance,
        expected=expected,
        noise=noise,
        initialisation=Encoded(jitter),
        others=others,
    )
    return dataclasses.replace(found, name="encoder_search")


def brief(
    *,
    steps: int = 300,
    lr: float = 0.1,
    initialisation: Initialisation | None = None,
    others: tuple[Term, ...] = (),
) -> Method:
    """Returns the course brief's method: gradient descent on w in W from random starts.

    `argmin_w |known * (x - G(w))|^2`, here per known value; Adam with NVlabs' schedule, which the brief leaves open.
    Its optional constraints, a regulariser or a classifier's answer, are `others`.
    """
    found = latent_search(
        space="w",
        steps=steps,
        lr=lr,
        mahalanobis=0.0,
        initialisation=initialisation or RandomMapping(),
        others=others,
    )
    return Method("brief", found.phases, found.initialisation)
