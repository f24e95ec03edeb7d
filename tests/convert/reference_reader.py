# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint file says, by Python's own pickle and zip readers and numpy: an oracle for sound files.

It bounds nothing and is only given files that this package has accepted. Names are resolved from the list below.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile

import numpy as np

from convert.errors import ConversionError
from convert.numpyfile import Array, DType
from convert.snapshot import Module
from convert.tensorflow_files import TensorflowNetwork, Variable
from convert.torch_legacy import Namespace
from convert.torchfile import StorageType, Tensor
from convert.unpickle import Call, Names

DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
RAW_NUMPY = {"numpy.ndarray", "numpy.dtype"} | {
    f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")
}


class Table(dict):
    """A dictionary that may be given a state, as OrderedDict may."""

    def __setstate__(self, state):
        pass


class Object:
    """Anything else: what it is, what it was made of, and the state it was given."""

    def __init__(self, kind, *arguments):
        self.kind, self.arguments, self.state = kind, arguments, None

    def __setstate__(self, state):
        self.state = state


class Reader(pickle.Unpickler):
    """Resolves names to the stand-ins of this file; `measuring` leaves tensors unmade."""

    def __init__(self, stream, persistent=None, *, measuring=False):
        super().__init__(stream)
        self.persistent, self.measuring = persistent, measuring

    def persistent_load(self, identity):
        return self.persistent(identity)

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if self.measuring and "_rebuild_" in name:
            return lambda *arguments: None
        if full in RAW_NUMPY:
            return np.dtype if name == "dtype" else getattr(np, name, None) or getattr(np._core.multiarray, name)
        if module == "torch" and name in DTYPES:
            return name
        return {
            "torch_utils.persistence._reconstruct_persistent_obj": lambda record: Object("module", record),
            "collections.OrderedDict": Table,
            "dnnlib.util.EasyDict": Table,
            "builtins.set": set,
            "__builtin__.set": set,
            "torch.storage._load_from_bytes": lambda stream: read_legacy(io.BytesIO(stream), whole=True),
            "torch._utils._rebuild_tensor_v2": tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
            "dnnlib.tflib.network.Network": TensorflowObject,
            "argparse.Namespace": NamespaceObject,
            "_codecs.encode": lambda text, coding: text.encode(coding),
        }[full]


class TensorflowObject(Object):
    def __init__(self):
        super().__init__("tensorflow")


class NamespaceObject(Object):
    def __init__(self):
        super().__init__("namespace")


