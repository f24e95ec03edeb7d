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
from inpaint.search.method import Method
from inpaint.search.result import Progress, Watched
from inpaint.search.saved import DamagedStateError, SavedSearch, digest
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

    def __init__(self, problem: Problem, guess: Array | None, per_image: int, size: int, *, devices: int):
        self.images = problem.measurement.shape[0]
        self.problem, self.guess, self.per_image = problem, guess, per_image
        self.devices = devices
        self.resize(min(size, self.images * per_image))

    def resize(self, size: int) -> None:
        """From now on `size` lanes run at once, rounded up to a multiple of the devices."""
        self.size = memory.dealt(size, devices=self.devices)

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
        found = hashlib.sha256(f"{arrays} {method.name} {steps_per_call}".encode())
        index, before = np.zeros(1, int), method.phases[0]
        # On however many devices, it is the same search.
        lanes, v, context = self.lanes(index, begun), begun.take(index), context._replace(mesh=None, device=None)
        for phase in method.phases:
            lift = functools.partial(loop.lift, context=context, source=before, target=phase)
            v, before = jax.eval_shape(lift, v, lanes), phase
            begin = functools.partial(loop.begin_phase, context=context, phase=phase)
            starts = jax.eval_shape(begin, v, jax.ShapeDtypeStruct((1,), bool))
            found.update(f"{phase.space.name} {phase.steps} {loop.step_text(starts, lanes, context, phase)}".encode())
        return found.hexdigest()

    def run(self, function: Callable[[np.ndarray, int], Any], *, resized: Callable[[int], None] | None = None) -> Any:
        """Returns what `function(index, real)` gives for all lanes, `[images, per_image, ...]`, numpy.

        Args:
            function: called with lane numbers `[size]`, the first `real` of them being new; returns pytrees of arrays
                `[real, ...]`, or of more where it knows more of what comes.
            resized: called with the new size where memory did not suffice.

        Raises:
            MemoryError: where it does not suffice for one start on each device.
        """
        parts, first, lanes = [], 0, self.images * self.per_image
        while first < lanes:
            index = np.minimum(np.arange(first, first + self.size), lanes - 1)
            try:
                parts.append(function(index, min(self.size, lanes - first)))
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
    index = np.minimum(np.arange(chunks.size), chunks.images * chunks.per_image - 1)
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
    steps_per_call: int,
    told: Told,
    saved: SavedSearch | None = None,
) -> dict[str, Any]:
    """Returns what all lanes found, by the fields of `Result`.

    Args:
        chunks: of the search.
        begun: where all lanes begin.
        context, method: of the search.
        steps_per_call: in one device call.
        told: whom to tell.
        saved: where the state is stored and looked for.
    """
    total = chunks.images * chunks.per_image * method.steps

    def run(index: np.ndarray, real: int) -> dict[str, Any]:
        first = int(index[0])
        found = None if saved is None else saved.part(first)
        if found is None:

            def report(step: int, losses: Array) -> None:
                if told.progress:
                    best = float(np.nanmin(np.asarray(losses)[:real], initial=np.inf))
                    told.progress(Progress(first * method.steps + step * real, total, best))

            chunk = _Chunk(context.place(chunks.lanes(index, begun)), context, method, first, saved)
            watch = None if told.watch is None else functools.partial(_look, told, chunks, index[:real])
            found = chunk.run(
                context.place(begun.take(index)),
                steps_per_call=steps_per_call,
                report=report,
                watch=watch,
                watch_every=told.watch_every,
            )
            found = jax.tree.map(lambda x: np.asarray(x)[:real], found)
            if saved is not None:
                saved.save_part(first, found)
        if told.progress:
            done = (first + len(found["scores"])) * method.steps
            told.progress(Progress(done, total, float(found["scores"].min())))
        return found

    return chunks.run(run, resized=None if saved is None else saved.resize)


def _look(told: Told, chunks: Chunks, index: np.ndarray, step: int, ws: Array) -> None:
    images, starts = np.divmod(index, chunks.per_image)
    told.watch(Watched(step, images, starts, np.asarray(ws)[: len(index)]))


class _Chunk(NamedTuple):
    """Lanes that run together, `first` being the number of the first."""

    lanes: loop.Lanes
    context: loop.Frozen
    method: Method
    first: int
    saved: SavedSearch | None

    def run(
        self,
        v: Variable,
        *,
        steps_per_call: int,
        report: Callable[[int, Array], None],
        watch: Callable[[int, Array], None] | None,
        watch_every: int,
    ) -> dict[str, Any]:
        """Returns what the lanes found from `v` on; `report` and `watch` are told steps of all phases."""
        resumed = None if self.saved is None else self.saved.running(self.first, size=self.size)
        options = dict(steps_per_call=steps_per_call, report=report, watch=watch, watch_every=watch_every)
        try:
            return self._run(v, resumed, **options)
        except DamagedStateError:
            self.saved.forget_running()
            return self._run(v, None, **options)

    def _run(
        self,
        v: Variable,
        resumed: tuple[int, int] | None,
        *,
        steps_per_call: int,
        report: Callable[[int, Array], None],
        watch: Callable[[int, Array], None] | None,
        watch_every: int,
    ) -> dict[str, Any]:
        lanes, context, phases = self.lanes, self.context, self.method.phases
        frozen, traces, last = context.place(jnp.zeros(self.size, bool)), [], phases[0]
        before, shown, reported = 0, 0, 0
        if watch and resumed is None:
            watch(0, loop.to_ws(v, lanes, context, last))
        for number, phase in enumerate(phases):
            v, last = loop.lift(v, lanes, context, source=last, target=phase), phase
            done = 0
            if resumed is not None and number < resumed[0]:
                before += phase.steps
                continue
            starts = loop.begin_phase(v, frozen, context, phase)
            if resumed is not None and number == resumed[0]:
                done = resumed[1]
                starts, earlier = self.saved.load_running(starts, before + done)
                starts = context.place(starts)
                traces.append(earlier)

            def after_call(done: int, starts: loop.Start, losses: Array, phase=phase, before=before, number=number):
                nonlocal shown, reported
                traces.append(losses)
                step = before + done
                # Reading the losses waits for the device, so it is not done after every step.
                if step // 10 > reported:
                    reported = step // 10
                    report(step, losses[-1])
                if watch and (step // watch_every > shown or step == self.method.steps):
                    shown = step // watch_every
                    watch(step, loop.to_ws(starts.v, lanes, context, phase))
                if self.saved is not None:
                    self.saved.save_running(self.first, number, done, starts, traces)

            v, frozen = loop.run_phase(
                starts, lanes, context, phase, done=done, steps_per_call=steps_per_call, after_call=after_call
            )
            before += phase.steps
        return self._found(v, frozen, jnp.concatenate(traces).T)

    @property
    def size(self) -> int:
        """How many lanes run."""
        return self.lanes.key.shape[0]

    def _found(self, v: Variable, frozen: Array, traces: Array) -> dict[str, Any]:
        final = loop.evaluate(v, self.lanes, self.context, self.method.phases[-1])
        return ({} if final.ws is None else {"ws": final.ws}) | {
            "variables": v,
            "raw": final.image,
            "scores": jnp.where(jnp.isfinite(final.total), final.total, jnp.inf),
            "terms": final.shares,
            "traces": traces,
            "frozen": frozen,
            "attributes": {
                name: loop.attribute_probability(final.image, self.lanes, self.context, name)
                for name in self.method.attributes
            },
        }
