# SPDX-License-Identifier: Apache-2.0
"""A network of a file whose configuration and shapes were checked: what the readers of all formats give."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from convert.errors import ConversionError
from convert.rules import Entry, Rule, Stored, transfer


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A checked network, its values still in the file.

    Attributes:
      family: a module of `stylegan_jax`.
      kind: `generator` or `discriminator`.
      config: arguments of that module's configuration of that kind.
      tensors: source name to tensor.
      table: what the file must hold, where each tensor has an entry of its own.
      has_average: whether a mean of w need not be estimated.
    """

    family: str
    kind: str
    config: dict
    tensors: Mapping[str, Stored]
    table: tuple[Entry, ...] = ()
    has_average: bool = True

    @property
    def resolution(self) -> int:
        """Height and width of images in pixels."""
        return 2 << len(self.config["widths"])

    @property
    def values(self) -> int:
        """Number of stored values, buffers included."""
        return sum(tensor.size for tensor in self.tensors.values())

    def rules(self) -> Iterable[Rule]:
        """Returns the table as `transfer` takes it."""
        return [entry.rule for entry in self.table]

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        return transfer(self.tensors, self.rules(), allow_nonfinite=allow_nonfinite)

    def notes(self) -> dict[str, str]:
        """Returns what provenance should say of what the file does not hold."""
        return {}

    def without_tensors(self) -> Self:
        """Returns what is known of the network when its file is no longer open."""
        return dataclasses.replace(self, tensors={})


def check_claims(tensors: Mapping[str, Stored], *, file_size: int, called: str = "tensors") -> None:
    """Raises `ConversionError` where `tensors` have more values than the file has bytes, `file_size`."""
    if sum(tensor.size for tensor in tensors.values()) > file_size:
        raise ConversionError(f"its {called} claim more values than the file has bytes ({file_size}); hostile file")