def tensor(storage, offset, shape, stride, *rest):
    """Returns the float32 values of a view of `storage` (dtype name, array), by explicit indices."""
    name, values = storage
    index = np.full(shape, offset, np.int64)
    for axis, (size, step) in enumerate(zip(shape, stride, strict=True)):
        index += (np.arange(size) * step).reshape([size if a == axis else 1 for a in range(len(shape))])
    chosen = np.asarray(values[index]) if index.size else np.zeros(shape, values.dtype)
    if name == "BFloat16Storage":
        return (chosen.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return chosen.astype(np.float32) if values.dtype.kind == "f" else chosen


def read(path):
    """Returns what the checkpoint file at `path` holds."""
    data = path.read_bytes()
    if data.startswith(b"PK"):
        return read_zip(data)
    if data.startswith(b"\x80\x02\x8a\x0a"):
        return read_legacy(io.BytesIO(data), whole=False)
    return Reader(io.BytesIO(data)).load()


def read_zip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (root,) = {n.split("/")[0] for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1}

        def record(name):
            with archive.open(f"{root}/{name}") as opened:
                opened._expected_crc = None  # neither torch nor this package looks at checksums
                return opened.read()

        def persistent(identity):
            _, name, key, _, numel = identity
            values = np.frombuffer(record(f"data/{key}"), DTYPES[name])
            assert len(values) == numel
            return name, values

        return Reader(io.BytesIO(record("data.pkl")), persistent).load()


def read_legacy(stream, *, whole):
    """Returns the object of a stream from before torch 1.6; `whole`: it is one storage."""
    pickles = [Reader(stream).load() for _ in range(3)]
    assert pickles[:2] == [0x1950A86A20F9469CFC6C, 1001] and pickles[2]["little_endian"] is True
    where, sizes = stream.tell(), {}

    def measure(identity):
        _, name, key, _, numel, view = identity
        assert view is None
        sizes[key] = name, numel
        return name, np.zeros(0, DTYPES[name])

    Reader(stream, measure, measuring=True).load()  # storages lie behind the object that is made of them
    storages = {}
    for key in Reader(stream).load():
        name, numel = sizes[key]
        assert int.from_bytes(stream.read(8), "little") == numel
        storages[key] = name, np.frombuffer(stream.read(numel * np.dtype(DTYPES[name]).itemsize), DTYPES[name])
    assert not stream.read(1)
    stream.seek(where)
    return Reader(stream, lambda identity: storages[identity[2]]).load()


def differences(ours, theirs, path="", seen=None):
    """Yields, as text, every place where what this package read differs from what the oracle read."""
    seen = set() if seen is None else seen
    if (id(ours), id(theirs)) in seen:
        return
    seen.add((id(ours), id(theirs)))
    pair = f"{path}: {type(ours).__name__} instead of {type(theirs).__name__}"
    match ours:
        case Tensor():
            yield from _values(ours, theirs, path)
        case Variable():
            yield from differences(ours.value, theirs, path, seen)
        case Array():
            if not isinstance(theirs, np.ndarray) or not _equal(ours.read(), theirs):
                yield pair
        case DType():
            if ours.numpy != theirs:
                yield pair
        case Module():
            record = getattr(theirs, "arguments", [{}])[0]
            yield from differences(
                {"class_name": ours.class_name, "state": ours.state},
                {name: record.get(name) for name in ("class_name", "state")},
                path,
                seen,
            )
        case TensorflowNetwork():
            yield from _tensorflow(ours, theirs, path, seen)
        case Namespace():
            yield from differences(ours.attributes, theirs.state or {}, path, seen)
        case dict():
            theirs = theirs.state if isinstance(theirs, NamespaceObject) else theirs
            if not isinstance(theirs, dict) or ours.keys() != theirs.keys():
                yield pair
            else:
                for key, value in ours.items():
                    yield from differences(value, theirs[key], f"{path}/{key}", seen)
        case Names():
            if not isinstance(theirs, set | frozenset) or set(ours) != theirs:
                yield pair
        case Call():  # a tuple itself
            if not callable(theirs):
                yield pair
        case list() | tuple():
            if type(ours) is not type(theirs) or len(ours) != len(theirs):
                yield pair
            else:
                for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                    yield from differences(mine, other, f"{path}/{number}", seen)
        case memoryview():
            if not isinstance(theirs, bytes) or bytes(ours) != theirs:
                yield pair
        case StorageType():
            if ours.name != theirs:
                yield pair
        case float():
            theirs = theirs.item() if isinstance(theirs, np.generic) else theirs
            if type(theirs) is not float or not (ours == theirs or math.isnan(ours) and math.isnan(theirs)):
                yield pair
        case None | bool() | int() | str():
            theirs = theirs.item() if isinstance(theirs, np.generic) else theirs
            if type(ours) is not type(theirs) or ours != theirs:
                yield pair
        case _:
            if not isinstance(theirs, type):  # numpy.ndarray, named and not called
                yield pair


def _tensorflow(ours, theirs, path, seen):
    state = getattr(theirs, "state", None)
    if not isinstance(state, dict):
        if ours.complete:
            yield f"{path}: a network with a state instead of none"
        return
    facts = {"version": ours.version, "name": ours.name, "static_kwargs": ours.arguments}
    facts |= {"build_func_name": ours.function, "components": ours.components}
    yield from differences(
        facts, {"components": {}} | {key: state.get(key) for key in facts if key in state}, path, seen
    )
    variables = {name: variable for name, variable in ours.variables().items() if name in dict(state["variables"])}
    yield from differences(variables, dict(state["variables"]), f"{path}/variables", seen)


def _values(ours, theirs, path):
    if not isinstance(theirs, np.ndarray) or ours.shape != theirs.shape:
        yield f"{path}: a tensor instead of {type(theirs).__name__}"
        return
    try:
        values = ours.read()
    except ConversionError:  # integers, which no weight is
        if theirs.dtype.kind == "f":
            yield f"{path}: refused although floating point"
        return
    if not _equal(values, theirs):
        yield f"{path}: other values"


def _equal(first, second):
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
