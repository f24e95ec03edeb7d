# SPDX-License-Identifier: Apache-2.0
"""The lanes of a search (every start of every image), a chunk at a time through all phases of a method."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint.problem import Problem
from inpaint.search import loop, memory
from inpaint.search.legs import Leg, Paused, RunningChunk, legs
from inpaint.search.method import Method
from inpaint.search.result import Progress, Watched
from inpaint.search.saved import SavedSearch, digest
from stylegan_jax.latents import Variable


class Begun(NamedTuple):
    """Where all lanes begin, `[images * per_image, ...]`: variables, labels, and the data of their keys."""

    v: Variable
    c: Array | None
    key: Array

    def take(self, index: np.ndarray) -> Variable:
        """Returns the variables of the lanes `index`."""
        return jax.tree.map(lambda x: x[index], self.v)


class Chunks:
    """Runs functions over `[images, starts]` lanes, a number at a time that is a multiple of the devices; the last
    chunk is padded, and a chunk that exhausts memory is halved."""

    def __init__(
        self,
        problem: Problem,
        guess: Array | None,
        per_image: int,
        size: int,
        *,
        devices: int,
        padded: bool = False,
    ):
        """Takes the lanes of `per_image` starts of every image; `padded` lets `size` lanes run at once though there are
        fewer, so that equal sizes share a program."""
        self.images = problem.measurement.shape[0]
        self.problem, self.guess, self.per_image = problem, guess, per_image
        self.devices, self.padded = devices, padded
        self.resize(size if padded else min(size, self.images * per_image))

    def resize(self, size: int) -> None:
        """From now on `size` lanes run at once, rounded up to a multiple of the devices."""
        self.size = memory.dealt(size, devices=self.devices)

    @property
    def at_once(self) -> int:
        """How many lanes run at once: `size`, or fewer where there are no more and they are not padded."""
        lanes = self.size if self.padded else min(self.size, self.images * self.per_image)
        return memory.dealt(lanes, devices=self.devices)

    def lanes(self, index: np.ndarray, begun: Begun) -> loop.Lanes:
        """Returns what belongs to the lanes `index` and does not change; `begun` is of all lanes."""
        image = jnp.asarray(index // self.per_image)
        return loop.Lanes(
            jax.tree.map(lambda x: x[image], self.problem),
            None if begun.c is None else begun.c[index],
            begun.key[index],
            None if self.guess is None else self.guess[image],
        )

    def describe(self, begun: Begun, context: loop.Frozen, method: Method, steps_per_call: int) -> str:
        """Returns a sha256 of the search: what the method does to one lane, as compiled, and all arrays that it begins
        with; `begun` is of all lanes."""
        arrays = digest(self.problem, begun, self.guess, context.arrays)
        shared = f"{arrays} {method.name} {steps_per_call} {method.halving} {method.restarts}"
        found, lanes = hashlib.sha256(shared.encode()), self.lanes(np.zeros(1, int), begun)
        # On however many devices, it is the same search.
        context = context._replace(mesh=None, device=None)
        for phase, starts in zip(method.phases, self.shapes(begun, context, method), strict=True):
            found.update(f"{phase.space.name} {phase.steps} {loop.step_text(starts, lanes, context, phase)}".encode())
        return found.hexdigest()

    def shapes(self, begun: Begun, context: loop.Frozen, method: Method) -> list[loop.Start]:
        """Returns the shapes of one start at the beginning of every phase."""
        index, before, found = np.zeros(1, int), method.phases[0], []
        lanes, v, context = self.lanes(index, begun), begun.take(index), context._replace(mesh=None, device=None)
        for phase in method.phases:
            lift = functools.partial(loop.lift, context=context, source=before, target=phase)
            v, before = jax.eval_shape(lift, v, lanes), phase
            begin = functools.partial(loop.begin_phase, context=context, phase=phase)
            found.append(jax.eval_shape(begin, v, jax.ShapeDtypeStruct((1,), bool)))
        return found

    def run(self, function: Callable[[np.ndarray, int], Any], *, resized: Callable[[int], None] | None = None) -> Any:
        """Returns what `function(index, real)` gives for all lanes, `[images, per_image, ...]`, numpy.

        Args:
            function: called with lane numbers `[at_once]`, the first `real` of them being new; returns pytrees of
                arrays `[real, ...]`, or of more where it knows more of what comes.
            resized: called with the new size where memory did not suffice.

        Raises:
            MemoryError: where it does not suffice for one start on each device.
        """
        parts, first, lanes = [], 0, self.images * self.per_image
        while first < lanes:
            index = np.minimum(np.arange(first, first + self.at_once), lanes - 1)
            try:
                parts.append(function(index, min(self.at_once, lanes - first)))
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                self.halve(error)
                if resized:
                    resized(self.size)
                continue
            # Not by the size: a stored part may be of a time when more ran at once.
            first += len(jax.tree.leaves(parts[-1])[0])
        joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        return jax.tree.map(lambda x: x.reshape(self.images, self.per_image, *x.shape[1:]), joined)

    def halve(self, error: Exception) -> None:
        """Halves the chunk where `error` says that memory did not suffice, and raises it again where it does not.

        Raises:
            MemoryError: where there is nothing to halve.
        """
        if not memory.is_exhausted(error) and not isinstance(error, MemoryError):
            raise error
        if self.size == self.devices:
            raise MemoryError(
                "memory does not hold one start on each device; take a smaller generator or larger devices"
            ) from error
        self.resize(self.size // 2)


class Told(NamedTuple):
    """Whom a running search tells: `progress`, and `watch` about every `watch_every` steps; see `solve`."""

    progress: Callable[[Progress], None] | None = None
    watch: Callable[[Watched], None] | None = None
    watch_every: int = 1


def fit_chunk(chunks: Chunks, begun: Begun, context: loop.Frozen, method: Method, *, steps: int) -> None:
    """Makes chunks as small as memory asks: what the compiled step of the last phase says that it takes is held
    against what a device has.

    Args:
        chunks: of the search.
        begun: where all lanes begin.
        context, method: of the search.
        steps: in one device call.
    """
    while True:
        try:
            needed, device = _needed(chunks, begun, context, method, steps)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            chunks.halve(error)
            continue
        capacity = memory.capacity_bytes(device)
        chunks.resize(memory.fitting_chunk(chunks.size, needed=needed, capacity=capacity, devices=chunks.devices))
        return


def _needed(chunks: Chunks, begun: Begun, context: loop.Frozen, method: Method, steps: int) -> tuple[int, jax.Device]:
    """Returns the bytes that a step takes on each device, and one of the devices."""
    phase, first = method.phases[-1], method.phases[0]
    index = np.minimum(np.arange(chunks.at_once), chunks.images * chunks.per_image - 1)
    lanes = context.place(chunks.lanes(index, begun))
    lifted = loop.lift(context.place(begun.take(index)), lanes, context, source=first, target=phase)
    starts = loop.begin_phase(lifted, context.place(jnp.zeros(len(index), bool)), context, phase)
    needed = loop.step_bytes(starts, lanes, context, phase, steps=min(steps, phase.steps))
    # Not by pop: the set is the array's own.
    return needed, next(iter(starts.frozen.devices()))


def search(
    chunks: Chunks,
    begun: Begun,
    context: loop.Frozen,
    method: Method,
    *,
    starts: int,
    steps_per_call: int,
    told: Told,
    saved: SavedSearch | None = None,
) -> dict[str, Any]:
    """Returns what those lanes found that are searched to the end, by the fields of `Result`, and beside them `lanes`
    `[images, starts]`, which of the lanes of their image they are, and `spent` `[images]`, gradients of all lanes.

    Args:
        chunks: of the search, with all lanes that begin; narrowed to those that end.
        begun: where all lanes begin.
        context, method: of the search.
        starts: of every image, that are searched to the end.
        steps_per_call: in one device call.
        told: whom to tell.
        saved: where the state is stored and looked for.
    """
    plan, shapes = legs(method, starts), None
    alive = [chunks.per_image, *(leg.survivors for leg in plan[:-1])]
    total = chunks.images * sum(count * (leg.ends - leg.begins) for count, leg in zip(alive, plan, strict=True))
    run = functools.partial(_run_leg, chunks, context, method, told, saved, steps_per_call, total)
    lanes, paused, spent, before = np.tile(np.arange(alive[0]), (chunks.images, 1)), None, 0, 0
    for leg in plan:
        found = run(begun, leg, paused, before)
        own = found.pop("spent")
        before += own.size * (leg.ends - leg.begins)
        if leg.survivors is None:
            return found | {"lanes": lanes, "spent": spent + own.sum(1)}
        order = np.argsort(found["scores"], axis=1, kind="stable")
        # In the order in which they began: ties are decided by it, at every cut.
        kept = np.sort(order[:, : leg.survivors], axis=1)
        lanes, spent = np.take_along_axis(lanes, kept, 1), spent + own.sum(1) - np.take_along_axis(own, kept, 1).sum(1)
        rows = (np.arange(chunks.images)[:, None] * own.shape[1] + kept).reshape(-1)
        shapes = chunks.shapes(begun, context, method) if shapes is None else shapes
        structure = jax.tree.structure(shapes[plan[leg.number + 1].place(method)[0]])
        leaves = [x for _, x in sorted(found["starts"].items())]
        state = Paused(jax.tree.unflatten(structure, leaves), found["traces"])
        paused = jax.tree.map(lambda x, rows=rows: x.reshape(-1, *x.shape[2:])[rows], state)
        begun = Begun(*jax.tree.map(lambda x, rows=rows: x[rows], tuple(begun)))
        chunks.per_image = leg.survivors
    raise AssertionError("the last leg returns")


def _run_leg(
    chunks: Chunks,
    context: loop.Frozen,
    method: Method,
    told: Told,
    saved: SavedSearch | None,
    steps_per_call: int,
    total: int,
    begun: Begun,
    leg: Leg,
    paused: Paused | None,
    before: int,
) -> dict[str, Any]:
    """Returns what a leg found, `[images, per_image, ...]`; `before` start-steps of `total` were done before it."""
    length = leg.ends - leg.begins

    def run(index: np.ndarray, real: int) -> dict[str, Any]:
        first = int(index[0])
        found = None if saved is None else saved.part(first, leg=leg.number)
        if found is None:

            def report(step: int, losses: Array) -> None:
                if told.progress:
                    best = float(np.nanmin(np.asarray(losses)[:real], initial=np.inf))
                    told.progress(Progress(before + first * length + (step - leg.begins) * real, total, best))

            chunk = RunningChunk(context.place(chunks.lanes(index, begun)), context, method, first, leg, saved)
            watch = None if told.watch is None else functools.partial(_look, told, chunks, index[:real])
            found = chunk.run(
                context.place(begun.take(index)),
                None if paused is None else paused.take(index),
                steps_per_call=steps_per_call,
                report=report,
                watch=watch,
                watch_every=told.watch_every,
            )
            found = jax.tree.map(lambda x: np.asarray(x)[:real], found)
            if saved is not None:
                saved.save_part(first, found, leg=leg.number)
        if told.progress:
            done = before + (first + len(found["scores"])) * length
            told.progress(Progress(done, total, float(found["scores"].min())))
        return found

    return chunks.run(run, resized=None if saved is None else saved.resize)


def _look(told: Told, chunks: Chunks, index: np.ndarray, step: int, ws: Array) -> None:
    images, starts = np.divmod(index, chunks.per_image)
    told.watch(Watched(step, images, starts, np.asarray(ws)[: len(index)]))
