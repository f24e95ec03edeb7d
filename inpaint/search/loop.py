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
from stylegan_jax.latents import Variable

STARTS = "starts"  # the one axis of a mesh of devices
DEALT = P(STARTS)
_AFTERWARDS = 2**31 - 1  # in place of a step's number, in the key of what is drawn after the last one


class Start(NamedTuple):
    """What one start carries from step to step."""

    v: Variable
    finite_v: Variable  # the latest variable at which objective and gradient were finite
    optimizer_state: Any
    frozen: Array  # bool
    step: Array  # int32, steps of the phase so far
    stopped: Array  # bool: the phase's `stop` held
    taken: Array  # int32, steps of all phases in which it moved
    best: tuple[Array, Variable] | None = None  # lowest objective and its variable, where the phase keeps the best
    stop: tuple[Array, Any] | None = None  # latest finite objective and state of the rule, where the phase has one


class Lanes(NamedTuple):
    """What belongs to the starts of a chunk and does not change; every array has a leading axis over starts."""

    problem: Problem
    c: Array | None
    key: Array  # [starts, 2], the data of a key for whatever a step draws
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
    ws: Array | None
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


def host(key: Array, context: Context, c: Array | None, phase: Phase) -> latents.Host:
    """Returns what a variable of the phase's space is read with; `c` is a label `[c_dim]`."""
    p_space = None if context.p_space is None else (context.p_space.mean, context.p_space.deviation)
    return latents.Host(context.generator, c, key, p_space, phase.noise)


def _keys(lane: Lanes, step: Array | None) -> Array:
    """Returns the keys `[4]` of what a step draws: space, noise, terms, shaking; None: after the last step."""
    key = jax.random.fold_in(jax.random.wrap_key_data(lane.key), _AFTERWARDS if step is None else step)
    return jax.random.split(key, 4)


def _evaluate_one(v: Variable, lane: Lanes, context: Context, phase: Phase, step: Array | None) -> Evaluation:
    """Evaluates the objective as it is at `step`, or, for None, after the last one: with nothing shaken, and with draws
    that are always the same."""
    context = context._replace(guess=lane.guess)
    space_key, noise_key, term_key, shake_key = _keys(lane, step)
    inputs = phase.space.to_inputs(host(space_key, context, lane.c, phase), v)
    if step is not None and phase.shake is not None and inputs.ws is not None:
        inputs = inputs._replace(ws=phase.shake(shake_key, inputs.ws, context, step / phase.steps))
    image = latents.render(context.generator, inputs, noise=phase.noise, key=noise_key)
    candidate = Candidate(inputs.ws, image, inputs, term_key)
    total, shares = objective.evaluate(phase.terms, candidate, lane.problem, context)
    return Evaluation(total, shares, inputs.ws, image)


