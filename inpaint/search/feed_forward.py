# SPDX-License-Identifier: Apache-2.0
"""Samples of a learned inpainter, a chunk at a time, and the search that may go on from them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import stylegan_jax as sg
from inpaint import losses
from inpaint.objective import Context
from inpaint.problem import Problem
from inpaint.search import chunks as _chunks
from inpaint.search import loop, produced
from inpaint.search.chunks import Begun, Chunks, Told
from inpaint.search.initialise import Mean
from inpaint.search.method import FeedForward, Method
from inpaint.search.produced import Inpainter, Produced
from inpaint.search.saved import SavedSearch

STEPS = 1  # folded into a sample's key for whatever the steps of a search draw


def check(model: sg.Model | sg.Generator, problem: Problem, label: Array | None) -> None:
    """Raises ValueError where a learned inpainter cannot restore a batch of problems, or for a label `[c_dim]`."""
    generator = model.generator if isinstance(model, sg.Model) else model
    if problem.operator.known is None:
        raise ValueError("a learned inpainter fills holes, and this problem's measurement shows no pixels as they are")
    if label is not None or generator.config.c_dim:
        raise ValueError("learned inpainters are made for generators without labels")


def _split(generator: sg.Generator, inpainter: nnx.Module, devices: Sequence[jax.Device] | None) -> loop.Frozen:
    nothing = jnp.zeros(())
    context = Context(generator, nothing, nothing, networks={"inpainter": inpainter})
    return loop.split_context(context, devices=devices)


@functools.partial(jax.jit, static_argnames=("graph", "mesh"))
def _sample(lanes: loop.Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None) -> tuple[Produced, Array]:
    def run(lanes: loop.Lanes, arrays: Any) -> tuple[Produced, Array]:
        context = loop.merge_context(graph, arrays)
        inpainter = context.networks["inpainter"]

        def one(lane: loop.Lanes) -> tuple[Produced, Array]:
            known = (lane.problem.operator.known > 0.5).astype(lane.problem.measurement.dtype)
            shown = jnp.where(known[..., None] > 0, lane.problem.measurement, 0)
            found = inpainter.produce(jax.random.wrap_key_data(lane.key), context.generator, shown, known)
            return found, _fit(found.image, lane.problem)

        return jax.vmap(one)(lanes)

    if mesh is None:
        return run(lanes, arrays)
    return jax.shard_map(run, mesh=mesh, in_specs=(loop.DEALT, P()), out_specs=loop.DEALT, check_vma=False)(
        lanes, arrays
    )


def _fit(image: Array, problem: Problem) -> Array:
    return losses.l2(problem.operator(image), problem.measurement, problem.operator.weight)


@functools.partial(jax.jit, static_argnames="lanes")
def sample_keys(key: Array, ids: Array, *, lanes: int) -> tuple[Array, Array]:
    """Returns the data of the keys of `lanes` samples of each image, `[images * lanes, 2]`, and of their searches.

    Args:
        key: of the run.
        ids: `[images]`, that stand for the images.
        lanes: samples of one image.
    """

    def one(image: Array, number: Array) -> tuple[Array, Array]:
        own = jax.random.fold_in(jax.random.fold_in(key, image), number)
        return jax.random.key_data(own), jax.random.key_data(jax.random.fold_in(own, STEPS))

    return jax.vmap(one)(jnp.repeat(ids, lanes), jnp.tile(jnp.arange(lanes), ids.shape[0]))


@functools.partial(jax.jit, static_argnames="graph")
def _restyle(w: Array, image: Array, known: Array, arrays: Any, *, graph: Any) -> Array:
    context = loop.merge_context(graph, arrays)
    return context.networks["inpainter"].restyled(context.generator, w, image, known).image


def restyled(
    generator: sg.Generator, inpainter: Inpainter, ws: np.ndarray, image: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Returns the renders `[n, h, w, c]` that an inpainter makes of other styles of one image, one after the other.

    Args:
        generator: that it was trained for.
        inpainter: one that has styles.
        ws: `[n, num_ws, w_dim]`.
        image: `[h, w, c]` in [-1, 1].
        known: `[h, w]`, above 0.5 = keep.
    """
    frozen, mask = _split(generator, inpainter, None), (jnp.asarray(known) > 0.5).astype(jnp.float32)
    shown = jnp.where(mask[..., None] > 0, jnp.asarray(image), 0)
    return np.stack([np.asarray(_restyle(jnp.asarray(w), shown, mask, frozen.arrays, graph=frozen.graph)) for w in ws])


def sample(
    generator: sg.Generator,
    problem: Problem,
    method: FeedForward,
    *,
    ids: np.ndarray,
    starts: int,
    key: Array,
    size: int,
    devices: Sequence[jax.Device] | None,
) -> tuple[Produced, np.ndarray, Array, int]:
    """Returns samples `[images, starts, ...]`, how well each meets what is known, the keys' data of searches that go on
    from them `[images * starts, 2]`, and how many were made at once.

    Args:
        generator: that the inpainter was trained for.
        problem: a batch.
        method: whose inpainter is asked.
        ids: `[images]`, that stand for the images in the keys.
        starts: samples of one image.
        key: of everything random.
        size: samples made at once.
        devices: that share the samples; None: where the arrays are.
    """
    frozen = _split(generator, method.inpainter, devices)
    keys, later = sample_keys(key, jnp.asarray(ids), lanes=starts)
    chunks = Chunks(problem, None, starts, size, devices=frozen.devices)
    begun = Begun(None, None, keys)

    def run(index: np.ndarray, real: int) -> tuple[Produced, Array]:
        lanes = frozen.place(chunks.lanes(index, begun))
        found = _sample(lanes, frozen.arrays, graph=frozen.graph, mesh=frozen.mesh)
        return jax.tree.map(lambda x: np.asarray(x)[:real], found)

    found, fits = chunks.run(run)
    return found, fits, later, chunks.size


