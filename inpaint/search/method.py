# SPDX-License-Identifier: Apache-2.0
"""A restoration method: phases over latent spaces, each with its terms and optimiser, and where they begin; or a fill,
which restores without a search."""

import dataclasses
from collections.abc import Callable

import numpy as np
import optax

from inpaint.objective import ATTRIBUTE, Term
from inpaint.problem import Problem
from inpaint.search.initialise import Encoded, Initialisation
from stylegan_jax import latents


@dataclasses.dataclass(frozen=True)
class Phase:
    """`steps` of `optimizer` on the variable of `space`, minimising the sum of `terms`.

    `noise` is what the generator's noise inputs get, "const" (the stored maps) or "none".
    """

    space: latents.Space
    steps: int
    optimizer: optax.GradientTransformation
    terms: tuple[Term, ...]
    noise: str = "const"

    def __post_init__(self):
        if self.steps < 1 or not self.terms:
            raise ValueError(f"a phase needs at least one step and one term, got {self.steps} and {len(self.terms)}")
        if self.noise not in ("const", "none"):
            raise ValueError(f'noise of a phase must be "const" or "none", got {self.noise!r}')
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(f"terms of a phase must have different names, got {', '.join(names)}")

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that its terms constrain."""
        return tuple(t.name.removeprefix(ATTRIBUTE) for t in self.terms if t.name.startswith(ATTRIBUTE))


@dataclasses.dataclass(frozen=True)
class Method:
    """Phases in order, from coarser to finer spaces; the last one's objective scores the starts."""

    name: str
    phases: tuple[Phase, ...]
    initialisation: Initialisation

    def __post_init__(self):
        ranks = [phase.space.rank for phase in self.phases]
        if not ranks or ranks != sorted(ranks):
            raise ValueError(f"phases must go from coarse to fine spaces, got {[p.space.name for p in self.phases]}")

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that the last phase's objective constrains."""
        return self.phases[-1].attributes

    @property
    def needs(self) -> frozenset[str]:
        """Roles of what starts and objective look for beside the generator, see `inpaint.objective.ROLES`."""
        needs = {role for phase in self.phases for term in phase.terms for role in term.needs}
        return frozenset(needs | ({"guess"} if isinstance(self.initialisation, Encoded) else set()))


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
    def attributes(self) -> tuple[str, ...]:
        """None can be asked for."""
        return ()