def _step_one(start: Start, lane: Lanes, context: Context, phase: Phase):
    def loss(v: Variable) -> tuple[Array, dict[str, Array]]:
        found = _evaluate_one(v, lane, context, phase, start.step)
        return found.total, found.shares

    (total, shares), gradient = jax.value_and_grad(loss, has_aux=True)(start.v)
    updates, optimizer_state = phase.optimizer.update(gradient, start.optimizer_state, start.v)
    updated = optax.apply_updates(start.v, updates)
    finite = jnp.stack([jnp.isfinite(total), *(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient))]).all()
    frozen = start.frozen | ~finite
    moves = ~start.frozen & ~start.stopped
    stopped, stop, shown = start.stopped, None, total
    if phase.stop is not None:
        last, rule = start.stop
        rule, holds = phase.stop(rule, total, shares)
        # What stands still shows one objective, whatever its terms draw: the phase may end before it is drawn.
        shown = jnp.where(moves, total, last)
        stopped, stop = start.stopped | (holds & ~frozen), (jnp.where(moves & finite, total, last), rule)

    def choose(held: Variable, present: Variable, moved: Variable) -> Variable:
        if phase.stop is not None:
            moved = jax.tree.map(functools.partial(jnp.where, stopped), present, moved)
        return jax.tree.map(functools.partial(jnp.where, frozen), held, moved)

    best = start.best
    if best is not None:
        better = ~frozen & ~start.stopped & (total < best[0])
        best = jax.tree.map(functools.partial(jnp.where, better), (total, start.v), best)
    start = Start(
        v=choose(start.finite_v, start.v, updated),
        finite_v=choose(start.finite_v, start.v, start.v),
        optimizer_state=choose(start.optimizer_state, start.optimizer_state, optimizer_state),
        frozen=frozen,
        step=start.step + 1,
        stopped=stopped,
        taken=start.taken + (moves & ~frozen & ~stopped),
        best=best,
        stop=stop,
    )
    return start, shown


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "phase", "steps"), donate_argnames=("starts",))
def _advance(starts: Start, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, phase: Phase, steps: int):
    def run(starts: Start, lanes: Lanes, arrays: Any):
        context = merge_context(graph, arrays)
        step = jax.vmap(lambda start, lane: _step_one(start, lane, context, phase))
        if steps == 1:
            starts, shown = step(starts, lanes)
            return starts, shown[None]
        return jax.lax.scan(lambda carry, _: step(carry, lanes), starts, length=steps)

    return _dealt(run, mesh, out=(DEALT, P(None, STARTS)))(starts, lanes, arrays)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "phase"))
def _evaluate(v: Variable, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, phase: Phase) -> Evaluation:
    def run(v: Variable, lanes: Lanes, arrays: Any) -> Evaluation:
        context = merge_context(graph, arrays)
        return jax.vmap(lambda v, lane: _evaluate_one(v, lane, context, phase, None))(v, lanes)

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
    v: Variable, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, source: Phase, target: Phase
) -> Variable:
    def run(v: Variable, lanes: Lanes, arrays: Any) -> Variable:
        context = merge_context(graph, arrays)

        def one(v: Variable, lane: Lanes) -> Variable:
            # What draws its latents hands over those of its final render.
            found = host(_keys(lane, None)[0], context, lane.c, target)
            return latents.lift(found, v, source=source.space, target=target.space)

        return jax.vmap(one)(v, lanes)

    return _dealt(run, mesh)(v, lanes, arrays)


@functools.partial(jax.jit, static_argnames=("graph", "mesh", "phase"))
def _to_ws(v: Variable, lanes: Lanes, arrays: Any, *, graph: Any, mesh: Mesh | None, phase: Phase) -> Array | None:
    def run(v: Variable, lanes: Lanes, arrays: Any) -> Array | None:
        context = merge_context(graph, arrays)

        def one(v: Variable, lane: Lanes) -> Array | None:
            found = host(_keys(lane, None)[0], context, lane.c, phase)
            return phase.space.to_inputs(found, v).ws

        return jax.vmap(one)(v, lanes)

    return _dealt(run, mesh)(v, lanes, arrays)


def to_ws(v: Variable, lanes: Lanes, context: Frozen, phase: Phase) -> Array | None:
    """Returns the latents `[starts, num_ws, w_dim]` of variables `[starts, ...]`; None where a space has none."""
    return _to_ws(v, lanes, context.arrays, graph=context.graph, mesh=context.mesh, phase=phase)


def evaluate(v: Variable, lanes: Lanes, context: Frozen, phase: Phase) -> Evaluation:
    """Returns objective, shares, latents and renders of `phase` at every variable, `[starts, ...]`."""
    return _evaluate(v, lanes, context.arrays, graph=context.graph, mesh=context.mesh, phase=phase)


def lift(v: Variable, lanes: Lanes, context: Frozen, *, source: Phase, target: Phase) -> Variable:
    """Returns every variable `[starts, ...]` lifted from the space of one phase to that of another."""
    if source.space == target.space:
        return v
    return _lift(v, lanes, context.arrays, graph=context.graph, mesh=context.mesh, source=source, target=target)


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


