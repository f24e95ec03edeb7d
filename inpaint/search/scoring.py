# SPDX-License-Identifier: Apache-2.0
"""What starts are ranked by: the objective, other terms at what the search found, and sums of these.

A score is a text, NAME:WEIGHT+NAME:WEIGHT (a weight of 1 may be left out), over `SCORES`. Each part is taken in units
of its deviation over the starts of an image, so that weights mean the same for every image. Lower is better.
"""

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jax import Array

import inpaint.terms
import stylegan_jax as sg
from inpaint.search.method import Method
from inpaint.search.rescore import rescore
from inpaint.search.result import Result
from inpaint.search.selection import hole_distances

# Built-in terms that may say something about a start, beside `objective` and `centrality` (the mean distance of its
# hole to those of the other starts).
TERMS = ("l2", "l1", "gradient", "mahalanobis", "guess_distance", "critic", "adversarial", "high_band", "style_spread")
SCORES = ("objective", "centrality", *TERMS)


def parse_score(text: str) -> dict[str, float]:
    """Returns the weights of a score by the names of its parts.

    Raises:
        ValueError: for an unknown or repeated name, or a weight that is no number.
    """
    weights = {}
    for part in text.split("+"):
        name, colon, weight = part.partition(":")
        if name not in SCORES or name in weights:
            raise ValueError(f"unknown or repeated score {name!r}; known: {', '.join(SCORES)}")
        try:
            weights[name] = float(weight) if colon else 1.0
        except ValueError:
            raise ValueError(f"the weight of {name} must be a number, got {weight!r}") from None
    return weights


def combined(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Returns the weighted sum of scores `[..., starts]`, each in units of its deviation over the starts; infinite
    where one of them is not finite."""
    total = 0.0
    for name, weight in weights.items():
        score = np.asarray(scores[name], np.float64)
        finite = np.isfinite(score)
        count = np.maximum(finite.sum(-1, keepdims=True), 1)
        mean = np.where(finite, score, 0).sum(-1, keepdims=True) / count
        centred = np.where(finite, score - np.where(finite, mean, 0), 0)
        spread = np.sqrt(np.square(centred).sum(-1, keepdims=True) / count)
        total = total + weight * np.where(finite, centred / np.where(spread > 0, spread, 1), np.inf)
    return total


def all_scores(
    model: sg.Model | sg.Generator,
    result: Result,
    method: Method,
    names: Mapping[str, float] | tuple[str, ...],
    *,
    networks: Mapping[str, nnx.Module] | None = None,
    guess: Array | None = None,
) -> dict[str, np.ndarray]:
    """Returns the scores `names` of every start, `[starts]` or `[images, starts]`; arguments as those of `rescore`."""
    found = {"objective": result.scores} if "objective" in names else {}
    terms = [inpaint.terms.term(name) for name in names if name in TERMS]
    if terms:
        found |= rescore(model, result, method, terms, networks=networks, guess=guess)
    if "centrality" in names:
        raw = result.raw if result.problem.batched else result.raw[None]
        known = result.problem.operator.known
        masks = [None] * len(raw) if known is None else np.asarray(known).reshape(len(raw), *known.shape[-2:])
        central = np.stack([hole_distances(mask, one).mean(1) for mask, one in zip(masks, raw, strict=True)])
        found["centrality"] = central if result.problem.batched else central[0]
    return found


def score_starts(
    model: sg.Model | sg.Generator,
    result: Result,
    method: Method,
    text: str,
    *,
    networks: Mapping[str, nnx.Module] | None = None,
    guess: Array | None = None,
) -> np.ndarray:
    """Returns what a score says of every start, `[starts]` or `[images, starts]`, for `inpaint.select`.

    Args:
        model, networks, guess: as in `solve`.
        result: of `solve`.
        method: that it searched by.
        text: the score; "objective" is `result.scores`.

    Raises:
        ValueError: for a score that cannot be read, or that needs what is not there.
    """
    weights = parse_score(text)
    if weights == {"objective": 1.0}:
        return result.scores
    return combined(all_scores(model, result, method, weights, networks=networks, guess=guess), weights)
