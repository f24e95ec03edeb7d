# SPDX-License-Identifier: Apache-2.0
"""How well does what a search knows tell which of its starts is nearest to the truth?

For every image, each score ranks the starts; the truth ranks them too, by the error of their composites in the hole and
by their distance in the judging network's features. A score is good where the two orders agree (Spearman's rank
correlation), and where the start that it selects is better than one taken at random.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import metrics, named_methods
from inpaint.config import RestoreConfig
from inpaint.experiments.grid import Portraits, draw_mask
from inpaint.experiments.table import bootstrap_interval
from inpaint.masks import Generator
from inpaint.metrics.judge import LoadedJudge
from inpaint.search.scoring import TERMS, all_scores, combined, parse_score
from stylegan_jax import image_io


class Ranked(NamedTuple):
    """Starts of images: `scores` by name, `[images, starts]`, lower is meant to be better; and what the truth says of
    each, composites' hole PSNR in dB and feature distance, `[images, starts]`."""

    scores: dict[str, np.ndarray]
    hole_psnr: np.ndarray
    feature_distance: np.ndarray


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Spearman's correlation of two rows `[n]`; equal values share their mean rank, NaN where all are equal."""
    ranks = [_ranks(np.asarray(x, np.float64)) for x in (one, other)]
    centred = [x - x.mean() for x in ranks]
    lengths = [np.sqrt(np.square(x).sum()) for x in centred]
    return float(centred[0] @ centred[1] / (lengths[0] * lengths[1])) if all(lengths) else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[None, :] < values[:, None]).sum(1)
    return below + ((values[None, :] == values[:, None]).sum(1) - 1) / 2


def score_names(model: sg.Model, method: inpaint.Method) -> tuple[str, ...]:
    """Returns the scores that this model and method have."""
    filled = {"guess": model.encoder is not None, "discriminator": model.discriminator is not None}
    has_ws = method.phases[-1].space.has_ws
    about_ws = ("mahalanobis", "guess_distance", "style_spread")
    terms = [name for name in TERMS if all(filled.get(role, False) for role in inpaint.term(name).needs)]
    return ("objective", "centrality", *(name for name in terms if has_ws or name not in about_ws))


_psnr = jax.jit(jax.vmap(lambda shown, truth, known: metrics.psnr(shown, truth, 1 - known), (0, None, None)))


def study(
    model: sg.Model,
    portraits: Portraits,
    mask: Generator,
    config: RestoreConfig,
    judge: LoadedJudge,
    *,
    networks: Mapping[str, nnx.Module] | None = None,
    together: int = 4,
    report: Callable[[str], None] = lambda text: None,
) -> Ranked:
    """Restores all portraits and scores every start in every way.

    Args:
        model: the generator.
        portraits: with known truth, at its size.
        mask: of the hole; its masks have seed 0.
        config: method, search and composite.
        judge: of the feature distance.
        networks: what the objective asks beside the model.
        together: images of one search.
        report: called with a line after every search.

    Raises:
        ValueError: where the method makes no search.
    """
    method = named_methods.build_method(config)
    if isinstance(method, inpaint.Fill):
        raise ValueError(f"the method {config.method} makes no search, so it has no starts to rank")
    names = score_names(model, method)
    images = image_io.from_uint8(portraits.images)
    known = np.stack([draw_mask(mask, int(i), model.resolution, seed=0) for i in portraits.ids])
    parts = []
    for first in range(0, len(images), together):
        index = np.arange(first, min(first + together, len(images)))
        asked = [inpaint.Problem.observe(images[i], inpaint.operators.Mask.checked(known[i])) for i in index]
        result = inpaint.solve(
            model,
            inpaint.Problem.stack(asked),
            method,
            starts=config.search.starts,
            key=jax.random.key(config.search.seed),
            networks=networks,
            image_ids=portraits.ids[index].tolist(),
            chunk=config.search.chunk or None,
        )
        scores = all_scores(model, result, method, names, networks=networks)
        parts.append(Ranked(scores, *_truth(config, judge, result.raw, images[index], known[index])))
        report(f"{index[-1] + 1} of {len(images)} images")
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _truth(
    config: RestoreConfig, judge: LoadedJudge, raw: np.ndarray, images: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    psnrs, distances = [], []
    for renders, image, mask in zip(raw, images, known, strict=True):
        shown = np.clip(_config.composite(config, renders, image, mask), -1, 1)
        psnrs.append(np.asarray(_psnr(jnp.asarray(shown), jnp.asarray(image), jnp.asarray(mask))))
        distances.append(judge.compare(shown, np.broadcast_to(image, shown.shape))[0])
    return np.stack(psnrs), np.stack(distances)


class Quality(NamedTuple):
    """What selecting by a score gives: mean rank correlations with hole error and feature distance over images, and
    the selected start's hole PSNR (dB) and feature distance less the mean of all starts, with 95 % intervals of their
    medians over images."""

    psnr_correlation: float
    feature_correlation: float
    psnr_gain: tuple[float, float, float]
    feature_gain: tuple[float, float, float]


def quality(ranked: Ranked, score: np.ndarray) -> Quality:
    """Returns how good a score `[images, starts]` is."""
    chosen = np.argmin(np.where(np.isfinite(score), score, np.inf), axis=1)[:, None]

    def gain(figure: np.ndarray) -> tuple[float, float, float]:
        difference = np.take_along_axis(figure, chosen, 1)[:, 0] - figure.mean(1)
        return float(np.median(difference)), *bootstrap_interval(difference)

    def correlation(figure: np.ndarray) -> float:
        return float(np.nanmean([rank_correlation(a, b) for a, b in zip(score, figure, strict=True)]))

    return Quality(
        correlation(-ranked.hole_psnr),
        correlation(ranked.feature_distance),
        gain(ranked.hole_psnr),
        gain(ranked.feature_distance),
    )


def table(ranked: Ranked, *, combinations: Sequence[str] = ()) -> str:
    """Returns the quality of every score `[images, starts]`, of combinations of them, and of the truth, as a Markdown
    table."""
    scores = dict(ranked.scores) | {text: combined(ranked.scores, parse_score(text)) for text in combinations}
    scores |= {"truth: hole error": -ranked.hole_psnr, "truth: feature distance": ranked.feature_distance}
    lines = [
        "| score | rank correlation with hole error | with feature distance | gain of the selected, dB "
        "| in feature distance |",
        "|---|---|---|---|---|",
    ]
    for name, score in scores.items():
        found = quality(ranked, score)
        gains = [f"{x[0]:+.{d}f} [{x[1]:+.{d}f}, {x[2]:+.{d}f}]" for x, d in zip(found[2:], (2, 4), strict=True)]
        lines.append(f"| {name} | {found[0]:+.2f} | {found[1]:+.2f} | {gains[0]} | {gains[1]} |")
    return "\n".join(lines) + "\n"
