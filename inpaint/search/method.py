# SPDX-License-Identifier: Apache-2.0
"""A restoration method: phases over latent spaces, each with its terms and optimiser, and where they begin; or networks
trained to restore; or a fill, which restores without either."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import optax
from jax import Array

from inpaint.objective import ATTRIBUTE, Context, Term
from inpaint.problem import Problem
from inpaint.search.halving import SuccessiveHalving
from inpaint.search.initialise import Encoded, Initialisation, screening
from inpaint.search.produced import Inpainter
from inpaint.search.stopping import Below, Stop
from stylegan_jax import latents


@dataclasses.dataclass(frozen=True)
class Phase:
    """`steps` of `optimizer` on the variable of `space`, minimising the sum of `terms`.

    Attributes:
        space: of the variable.
        steps: at least 1.
        optimizer: any of optax; its updates may also put the variable back onto a set (`inpaint.search.transforms`).
        terms: of the objective.
        noise: what the generator's noise inputs get that are not searched: "const" (the stored maps), "none", or
            "fresh" (drawn anew for every step).
        keep: what the phase ends with, its "last" variable or its "best" (of the lowest objective met).
        stop: a start for which it holds stays where it is, see `inpaint.search.stopping`. None: never.
        shake: `shake(key, ws, context, t) -> ws` before rendering, t from 0 to 1 over the phase (not in the final
            evaluation). None: not at all.
    """

    space: latents.Space
    steps: int
    optimizer: optax.GradientTransformation
    terms: tuple[Term, ...]
    noise: str = "const"
    keep: str = "last"
    stop: Stop | None = None
    shake: Callable[[Array, Array, Context, Array], Array] | None = None

    def __post_init__(self):
        if self.steps < 1 or not self.terms:
            raise ValueError(f"a phase needs at least one step and one term, got {self.steps} and {len(self.terms)}")
        if self.noise not in ("const", "none", "fresh"):
            raise ValueError(f'noise of a phase must be "const", "none" or "fresh", got {self.noise!r}')
        if self.keep not in ("last", "best"):
            raise ValueError(f'a phase keeps its "last" or its "best" variable, got {self.keep!r}')
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(f"terms of a phase must have different names, got {', '.join(names)}")
        if isinstance(self.stop, Below) and self.stop.term not in names:
            raise ValueError(f"the phase stops by {self.stop.term}, which is no term of it: {', '.join(names)}")

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that its terms constrain."""
        return tuple(t.name.removeprefix(ATTRIBUTE) for t in self.terms if t.name.startswith(ATTRIBUTE))