def refine(
    problem: Problem,
    method: FeedForward,
    begun: Produced,
    keys: Array,
    context: loop.Frozen,
    *,
    size: int | None,
    default: int,
    steps_per_call: int,
    told: Told,
    saved: SavedSearch | None,
) -> dict[str, Any]:
    """Returns what a search found that goes on from samples, by the fields of `Result`.

    Args:
        problem: a batch.
        method: whose phase is run.
        begun: the samples, `[images, starts, ...]`.
        keys: data of the keys of what steps draw, `[images * starts, 2]`.
        context: of the search.
        size: starts run at once; None: `default`, made smaller where memory asks for it.
        default: see `size`.
        steps_per_call: steps in one device call.
        told: whom to tell.
        saved: where the state of the search is stored and looked for.

    Raises:
        ValueError: for an inpainter without latents.
    """
    space = produced.space(begun)
    if space is None:
        raise ValueError(f"the samples of {method.name} have no latents, so no search can go on from them")
    search = Method(method.name, (dataclasses.replace(method.refine, space=space),), Mean())
    variable = produced.variable(begun)
    lanes = Begun(jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), variable), None, keys)
    chunks = Chunks(problem, None, begun.ws.shape[1], size or default, devices=context.devices)
    if size is None:
        _chunks.fit_chunk(chunks, lanes, context, search, steps=steps_per_call)
    if saved is not None:
        chunks.resize(saved.open(lambda: chunks.describe(lanes, context, search, steps_per_call), chunks.size))
    starts = chunks.per_image
    found = _chunks.search(
        chunks, lanes, context, search, starts=starts, steps_per_call=steps_per_call, told=told, saved=saved
    )
    return (
        {"ws": found["variables"]["latents"] if begun.features else found["variables"]} | found | {"chunk": chunks.size}
    )


def found_by_samples(begun: Produced, fits: np.ndarray) -> dict[str, Any]:
    """Returns samples `[images, starts, ...]` and their squared errors at known pixels by the fields of `Result`."""
    images, starts = fits.shape
    return {
        "ws": begun.ws,
        "variables": produced.variable(begun),
        "raw": begun.image,
        "scores": np.where(np.isfinite(fits), fits, np.inf),
        "terms": {"l2": fits},
        "traces": np.zeros((images, starts, 0), np.float32),
        "frozen": ~np.isfinite(fits),
        "candidates": np.tile(np.arange(starts), (images, 1)),
        "labels": None,
    }


def better(problem: Problem, begun: Produced, fits: np.ndarray, refined: dict[str, Any]) -> dict[str, Any]:
    """Returns, for each sample, what the search made of it where that meets the known pixels better, else the sample.

    Args:
        problem: a batch.
        begun: the samples, `[images, starts, ...]`.
        fits: their mean squared errors at known pixels `[images, starts]`.
        refined: what the search found, by the fields of `Result`.

    Returns:
        The fields of `Result`. Scores are those errors, since the objective of a search says nothing of a sample.
    """
    each = jax.vmap(jax.vmap(_fit, in_axes=(0, None)))
    after = np.asarray(jax.jit(each)(refined["raw"], problem))
    gained = after < np.where(np.isfinite(fits), fits, np.inf)

    def choose(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(gained.reshape(*gained.shape, *(1,) * (old.ndim - 2)), new, old)

    own = found_by_samples(begun, fits)
    kept = {name: jax.tree.map(choose, refined[name], own[name]) for name in ("ws", "variables", "raw")}
    scores = np.where(gained, after, own["scores"])
    rest = {"traces": refined["traces"], "frozen": refined["frozen"], "attributes": refined["attributes"]}
    return own | kept | rest | {"scores": scores, "terms": {"l2": scores}}


def run(
    context: Context,
    problem: Problem,
    method: FeedForward,
    *,
    ids: np.ndarray,
    starts: int,
    key: Array,
    devices: Sequence[jax.Device] | None,
    size: int | None,
    default: int,
    steps_per_call: int,
    told: Told,
    saved: SavedSearch | None,
) -> dict[str, Any]:
    """Returns the samples of a learned inpainter, refined where the method says so, by the fields of `Result`,
    `[images, starts, ...]`.

    The arguments are those of `sample` and `refine`.
    """
    begun, fits, later, chunk = sample(
        context.generator, problem, method, ids=ids, starts=starts, key=key, size=size or default, devices=devices
    )
    if method.refine is None:
        return found_by_samples(begun, fits) | {"chunk": chunk}
    frozen = loop.split_context(context, devices=devices)
    options = dict(size=size, default=default, steps_per_call=steps_per_call, told=told, saved=saved)
    refined = refine(problem, method, begun, later, frozen, **options)
    return better(problem, begun, fits, refined) | {"chunk": refined["chunk"]}
