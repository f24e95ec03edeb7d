# SPDX-License-Identifier: Apache-2.0
"""Methods by name: their default settings, and how settings become a method."""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from inpaint import baselines, methods, terms
from inpaint.config import COMPOSITES, RestoreConfig, SearchConfig
from inpaint.objective import Term
from inpaint.search import scoring, selection
from inpaint.search.halving import SuccessiveHalving
from inpaint.search.initialise import (
    Encoded,
    Given,
    Initialisation,
    Mean,
    Prescreened,
    RandomMapping,
    Uniform,
)
from inpaint.search.method import FeedForward, Fill, Method
from inpaint.search.produced import Inpainter
from inpaint.search.stopping import Plateau

_NAMES = {Mean: "mean", RandomMapping: "random", Encoded: "encoder", Uniform: "uniform"}


def _initialisation(search: SearchConfig) -> Initialisation:
    known = {
        "prescreen": lambda: Prescreened(search.pool, search.truncation_psi),
        "edges": lambda: Prescreened(search.pool, search.truncation_psi, by=(terms.term("gradient"),)),
        "random": lambda: RandomMapping(search.truncation_psi),
        "mean": lambda: Mean(search.jitter),
        "encoder": lambda: Encoded(search.jitter),
        "file": lambda: Given(search.jitter),
    }
    if search.init not in known:
        raise ValueError(f"unknown init {search.init!r}; known: {', '.join(known)}")
    return known[search.init]()


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} must be a number, got {text!r}") from None


def _others(search: SearchConfig) -> tuple[Term, ...]:
    """Returns the terms that `terms` and `attributes` ask for."""
    found = []
    for text in search.terms:
        name, equals, weight = text.partition("=")
        if not equals:
            raise ValueError(f"a term is given as name=weight, got {text!r}")
        found.append(terms.term(name, _number(weight, f"the weight of {name}"), practice=search.mask_practice))
    for text in search.attributes:
        name, equals, rest = text.rpartition("=")
        if not equals or not name:
            raise ValueError(f"an attribute is given as name=target or name=target:weight, got {text!r}")
        target, colon, weight = rest.partition(":")
        strength = _number(weight, f"the weight of {name}") if colon else search.attribute_weight
        wanted = _number(target, f"the target of {name}")
        found.append(terms.attribute_term(name, wanted, strength, on=search.attribute_on))
    return tuple(found)


def _latent_search(config: RestoreConfig, images: np.ndarray | None) -> Method:
    search = config.search
    found = methods.latent_search(
        space=search.space,
        steps=search.steps,
        coarse_share=search.coarse_share,
        lr=search.lr,
        fine_lr=search.fine_lr,
        data=search.data,
        mahalanobis=search.mahalanobis,
        mean_distance=search.mean_distance,
        guess_distance=search.guess_distance,
        expected=search.constrained_expected if search.attributes else search.expected,
        noise=search.noise,
        initialisation=_initialisation(search),
        others=_others(search),
    )
    return dataclasses.replace(found, name=config.method)


def _found(method: Method, search: SearchConfig) -> Method:
    """Returns `method` with how its starts are found and ended."""
    if search.halving:
        cuts = SuccessiveHalving(search.halving, search.halving_factor)
        method = dataclasses.replace(method, halving=cuts)
    if search.patience:
        rule = Plateau(search.patience, search.improvement)
        phases = (dataclasses.replace(x, stop=rule) if x.stop is None else x for x in method.phases)
        method = dataclasses.replace(method, phases=tuple(phases))
    return dataclasses.replace(method, restarts=search.restarts)


def _encoder_defaults() -> RestoreConfig:
    return RestoreConfig(
        method="encoder_search",
        composite="expected",
        search=SearchConfig(
            steps=30,
            coarse_share=0.0,
            lr=0.02,
            mahalanobis=0.0,
            guess_distance=0.2,
            expected=0.3,
            noise="none",
            init="encoder",
            jitter=0.5,
        ),
    )