@dataclasses.dataclass(frozen=True)
class Method:
    """Phases in order, from coarser to finer spaces; the last one's objective scores the starts.

    Attributes:
        name: of the method.
        phases: at least one.
        initialisation: where starts begin.
        halving: lets more starts begin than are searched to the end. None: all that begin end.
        restarts: how often a start that ended at a non-finite value is searched anew from another candidate; the
            better of the attempts is the start's result.
    """

    name: str
    phases: tuple[Phase, ...]
    initialisation: Initialisation
    halving: SuccessiveHalving | None = None
    restarts: int = 0

    def __post_init__(self):
        if not self.phases:
            raise ValueError("a method needs at least one phase")
        if self.restarts < 0:
            raise ValueError(f"restarts must be at least 0, got {self.restarts}")
        if self.halving is not None:
            self.halving.schedule(1, self.steps)
        for source, target in itertools.pairwise(phase.space for phase in self.phases):
            latents.check_lift(source, target)

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def evaluations(self, starts: int) -> tuple[int, int]:
        """Returns how often the generator runs for one image, alone and with its gradient, where nothing stops early
        or begins again: `starts` are searched to the end.

        Alone: for the scores of a pool, at every cut, and for the final renders. With its gradient: once more after
        the last step of every phase.
        """
        begun, cuts = starts, ()
        if self.halving is not None:
            begun, cuts = self.halving.begins(starts), self.halving.schedule(starts, self.steps)
        pool = self.initialisation.candidates(begun)
        forwards, gradients, before = starts + (pool if pool > begun else 0), 0, 0
        ends = list(itertools.accumulate(phase.steps for phase in self.phases))
        for step, survivors in cuts:
            # A phase that ends where a cut is made takes its last evaluation after it.
            gradients += begun * (step - before + sum(before <= end < step for end in ends))
            forwards, begun, before = forwards + begun, survivors, step
        gradients += begun * (self.steps - before + sum(before <= end for end in ends))
        return forwards, gradients

    @property
    def masked(self) -> str | None:
        """The first of its terms that asks for pixels which the measurement shows as they are, or None."""
        terms = (*screening(self.initialisation), *(term for phase in self.phases for term in phase.terms))
        return next((term.name for term in terms if term.masked), None)

    @property
    def rendered_with(self) -> str | None:
        """The noise, "const" or "none", with which the latents of a result give its image again; None where they do
        not."""
        last = self.phases[-1]
        return last.noise if last.space.has_ws and last.noise != "fresh" else None

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that the last phase's objective constrains."""
        return self.phases[-1].attributes

    @property
    def needs(self) -> frozenset[str]:
        """Roles of what starts and objective look for beside the generator, see `inpaint.objective.ROLES`."""
        needs = {role for phase in self.phases for term in phase.terms for role in term.needs}
        needs |= {role for phase in self.phases for role in phase.space.needs}
        needs |= {role for term in screening(self.initialisation) for role in term.needs}
        return frozenset(needs | ({"guess"} if isinstance(self.initialisation, Encoded) else set()))


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """A restoration by a trained network: every start is one sample of it, which a search may go on from.

    Attributes:
        name: of the method.
        inpainter: the network; see `inpaint.search.produced.Inpainter`.
        refine: a phase in W+ that begins with the latents (and, where there are such, the feature maps) of each sample;
            of the sample and what the phase ends with, the one that meets the known pixels better is kept. None: no
            search.
    """

    name: str
    inpainter: Inpainter
    refine: Phase | None = None

    def __post_init__(self):
        if self.refine is not None and self.refine.space != latents.WPLUS:
            raise ValueError(f"a learned start lies in w+, so it is refined there, not in {self.refine.space.name}")

    @property
    def steps(self) -> int:
        """Steps of the search behind the network."""
        return 0 if self.refine is None else self.refine.steps

    def evaluations(self, starts: int) -> tuple[int, int]:
        """Returns how often the generator runs for one image, alone and with its gradient."""
        return starts, starts * (self.steps + 1) if self.steps else 0

    @property
    def phases(self) -> tuple[Phase, ...]:
        """That search, or nothing."""
        return () if self.refine is None else (self.refine,)

    @property
    def needs(self) -> frozenset[str]:
        """Roles of what that search looks for beside the generator, see `inpaint.objective.ROLES`."""
        return frozenset(role for phase in self.phases for t in phase.terms for role in t.needs)

    @property
    def rendered_with(self) -> str | None:
        """The noise with which the latents of a result give its image again; None where they do not."""
        return self.inpainter.rendered_with

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that the search constrains."""
        return () if self.refine is None else self.refine.attributes


@dataclasses.dataclass(frozen=True)
class Fill:
    """A restoration without latents: `function(problem)` returns the image `[h, w, c]` for one problem.

    It is deterministic, so it has one start, whatever is asked for.
    """

    name: str
    function: Callable[[Problem], np.ndarray]

    @property
    def steps(self) -> int:
        """None are taken."""
        return 0

    @property
    def needs(self) -> frozenset[str]:
        """Nothing beside the problem."""
        return frozenset()

    @property
    def rendered_with(self) -> str | None:
        """There are no latents."""
        return None

    @property
    def attributes(self) -> tuple[str, ...]:
        """None can be asked for."""
        return ()
