# SPDX-License-Identifier: Apache-2.0
"""The legs of a search, which lie between the cuts of successive halving, and lanes that run through one of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint.search import loop
from inpaint.search.method import Method
from inpaint.search.saved import DamagedStateError, SavedSearch
from stylegan_jax.latents import Variable


class Leg(NamedTuple):
    """Steps `begins` to `ends` of a search, after which `survivors` starts of every image go on (None: all end)."""

    number: int
    begins: int
    ends: int
    survivors: int | None

    def place(self, method: Method) -> tuple[int, int]:
        """Returns phase, and steps done in it, where the leg begins."""
        done = self.begins
        for number, phase in enumerate(method.phases):
            if done <= phase.steps:
                return number, done
            done -= phase.steps
        raise ValueError(f"a leg begins at step {self.begins}, and the search has {method.steps}")


def legs(method: Method, starts: int) -> list[Leg]:
    """Returns the legs of a search in which `starts` of every image are searched to the end."""
    cuts = () if method.halving is None else method.halving.schedule(starts, method.steps)
    begins = [0, *(cut.step for cut in cuts)]
    ends = [*((cut.step, cut.survivors) for cut in cuts), (method.steps, None)]
    return [Leg(i, first, *end) for i, (first, end) in enumerate(zip(begins, ends, strict=True))]


class Paused(NamedTuple):
    """Lanes between two legs: their starts in the phase that runs, `[lanes, ...]`, and objectives `[lanes, steps]`."""

    starts: loop.Start
    traces: np.ndarray

    def take(self, index: np.ndarray) -> "Paused":
        """Returns the lanes `index`."""
        return jax.tree.map(lambda x: x[index], self)


class RunningChunk(NamedTuple):
    """Lanes that run together through a leg, `first` being the number of the first."""

    lanes: loop.Lanes
    context: loop.Frozen
    method: Method
    first: int
    leg: Leg
    saved: SavedSearch | None

    def run(
        self,
        v: Variable,
        paused: Paused | None,
        *,
        steps_per_call: int,
        report: Callable[[int, Array], None],
        watch: Callable[[int, Array], None] | None,
        watch_every: int,
    ) -> dict[str, Any]:
        """Returns what the lanes found; `report` and `watch` are told steps of all phases.

        Args:
            v: where they begin, in the first phase, `[lanes, ...]`.
            paused: where the leg before left them.
            steps_per_call: in one device call.
            report, watch, watch_every: see `Told`.
        """
        stored = None
        if self.saved is not None:
            stored = self.saved.running(self.first, size=self.size, leg=self.leg.number)
        options = dict(steps_per_call=steps_per_call, report=report, watch=watch, watch_every=watch_every)
        try:
            return self._run(v, paused, stored, **options)
        except DamagedStateError:
            self.saved.forget_running()
            return self._run(v, paused, None, **options)

    def _run(
        self,
        v: Variable,
        paused: Paused | None,
        stored: tuple[int, int] | None,
        *,
        steps_per_call: int,
        report: Callable[[int, Array], None],
        watch: Callable[[int, Array], None] | None,
        watch_every: int,
    ) -> dict[str, Any]:
        lanes, context, phases, leg = self.lanes, self.context, self.method.phases, self.leg
        frozen, taken, traces, last = context.place(jnp.zeros(self.size, bool)), None, [], phases[0]
        before, shown, reported = 0, 0, 0
        if watch and stored is None:
            watch(0, loop.to_ws(v, lanes, context, last))
        entered, done = leg.place(self.method) if stored is None else stored
        for number, phase in enumerate(phases):
            v, last = loop.lift(v, lanes, context, source=last, target=phase), phase
            if number < entered:
                before += phase.steps
                continue
            starts = loop.begin_phase(v, frozen, context, phase, taken=taken)
            if number > entered:
                done = 0
            elif stored is not None:
                starts, earlier = self.saved.load_running(starts, before + done)
                starts = context.place(starts)
                traces.append(earlier)
            elif paused is not None:
                starts = context.place(jax.tree.map(jnp.asarray, paused.starts))
                traces.append(jnp.asarray(paused.traces).T)

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
                    self.saved.save_running(self.first, number, done, starts, traces, leg=leg.number)

            until = min(phase.steps, leg.ends - before)
            options = dict(done=done, until=until, steps_per_call=steps_per_call, after_call=after_call)
            starts = loop.run_phase(starts, lanes, context, phase, **options)
            if leg.survivors is not None and leg.ends <= before + phase.steps:
                return self._paused(starts, number, jnp.concatenate(traces).T)
            starts = loop.end_phase(starts, lanes, context, phase)
            v, frozen, taken = loop.reached(starts), starts.frozen, starts.taken
            before += phase.steps
        return self._found(v, frozen, taken, jnp.concatenate(traces).T)

    @property
    def size(self) -> int:
        """How many lanes run."""
        return self.lanes.key.shape[0]

    def _paused(self, starts: loop.Start, number: int, traces: Array) -> dict[str, Any]:
        """Returns the lanes in phase `number`, as named arrays that can be stored, and their scores."""
        source, target = self.method.phases[number], self.method.phases[-1]
        v = loop.lift(loop.standing(starts), self.lanes, self.context, source=source, target=target)
        total = loop.evaluate(v, self.lanes, self.context, target).total
        return {
            "scores": jnp.where(jnp.isfinite(total), total, jnp.inf),
            "spent": starts.taken + number,
            "starts": {f"{i:05d}": x for i, x in enumerate(jax.tree.leaves(starts))},
            "traces": traces,
            "attributes": {},  # as in every stored part
        }

    def _found(self, v: Variable, frozen: Array, taken: Array, traces: Array) -> dict[str, Any]:
        final = loop.evaluate(v, self.lanes, self.context, self.method.phases[-1])
        return ({} if final.ws is None else {"ws": final.ws}) | {
            "variables": v,
            "raw": final.image,
            "scores": jnp.where(jnp.isfinite(final.total), final.total, jnp.inf),
            "terms": final.shares,
            "traces": traces,
            "frozen": frozen,
            "steps": taken,
            "spent": taken + len(self.method.phases),
            "attributes": {
                name: loop.attribute_probability(final.image, self.lanes, self.context, name)
                for name in self.method.attributes
            },
        }
