# SPDX-License-Identifier: Apache-2.0
"""The one optimisation loop: a jitted step over a chunk of starts, each a vmapped problem of its own.

Nothing is averaged over starts or images, so the starts of a chunk are dealt out to devices, which never wait for each
other. A start whose objective or gradient stops being finite is put back to its last finite variable and stays there;
its neighbours never notice.
"""

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from inpaint import objective
from inpaint.objective import Candidate, Context
from inpaint.problem import Problem
from inpaint.search.method import Phase
from stylegan_jax import classifiers, latents

STARTS = "starts"  # the one axis of a mesh of devices
DEALT = P(STARTS)


class Start(NamedTuple):
    """What one start carries from step to step."""

    v: Array
    finite_v: Array  # the latest variable at which objective and gradient were finite
    optimizer_state: Any
    frozen: Array  # bool


class Lanes(NamedTuple):
    """What belongs to the starts of a chunk and does not change; every array has a leading axis over starts."""

    problem: Problem
    c: Array | None
    guess: Array | None = None  # [starts, num_ws, w_dim], of an encoder


class Frozen(NamedTuple):
    """A context with its networks split into graph (static) and arrays, for use as arguments of jitted functions, and
    the mesh of the devices that share the starts, or None for one device."""

    graph: Any
    arrays: tuple[Any, Context]
    mesh: Mesh | None = None
    device: jax.Device | None = None  # the one device, where it was named

    @property
    def devices(self) -> int:
        """How many devices share the starts; a chunk is a multiple of it."""
        return 1 if self.mesh is None else self.mesh.size

    def place(self, lanes: Any) -> Any:
        """Returns a pytree of arrays `[starts, ...]` with every device holding its share."""
        if self.mesh is None:
            return lanes if self.device is None else jax.device_put(lanes, self.device)
        return _put(lanes, NamedSharding(self.mesh, DEALT))


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Returns a pytree of arrays placed by `sharding`."""

    def put(x: Array) -> Array:
        # By way of the host: jax 0.10.2 now and then takes an array of one device for one of them all, and fails.
        return x if getattr(x, "sharding", None) == sharding else jax.device_put(np.asarray(x), sharding)

    return jax.tree.map(put, tree)


class Evaluation(NamedTuple):
    """The objective at a variable."""

    total: Array
    shares: dict[str, Array]
    ws: Array
    image: Array


def split_context(context: Context, *, devices: Sequence[jax.Device] | None = None) -> Frozen:
    """Returns the context ready for `run_phase` and `evaluate`, on `devices`, or where its arrays are for None."""
    graph, state = nnx.split((context.generator, dict(context.networks)))
    arrays = state, context._replace(generator=None, networks={})
    if devices is None:
        return Frozen(graph, arrays)
    if len(devices) == 1:
        return Frozen(graph, jax.device_put(arrays, devices[0]), device=devices[0])
    mesh = Mesh(np.asarray(devices), (STARTS,))
    return Frozen(graph, _put(arrays, NamedSharding(mesh, P())), mesh)


def _dealt(function: Callable, mesh: Mesh | None, *, out: Any = DEALT) -> Callable:
    """Returns `function(a, b, arrays)` with `a` and `b` `[starts, ...]` dealt out to the devices of `mesh`."""
    if mesh is None:
        return function
    specs = (DEALT, DEALT, P())
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)


def merge_context(graph: Any, arrays: tuple[Any, Context]) -> Context:
    """Returns the context that `split_context` split; `arrays` are the state of its networks, and the rest of it."""
    generator, networks = nnx.merge(graph, arrays[0])
    return arrays[1]._replace(generator=generator, networks=networks)


def _evaluate_one(v: Array, lane: Lanes, context: Context, phase: Phase) -> Evaluation:
    context = context._replace(guess=lane.guess)
    ws = phase.space.to_ws(context.generator, v, lane.c)
    image = context.generator.synthesis(ws[None], noise=phase.noise)[0]
    total, shares = objective.evaluate(phase.terms, Candidate(ws, image), lane.problem, context)
    return Evaluation(total, shares, ws, image)


def _step_one(start: Start, lane: Lanes, context: Context, phase: Phase):
    def loss(v: Array) -> tuple[Array, dict[str, Array]]:
        found = _evaluate_one(v, lane, context, phase)
        return found.total, found.shares

    (total, shares), gradient = jax.value_and_grad(loss, has_aux=True)(start.v)
    updates, optimizer_state = phase.optimizer.update(gradient, start.optimizer_state, start.v)
    updated = optax.apply_updates(start.v, updates)
    frozen = start.frozen | ~(jnp.isfinite(total) & jnp.isfinite(gradient).all())
    keep = functools.partial(jnp.where, frozen)
    start = Start(
        v=keep(start.finite_v, updated),
        finite_v=keep(start.finite_v, start.v),
        optimizer_state=jax.tree.map(keep, start.optimizer_state, optimizer_state),
        frozen=frozen,
    )
    return start, (total, shares)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "phase", "steps"), donate_argnames=("starts",))
def _advance(starts: Start, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, phase: Phase, steps: int):
    def run(starts: Start, lanes: Lanes, arrays: Any):
        context = merge_context(graph, arrays)
        step = jax.vmap(lambda start, lane: _step_one(start, lane, context, phase))
        if steps == 1:
            starts, losses = step(starts, lanes)
            return starts, jax.tree.map(lambda x: x[None], losses)
        return jax.lax.scan(lambda carry, _: step(carry, lanes), starts, length=steps)

    return _dealt(run, mesh, out=(DEALT, P(None, STARTS)))(starts, lanes, arrays)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "phase"))
def _evaluate(v: Array, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, phase: Phase) -> Evaluation:
    def run(v: Array, lanes: Lanes, arrays: Any) -> Evaluation:
        context = merge_context(graph, arrays)
        return jax.vmap(lambda v, lane: _evaluate_one(v, lane, context, phase))(v, lanes)

    return _dealt(run, mesh)(v, lanes, arrays)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "attribute"))
def _attribute_log_odds(
    images: Array, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, attribute: str
) -> Array:
    def run(images: Array, lanes: Lanes, arrays: Any) -> Array:
        classifier = merge_context(graph, arrays).networks["classifier"]
        shown = jax.vmap(lambda image, lane: objective.composite(image, lane.problem))(jnp.clip(images, -1, 1), lanes)
        return classifiers.log_odds(classifier, shown, attribute)

    return _dealt(run, mesh)(images, lanes, arrays)


def attribute_probability(images: Array, lanes: Lanes, context: Frozen, attribute: str) -> Array:
    """Returns the probability `[starts]` of an attribute on the composites of renders `[starts, h, w, c]`."""
    static = dict(graph=context.graph, mesh=context.mesh)
    return jax.nn.sigmoid(_attribute_log_odds(images, lanes, context.arrays, **static, attribute=attribute))


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "source", "target"))
def _lift(
    v: Array,
    c: Array | None,
    arrays: Any,
    *,
    graph: Any,
    mesh: Mesh | None,
    source: latents.Space,
    target: latents.Space,
) -> Array:
    def run(v: Array, c: Array | None, arrays: Any) -> Array:
        generator = merge_context(graph, arrays).generator
        return jax.vmap(lambda v, c: latents.lift(generator, v, source=source, target=target, c=c))(v, c)

    return _dealt(run, mesh)(v, c, arrays)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "space"))
def _to_ws(v: Array, c: Array | None, arrays: Any, *, graph: Any, mesh: Mesh | None, space: latents.Space) -> Array:
    def run(v: Array, c: Array | None, arrays: Any) -> Array:
        generator = merge_context(graph, arrays).generator
        return jax.vmap(lambda v, c: space.to_ws(generator, v, c))(v, c)

    return _dealt(run, mesh)(v, c, arrays)


def to_ws(v: Array, lanes: Lanes, context: Frozen, space: latents.Space) -> Array:
    """Returns the latents `[starts, num_ws, w_dim]` of variables `[starts, ...]` in `space`."""
    return _to_ws(v, lanes.c, context.arrays, graph=context.graph, mesh=context.mesh, space=space)


def evaluate(v: Array, lanes: Lanes, context: Frozen, phase: Phase) -> Evaluation:
    """Returns objective, shares, latents and renders of `phase` at every variable, `[starts, ...]`."""
    return _evaluate(v, lanes, context.arrays, graph=context.graph, mesh=context.mesh, phase=phase)


def lift(v: Array, lanes: Lanes, context: Frozen, *, source: latents.Space, target: latents.Space) -> Array:
    """Returns every variable `[starts, ...]` lifted from `source` to `target`."""
    static = dict(graph=context.graph, mesh=context.mesh)
    return _lift(v, lanes.c, context.arrays, **static, source=source, target=target)


# Compiled steps, most recent last: asking one for its memory and running it must not compile it twice.
_PROGRAMS: collections.OrderedDict[Any, Any] = collections.OrderedDict()
_KEPT_PROGRAMS = 64


def _program(starts: Start, lanes: Lanes, context: Frozen, phase: Phase, steps: int) -> Any:
    """Returns the compiled `_advance` for arguments like these."""
    leaves, structure = jax.tree.flatten((starts, lanes, context.arrays))
    shapes = tuple((jax.typeof(x), getattr(x, "sharding", None)) for x in leaves)
    # What a caller may set around a call, and the compiler heeds.
    around = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64, jax.config.jax_debug_nans
    key = (shapes, structure, context.graph, context.mesh, phase, steps, around)
    if key not in _PROGRAMS:
        static = dict(graph=context.graph, mesh=context.mesh, phase=phase, steps=steps)
        _PROGRAMS[key] = _advance.lower(starts, lanes, context.arrays, **static).compile()
        while len(_PROGRAMS) > _KEPT_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    _PROGRAMS.move_to_end(key)
    return _PROGRAMS[key]


def step_text(starts: Start, lanes: Lanes, context: Frozen, phase: Phase) -> str:
    """Returns one step as text, with every number that the method has put into it; values of arrays are not in it."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (starts, lanes, context.arrays))
    return _advance.lower(*shapes, graph=context.graph, mesh=None, phase=phase, steps=1).as_text()


