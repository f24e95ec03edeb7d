# SPDX-License-Identifier: Apache-2.0
"""Several degradations, one after the other."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.operators.protocol import Operator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Composition(Operator):
    """`A(x) = A_k(...A_2(A_1(x)))`; each draws by its own key, `fold_in(key, position)`.

    What it shows as it is: pixels that all its masks know, as long as it holds nothing but masks and the rounding of an
    8-bit file. A mask counts in the weight from the last member on that mixes pixels (a blur, say): one before it hides
    its pixels from prediction and measurement alike, as 0, and what comes after them is compared throughout.

    Attributes:
        members: A_1 to A_k, in the order in which they act.
    """

    members: tuple[Operator, ...]

    @classmethod
    def checked(cls, members: Sequence[Operator]) -> "Composition":
        """Returns the composition after checking it.

        Raises:
            TypeError: for a member that is no operator.
            ValueError: for nothing at all.
        """
        if not members:
            raise ValueError("a composition needs at least one operator, got none")
        for member in members:
            if not isinstance(member, Operator):
                raise TypeError(f"a composition is made of operators, got {type(member).__name__}")
        return cls(tuple(members))

    @property
    def linear(self) -> bool:
        """Whether all members are."""
        return all(member.linear for member in self.members)

    @property
    def random(self) -> bool:
        """Whether any member is."""
        return any(member.random for member in self.members)

    @property
    def pointwise(self) -> bool:
        """Whether all members are."""
        return all(member.pointwise for member in self.members)

    @property
    def faithful(self) -> bool:
        """Whether all members are."""
        return all(member.faithful for member in self.members)

    @property
    def rank(self) -> int:
        """How many axes one measurement has: what a member flattens stays flat."""
        return min(member.rank for member in self.members)

    def __call__(self, image: Array) -> Array:
        """Returns the last member's measurement of `image` `[h, w, c]`."""
        return functools.reduce(lambda x, member: member(x), self.members, image)

    def surrogate(self, key: Array, image: Array) -> Array:
        """Returns the last member's measurement of `image` `[h, w, c]`, with fresh noise."""
        for position, member in enumerate(self.members):
            image = member.surrogate(jax.random.fold_in(key, position), image)
        return image

    def simulate(self, key: Array | None, image: Array) -> Array:
        """Returns the true degradation of `image` `[h, w, c]`."""
        for position, member in enumerate(self.members):
            image = member.simulate(None if key is None else jax.random.fold_in(key, position), image)
        return image

    def adjoint(self, measurement: Array) -> Array:
        """Returns `A_1'(...A_k'(y))` `[h, w, c]`.

        Raises:
            TypeError: where a member is not linear.
            ValueError: for a measurement of another shape.
        """
        if not self.linear:
            names = ", ".join(type(member).__name__ for member in self.members if not member.linear)
            raise TypeError(f"the composition is not linear and has no adjoint, because of {names}")
        return functools.reduce(lambda y, member: member.adjoint(y), reversed(self.members), measurement)

    @property
    def weight(self) -> Array:
        """The product of the weights of the last members that are all pointwise: a scalar or `[h, w, 1]`."""
        mixing = [position for position, member in enumerate(self.members) if not member.pointwise]
        after = mixing[-1] if mixing else 0
        return math.prod((member.weight for member in self.members[after:]), start=jnp.ones(()))

    @property
    def known(self) -> Array | None:
        """The product of what its masks know, `[h, w]` in [0, 1], or None where it shows no pixel as it is."""
        known = [member.known for member in self.members if member.known is not None]
        return math.prod(known[1:], start=known[0]) if known and self.faithful else None
