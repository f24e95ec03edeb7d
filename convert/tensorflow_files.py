# SPDX-License-Identifier: Apache-2.0
"""Pickles of NVIDIA's TensorFlow code: StyleGAN1, StyleGAN2 and StyleGAN2-ADA, without TensorFlow.

Such a file is one pickled tuple of three networks: the generator, the discriminator and the generator's running
average, here named `G`, `D` and `G_ema` as elsewhere in this package. A network has variables of its own, networks
inside it (`mapping` and `synthesis`), the arguments it was built with, and source text, which is never looked at.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from convert.errors import ConversionError, shown
from convert.numpyfile import Array
from convert.rules import dense, dense_after_4x4
from convert.unpickle import Call, Stateful

GLOBAL = "dnnlib.tflib.network.Network"
NAMES = ("G", "D", "G_ema")  # in the order of the tuple
VERSIONS = (2, 3, 4)
DEEPEST = 2  # a generator holds two networks, and those none
MOST_COMPONENTS = 8
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,200}", re.ASCII)
# By this variable a network is recognised: (family, kind).
MARKS = {
    "synthesis/4x4/Conv/mod_weight": ("stylegan2", "generator"),
    "Output/weight": ("stylegan2", "discriminator"),
    "synthesis/4x4/Const/StyleMod/weight": ("stylegan1_tensorflow", "generator"),
    "4x4/Dense1/weight": ("stylegan1_tensorflow", "discriminator"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """One variable of a network; an array still lies in the file."""

    value: Array | float | int

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, slowest first; () for a single number."""
        return self.value.shape if isinstance(self.value, Array) else ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def read(self) -> np.ndarray:
        """Returns the values as a new C-contiguous float32 array (half and double are converted).

        Raises:
          ConversionError: the elements are integers or booleans, which no network weight here is.
        """
        stored = self.value.read() if isinstance(self.value, Array) else np.asarray(self.value)
        if stored.dtype.kind != "f":
            raise ConversionError(f"holds {stored.dtype.name} elements, expected floating point")
        with np.errstate(over="ignore"):  # a double that does not fit becomes inf, which the caller reports
            return np.array(stored, dtype=np.float32, order="C")


class TensorflowNetwork(Stateful):
    """The stand-in for a network object of the TensorFlow code.

    Attributes:
      version: of the layout of its state.
      name: as its training called it.
      function: name of the function that built it.
      arguments: what that function was called with, as far as it was not left to defaults.
      components: the networks inside it, by name.
    """

    def __init__(self):
        self.version, self.name, self.function = 0, "", ""
        self.arguments: dict = {}
        self.components: dict[str, TensorflowNetwork] = {}
        self._own: dict[str, Variable] = {}
        self._depth = 0

    @property
    def complete(self) -> bool:
        """Whether it was given its state."""
        return self.version != 0

    def set_state(self, state: object) -> None:
        match state:
            case {
                "version": int() as version,
                "name": str() as name,
                "static_kwargs": dict() as arguments,
                "build_func_name": str() as function,
                "variables": list() as variables,
            } if not self.complete:
                components = state.get("components", {})
            case _:
                raise ConversionError("a TensorFlow network has a state of an unknown form")
        if version not in VERSIONS:
            raise ConversionError(f"a TensorFlow network has a state of version {shown(version)}; 2 to 4 are known")
        if not all(isinstance(key, str) for key in arguments):
            raise ConversionError("a TensorFlow network has arguments without names")
        # A network inside must be complete: so none can hold itself.
        if not isinstance(components, dict) or not all(
            isinstance(key, str) and _NAME.fullmatch(key) and isinstance(inner, TensorflowNetwork) and inner.complete
            for key, inner in components.items()
        ):
            raise ConversionError("a TensorFlow network has components that are no networks")
        self._depth = max((inner._depth + 1 for inner in components.values()), default=0)
        if self._depth > DEEPEST or len(components) > MOST_COMPONENTS:
            raise ConversionError("a TensorFlow network nests networks without end; the file is hostile")
        self._own = _variables(variables)
        self.arguments, self.components = arguments, components
        self.version, self.name, self.function = int(version), name, function

    def versions(self) -> set[int]:
        """Returns the versions of this network and of those inside it."""
        return {self.version}.union(*(inner.versions() for inner in self.components.values()))

    def variables(self) -> dict[str, Variable]:
        """Returns every variable by its full name, such as `synthesis/8x8/Conv1/weight`.

        Raises:
          ConversionError: two have the same name.
        """
        found = dict(self._own)
        for path, inner in self.components.items():
            below = {f"{path}/{name}": variable for name, variable in inner.variables().items()}
            if repeated := sorted(found.keys() & below.keys()):
                raise ConversionError(f"a TensorFlow network has two variables {shown(repeated[0])}")
            found |= below
        return found


