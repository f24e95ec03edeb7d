# SPDX-License-Identifier: Apache-2.0
"""Choosing among starts, by what the search itself knows: truth is never seen here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from inpaint.problem import Problem
from inpaint.search.result import Result


@dataclasses.dataclass(frozen=True)
class Selection:
    """Chosen starts, best first; arrays are `[keep, ...]`, or `[images, keep, ...]` for a batch.

    Attributes:
        starts: their numbers in the result.
        images: renders `[..., h, w, c]`, unclipped.
        ws: latents `[..., num_ws, w_dim]`, or None for a fill.
        scores: objective, lower is better.
    """

    starts: np.ndarray
    images: np.ndarray
    ws: np.ndarray | None
    scores: np.ndarray


def best(problem: Problem, raw: np.ndarray, scores: np.ndarray, keep: int) -> np.ndarray:
    """Returns the `keep` starts of lowest score, best first; `raw` `[starts, h, w, c]`, `scores` `[starts]`."""
    return np.argsort(scores, kind="stable")[:keep]


def hole_distances(known: np.ndarray | None, raw: np.ndarray) -> np.ndarray:
    """Returns the root mean square difference of every two starts inside the hole, `[starts, starts]`; infinite where
    a render is not finite.

    Args:
        known: mask `[h, w]`; without one, or without a hole in it, the whole image counts.
        raw: renders `[starts, h, w, c]`.
    """
    hole = np.ones(raw.shape[1:3]) if known is None else 1 - np.asarray(known)
    weight = hole if hole.any() else np.ones_like(hole)
    seen = np.clip(raw, -1, 1).astype(np.float64)
    finite = np.isfinite(seen).all((1, 2, 3))
    seen = (np.where(finite[:, None, None, None], seen, 0) * np.sqrt(weight)[..., None]).reshape(len(raw), -1)
    count = weight.sum() * raw.shape[-1]
    squares = np.stack([np.square(seen - one).sum(1) for one in seen]) / count
    return np.where(finite[:, None] & finite[None, :], np.sqrt(squares), np.inf)


def _contenders(scores: np.ndarray, keep: int, slack: float) -> np.ndarray:
    """Returns the starts whose score is within `slack` times the best one's size of it, best first; at least `keep`."""
    order = np.argsort(scores, kind="stable")
    best = scores[order[0]]
    good = int(np.sum(scores[order] <= best + slack * np.abs(best))) if np.isfinite(best) else len(order)
    return order[: max(keep, good)]


def diverse(problem: Problem, raw: np.ndarray, scores: np.ndarray, keep: int, *, slack: float = 0.5) -> np.ndarray:
    """Returns the best start, then one after the other the start whose hole differs most from those chosen.

    The arguments are those of `best`; `scores` `[starts]`.
    Only starts whose score is within `1 + slack` times the best one's compete while there are enough of them.
    """
    pool = _contenders(scores, keep, slack)
    distances = hole_distances(problem.operator.known, raw)
    chosen = [pool[0]]
    while len(chosen) < keep:
        rest = [s for s in pool if s not in chosen]
        nearest = distances[np.ix_(rest, chosen)].min(1)
        # What is not finite differs from everything, and is chosen last.
        chosen.append(rest[int(np.argmax(np.where(np.isfinite(nearest), nearest, -1.0)))])
    return np.asarray(chosen)


def clustered(problem: Problem, raw: np.ndarray, scores: np.ndarray, keep: int, *, slack: float = 0.5) -> np.ndarray:
    """Returns the best start of each of `keep` clusters of holes, best first: one of every kind of result.

    The arguments are those of `best`; `scores` `[starts]`. Clusters are merged from single starts, always those two
    whose most distant members (`hole_distances`) are nearest (complete linkage), until `keep` are left. Starts within
    `1 + slack` times the best score take part while there are enough of them.
    """
    pool = _contenders(scores, keep, slack)
    between = hole_distances(problem.operator.known, raw)[np.ix_(pool, pool)]
    np.fill_diagonal(between, np.inf)
    members = [[i] for i in range(len(pool))]
    while len(members) > keep:
        # Rows of what was merged into others are infinite; two of those that are not finite go together last.
        finite = np.where(np.isfinite(between), between, np.finfo(float).max)
        live = np.asarray([m[0] for m in members])
        block = finite[np.ix_(live, live)]
        np.fill_diagonal(block, np.inf)
        one, other = sorted(divmod(int(np.argmin(block)), len(live)))
        joined = np.maximum(between[live[one]], between[live[other]])
        between[live[one]], between[:, live[one]] = joined, joined
        members[one] += members.pop(other)
    # Members are in the order of the pool, whose first is the best.
    return pool[np.sort([min(m) for m in members])]


def central(problem: Problem, raw: np.ndarray, scores: np.ndarray, keep: int, *, slack: float = 0.5) -> np.ndarray:
    """Returns the starts whose holes are nearest to those of all others on average, the most central first.

    The arguments are those of `best`; `scores` `[starts]`. Where starts disagree, the one in the middle errs least on
    average (a medoid). Only starts whose score is within `1 + slack` times the best one's count while there are enough
    of them.
    """
    pool = _contenders(scores, keep, slack)
    distances = hole_distances(problem.operator.known, raw)[np.ix_(pool, pool)]
    return pool[np.argsort(distances.mean(1), kind="stable")[:keep]]


RULES = {"best": best, "diverse": diverse, "clustered": clustered, "central": central}


def select(result: Result, *, keep: int = 1, by: str = "best", scores: np.ndarray | None = None) -> Selection:
    """Returns the starts to show.

    Args:
        result: of `solve`.
        keep: how many, at most the number of starts.
        by: "best" (lowest objective), "diverse" (good ones that differ in the hole), "clustered" (the best of every
            kind of hole) or "central" (those in the middle of the good ones).
        scores: what ranks the starts, lower is better, `[starts]` or `[images, starts]`, in place of the objective
            (`inpaint.search.scoring.score_starts`).

    Raises:
        ValueError: for an unknown rule or too many.
    """
    batched = result.problem.batched
    starts = result.scores.shape[-1]
    if by not in RULES:
        raise ValueError(f"unknown selection {by!r}; known: {', '.join(RULES)}")
    if not 1 <= keep <= starts:
        raise ValueError(f"keep must be 1 to {starts} (the number of starts), got {keep}")
    raw = result.raw if batched else result.raw[None]
    scores = result.scores if scores is None else np.asarray(scores)
    if scores.shape != result.scores.shape:
        raise ValueError(f"scores must be {list(result.scores.shape)}, got {list(scores.shape)}")
    scores = scores if batched else scores[None]
    problems = result.problem if batched else jax.tree.map(lambda x: jnp.asarray(x)[None], result.problem)
    chosen = np.stack(
        [RULES[by](jax.tree.map(lambda x, i=i: x[i], problems), raw[i], scores[i], keep) for i in range(len(scores))]
    )
    chosen = chosen if batched else chosen[0]

    def take(array: np.ndarray) -> np.ndarray:
        index = chosen.reshape(*chosen.shape, *(1,) * (array.ndim - chosen.ndim))
        return np.take_along_axis(array, index, axis=chosen.ndim - 1)

    return Selection(chosen, take(result.raw), None if result.ws is None else take(result.ws), take(result.scores))