# Settings that every method takes from the configuration, and what those of a published one are called there.
_COMMON = ("starts", "keep", "select", "score", "chunk", "seed", "terms", "mask_practice", "options")
_COMMON += ("halving", "halving_factor", "restarts", "patience", "improvement")
_COMMON += ("attributes", "attribute_weight", "attribute_on")
_INITIALISATION = ("init", "pool", "truncation_psi", "jitter")


def _options(search: SearchConfig, name: str, known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    found = {}
    for text in search.options:
        option, equals, value = text.partition("=")
        if not equals or option not in known:
            taken = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{text!r} is no option name=value of the method {name}; it has {taken}")
        try:
            found[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[option] = value
    return found


@dataclasses.dataclass(frozen=True)
class _Published:
    """Builds the method `name` from those settings that its source leaves open, and refuses changes of the others."""

    name: str

    def __call__(self, config: RestoreConfig, images: np.ndarray | None) -> Method:
        function, search = methods.METHODS[self.name], config.search
        taken = inspect.signature(function).parameters
        own = METHODS[self.name].defaults().search
        named = {"steps", "lr", "noise", "data", "features", "truncation_psi"} & set(taken)
        free = {*named, *_COMMON}
        free |= set(_INITIALISATION) if "initialisation" in taken else set()
        settings = {field.name for field in dataclasses.fields(SearchConfig)}
        changed = sorted(s for s in settings - free if getattr(search, s) != getattr(own, s))
        if changed:
            raise ValueError(
                f"the method {self.name} has {', '.join(changed)} of its own; use latent_search to change them"
            )
        values = {name: getattr(search, name) for name in named} | {"others": _others(search)}
        if values.get("features") == "auto":
            values["features"] = "discriminator_features"
        if "initialisation" in taken and search.init != own.init:
            values["initialisation"] = _initialisation(search)
        values |= _options(search, self.name, {n: p for n, p in taken.items() if n not in (*values, "initialisation")})
        return function(**values)


def _published(name: str, summary: str, *, composite: str = "hard") -> "NamedMethod":
    """Returns the entry of the published method `name`, whose defaults are those of its function."""
    taken = inspect.signature(methods.METHODS[name]).parameters

    def defaults() -> RestoreConfig:
        fields = {"steps", "lr", "noise", "data", "truncation_psi"} & set(taken)
        values = {field: taken[field].default for field in fields}
        found = methods.METHODS[name]()
        space = " > ".join(phase.space.name for phase in found.phases)
        init = _NAMES[type(found.initialisation)]
        own = SearchConfig(space=space, mahalanobis=0.0, jitter=0.0, init=init, **values)
        return RestoreConfig(method=name, search=own, composite=composite)

    return NamedMethod(_Published(name), summary, defaults)


def _fitted(name: str, images: np.ndarray | None) -> np.ndarray:
    if images is None:
        raise ValueError(f"the method {name} is fitted on training images; name them by --fit_data")
    return images


def _learned_defaults(name: str, *, steps: int = 0) -> RestoreConfig:
    search = SearchConfig(
        space="w+", steps=steps, lr=0.01, mahalanobis=0.0, guess_distance=1.0, init="sample", starts=8
    )
    return RestoreConfig(method=name, search=search)


# What may be asked of a learned inpainter, by `search.options`.
LEARNED_OPTIONS = {
    "difai": {"distance": "NUMBER", "along": "DIRECTION", "reach": "NUMBER"},
    "pathwise": {"spread": "NUMBER", "truncation_psi": "NUMBER"},
}


def learned_options(config: RestoreConfig) -> dict[str, str]:
    """Returns the options of a learned inpainter by name, as text; ValueError for those that it has not."""
    known = LEARNED_OPTIONS.get(config.method)
    if known is None:
        return {}
    pairs = [text.partition("=") for text in config.search.options]
    for text, (name, equals, _) in zip(config.search.options, pairs, strict=True):
        if name not in known or not equals:
            named = ", ".join(f"{option}={value}" for option, value in known.items())
            raise ValueError(f"{text!r} is no option of the method {config.method}; it has {named}")
    return {name: value for name, _, value in pairs}


def _learned(config: RestoreConfig, inpainter: Inpainter | None) -> FeedForward:
    search, own = config.search, METHODS[config.method].defaults().search
    if inpainter is None:
        raise ValueError(f"the method {config.method} is a trained network, which must be loaded first")
    learned_options(config)
    free = {"steps", "lr", "mahalanobis", "guess_distance", "starts", "keep", "select", "chunk", "seed"}
    free |= {"options"} if config.method in LEARNED_OPTIONS else set()
    changed = sorted(
        f.name
        for f in dataclasses.fields(search)
        if f.name not in free and getattr(search, f.name) != getattr(own, f.name)
    )
    if changed:
        raise ValueError(f"the method {config.method} is a trained network and has no {', '.join(changed)}")
    return methods.learned(
        inpainter,
        name=config.method,
        steps=search.steps,
        lr=search.lr,
        mahalanobis=search.mahalanobis,
        guess_distance=search.guess_distance,
    )


def _inpainter(name: str, summary: str, *, steps: int = 0) -> "NamedMethod":
    """Returns the entry of the learned inpainter `name`, which a search of `steps` goes on from by default."""
    defaults = functools.partial(_learned_defaults, name, steps=steps)
    return NamedMethod(_learned, summary, defaults, needs_network=True, searches=False)


@dataclasses.dataclass(frozen=True)
class NamedMethod:
    """What a method's name stands for: how it is built, what it does in one line, its default settings, whether it is
    fitted on training images or is a trained network, and whether it searches latents from the beginning."""

    build: Callable[[RestoreConfig, Any], Method | FeedForward | Fill]
    summary: str
    defaults: Callable[[], RestoreConfig] = RestoreConfig
    needs_images: bool = False
    needs_network: bool = False
    searches: bool = True


METHODS = {
    "encoder_search": NamedMethod(
        _latent_search,
        "search in W+ from an encoder's guess and near it (the default where the generator has an encoder)",
        _encoder_defaults,
    ),
    "latent_search": NamedMethod(
        _latent_search, "multi-start search in W, then in W+, with a prior (the default without an encoder)"
    ),
    "brief": _published("brief", "gradient descent in W from random starts, no prior: the course brief"),
    "filipovski": _published(
        "filipovski",
        "in Z, window-weighted L1 and a discriminator's prior (Filipovski et al., Yeh et al. 2017)",
        composite="poisson",
    ),
    "dcgan_completion": _published("dcgan_completion", "the same with clipped latents of a DCGAN (Amos 2016)"),
    "projector": _published("projector", "features in W and noise maps: NVlabs' projector (Karras et al. 2020)"),
    "brgm": _published("brgm", "features in W+ with a prior of W (Marinescu et al. 2020)"),
    "improved_embedding": _published("improved_embedding", "features in W+ with the P-norm (Zhu et al. 2020, II2S)"),
    "in_domain": _published("in_domain", "W+ from an encoder, held where it agrees (Zhu et al. 2020)"),
    "style_deltas": _published("style_deltas", "W, then W+ at a price (after Tov et al. 2021, e4e)"),
    "style_space": _published("style_space", "W, then the styles themselves (after Wu et al. 2021)"),
    "robust_unsupervised": _published(
        "robust_unsupervised", "W, W+ and a latent for every filter by steps of one length (Poirier-Ginter 2023)"
    ),
    "pulse": _published("pulse", "normal latents on spheres, for upsampling (Menon et al. 2020)"),
    "intermediate_layers": _published("intermediate_layers", "latents, then feature maps (Daras et al. 2021, ILO)"),
    "multi_code": _published("multi_code", "several codes blended inside the generator (Gu et al. 2020, mGANprior)"),
    "pivotal_tuning": _published(
        "pivotal_tuning", "a projection, then the generator's weights (Roich et al. 2022, PTI)"
    ),
    "sphinx": _published("sphinx", "heads that give the image for whatever latents are drawn (SPHInX)"),
    "difai": _inpainter(
        "difai", "a trained network: a decoder that sees what the generator makes of varied latents (Yoon et al. 2022)"
    ),
    "hierarchical": _inpainter(
        "hierarchical", "a trained network: styles one after the other, and a skip path (Dündar 2024)"
    ),
    "pathwise": _inpainter(
        "pathwise", "differing samples by the generator's encoder alone, without training (Matheron's rule)", steps=30
    ),
    "mean_face": NamedMethod(
        lambda config, images: baselines.mean_face(_fitted("mean_face", images)),
        "baseline: the mean of training images",
        lambda: RestoreConfig(method="mean_face"),
        needs_images=True,
        searches=False,
    ),
    "biharmonic": NamedMethod(
        lambda config, images: baselines.biharmonic(),
        "baseline: the smoothest continuation of the known pixels",
        lambda: RestoreConfig(method="biharmonic"),
        searches=False,
    ),
    "ridge": NamedMethod(
        lambda config, images: baselines.ridge(_fitted("ridge", images), noise=config.ridge_noise),
        "baseline: linear regression from known to hole pixels, fitted on training images",
        lambda: RestoreConfig(method="ridge"),
        needs_images=True,
        searches=False,
    ),
}


def default_method(*, has_encoder: bool) -> str:
    """Returns the name of the method for a generator with or without an encoder."""
    return "encoder_search" if has_encoder else "latent_search"


def named(name: str) -> RestoreConfig:
    """Returns the default settings of a method; raises ValueError for an unknown name."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name].defaults()


def build_method(
    config: RestoreConfig, *, images: np.ndarray | None = None, inpainter: Inpainter | None = None
) -> Method | FeedForward | Fill:
    """Returns the method that the settings describe.

    Args:
        config: the settings.
        images: training images `[n, h, w, c]` in [-1, 1] at the generator's size, for methods that are fitted on them.
        inpainter: for methods that are a trained network (`inpaint.learned.inpainters.load`).

    Raises:
        ValueError: where the settings make no sense.
    """
    search = config.search
    if config.method not in METHODS:
        raise ValueError(f"unknown method {config.method!r}; known: {', '.join(METHODS)}")
    if not 1 <= search.keep <= search.starts:
        raise ValueError(f"keep must be 1 to starts ({search.starts}), got {search.keep}")
    if config.composite not in COMPOSITES:
        raise ValueError(f"unknown composite {config.composite!r}; known: {', '.join(COMPOSITES)}")
    if config.composite != "hard" and not config.feather > 0:
        raise ValueError(f"config.feather must be above 0, got {config.feather}; config.composite=hard has no feather")
    for name in COMPOSITES[config.composite].settings:
        if not 0 < getattr(config, name) < float("inf"):
            raise ValueError(f"config.{name} must be above 0 and finite, got {getattr(config, name)}")
    scoring.parse_score(search.score)
    if search.select not in selection.RULES:
        raise ValueError(f"unknown selection {search.select!r}; known: {', '.join(selection.RULES)}")
    method = METHODS[config.method]
    if config.network and not method.needs_network:
        raise ValueError(f"config.network is for learned inpainters, and the method {config.method} is none")
    built = method.build(config, inpainter if method.needs_network else images)
    if isinstance(built, Method):
        return _found(built, search)
    asked = [name for name in ("halving", "patience", "restarts") if getattr(search, name)]
    asked += ["score"] if search.score != "objective" else []
    if asked:
        raise ValueError(f"search.{asked[0]} belongs to a search of latents from the start, not to {config.method}")
    return built


def takes_features(config: RestoreConfig) -> bool:
    """Returns whether the source of the method takes LPIPS, in whose place the discriminator's features may stand."""
    found = methods.METHODS.get(config.method)
    return found is not None and "features" in inspect.signature(found).parameters


def is_substitute(config: RestoreConfig) -> bool:
    """Returns whether the method compares by other features than its source, so that its objective is not that one."""
    return takes_features(config) and config.search.features != "lpips"
