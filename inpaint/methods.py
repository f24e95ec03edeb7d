# SPDX-License-Identifier: Apache-2.0
"""Restoration methods: functions that return a `Method`; `METHODS` finds them by name."""

from inpaint.objective import term
from inpaint.search.initialise import Initialisation, Prescreened, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam
from stylegan_jax import latents


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
    noise: str = "const",
    initialisation: Initialisation | None = None,
) -> Method:
    """Returns a search by Adam under NVlabs' schedule, in one space or first in W and then in W+.

    Minimises `d(G(w), y) + mahalanobis * |A^T (w - mean)|^2 / dim + mean_distance * |w - mean|^2 / dim`.

    Args:
        space: "z", "w" or "w+".
        steps: of both phases together.
        coarse_share: share of the steps spent in W before W+; 0 begins in W+ at once.
        lr: largest learning rate in Z or W, and in W+ where that is the only phase.
        fine_lr: largest learning rate of the phase in W+ that follows one in W.
        data: term of the known pixels, "l2" or "l1".
        mahalanobis, mean_distance: weights of the priors (0: off).
        noise: "const" (the stored noise maps) or "none", which gives smoother images.
        initialisation: where starts begin; by default the best of 256 random latents.

    Raises:
        ValueError: for unknown names or settings out of range.
    """
    if space not in latents.SPACES:
        raise ValueError(f"unknown space {space!r}; known: {', '.join(latents.SPACES)}")
    if data not in ("l2", "l1"):
        raise ValueError(f"unknown data term {data!r}; known: l2, l1")
    if steps < 1 or not 0 <= coarse_share < 1:
        raise ValueError(f"need steps >= 1 and coarse_share in [0, 1), got {steps} and {coarse_share}")
    weights = {data: 1.0, "mahalanobis": mahalanobis, "mean_distance": mean_distance}
    terms = tuple(term(name, weight) for name, weight in weights.items() if weight)
    coarse = round(steps * coarse_share) if space == "w+" else 0
    phases = ()
    if coarse:
        phases += (Phase(latents.W, coarse, adam(lr, coarse), terms, noise),)
    if steps > coarse:
        rate = fine_lr if coarse else lr
        phases += (Phase(latents.SPACES[space], steps - coarse, adam(rate, steps - coarse), terms, noise),)
    return Method("latent_search", phases, initialisation or Prescreened())


def brief(*, steps: int = 300, lr: float = 0.1, initialisation: Initialisation | None = None) -> Method:
    """Returns the course brief's method: gradient descent on w in W from random starts.

    `argmin_w |known * (x - G(w))|^2`, here per known value; Adam with NVlabs' schedule, which the brief leaves open.
    """
    found = latent_search(
        space="w", steps=steps, lr=lr, mahalanobis=0.0, initialisation=initialisation or RandomMapping()
    )
    return Method("brief", found.phases, found.initialisation)


METHODS = {"latent_search": latent_search, "brief": brief}
