# SPDX-License-Identifier: Apache-2.0
"""Writes safetensors files: named float32 tensors behind a JSON header, which torch and others read without pickle.

Layout: the length of the header (8 bytes, little-endian), the header padded with spaces to a multiple of 8, then the
data of all tensors without gaps, in C order. The header names dtype, shape and the span of bytes of every tensor, and
under `__metadata__` a dictionary of text.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping

import numpy as np

from convert.errors import ConversionError

HEADER_ALIGNMENT = 8
LARGEST_HEADER = 100_000_000  # readers refuse longer ones


def make_header(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> bytes:
    """Returns the head of a file, its length included, for float32 tensors of these shapes in this order."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, shape in shapes.items():
        end = start + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    if len(text) > LARGEST_HEADER:
        raise ConversionError(f"the header would have {len(text)} bytes; readers take {LARGEST_HEADER}")
    return len(text).to_bytes(8, "little") + text


def check_destination(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuses a destination that exists, unless it is a safetensors file and may be overwritten.

    Raises:
      ConversionError: something is in the way.
    """
    path = os.fspath(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ConversionError("exists already; name another place, or pass --overwrite", source=path)
    if not _is_safetensors(path):
        raise ConversionError("is no safetensors file; --overwrite replaces only such files", source=path)


def _is_safetensors(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError:  # a folder, or nothing that can be read
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path) - 8


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Writes a file, whole or not at all; holds one tensor at a time.

    Args:
      path: the file; folders on the way are made.
      tensors: (name, float32 array [...]) of exactly the names and shapes of `shapes`, in that order.
      shapes: {name: shape}.
      metadata: text to store beside the tensors.
      overwrite: replace a safetensors file that is there.

    Raises:
      ConversionError: the destination is in the way or cannot be written.
    """
    path = os.path.abspath(path)
    partial = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.partial-{secrets.token_hex(4)}")
    try:
        check_destination(path, overwrite=overwrite)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(partial, "xb") as file:
            file.write(make_header(shapes, metadata))
            for (name, array), (expected, shape) in zip(tensors, shapes.items(), strict=True):
                if name != expected or array.shape != shape:
                    raise ConversionError(f"{name} {array.shape} came where {expected} {shape} was announced")
                file.write(np.ascontiguousarray(array, "<f4").data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise ConversionError(f"cannot be written: {error.strerror or error}", source=path) from error
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)
