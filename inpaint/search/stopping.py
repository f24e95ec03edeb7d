# SPDX-License-Identifier: Apache-2.0
"""When a start stands still before its phase ends, because it is good enough or gets no better.

A rule has `begin(dtype)`, its state before the first step, and is called after every evaluation with that state, the
objective, and the weighted shares of its terms: it returns the new state, and whether the start stays where it is. A
phase ends once nothing moves in the chunk that runs; no result depends on what else is in it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array


class Stop(Protocol):
    """What the search asks of a rule."""

    def begin(self, dtype: jnp.dtype) -> Any:
        """Returns the state of one start before the first step, a pytree of arrays."""

    def __call__(self, state: Any, total: Array, shares: Mapping[str, Array]) -> tuple[Any, Array]:
        """Returns the state after an evaluation, and whether the start stops there (bool)."""


@dataclasses.dataclass(frozen=True)
class Below:
    """Holds where a term's weighted share is at most `threshold`."""

    term: str
    threshold: float

    def begin(self, dtype: jnp.dtype) -> tuple[()]:
        """Returns nothing: it remembers nothing."""
        return ()

    def __call__(self, state: tuple[()], total: Array, shares: Mapping[str, Array]) -> tuple[tuple[()], Array]:
        return state, shares[self.term] <= self.threshold


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Holds where the objective has not fallen for `patience` steps below `1 - tolerance` times the lowest that counts.

    What counts is the lowest objective at the latest such fall. A schedule that rises from 0 moves nothing in its first
    steps: `patience` should be longer than that.

    Attributes:
        patience: steps, at least 1.
        tolerance: share of the objective, in [0, 1).
    """

    patience: int = 20
    tolerance: float = 0.01

    def __post_init__(self):
        if self.patience < 1 or not 0 <= self.tolerance < 1:
            raise ValueError(f"need patience >= 1 and tolerance in [0, 1), got {self.patience} and {self.tolerance}")

    def begin(self, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Returns the lowest objective that counts, and the steps since; scalars."""
        return jnp.full((), jnp.inf, dtype), jnp.zeros((), jnp.int32)

    def __call__(
        self, state: tuple[Array, Array], total: Array, shares: Mapping[str, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        lowest, since = state
        # An infinite one has no share.
        fell = jnp.isinf(lowest) | (total < lowest - self.tolerance * jnp.abs(lowest))
        since = jnp.where(fell, 0, since + 1).astype(jnp.int32)
        return (jnp.where(fell, total, lowest), since), since >= self.patience
