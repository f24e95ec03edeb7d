# SPDX-License-Identifier: Apache-2.0
"""A file as a read-only view of its bytes: what is not looked at is not loaded, and nothing can be changed."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat

from convert.errors import ConversionError

HASHED_AT_ONCE = 1 << 24  # bytes, a multiple of every page size


def map_file(path: str) -> memoryview:
    """Returns the bytes of the file at `path`, one-dimensional and unsigned; its `obj` is the `mmap.mmap`.

    Raises:
      ConversionError: no such file, something else than a file (which is not waited for), or an empty one.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConversionError("not a file; the source is one checkpoint file")
            if status.st_size == 0:
                raise ConversionError("the file is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ConversionError(f"cannot be read: {error.strerror or error}") from error


def file_sha256(mapped: mmap.mmap) -> str:
    """Returns the sha256 of a mapped file, hexadecimal; what was read for it does not stay in memory."""
    digest = hashlib.sha256()
    with memoryview(mapped) as data:
        for begin in range(0, len(data), HASHED_AT_ONCE):
            part = data[begin : begin + HASHED_AT_ONCE]
            digest.update(part)
            if hasattr(mmap, "MADV_DONTNEED"):  # not on every system
                mapped.madvise(mmap.MADV_DONTNEED, begin, len(part))
            part.release()
    return digest.hexdigest()