def compiled() -> tuple[Any, ...]:
    """Returns what distinguishes the programs compiled so far; it does not change where nothing new is compiled."""
    return (*_PROGRAMS, *(program._cache_size() for program in (_evaluate, _lift, _to_ws, _attribute_log_odds)))


def step_bytes(starts: Start, lanes: Lanes, context: Frozen, phase: Phase, *, steps: int) -> int:
    """Returns the bytes that `steps` steps in one call take on each device, by the compiler's own account."""
    found = _program(starts, lanes, context, phase, steps).memory_analysis()
    arguments = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return arguments + found.temp_size_in_bytes


def begin_phase(v: Array, frozen: Array, context: Frozen, phase: Phase) -> Start:
    """Returns starts at the variables `v` `[starts, ...]` before the first step of a phase.

    Args:
        v: variables in the phase's space.
        frozen: which starts stand still already, `[starts]` bool.
        context: from `split_context`.
        phase: what will be done.
    """
    # Steps consume their starts, so nothing of them may be the caller's.
    v, frozen = jnp.copy(v), jnp.copy(frozen)
    return context.place(Start(v, jnp.copy(v), jax.vmap(phase.optimizer.init)(v), frozen))


def run_phase(
    starts: Start,
    lanes: Lanes,
    context: Frozen,
    phase: Phase,
    *,
    done: int = 0,
    steps_per_call: int,
    after_call: Callable[[int, Start, Array], None],
) -> tuple[Array, Array]:
    """Runs the rest of one phase on a chunk of starts.

    Args:
        starts: of `begin_phase`, or as they were after `done` steps; consumed.
        lanes: problems and labels, `[starts, ...]`.
        context: from `split_context`.
        phase: what to do.
        done: steps of the phase that were run before.
        steps_per_call: steps in one call of the device; more than one uses `lax.scan`, which is fast on accelerators
            and slow on CPU.
        after_call: called after every call with the steps done in this phase, the starts, valid during the call only,
            and the objective before each of the call's steps, `[steps, starts]`.

    Returns:
        variables and frozen.
    """
    # Looking for a program takes longer than calling it.
    program = functools.cache(lambda steps: _program(starts, lanes, context, phase, steps))
    while done < phase.steps:
        steps = min(steps_per_call, phase.steps - done)
        starts, losses = program(steps)(starts, lanes, context.arrays)
        done += steps
        after_call(done, starts, losses[0])
    # The last update has not been evaluated yet. One more step does that: it makes the variable it came with the latest
    # finite one, or not.
    starts, _ = program(1)(starts, lanes, context.arrays)
    return starts.finite_v, starts.frozen
