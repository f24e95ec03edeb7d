# SPDX-License-Identifier: Apache-2.0
"""The settings of a restoration, as typed dataclasses, and its composite by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from inpaint import blend


@dataclasses.dataclass
class SearchConfig:
    """Settings of the search; see `inpaint.methods.latent_search` for those that it names.

    Attributes:
        init: "prescreen" (the best of `pool` random latents), "edges" (the same by their edges), "random", or "mean",
            "encoder" or "file" (latents of an earlier restoration), with up to `jitter` times W's spread added.
        guess_distance: weight of the distance from the encoder's guess; behind a learned inpainter, from the sample.
        starts: latents optimised for one image, to the end; keep: how many are shown.
        halving: cuts of successive halving (0: none), before each of which `halving_factor` times as many starts run.
        restarts: how often a start that diverged is searched anew from another latent.
        patience: steps after which a start stands still whose objective has not fallen by the share `improvement`
            (0: never), in phases that have no such rule of their own.
        select: "best" (lowest objective), "diverse", "clustered" or "central", see `inpaint.select`.
        score: what ranks the starts, "objective" or a sum such as "objective+critic", see `inpaint.search.scoring`.
        chunk: starts run at once (0: chosen for the device).
        seed: of everything random.
        terms: more terms of the objective, each as "name=weight" (`inpaint.terms.TERMS`).
        mask_practice: what stands in the hole where a network compares images: "fill", "zero" or "noise".
        attributes: semantic constraints, each as "name=target" or "name=target:weight"; target 1 for present, 0 for
            absent.
        attribute_weight: of constraints that name none.
        constrained_expected: takes the place of `expected` where there are constraints, of which expected pixels know
            nothing: held near both, a mouth that is to be closed becomes a smear.
        attribute_on: what the classifier looks at, "composite" or "render".
        features: who compares images for methods whose source takes LPIPS: "lpips", or "discriminator_features" in its
            place, which is not the published objective; "auto": LPIPS where the command is given one.
        options: further settings of a published method, each as "name=value"; its function in `inpaint.methods` names
            them. Of a learned inpainter: those in `inpaint.named_methods.LEARNED_OPTIONS`.
    """

    space: str = "w+"
    steps: int = 150
    coarse_share: float = 0.5
    lr: float = 0.1
    fine_lr: float = 0.05
    data: str = "l2"
    mahalanobis: float = 0.02
    mean_distance: float = 0.0
    guess_distance: float = 0.0
    expected: float = 0.0
    noise: str = "const"
    init: str = "prescreen"
    pool: int = 256
    truncation_psi: float = 1.0
    jitter: float = 0.1
    starts: int = 16
    halving: int = 0
    halving_factor: int = 2
    restarts: int = 0
    patience: int = 0
    improvement: float = 0.01
    keep: int = 4
    select: str = "best"
    score: str = "objective"
    chunk: int = 0
    seed: int = 0
    terms: tuple[str, ...] = ()
    mask_practice: str = "fill"
    attributes: tuple[str, ...] = ()
    attribute_weight: float = 0.06
    constrained_expected: float = 0.0
    attribute_on: str = "composite"
    features: str = "auto"
    options: tuple[str, ...] = ()


@dataclasses.dataclass
class RestoreConfig:
    """Settings of a restoration: the method, its search, and the composite.

    Attributes:
        method: one of `inpaint.named_methods.METHODS`; `search` holds the settings of those that search.
        composite: one of `COMPOSITES`.
        feather: sigma of "feathered" in pixels, and of the transition where a result is pasted into its photograph.
        reach: of "carried" and "expected", in pixels.
        expected_share: of "expected": how far coarse parts of the hole go from the render to what the encoder expects.
        band: width of the known pixels whose colours "harmonised" meets.
        ridge_noise: see `inpaint.baselines.ridge`.
        network: checkpoint of a learned inpainter; by default the one in the generator's folder.
    """

    method: str = "latent_search"
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    composite: str = "carried"
    feather: float = 1.5
    reach: float = 4.0
    expected_share: float = 0.6
    band: int = 4
    ridge_noise: float = 0.03
    network: str = ""


@dataclasses.dataclass(frozen=True)
class NamedComposite:
    """What a composite's name stands for: `function(config, means, render, image, known)`, and the settings that are
    its own, which must be above 0 and finite."""

    function: Callable[[RestoreConfig, np.ndarray | None, np.ndarray, np.ndarray, np.ndarray], jax.Array]
    settings: tuple[str, ...] = ()


def takes_means(config: RestoreConfig, means: np.ndarray | None) -> bool:
    """Returns whether composites go towards expected `means` `[s, s, c]`: not under a semantic constraint, which asks
    for what is not expected."""
    return config.composite == "expected" and not config.search.attributes and means is not None


def _expected(
    config: RestoreConfig, means: np.ndarray | None, render: np.ndarray, image: np.ndarray, known: np.ndarray
) -> jax.Array:
    if not takes_means(config, means):
        return blend.carried(render, image, known, reach=config.reach)
    return blend.expected(render, image, known, means=means, share=config.expected_share, reach=config.reach)


def _named(function: Callable[..., jax.Array], **settings: str) -> NamedComposite:
    """Returns the entry of a composite that looks at render, image and mask; `settings` are its own by argument."""

    def made(config: RestoreConfig, _: np.ndarray | None, *images: np.ndarray) -> jax.Array:
        return function(*images, **{argument: getattr(config, name) for argument, name in settings.items()})

    return NamedComposite(made, tuple(settings.values()))


COMPOSITES = {
    "carried": _named(blend.carried, reach="reach"),
    "expected": NamedComposite(_expected, ("reach", "expected_share")),
    "feathered": _named(blend.feathered, sigma="feather"),
    "hard": _named(blend.hard),
    "harmonised": _named(blend.harmonised, width="band"),
    "poisson": _named(blend.poisson),
}


def composite(
    config: RestoreConfig, raw: np.ndarray, image: np.ndarray, known: np.ndarray, *, means: np.ndarray | None = None
) -> np.ndarray:
    """Returns the composites `[..., h, w, c]` of renders.

    Args:
        config: names the composite.
        raw: `[..., h, w, c]`.
        image: `[h, w, c]`.
        known: `[h, w]`.
        means: `[s, s, c]` that a linear encoder expects, for "expected", which is "carried" without.
    """
    return np.asarray(COMPOSITES[config.composite].function(config, means, raw, image, known))


def paste_sigma(config: RestoreConfig) -> float:
    """Returns how far results are blended into a whole photograph, in pixels of the generator (`inpaint.paste`)."""
    return 0.0 if config.composite == "hard" else config.feather


def apply_overrides(config: RestoreConfig, values: Mapping[str, Any]) -> RestoreConfig:
    """Returns `config` with settings replaced, given by dotted name ("search.lr"); raises ValueError for others."""
    for path, value in values.items():
        *parents, name = path.split(".")
        target = config
        for parent in parents:
            target = getattr(target, parent, None)
        if not dataclasses.is_dataclass(target) or not hasattr(target, name):
            raise ValueError(f"unknown setting {path!r}")
        kind = type(getattr(target, name))
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind:
            raise ValueError(f"setting {path!r} must be of type {kind.__name__}, got {value!r}")
        setattr(target, name, value)
    return config
