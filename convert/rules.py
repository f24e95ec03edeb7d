# SPDX-License-Identifier: Apache-2.0
"""The strict table behind every converter: which tensor of a file becomes which weight of ours, and how.

Every source tensor must be matched by exactly one rule, every destination be filled exactly once; what is wrong is
collected over the whole network and reported together. Read backwards (`restore`), a table gives the file's tensors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np

from convert.errors import ConversionError, shown

Transform = Callable[[np.ndarray], np.ndarray]


def unchanged(array: np.ndarray) -> np.ndarray:
    """Returns the array as it is."""
    return array


def dense(weight: np.ndarray) -> np.ndarray:
    """Turns [out, in] into [in, out]."""
    return weight.transpose(1, 0)


def convolution(weight: np.ndarray) -> np.ndarray:
    """Turns [out, in, kh, kw] into [kh, kw, in, out]."""
    return weight.transpose(2, 3, 1, 0)


def image(array: np.ndarray) -> np.ndarray:
    """Turns [c, h, w] into [h, w, c]."""
    return array.transpose(1, 2, 0)


def dense_after_4x4(weight: np.ndarray) -> np.ndarray:
    """Turns [out, c * 4 * 4] into [4 * 4 * c, out]: the input is flattened as h, w, c here and as c, h, w there."""
    outputs, inputs = weight.shape
    return weight.reshape(outputs, inputs // 16, 4, 4).transpose(2, 3, 1, 0).reshape(inputs, outputs)


def noise_map(array: np.ndarray) -> np.ndarray:
    """Turns [1, 1, h, w] into [h, w]."""
    return array[0, 0]


def constant_input(array: np.ndarray) -> np.ndarray:
    """Turns [1, c, h, w] into [h, w, c]."""
    return image(array[0])


_INVERSES: dict[Transform, Transform] = {
    unchanged: unchanged,
    dense: dense,
    convolution: lambda weight: weight.transpose(3, 2, 0, 1),
    image: lambda array: array.transpose(2, 0, 1),
    dense_after_4x4: lambda weight: (
        weight.reshape(4, 4, -1, weight.shape[1]).transpose(3, 2, 0, 1).reshape(weight.shape[1], weight.shape[0])
    ),
    noise_map: lambda array: array[None, None],
    constant_input: lambda array: array.transpose(2, 0, 1)[None],
}


def inverse(transform: Transform) -> Transform:
    """Returns what undoes one of the layout changes above."""
    return _INVERSES[transform]


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""One line of a table.

    Attributes:
      pattern: regular expression for the whole source name.
      destination: our name, with `\1` for groups of the pattern; None drops the tensor (a comment must say why).
      transform: changes the layout.
      shared: several sources fill this destination and must hold the same values.
      dropped: the values that a dropped tensor gets when the table is read backwards.
    """

    pattern: str
    destination: str | None
    transform: Transform = unchanged
    shared: bool = False
    dropped: np.ndarray | None = None


class Stored(Protocol):
    """A tensor or variable that lies in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def size(self) -> int:
        """Number of values."""

    def read(self) -> np.ndarray:
        """Returns the values as a new C-contiguous float32 array."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a file: its name and shape, our name (None: not needed), the change of layout, and `Rule.shared`.

    With `constant` the tensor must hold these values (in every channel).
    """

    source: str
    shape: tuple[int, ...]
    destination: str | None
    transform: Transform = unchanged
    shared: bool = False
    constant: np.ndarray | None = None

    @property
    def rule(self) -> Rule:
        """The line of a table for this name alone."""
        return Rule(re.escape(self.source), self.destination, self.transform, self.shared)


def assign(names: Iterable[str], rules: Iterable[Rule]) -> dict[str, tuple[Rule, str | None]]:
    """Finds the rule and the destination of every source name.

    Returns:
      {source name: (rule, destination or None)}.

    Raises:
      ConversionError: lists every name that no rule or several rules match, and every destination filled twice.
    """
    compiled = [(re.compile(rule.pattern, re.ASCII), rule) for rule in rules]
    assigned: dict[str, tuple[Rule, str | None]] = {}
    filled: set[str] = set()
    problems = []
    for name in names:
        hits = [(rule, match) for pattern, rule in compiled if (match := pattern.fullmatch(name))]
        if len(hits) != 1:
            problems.append(f"{shown(name)} matches {len(hits) or 'no'} rules, expected exactly one")
            continue
        rule, match = hits[0]
        destination = rule.destination and match.expand(rule.destination)
        if destination in filled and not rule.shared:
            problems.append(f"{shown(name)} would fill {destination} a second time")
        if destination:
            filled.add(destination)
        assigned[name] = rule, destination
    if problems:
        raise ConversionError(*problems)
    return assigned


def check_shapes(tensors: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Returns a line for every tensor that is missing, unexpected, empty or of another shape than `expected` says."""
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in expected]
    for name in expected.keys() & tensors.keys():
        if tensors[name].shape != expected[name]:
            problems.append(f"{name} has shape {shown(tensors[name].shape)}, expected {shown(expected[name])}")
    problems += [f"{name} is empty: its shape is {tensor.shape}" for name, tensor in tensors.items() if not tensor.size]
    return sorted(problems)


