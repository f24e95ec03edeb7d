# SPDX-License-Identifier: Apache-2.0
"""Other terms at the results of a search: what else might tell good starts from bad ones."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint.objective import Term
from inpaint.problem import Problem
from inpaint.search import loop
from inpaint.search.chunks import Begun, Chunks
from inpaint.search.method import Method, Phase
from inpaint.search.result import Result
from inpaint.search.solve import ask_encoder, make_context
from stylegan_jax import encoders


def rescore(
    model: sg.Model | sg.Generator,
    result: Result,
    method: Method,
    terms: Sequence[Term],
    *,
    networks: Mapping[str, nnx.Module] | None = None,
    guess: Array | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns the weighted shares of `terms`, by name, at what a search ended with: `[starts]`, or `[images, starts]`.

    Args:
        model: as in `solve`.
        result: of `solve`.
        method: that it searched by.
        terms: any, see `inpaint.term`; those that draw do so by `seed` and the start's number.
        networks, guess: as in `solve`, of what the terms need.
        seed: of what terms draw.
    """
    single, last = not result.problem.batched, method.phases[-1]
    add = (lambda x: jax.tree.map(lambda a: jnp.asarray(a)[None], x)) if single else (lambda x: x)
    problem: Problem = add(result.problem)
    variables, labels = add(result.variables), add(result.labels)
    images, starts = problem.measurement.shape[0], result.scores.shape[-1]
    phase = Phase(last.space, 1, last.optimizer, tuple(terms), last.noise)
    needs = {role for term in terms for role in term.needs} | set(last.space.needs)
    context = make_context(model, networks=networks, needs=needs)
    if "guess" in needs:
        guess = ask_encoder(model, problem, encoders.encode) if guess is None else add(jnp.asarray(guess))
    else:
        guess = None

    def flat(tree):
        return jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), tree)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(starts))
    keys = jnp.tile(jax.random.key_data(keys), (images, 1))
    begun = Begun(flat(variables), None if labels is None else flat(labels), keys)
    frozen = loop.split_context(context)
    chunks = Chunks(problem, guess, starts, min(result.chunk, images * starts), devices=1)

    def shares(index: np.ndarray, real: int) -> dict[str, np.ndarray]:
        found = loop.evaluate(begun.take(index), chunks.lanes(index, begun), frozen, phase)
        return {name: np.asarray(share)[:real] for name, share in found.shares.items()}

    found = chunks.run(shares)
    return {name: share[0] for name, share in found.items()} if single else found
