# SPDX-License-Identifier: Apache-2.0
"""Whole files of `torch.save`, without torch: a zip archive (since torch 1.6), or five pickles and the raw elements.

Nothing in them is executed, and elements stay in the file until a tensor is read. What comes out is a tree of plain
values with `Tensor`s in it; `argparse.Namespace` and `OrderedDict` become dictionaries, paths of
`pathlib` text.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import zipfile
from collections.abc import Callable

from convert.errors import ConversionError, shown
from convert.mapped_file import file_sha256, map_file
from convert.torchfile import (
    LEGACY_HEAD,
    LEGACY_VERSION,
    STORAGE_TYPES,
    Storage,
    StorageType,
    torch_globals,
)
from convert.unpickle import Call, Stateful, Work, read_pickle

ZIP_HEAD = b"PK\x03\x04"
LOCAL_HEADER = 30  # bytes in front of a zip record, without its name and extra field
MOST_RECORDS = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class TorchFile:
    """A file of `torch.save` whose structure was read; tensors still lie in the file.

    `tree` is what was saved, nearly always a dictionary.
    """

    path: str
    size: int
    sha256: str
    tree: object


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether the first bytes of `path` are those of a file of `torch.save`."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            head = file.read(len(LEGACY_HEAD)) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return False
    return head.startswith((ZIP_HEAD, LEGACY_HEAD))


def read_torch_file(path: str | os.PathLike[str]) -> TorchFile:
    """Reads the structure of a file of `torch.save` without running anything in it.

    Args:
      path: the file, `.pt`, `.pth` or `.model`.

    Returns:
      The file; tensors are views of it, read when asked for.

    Raises:
      ConversionError: no such file, another format, damage, or content that is not allowed.
    """
    path = os.fspath(path)
    data = map_file(path)
    head = bytes(data[: len(LEGACY_HEAD)])
    if head.startswith(ZIP_HEAD):
        tree = _read_zip(path, data)
    elif head == LEGACY_HEAD:
        tree = _read_legacy(data)
    else:
        raise ConversionError(
            f"begins with the bytes {head[:8].hex(' ')}; expected a file of torch.save, zip or from before torch 1.6"
        )
    return TorchFile(path, len(data), file_sha256(data.obj), tree)


class Namespace(Stateful):
    """The stand-in for an `argparse.Namespace`: its attributes."""

    def __init__(self):
        self.attributes: dict = {}

    def set_state(self, state: object) -> None:
        if not isinstance(state, dict):
            raise ConversionError("an argparse.Namespace has a state of an unknown form")
        self.attributes = state


def _path(*parts: object) -> str:
    # Training scripts store where their data lay; here it is text and leads nowhere.
    if len(parts) > 1000 or not all(type(part) is str and len(part) <= 1000 for part in parts):
        raise ConversionError("a path is made of something else than names")
    return "/".join(parts)


def _read_object(
    data: memoryview, *, work: Work, storage: Callable[[object], Storage]
) -> tuple[object, int]:  # (tree, length of the pickle)
    allowed: dict[str, object] = dict(STORAGE_TYPES)
    allowed |= {name: call for name, call in torch_globals(work).items() if not name.endswith("_load_from_bytes")}
    allowed["collections.OrderedDict"] = Call("OrderedDict", lambda: {})
    for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"):
        # Python 3.13 says where it keeps them.
        allowed[f"pathlib.{kind}"] = allowed[f"pathlib._local.{kind}"] = Call(kind, _path)
    allowed["argparse.Namespace"] = Call("Namespace", lambda: Namespace())
    value, end = read_pickle(data, allowed, work=work, persistent=storage)
    if isinstance(value, dict):
        value = {k: item.attributes if isinstance(item, Namespace) else item for k, item in value.items()}
    return value, end


def _claimed(identity: object, *rest: object) -> tuple[StorageType, str, int]:
    """Returns (type, key, elements) of a persistent id; `rest` are the further items that it must have."""
    match identity:
        case ("storage", StorageType() as kind, str() as key, str(), int() as numel, *more):
            if numel >= 0 and tuple(more) == rest:
                return kind, key, numel
    raise ConversionError("a torch storage has a persistent id of an unknown form")


def _checked(kind: StorageType, key: str, numel: int, data: memoryview) -> Storage:
    if len(data) != numel * kind.itemsize:
        raise ConversionError(
            f"storage {shown(key)} claims {shown(numel)} elements of {kind.itemsize} bytes, but {len(data)} bytes are "
            "there; the file is damaged or hostile"
        )
    return Storage(kind, numel, data)


# Since torch 1.6: a zip archive with the records NAME/data.pkl, NAME/data/KEY and, later, NAME/byteorder.


def _read_zip(path: str, data: memoryview) -> object:
    records = _records(path, data)
    roots = [name.removesuffix("data.pkl") for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ConversionError(f"a zip archive with {len(roots) or 'no'} data.pkl; expected a file of torch.save")
    (root,) = roots
    order = bytes(records.get(f"{root}byteorder", memoryview(b"little"))[:16])
    if order != b"little":
        raise ConversionError(f"its byte order is {shown(order.decode('latin-1'))}, expected 'little'")

    def storage(identity: object) -> Storage:
        kind, key, numel = _claimed(identity)
        if f"{root}data/{key}" not in records:
            raise ConversionError(f"storage {shown(key)} has no record in the archive; the file is damaged")
        return _checked(kind, key, numel, records[f"{root}data/{key}"])

    pickled = records[f"{root}data.pkl"]
    tree, end = _read_object(pickled, work=Work(), storage=storage)
    if end != len(pickled):
        raise ConversionError(
            f"{len(pickled) - end} bytes follow the end of the pickle; the file is damaged or hostile"
        )
    return tree


def _records(path: str, data: memoryview) -> dict[str, memoryview]:
    """Returns every record of a zip archive as a view of the file: torch never compresses them.

    Checksums are not looked at: torch can be told not to compute them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ConversionError(
            "a zip archive without its table of contents; the file is cut short or damaged"
        ) from error
    if len(entries) > MOST_RECORDS:
        raise ConversionError(f"a zip archive of {len(entries)} records; the file is hostile")
    records: dict[str, memoryview] = {}
    for entry in entries:
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ConversionError(f"record {shown(name)} is compressed or encrypted, which torch.save never does")
        header = bytes(data[entry.header_offset : entry.header_offset + LOCAL_HEADER])
        begin = entry.header_offset + LOCAL_HEADER
        end = begin + int.from_bytes(header[26:28], "little")
        if not header.startswith(ZIP_HEAD) or _name(entry, data[begin:end]) != entry.orig_filename or name in records:
            raise ConversionError(f"record {shown(name)} is not where the archive says, or twice there; damaged file")
        begin = end + int.from_bytes(header[28:30], "little")
        view = data[begin : begin + entry.file_size]
        if len(view) != entry.file_size:
            raise ConversionError(f"record {shown(name)} claims {entry.file_size} bytes, {len(view)} are there")
        records[name] = view
    return records