def begin_phase(v: Variable, frozen: Array, context: Frozen, phase: Phase, *, taken: Array | None = None) -> Start:
    """Returns starts at the variables `v` `[starts, ...]` before the first step of a phase.

    Args:
        v: variables in the phase's space.
        frozen: which starts stand still already, `[starts]` bool.
        context: from `split_context`.
        phase: what will be done.
        taken: steps of earlier phases, `[starts]` int32; None: there were none.
    """
    # Steps consume their starts, so nothing of them may be the caller's.
    copied = functools.partial(jax.tree.map, jnp.copy)
    v, frozen, dtype = copied(v), jnp.copy(frozen), jax.tree.leaves(v)[0].dtype
    none = jnp.zeros(frozen.shape, jnp.int32)
    best, stop = None, None
    if phase.keep == "best":
        best = jnp.full(frozen.shape, jnp.inf, dtype), copied(v)
    if phase.stop is not None:
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (*frozen.shape, *x.shape)), phase.stop.begin(dtype))
        stop = jnp.full(frozen.shape, jnp.inf, dtype), copied(state)
    optimizer_state = jax.vmap(phase.optimizer.init)(v)
    return context.place(
        Start(
            v=v,
            finite_v=copied(v),
            # An optimiser may hold the variable it began with.
            optimizer_state=copied(optimizer_state),
            frozen=frozen,
            step=none,
            stopped=jnp.zeros(frozen.shape, bool),
            taken=jnp.copy(none) if taken is None else jnp.copy(taken),
            best=best,
            stop=stop,
        )
    )


_LOOKS = 10  # steps between two looks whether anything moves: a look waits for the device


def run_phase(
    starts: Start,
    lanes: Lanes,
    context: Frozen,
    phase: Phase,
    *,
    done: int = 0,
    until: int | None = None,
    steps_per_call: int,
    after_call: Callable[[int, Start, Array], None],
) -> Start:
    """Runs steps of one phase on a chunk of starts, and returns the starts after them.

    Args:
        starts: of `begin_phase`, or as they were after `done` steps; consumed.
        lanes: problems and labels, `[starts, ...]`.
        context: from `split_context`.
        phase: what to do.
        done: steps of the phase that were run before.
        until: steps of the phase after which to return; None: all of them.
        steps_per_call: steps in one call of the device; more than one uses `lax.scan`, which is fast on accelerators
            and slow on CPU.
        after_call: called after every call with the steps done in this phase, the starts, valid during the call only,
            and the objective before each of the call's steps, `[steps, starts]`.
    """
    # Looking for a program takes longer than calling it.
    program = functools.cache(lambda steps: _program(starts, lanes, context, phase, steps))
    end = phase.steps if until is None else until
    while done < end:
        steps = min(steps_per_call, end - done)
        starts, shown = program(steps)(starts, lanes, context.arrays)
        looks, done = (done + steps) // _LOOKS > done // _LOOKS, done + steps
        after_call(done, starts, shown)
        if phase.stop is not None and looks and done < end and bool(jnp.all(starts.stopped | starts.frozen)):
            after_call(end, starts, jnp.broadcast_to(starts.stop[0], (end - done, len(starts.frozen))))
            done = end
    return starts


def end_phase(starts: Start, lanes: Lanes, context: Frozen, phase: Phase) -> Start:
    """Returns the starts after a phase, whose result `reached` reads; `starts` are consumed."""
    # The last update has not been evaluated yet. One more step does that: it makes the variable it came with the latest
    # finite one, or not.
    taken = jnp.copy(starts.taken)
    starts, _ = _program(starts, lanes, context, phase, 1)(starts, lanes, context.arrays)
    return starts._replace(taken=taken)


def reached(starts: Start) -> Variable:
    """Returns the variables `[starts, ...]` that a phase ends with, after `end_phase`."""
    return starts.finite_v if starts.best is None else starts.best[1]


def standing(starts: Start) -> Variable:
    """Returns the variables `[starts, ...]` that a phase would go on from, or, where it keeps the best, end with."""
    return starts.v if starts.best is None else starts.best[1]
