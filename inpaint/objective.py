# SPDX-License-Identifier: Apache-2.0
"""The objective of one start: a weighted sum of named terms.

`minimise over v: sum_d w_d d(A(G(tau(v))), y) + sum_i w_i R_i(tau(v))`
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

import stylegan_jax as sg
from inpaint import losses
from inpaint.problem import Problem


class Context(NamedTuple):
    """What terms may need beside the candidate; a pytree, passed to jitted functions as an argument."""

    generator: sg.Generator
    w_mean: Array  # [w_dim]
    w_whitening: Array  # [w_dim, w_dim]
    guess: Array | None = None  # [num_ws, w_dim], what the encoder says of the problem at hand


class Candidate(NamedTuple):
    """One start's present state: latents `[num_ws, w_dim]` and render `[h, w, c]`, unclipped."""

    ws: Array
    image: Array


@dataclasses.dataclass(frozen=True)
class Term:
    """A named term of the objective: `weight * function(candidate, problem, context)`."""

    name: str
    weight: float
    function: Callable[[Candidate, Problem, Context], Array]


def _l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.l2(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def _l1(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.l1(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def _mean_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mean_distance(candidate.ws, context.w_mean)


def _mahalanobis(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mahalanobis(candidate.ws, context.w_mean, context.w_whitening)


def _guess_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    if context.guess is None:
        raise ValueError("the term guess_distance needs an encoder, and the generator has none")
    return losses.mahalanobis(candidate.ws, context.guess, context.w_whitening)


TERMS = {
    "l2": _l2,
    "l1": _l1,
    "mean_distance": _mean_distance,
    "mahalanobis": _mahalanobis,
    "guess_distance": _guess_distance,
}


def term(name: str, weight: float = 1.0) -> Term:
    """Returns the built-in term `name` with a weight.

    Raises:
        ValueError: for an unknown name or a negative weight.
    """
    if name not in TERMS:
        raise ValueError(f"unknown term {name!r}; known: {', '.join(TERMS)}")
    if not weight >= 0:
        raise ValueError(f"the weight of {name} must be at least 0, got {weight}")
    return Term(name, float(weight), TERMS[name])


def evaluate(
    terms: tuple[Term, ...], candidate: Candidate, problem: Problem, context: Context
) -> tuple[Array, dict[str, Array]]:
    """Returns the weighted total (a scalar) and every term's weighted share of it, by name."""
    shares = {t.name: t.weight * t.function(candidate, problem, context) for t in terms}
    total = sum(shares.values(), jnp.zeros((), candidate.image.dtype))
    return total, shares
