# SPDX-License-Identifier: Apache-2.0
"""Restoration methods: functions that return a `Method`; `METHODS` finds them by name."""

from inpaint.objective import term
from inpaint.search.initialise import Initialisation, Prescreened, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam
from stylegan_jax import latents


def brief(*, steps: int = 300, lr: float = 0.1, initialisation: Initialisation | None = None) -> Method:
    """Returns the course brief's method: gradient descent on w in W from random starts.

    `argmin_w |known * (x - G(w))|^2`, here per known value; Adam with NVlabs' schedule, which the brief leaves open.
    """
    phase = Phase(latents.W, steps, adam(lr, steps), (term("l2"),))
    return Method("brief", (phase,), initialisation or RandomMapping())


def two_phase(
    *,
    steps: int = 200,
    lr: float = 0.1,
    prior: float = 0.01,
    fine_steps: int = 100,
    fine_lr: float = 0.05,
    pool: int = 256,
) -> Method:
    """Returns the default method: W first, then W+, from pre-screened starts, with a Mahalanobis prior in W.

    Args:
        steps, lr: of the phase in W.
        prior: weight of the Mahalanobis prior beside the mean squared error of known pixels.
        fine_steps, fine_lr: of the phase in W+; 0 steps leave it out.
        pool: latents drawn and scored for the starts.
    """
    terms = (term("l2"), term("mahalanobis", prior))
    phases = (Phase(latents.W, steps, adam(lr, steps), terms),)
    if fine_steps:
        phases += (Phase(latents.WPLUS, fine_steps, adam(fine_lr, fine_steps), terms),)
    return Method("two_phase", phases, Prescreened(pool))


METHODS = {"brief": brief, "two_phase": two_phase}