def _variables(items: list) -> dict[str, Variable]:
    found: dict[str, Variable] = {}
    for item in items:
        match item:
            case (str() as name, Array() | float() | int() as value) if _NAME.fullmatch(name) and name not in found:
                found[name] = Variable(value)
            case _:
                raise ConversionError(
                    "a TensorFlow network has a variable of an unknown form, expected different names with numbers"
                )
    return found


def tensorflow_globals() -> dict[str, Call]:
    """Returns the name under which a pickle refers to a network, for `read_pickle`."""
    return {GLOBAL: Call(GLOBAL, lambda: TensorflowNetwork())}


def is_tensorflow(tree: object) -> bool:
    """Returns whether what `read_pickle` gave is a network of the TensorFlow code, or a tuple of some."""
    networks = tree if isinstance(tree, tuple) else (tree,)
    return bool(networks) and all(isinstance(network, TensorflowNetwork) for network in networks)


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds: `networks` are `G`, `D` and `G_ema` as far as present."""

    networks: dict[str, TensorflowNetwork]

    @property
    def present(self) -> list[str]:
        return list(self.networks)


def recognise(tree: object) -> Checkpoint:
    """Returns the networks in what `read_pickle` gave; `is_tensorflow` says whether there are any.

    A generator alone counts as `G_ema`.

    Raises:
      ConversionError: something else than three networks, or than one of a known kind.
    """
    if not is_tensorflow(tree):
        raise ConversionError(f"holds {shown(tree)}; expected the networks of a TensorFlow pickle (G, D, Gs)")
    networks = tree if isinstance(tree, tuple) else (tree,)
    if not all(network.complete for network in networks):
        raise ConversionError("a TensorFlow network has no state; the file is damaged")
    if len(networks) == 1:
        _, kind = identity(networks[0].variables())
        return Checkpoint({"D" if kind == "discriminator" else "G_ema": networks[0]})
    if len(networks) != len(NAMES):
        raise ConversionError(f"a tuple of {len(networks)} TensorFlow networks; expected three (G, D, Gs) or one")
    return Checkpoint(dict(zip(NAMES, networks, strict=True)))


def identity(variables: Mapping[str, Variable]) -> tuple[str, str]:
    """Returns (family, kind) of a network by the names of its variables.

    Raises:
      ConversionError: no network of StyleGAN1 or StyleGAN2.
    """
    found = [identity for mark, identity in MARKS.items() if mark in variables]
    if len(found) != 1:
        held = ", ".join(map(shown, list(variables)[:4])) or "no variable"
        raise ConversionError(f"a TensorFlow network with {held}; expected one of StyleGAN1 or StyleGAN2")
    return found[0]


# Layouts.


def flipped(weight: np.ndarray) -> np.ndarray:
    """Turns [kh, kw, in, out] around in both spatial axes."""
    return weight[::-1, ::-1]


def dense_4x4(weight: np.ndarray) -> np.ndarray:
    """Turns [c * 4 * 4, out] into [4 * 4 * c, out]."""
    return dense_after_4x4(dense(weight))
