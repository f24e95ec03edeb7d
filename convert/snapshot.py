# SPDX-License-Identifier: Apache-2.0
"""From a file to the networks it holds: opening, recognising the format, and walking NVlabs module trees.

A snapshot of stylegan2-ada-pytorch or stylegan3 is one pickled dictionary: `G`, `D`, `G_ema`, `augment_pipe` and
`training_set_kwargs`. A network is a tree of modules; a module carries its source text, which is never looked at.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

from convert.errors import ConversionError, shown
from convert.mapped_file import file_sha256, map_file
from convert.numpyfile import numpy_globals
from convert.tensorflow_files import tensorflow_globals
from convert.torchfile import Tensor, torch_globals
from convert.unpickle import Call, Names, Work, read_pickle

NETWORKS = ("G", "D", "G_ema")
MOST_MODULES = 4096
DEEPEST_MODULE = 16
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")

_TEXT_HEADS = {  # what people are likely to pass by mistake, by the first bytes
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; the file itself was not downloaded",
    b"<!DOCTYPE": "a web page; the download did not work",
    b"<html": "a web page; the download did not work",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """One network module of a snapshot: its class name and its attributes, as inert values."""

    class_name: str
    state: dict

    def attribute(self, name: str, kind: type | tuple[type, ...]) -> object:
        """Returns attribute `name`, which must be of type `kind` (booleans do not count as integers)."""
        value = self.state.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = shown(value) if name in self.state else "missing"
            raise ConversionError(f"attribute {name} of a {self.class_name} is {found}, expected another type")
        return value

    @property
    def children(self) -> dict[str, Module]:
        """The direct submodules by name; those that are None are left out."""
        found = self._table("_modules")
        if not all(isinstance(child, Module) for child in found.values()):
            raise ConversionError(f"a {self.class_name} has a submodule that is none")
        return found

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The module's own tensors by name: parameters and buffers alike, because frozen weights become buffers."""
        parameters, buffers = self._table("_parameters"), self._table("_buffers")
        found = parameters | buffers
        if len(found) < len(parameters) + len(buffers) or not all(isinstance(t, Tensor) for t in found.values()):
            raise ConversionError(f"a {self.class_name} has parameters that are twice there or are no tensors")
        return found

    def _table(self, name: str) -> dict:
        table = self.state.get(name)
        if not isinstance(table, dict):
            raise ConversionError(f"a {self.class_name} has no {name}: not a torch module")
        if not all(isinstance(key, str) and _NAME.fullmatch(key) for key in table):
            raise ConversionError(f"a {self.class_name} has a member with an impossible name")
        return {key: value for key, value in table.items() if value is not None}


def walk(root: Module) -> Iterator[tuple[str, Module]]:
    """Yields (dotted path, module) for `root` (path "") and everything below it."""
    pending, count = [("", root, 0)], 0
    while pending:
        path, module, depth = pending.pop()
        count += 1
        if count > MOST_MODULES or depth > DEEPEST_MODULE:
            raise ConversionError("a network nests or repeats modules without end; the file is damaged or hostile")
        yield path, module
        below = [(f"{path}.{name}".lstrip("."), child, depth + 1) for name, child in module.children.items()]
        pending.extend(reversed(below))


def network_tensors(root: Module) -> dict[str, Tensor]:
    """Returns every tensor of a network by its dotted name, such as `synthesis.b8.conv0.weight`."""
    return {f"{path}.{name}".lstrip("."): t for path, module in walk(root) for name, t in module.tensors.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class PickleFile:
    """A pickle of a known code base whose structure was read: `tree` is what it holds, as inert values."""

    path: str
    size: int
    sha256: str
    tree: object


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """A snapshot file whose structure was read; tensors still lie in the file.

    `networks` holds `G`, `D`, `G_ema` as far as present, None where the file says None.
    """

    path: str
    size: int
    sha256: str
    networks: dict[str, Module | None]
    training_set_kwargs: dict | None

    @property
    def present(self) -> list[str]:
        return [name for name, network in self.networks.items() if network is not None]


def _persistent_module(record: object) -> Module:
    match record:
        case {"type": "class", "class_name": str() as name, "state": dict() as state} if _NAME.fullmatch(name):
            return Module(name, state)
    raise ConversionError("a persistent object has an unknown form, expected a class with a name and a state")


def _snapshot_globals(work: Work) -> dict[str, object]:
    inert = {
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent_module,
        "collections.OrderedDict": lambda: {},
        "dnnlib.util.EasyDict": lambda: {},
        "builtins.set": lambda items: _as_names(items),
        "__builtin__.set": lambda items: _as_names(items),
    }
    calls = {name: Call(name, function) for name, function in inert.items()}
    return calls | torch_globals(work) | numpy_globals() | tensorflow_globals()


def _as_names(items: object) -> Names:
    if type(items) is not list:
        raise ConversionError("a set is made from something else than a list")
    return Names().add(items)


def read_pickle_file(path: str | os.PathLike[str]) -> PickleFile:
    """Reads the structure of a pickle file without running anything in it.

    Raises:
      ConversionError: no such file, damage, or content that is not allowed.
    """
    path = os.fspath(path)
    data = _open(path)
    work = Work()
    tree, end = read_pickle(data, _snapshot_globals(work), work=work)
    if end != len(data):
        raise ConversionError(f"{len(data) - end} bytes follow the end of the pickle; the file is damaged or hostile")
    return PickleFile(path, len(data), file_sha256(data.obj), tree)


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Reads the structure of an NVlabs torch snapshot without running anything in it.

    Raises:
      ConversionError: no such file, another format, damage, or content that is not allowed.
    """
    return as_snapshot(read_pickle_file(path))


def as_snapshot(file: PickleFile) -> Snapshot:
    """Returns the networks of an NVlabs torch snapshot; raises `ConversionError` if the file is none."""
    value = file.tree
    if not isinstance(value, dict) or not any(name in value for name in NETWORKS):
        raise ConversionError(
            f"holds {shown(value)} without networks; expected the dictionary of an NVlabs torch snapshot "
            "with the keys G, D and G_ema, or the networks of a TensorFlow pickle"
        )
    networks = {name: value[name] for name in NETWORKS if name in value}
    for name, network in networks.items():
        if network is not None and not isinstance(network, Module):
            raise ConversionError(f"{name} is {shown(network)}, expected a network")
    arguments = value.get("training_set_kwargs")
    if arguments is not None and not isinstance(arguments, dict):
        raise ConversionError(f"training_set_kwargs is {shown(arguments)}, expected a dictionary")
    return Snapshot(file.path, file.size, file.sha256, networks, arguments)


def _open(path: str) -> memoryview:
    data = map_file(path)
    head = bytes(data[:32])
    for start, kind in _TEXT_HEADS.items():
        if head.startswith(start):
            raise ConversionError(f"not a checkpoint: this is {kind}")
    return data
