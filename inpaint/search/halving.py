# SPDX-License-Identifier: Apache-2.0
"""Successive halving: many starts begin, and few are searched to the end."""

import dataclasses
from typing import NamedTuple


class Cut(NamedTuple):
    """After `step` steps of the search, the `survivors` best starts of every image go on."""

    step: int
    survivors: int


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """Starts compete: after every cut one in `factor` of them goes on, until as many are left as were asked for.

    Of n starts asked for, `n * factor^cuts` begin, and cut i of a search of T steps comes after `T * factor^(i - cuts)`
    of them, so that every leg but the first costs about as much (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm
    Identification and Hyperparameter Optimization"). A start that goes on is not touched: optimiser, schedule and
    draws are those of a search without cuts. The last phase's objective decides.

    Attributes:
        cuts: at least 1.
        factor: at least 2.
    """

    cuts: int = 3
    factor: int = 2

    def __post_init__(self):
        if self.cuts < 1 or self.factor < 2:
            raise ValueError(f"halving needs at least 1 cut and a factor of 2, got {self.cuts} and {self.factor}")

    def begins(self, starts: int) -> int:
        """Returns how many starts begin, where `starts` are searched to the end."""
        return starts * self.factor**self.cuts

    def schedule(self, starts: int, steps: int) -> tuple[Cut, ...]:
        """Returns the cuts of a search of `steps` steps.

        Raises:
            ValueError: where a leg would have no steps.
        """
        if steps < self.factor**self.cuts:
            raise ValueError(
                f"halving by {self.factor} in {self.cuts} cuts needs at least {self.factor**self.cuts} steps, got "
                f"{steps}; take fewer cuts"
            )
        left = [self.factor ** (self.cuts - i) for i in range(self.cuts)]
        return tuple(Cut(max(1, steps // n), starts * (n // self.factor)) for n in left)
