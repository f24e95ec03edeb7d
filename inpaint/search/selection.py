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


def diverse(problem: Problem, raw: np.ndarray, scores: np.ndarray, keep: int, *, slack: float = 0.5) -> np.ndarray:
    """Returns the best start, then one after the other the start whose hole differs most from those chosen.

    The arguments are those of `best`; `scores` `[starts]`.
    Only starts whose score is within `1 + slack` times the best one's compete while there are enough of them.
    """
    order = best(problem, raw, scores, len(scores))
    good = [s for s in order if scores[s] <= scores[order[0]] * (1 + slack)]
    pool = good if len(good) >= keep else list(order[: max(keep, len(good))])
    known = problem.operator.known
    hole = np.ones(raw.shape[1:3]) if known is None else 1 - np.asarray(known)
    holes = np.clip(raw, -1, 1) * hole[..., None]
    chosen = [pool[0]]
    while len(chosen) < keep:
        rest = [s for s in pool if s not in chosen]
        distance = [min(np.square(holes[s] - holes[c]).sum() for c in chosen) for s in rest]
        chosen.append(rest[int(np.argmax(distance))])
    return np.asarray(chosen)


RULES = {"best": best, "diverse": diverse}


def select(result: Result, *, keep: int = 1, by: str = "best") -> Selection:
    """Returns the starts to show.

    Args:
        result: of `solve`.
        keep: how many, at most the number of starts.
        by: "best" (lowest objective) or "diverse" (good ones that differ in the hole).

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
    scores = result.scores if batched else result.scores[None]
    problems = result.problem if batched else jax.tree.map(lambda x: jnp.asarray(x)[None], result.problem)
    chosen = np.stack(
        [RULES[by](jax.tree.map(lambda x, i=i: x[i], problems), raw[i], scores[i], keep) for i in range(len(scores))]
    )
    chosen = chosen if batched else chosen[0]

    def take(array: np.ndarray) -> np.ndarray:
        index = chosen.reshape(*chosen.shape, *(1,) * (array.ndim - chosen.ndim))
        return np.take_along_axis(array, index, axis=chosen.ndim - 1)

    return Selection(chosen, take(result.raw), None if result.ws is None else take(result.ws), take(result.scores))
