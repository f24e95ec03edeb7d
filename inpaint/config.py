# SPDX-License-Identifier: Apache-2.0
"""The settings of a restoration, as typed dataclasses."""

import dataclasses

from inpaint import methods
from inpaint.search.initialise import Initialisation, Mean, Prescreened, RandomMapping
from inpaint.search.method import Method


@dataclasses.dataclass
class SearchConfig:
    """Settings of the search; see `inpaint.methods.latent_search` for those that it names.

    Attributes:
        init: "prescreen" (the best of `pool` random latents), "random" or "mean" (with `jitter` times W's spread).
        starts: latents optimised for one image; keep: how many are shown.
        select: "best" (lowest objective) or "diverse".
        chunk: starts run at once (0: chosen for the device).
        seed: of everything random.
    """

    space: str = "w+"
    steps: int = 150
    coarse_share: float = 0.5
    lr: float = 0.1
    fine_lr: float = 0.05
    data: str = "l2"
    mahalanobis: float = 0.02
    mean_distance: float = 0.0
    noise: str = "const"
    init: str = "prescreen"
    pool: int = 256
    truncation_psi: float = 1.0
    jitter: float = 0.1
    starts: int = 16
    keep: int = 4
    select: str = "best"
    chunk: int = 0
    seed: int = 0


@dataclasses.dataclass
class RestoreConfig:
    """Settings of a restoration: the search, and the composite ("feathered" or "hard", with the feather's pixels)."""

    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    composite: str = "feathered"
    feather: float = 1.5


def _initialisation(search: SearchConfig) -> Initialisation:
    known = {
        "prescreen": lambda: Prescreened(search.pool, search.truncation_psi),
        "random": lambda: RandomMapping(search.truncation_psi),
        "mean": lambda: Mean(search.jitter),
    }
    if search.init not in known:
        raise ValueError(f"unknown init {search.init!r}; known: {', '.join(known)}")
    return known[search.init]()


def build_method(search: SearchConfig) -> Method:
    """Returns the method that the settings describe; raises ValueError where they make no sense."""
    if not 1 <= search.keep <= search.starts:
        raise ValueError(f"keep must be 1 to starts ({search.starts}), got {search.keep}")
    return methods.latent_search(
        space=search.space,
        steps=search.steps,
        coarse_share=search.coarse_share,
        lr=search.lr,
        fine_lr=search.fine_lr,
        data=search.data,
        mahalanobis=search.mahalanobis,
        mean_distance=search.mean_distance,
        noise=search.noise,
        initialisation=_initialisation(search),
    )
