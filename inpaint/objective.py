# SPDX-License-Identifier: Apache-2.0
"""The objective of one start: a weighted sum of named terms.

`minimise over v: sum_d w_d d(A(G(tau(v))), y) + sum_i w_i R_i(tau(v))`
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

import stylegan_jax as sg
from inpaint.problem import Problem
from stylegan_jax import latents

ATTRIBUTE = "attribute:"  # before the attribute, in the names of semantic terms

# What a term may need beside generator and statistics of W, and how one comes by it.
ROLES = {
    "encoder": "train one with `python -m inpaint train`, or name one by --encoder",
    "discriminator": "take a generator's checkpoint that holds one",
    "classifier": "name one by --classifier, in Python as networks={'classifier': ...}",
    "perceptual": "name LPIPS' checkpoint by --perceptual, in Python as networks={'perceptual': ...}",
    "identity": "name ArcFace's checkpoint by --identity, in Python as networks={'identity': ...}",
    "guess": "let the problem have a mask and the generator an encoder (--encoder)",
    "expected": "let the problem have a mask and the generator an encoder (--encoder)",
    "p_space": "take a style-based generator",
}


class PSpace(NamedTuple):
    """Mean `[w_dim]`, whitening `[w_dim, w_dim]` and deviation `[w_dim]` of `LeakyReLU_5(w)`."""

    mean: Array
    whitening: Array
    deviation: Array


class Context(NamedTuple):
    """What terms may need beside the candidate; a pytree, passed to jitted functions as an argument.

    `networks` holds networks by role (see `ROLES`); of them, a search passes on those that its terms need.
    `w_deviation` is the root of the total variance of W, `sqrt(E |w - mean|^2)` (NVlabs' `w_std`).
    """

    generator: sg.Generator
    w_mean: Array  # [w_dim]
    w_whitening: Array  # [w_dim, w_dim]
    guess: Array | None = None  # [num_ws, w_dim], what the encoder says of the problem at hand
    networks: Mapping[str, Any] = {}
    p_space: PSpace | None = None
    w_deviation: Array | None = None


class Candidate(NamedTuple):
    """One start's present state: latents `[num_ws, w_dim]` (None in spaces that have none) and render `[h, w, c]`,
    unclipped; all that the synthesis network got, and a key for terms that draw."""

    ws: Array | None
    image: Array
    inputs: latents.Inputs = latents.Inputs()
    key: Array | None = None


@dataclasses.dataclass(frozen=True)
class Term:
    """A named term of the objective: `weight * function(candidate, problem, context)`.

    `needs` are the roles of what the function looks for in the context; `masked` says that it asks for pixels that the
    measurement shows as they are.
    """

    name: str
    weight: float
    function: Callable[[Candidate, Problem, Context], Array]
    needs: tuple[str, ...] = ()
    masked: bool = False


def checked_weight(name: str, weight: float) -> float:
    """Returns the weight of the term `name`; raises ValueError where it is negative."""
    if not weight >= 0:
        raise ValueError(f"the weight of {name} must be at least 0, got {weight}")
    return float(weight)


def known_pixels(problem: Problem, owner: str) -> Array:
    """Returns the mask `[h, w]` of the pixels that the measurement shows as they are.

    Raises:
        ValueError: where it shows none, naming the term `owner`.
    """
    if problem.operator.known is None:
        raise ValueError(f"the term {owner} compares pixels, and this problem's measurement shows none as they are")
    return problem.operator.known


def composite(image: Array, problem: Problem) -> Array:
    """Returns `image` `[h, w, c]` with the known pixels of the measurement in their place, blended where they are soft.

    A problem that shows no pixel as it is leaves the image alone.
    """
    known = problem.operator.known
    if known is None:
        return image
    weight = known[..., None].astype(image.dtype)
    return weight * problem.measurement + (1 - weight) * image


def evaluate(
    terms: tuple[Term, ...], candidate: Candidate, problem: Problem, context: Context
) -> tuple[Array, dict[str, Array]]:
    """Returns the weighted total (a scalar) and every term's weighted share of it, by name."""
    shares = {t.name: t.weight * t.function(candidate, problem, context) for t in terms}
    total = sum(shares.values(), jnp.zeros((), candidate.image.dtype))
    return total, shares
