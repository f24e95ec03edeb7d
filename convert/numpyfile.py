# SPDX-License-Identifier: Apache-2.0
"""Numpy scalars and arrays inside a pickle, as size-checked stand-ins that allocate nothing by themselves."""

from __future__ import annotations

import math

import numpy as np

from convert.errors import ConversionError, shown
from convert.unpickle import Call, Stateful

TYPE_CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class DType(Stateful):
    """The stand-in for a numpy dtype: a type code and, once its state is set, the byte order."""

    def __init__(self, code: object, *rest: object):
        # What follows the code, whether to align and to copy, is always the same.
        if code not in TYPE_CODES or rest != (False, True) or not all(isinstance(item, int) for item in rest):
            raise ConversionError(f"a numpy value has type {shown(code)}; plain numbers and booleans are read")
        self.numpy = np.dtype(code).newbyteorder("<")

    def set_state(self, state: object) -> None:
        match state:
            case (3, str() as order, None, None, None, -1, -1, 0):
                pass
            case _:
                raise ConversionError("a numpy type has a state of an unknown form; plain numbers are read")
        if order not in ("<", "|", "="):
            raise ConversionError(f"a numpy type has byte order {shown(order)}, expected little-endian")


class Array(Stateful):
    """The stand-in for a numpy array: shape and data agree, the data stay in the file."""

    def __init__(self):
        self.shape: tuple[int, ...] = (0,)
        self.dtype = np.dtype("<f4")
        self.data: memoryview | None = None
        self.fortran = False

    def set_state(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, DType() as dtype, bool() as fortran, memoryview() as data):
                pass
            case _:
                raise ConversionError("a numpy array has a state of an unknown form; plain numbers are read")
        if len(shape) > 8 or not all(type(size) is int and size >= 0 for size in shape):
            raise ConversionError(f"a numpy array has the impossible shape {shown(shape)}")
        if math.prod(shape) * dtype.numpy.itemsize != len(data):
            raise ConversionError(
                f"a numpy array claims shape {shown(shape)} of {dtype.numpy.itemsize}-byte elements, "
                f"but {len(data)} bytes are there; the file is damaged or hostile"
            )
        self.shape, self.dtype, self.data, self.fortran = shape, dtype.numpy, data, fortran

    def read(self) -> np.ndarray:
        """Returns a read-only view of the values in the file."""
        flat = np.frombuffer(self.data if self.data is not None else b"", self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


_NDARRAY = object()  # numpy.ndarray may be named, but only as an argument of _reconstruct


def _scalar(dtype: object, data: object) -> float | int | bool:
    if not isinstance(dtype, DType) or not isinstance(data, memoryview) or len(data) != dtype.numpy.itemsize:
        raise ConversionError("a numpy scalar is not one number")
    return np.frombuffer(data, dtype.numpy)[0].item()


def _reconstruct(kind: object, shape: object, code: object) -> Array:
    # numpy always writes an empty array here and gives the shape with the state: any other shape is an attack.
    empty = isinstance(shape, tuple) and shape == (0,) and type(shape[0]) is int
    if kind is not _NDARRAY or not empty or not isinstance(code, memoryview) or len(code) != 1:
        raise ConversionError(f"a numpy array is made with shape {shown(shape)}, numpy itself writes (0,)")
    return Array()


def numpy_globals() -> dict[str, object]:
    """Returns the names under which pickles refer to numpy values, old and new, for `read_pickle`."""
    encoded: dict[int, tuple[str, memoryview]] = {}  # by identity, so that a file cannot have one text encoded often

    def encode(text: object, coding: object) -> memoryview:
        # Protocol 2 has no byte strings: Python writes them as text of the same character codes.
        if type(text) is not str or coding != "latin1":
            raise ConversionError(f"a byte string is made of {shown(text)} in coding {shown(coding)}")
        if id(text) not in encoded:
            encoded[id(text)] = text, memoryview(text.encode("latin-1"))
        return encoded[id(text)][1]

    table: dict[str, object] = {"numpy.ndarray": _NDARRAY, "numpy.dtype": Call("numpy.dtype", DType)}
    table["_codecs.encode"] = Call("encode", encode)
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray.scalar"] = Call("scalar", _scalar)
        table[f"{core}.multiarray._reconstruct"] = Call("_reconstruct", _reconstruct)
    return table