def transfer(
    tensors: Mapping[str, Stored], rules: Iterable[Rule], *, allow_nonfinite: bool = False
) -> dict[str, np.ndarray]:
    """Reads every tensor and lays it out as our networks want it.

    Args:
      tensors: source name to tensor, shapes already checked.
      rules: the table.
      allow_nonfinite: let NaN and infinite values pass.

    Returns:
      {our name: C-contiguous float32 array}.

    Raises:
      ConversionError: lists every tensor that has no rule, cannot be read, is not finite, holds variances
        below 0, or differs from another tensor that must be equal.
    """
    arrays: dict[str, np.ndarray] = {}
    problems = []
    for name, (rule, destination) in assign(tensors, rules).items():
        try:
            array = tensors[name].read()
        except ConversionError as error:
            problems.extend(f"{name} {problem}" for problem in error.problems)
            continue
        if not allow_nonfinite and not np.isfinite(array).all():
            count = int(np.size(array) - np.isfinite(array).sum())
            problems.append(
                f"{name} holds {count} NaN or infinite values of {array.size}; --allow_nonfinite lets them in"
            )
        if destination is None:
            continue
        array = np.array(rule.transform(array), order="C")
        if destination.endswith("/variance") and (array < 0).any():
            problems.append(f"{name} holds negative variances")
        if destination in arrays and not np.array_equal(arrays[destination], array, equal_nan=True):
            problems.append(f"{name} differs from the other tensors that become {destination}; all must be equal")
        arrays[destination] = array
    if problems:
        raise ConversionError(*problems)
    return arrays


def restore(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], rules: Iterable[Rule]
) -> Iterator[tuple[str, np.ndarray]]:
    """Reads a table backwards: gives every tensor of the file, one at a time, from the arrays that `transfer` returned.

    Args:
      arrays: {our name: array [...]}.
      shapes: every tensor that the file shall have, {source name: shape}.
      rules: the table.

    Yields:
      (source name, C-contiguous float32 array of that shape), in the order of `shapes`.

    Raises:
      ConversionError: lists, before the first tensor, every name without a rule or values, and every array of ours
        that no tensor takes up; then a tensor of another shape.
    """
    assigned = assign(shapes, rules)
    problems = []
    for name, (rule, destination) in assigned.items():
        if destination is None and rule.dropped is None:
            problems.append(f"{name} is a tensor whose values are not known")
        if destination is not None and destination not in arrays:
            problems.append(f"{name} needs {destination}, which is missing")
    taken = {destination for _, destination in assigned.values()}
    problems += [f"{name} has no place among the tensors of the original" for name in arrays if name not in taken]
    if problems:
        raise ConversionError(*problems)
    for name, (rule, destination) in assigned.items():
        laid_out = rule.dropped if destination is None else inverse(rule.transform)(np.asarray(arrays[destination]))
        if laid_out.shape != shapes[name]:
            raise ConversionError(f"{name} has shape {shown(laid_out.shape)}, expected {shown(shapes[name])}")
        yield name, np.ascontiguousarray(laid_out, np.float32).reshape(shapes[name])
