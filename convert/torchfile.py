# SPDX-License-Identifier: Apache-2.0
"""Tensors as torch writes them, without torch: storages are views of the file, checked when met, read when asked for.

An NVlabs snapshot holds every storage as the bytes of a small file of its own, in the layout torch used before 1.6
(five pickles in a row, then the raw elements); those bytes are the argument of `torch.storage._load_from_bytes`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

from convert.errors import ConversionError, shown
from convert.unpickle import Call, Work, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_HEAD = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."
LEGACY_VERSION = 1001
MOST_DIMENSIONS = 8
_MEMBER = re.compile(r"[A-Za-z0-9_.]{1,200}")


@dataclasses.dataclass(frozen=True)
class StorageType:
    """An element type: its name in torch, bytes per element, and the numpy type (None: not floating point)."""

    name: str
    itemsize: int
    dtype: str | None = None


STORAGE_TYPES = {
    f"torch.{kind.name}": kind
    for kind in (
        StorageType("FloatStorage", 4, "<f4"),
        StorageType("HalfStorage", 2, "<f2"),
        StorageType("DoubleStorage", 8, "<f8"),
        StorageType("BFloat16Storage", 2, "bfloat16"),
        StorageType("LongStorage", 8),
        StorageType("IntStorage", 4),
        StorageType("ShortStorage", 2),
        StorageType("CharStorage", 1),
        StorageType("ByteStorage", 1),
        StorageType("BoolStorage", 1),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of elements in the file; `data` holds exactly `numel` of them."""

    kind: StorageType
    numel: int
    data: memoryview


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A checked view of a storage: every index lies inside it and no element is reached twice."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        return self.storage.kind.name

    def read(self) -> np.ndarray:
        """Returns the values as a new C-contiguous float32 array (half, bfloat16 and double are converted).

        Raises:
          ConversionError: the elements are integers or booleans, which no network weight here is.
        """
        kind = self.storage.kind
        if kind.dtype is None:
            raise ConversionError(f"holds {kind.name} elements, expected floating point")
        if self.size == 0:
            return np.zeros(self.shape, np.float32)
        stored = np.frombuffer(self.storage.data, "<u2" if kind.dtype == "bfloat16" else kind.dtype)[self.offset :]
        steps = tuple(step * kind.itemsize for step in self.stride)
        view = np.lib.stride_tricks.as_strided(stored, self.shape, steps, writeable=False)
        if kind.dtype == "bfloat16":  # the upper half of a float32
            return (np.array(view, dtype=np.uint32, order="C") << 16).view(np.float32)
        with np.errstate(over="ignore"):  # a double that does not fit becomes inf, which the caller reports
            return np.array(view, dtype=np.float32, order="C")


def is_state_dict(value: object) -> bool:
    """Returns whether `value` is a dictionary of tensors under names that a module's members can have."""
    return isinstance(value, dict) and all(
        isinstance(tensor, Tensor) and isinstance(name, str) and _MEMBER.fullmatch(name)
        for name, tensor in value.items()
    )


def parse_storage(stream: memoryview, *, work: Work) -> Storage:
    """Returns the storage in the legacy torch stream `stream`; its elements stay where they are.

    Raises:
      ConversionError: not such a stream, big-endian, or not exactly as long as it says.
    """

    def read(start: int, **options) -> tuple[object, int]:
        return read_pickle(stream, options.pop("allowed", {}), work=work, start=start, **options)

    def claim(identity: object) -> tuple:
        match identity:
            case ("storage", StorageType() as kind, str() as key, str(), int() as numel, None) if numel >= 0:
                return kind, key, numel
        raise ConversionError("a torch storage has a persistent id of an unknown form")

    magic, position = read(0)
    if magic != MAGIC:
        raise ConversionError(f"a torch stream begins with {shown(magic)}, expected torch's magic number")
    version, position = read(position)
    if version != LEGACY_VERSION:
        raise ConversionError(f"a torch stream has version {shown(version)}, expected {LEGACY_VERSION}")
    system, position = read(position)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ConversionError("a torch stream does not say that it is little-endian")
    found, position = read(position, allowed=STORAGE_TYPES, persistent=claim)
    keys, position = read(position)
    if not isinstance(found, tuple) or len(found) != 3 or keys != [found[1]]:
        raise ConversionError("a torch stream holds something else than one storage")
    kind, _, numel = found
    stored, data = int.from_bytes(stream[position : position + 8], "little"), stream[position + 8 :]
    if stored != numel or len(data) != numel * kind.itemsize:
        raise ConversionError(
            f"a {kind.name} claims {shown(numel)} elements of {kind.itemsize} bytes, but {len(data)} bytes are there; "
            "the file is damaged or cut short"
        )
    return Storage(kind, numel, data)


def rebuild_tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> Tensor:
    """Returns the checked view of `storage` that a `_rebuild_tensor_v2` record describes.

    Raises:
      ConversionError: negative or impossible sizes, an index outside the storage, or elements that overlap.
    """
    integers = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride)
    integers = integers and all(type(number) is int for number in (offset, *shape, *stride))
    if not isinstance(storage, Storage) or not integers or len(rest) not in (2, 3):
        raise ConversionError("a tensor record has an unknown form")
    if len(shape) > MOST_DIMENSIONS or min((offset, *shape, *stride)) < 0:
        raise ConversionError(
            f"a tensor has size {shown(shape)}, strides {shown(stride)}, offset {shown(offset)}; "
            f"none may be negative, and at most {MOST_DIMENSIONS} dimensions are read"
        )
    # Sorted by step, every axis must step over all that the finer axes reach: this also keeps a stride of zero from
    # blowing a few bytes up into gigabytes.
    reach = 0
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
        if step <= reach and 0 not in shape:
            raise ConversionError(f"a tensor of size {shown(shape)} with strides {shown(stride)} overlaps itself")
        reach += step * (size - 1)
    if offset + (reach + 1 if 0 not in shape else 0) > storage.numel:
        raise ConversionError(
            f"a tensor of size {shown(shape)} with strides {shown(stride)} at offset {shown(offset)} "
            f"leaves its storage of {storage.numel} elements"
        )
    if 0 in shape and math.prod(size for size in shape if size) > 2**31:
        raise ConversionError(f"a tensor has the impossible size {shown(shape)}")
    return Tensor(storage, offset, shape, stride)


def rebuild_parameter(tensor: object, *rest: object) -> Tensor:
    """Returns the tensor inside a `_rebuild_parameter` record."""
    if not isinstance(tensor, Tensor) or len(rest) != 2:
        raise ConversionError("a parameter record has an unknown form")
    return tensor


def torch_globals(work: Work) -> dict[str, Call]:
    """Returns the names under which a snapshot refers to tensors, for `read_pickle`."""

    def load_from_bytes(stream: object) -> Storage:
        if not isinstance(stream, memoryview):
            raise ConversionError("a torch storage is not made of bytes")
        return parse_storage(stream, work=work)

    table: dict[str, Callable[..., object]] = {
        "torch.storage._load_from_bytes": load_from_bytes,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": rebuild_parameter,
    }
    return {name: Call(name, function) for name, function in table.items()}