def _name(entry: zipfile.ZipInfo, name: memoryview) -> str:
    return str(name, "utf-8" if entry.flag_bits & 0x800 else "cp437", "replace")


# Before torch 1.6: magic number, version, system, the object, the keys of its storages; then for every key the number
# of elements (int64) and the elements.


def _read_legacy(data: memoryview) -> object:
    work = Work()
    position = len(LEGACY_HEAD)
    version, position = read_pickle(data, {}, work=work, start=position)
    if version != LEGACY_VERSION:
        raise ConversionError(f"a torch file has version {shown(version)}, expected {LEGACY_VERSION}")
    system, position = read_pickle(data, {}, work=work, start=position)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ConversionError("a torch file does not say that it is little-endian")
    # The sizes of the storages are in the object, their places come after it: the object is read twice.
    claims: dict[str, StorageType] = {}
    numbers: dict[str, int] = {}

    def claim(identity: object) -> Storage:
        kind, key, numel = _claimed(identity, None)
        if (claims.setdefault(key, kind), numbers.setdefault(key, numel)) != (kind, numel):
            raise ConversionError(f"storage {shown(key)} is claimed with two types or sizes")
        return Storage(kind, numel, data[:0])

    _, length = _read_object(data[position:], work=work, storage=claim)
    keys, tail = read_pickle(data, {}, work=work, start=position + length)
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or set(keys) != set(claims) or len(keys) != len(claims):
        raise ConversionError("the list of storages is not that of the object; the file is damaged")
    storages = {}
    for key in keys:
        kind, stored = claims[key], int.from_bytes(data[tail : tail + 8], "little")
        if stored != numbers[key]:
            raise ConversionError(
                f"storage {shown(key)} holds {shown(stored)} elements, the object claims {shown(numbers[key])}; "
                "the file is cut short or damaged"
            )
        begin, tail = tail + 8, tail + 8 + stored * kind.itemsize
        storages[key] = _checked(kind, key, stored, data[begin:tail])
    if tail != len(data):
        raise ConversionError(f"{len(data) - tail} bytes follow the last storage; the file is damaged or hostile")
    return _read_object(data[position:], work=work, storage=lambda identity: storages[_claimed(identity, None)[1]])[0]
