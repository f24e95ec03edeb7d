# SPDX-License-Identifier: Apache-2.0
"""A pickle reader that runs nothing: the opcodes of protocols 2 to 5, over plain values and inert stand-ins.

A pickle is a program for a small stack machine, and two of its instructions call what the program names. Here the names
a caller lists in `allowed` are all that exists, and what stands behind them are functions of this package.

Bounds, whatever the bytes say:
- a length is compared with the bytes that are there before anything is made; byte strings are views, never copies;
- the memo is a dictionary, so a large index costs nothing (and is refused: writers number from zero);
- dictionary keys are strings or small integers: nested tuples as keys would be hashed without end;
- every instruction and every decoded character is paid for out of one allowance, shared with pickles inside the pickle.
"""

from __future__ import annotations

import abc
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from convert.errors import ConversionError, shown

WORK_LIMIT = 500_000  # a full-size snapshot takes about 80 000, the pickles inside it included
LONGEST_INTEGER = 16  # bytes; the longest one in a checkpoint is torch's magic number with 10


class Work:
    """The allowance of one file: instructions, and 1024 decoded characters count as one."""

    def __init__(self, limit: int = WORK_LIMIT):
        self.left = limit

    def spend(self, amount: int) -> None:
        """Takes `amount` from the allowance and raises `ConversionError` when it is used up."""
        self.left -= amount
        if self.left < 0:
            raise ConversionError(
                f"reading takes more than {WORK_LIMIT} steps, far more than any known checkpoint needs; "
                "the file is damaged or hostile"
            )


class Call(NamedTuple):
    """What an allowed global stands for: `function` receives the arguments found in the file and must check them."""

    name: str
    function: Callable[..., object]


class Names(list):
    """The stand-in for a set, which checkpoints only have of names; it keeps their order."""

    def add(self, items: list[object]) -> Names:
        """Appends `items` and returns itself; raises `ConversionError` where one is no text."""
        if not all(type(item) is str for item in items):
            raise ConversionError("a set holds something else than names")
        self.extend(items)
        return self


class Stateful(abc.ABC):
    """A stand-in that may be given a state by the file after its making."""

    @abc.abstractmethod
    def set_state(self, state: object) -> None:
        """Checks and takes over `state`."""


def read_pickle(
    data: memoryview,
    allowed: Mapping[str, object],
    *,
    work: Work,
    start: int = 0,
    persistent: Callable[[object], object] | None = None,
) -> tuple[object, int]:
    """Reads one pickle out of `data` and runs nothing that it names.

    Args:
      data: the bytes, one-dimensional and unsigned.
      allowed: full global names (`module.name`) to `Call`s or to inert values; every other name is refused.
      work: the allowance to pay from.
      start: where the pickle begins.
      persistent: resolves persistent ids; without it they are refused.

    Returns:
      (value, position after the pickle). Byte strings are `memoryview`s of `data`, sets are `Names`.

    Raises:
      ConversionError: damaged, hostile or unknown content, with the position.
    """
    machine = _Machine(data, allowed, work, start, persistent)
    try:
        return machine.run(), machine.position
    except ConversionError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        # Only the bytes can cause these: an empty stack, an unknown memo entry, a value of the wrong kind.
        raise ConversionError(f"damaged pickle: instruction at byte {machine.opcode_at} makes no sense") from error


class _Stop(Exception):
    pass


class _Machine:
    def __init__(self, data, allowed, work, start, persistent):
        self.data, self.allowed, self.work, self.persistent = data, allowed, work, persistent
        self.position = self.opcode_at = start
        self.frame_end = 0
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # the stacks that MARK has put aside
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        if bytes(self.data[self.position : self.position + 1]) != pickle.PROTO:
            raise ConversionError(
                f"not a pickle of protocol 2 or newer: expected the byte 80 (hexadecimal) at byte {self.position}, "
                f"found {bytes(self.data[self.position : self.position + 4]).hex(' ') or 'the end of the data'}"
            )
        try:
            while True:
                self.opcode_at = self.position
                opcode = self.integer(1)
                self.work.spend(1)
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise ConversionError(
                        f"pickle instruction {opcode:#04x} at byte {self.opcode_at} is not one that checkpoints hold; "
                        "the file is damaged or of another kind"
                    )
                action(self)
                if self.opcode_at < self.frame_end < self.position:
                    raise ConversionError(f"damaged pickle: the frame around byte {self.opcode_at} ends inside a value")
        except _Stop:
            if len(self.stack) != 1 or self.below:
                raise ConversionError("damaged pickle: it ends with unfinished values") from None
            return self.stack[0]

    # Reading the bytes.

    def take(self, length: int) -> memoryview:
        end = self.position + length
        if end > len(self.data):
            raise ConversionError(
                f"ends too early: {length} bytes expected at byte {self.position}, only "
                f"{len(self.data) - self.position} are there; the file is cut short or damaged"
            )
        view = self.data[self.position : end]
        self.position = end
        return view

    def integer(self, length: int) -> int:
        if length == 1 and self.position < len(self.data):  # by far the most frequent: no view of one byte
            self.position += 1
            return self.data[self.position - 1]
        return int.from_bytes(self.take(length), "little")

    def line(self) -> str:
        # Lines only name globals here, so a short window is enough.
        window = bytes(self.data[self.position : self.position + 256])
        text, end, _ = window.partition(b"\n")
        if not end:
            raise ConversionError(f"damaged pickle: no end of line near byte {self.position}")
        self.position += len(text) + 1
        return text.decode("ascii")

    def text(self, length: int) -> str:
        view = self.take(length)
        self.work.spend(length // 1024)
        return str(view, "utf-8", "surrogatepass")

    def long_integer(self, length: int) -> int:
        if length > LONGEST_INTEGER:
            raise ConversionError(f"an integer of {length} bytes at byte {self.opcode_at}; none is longer than 16")
        return int.from_bytes(self.take(length), "little", signed=True)

    # Moving values.

    def pop(self) -> object:
        return self.stack.pop()

    def items_since_mark(self) -> list[object]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def replace(self, count: int, value: object) -> None:
        if len(self.stack) < count:
            raise IndexError
        if count:
            del self.stack[-count:]
        self.stack.append(value)

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:  # a mark with nothing above it
            self.stack = self.below.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def stop(self) -> None:
        raise _Stop

    # The memo.

    def put(self, index: int) -> None:
        if index > len(self.data):
            raise ConversionError(f"memo index {index} in {len(self.data)} bytes of pickle; the file is hostile")
        self.memo[index] = self.stack[-1]

    def frame(self) -> None:
        length = self.integer(8)
        if length > len(self.data) - self.position:
            raise ConversionError(
                f"ends too early: a frame of {length} bytes begins at byte {self.position}, only "
                f"{len(self.data) - self.position} are there; the file is cut short or damaged"
            )
        if self.opcode_at < self.frame_end:
            raise ConversionError(f"damaged pickle: a frame begins inside another at byte {self.opcode_at}")
        self.frame_end = self.position + length

    def protocol(self) -> None:
        version = self.integer(1)
        if not 2 <= version <= 5:
            raise ConversionError(f"pickle protocol {version}; 2 to 5 are known")

    # Containers.

    def extend(self, target: object, items: list[object]) -> None:
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def set_items(self, target: object, items: list[object]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Old optimisers name their tensors by addresses in memory, hence 64 bits.
            if type(key) is not str and not (type(key) in (int, bool) and abs(key) < 2**63):
                raise ConversionError(f"a dictionary key is {shown(key)}; strings and integers of 64 bits are read")
            target[key] = value

    def append_many(self) -> None:
        items = self.items_since_mark()
        self.extend(self.stack[-1], items)

    def set_many(self) -> None:
        items = self.items_since_mark()
        self.set_items(self.stack[-1], items)

    def add_many(self) -> None:
        items = self.items_since_mark()
        if type(self.stack[-1]) is not Names:
            raise TypeError
        self.stack[-1].add(items)

    def append_one(self) -> None:
        item = self.pop()
        self.extend(self.stack[-1], [item])

    def set_one(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items(self.stack[-1], [key, value])

    # Names and what they stand for.

    def find(self, module: object, name: object) -> object:
        if type(module) is not str or type(name) is not str:
            raise TypeError
        if f"{module}.{name}" not in self.allowed:
            raise ConversionError(
                f"asks for {shown(f'{module}.{name}')}, which no known checkpoint needs; refused, nothing was run"
            )
        return self.allowed[f"{module}.{name}"]

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.find(module, name))

    def call(self) -> None:
        arguments, called = self.pop(), self.pop()
        if type(called) is not Call or type(arguments) is not tuple:
            raise TypeError
        self.stack.append(called.function(*arguments))

    def build(self) -> None:
        state = self.pop()
        if type(self.stack[-1]) is dict:
            return  # torch gives a dictionary of tensors the version numbers of its modules
        if not isinstance(self.stack[-1], Stateful):
            raise ConversionError(f"gives a state to {shown(self.stack[-1])}, which takes none")
        self.stack[-1].set_state(state)

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise ConversionError("holds a persistent id where none belongs")
        self.stack.append(self.persistent(self.pop()))


def _push(make: Callable[[_Machine], object]) -> Callable[[_Machine], None]:
    def action(machine: _Machine) -> None:
        value = make(machine)  # first, because it may replace machine.stack
        machine.stack.append(value)

    return action


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.replace(count, tuple(machine.stack[-count:]))


_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    opcode[0]: action
    for opcode, action in {
        pickle.PROTO: _Machine.protocol,
        pickle.FRAME: _Machine.frame,
        pickle.STOP: _Machine.stop,
        pickle.MARK: _Machine.mark,
        pickle.POP: _Machine.drop,
        pickle.POP_MARK: _Machine.items_since_mark,
        pickle.DUP: _push(lambda m: m.stack[-1]),
        pickle.NONE: _push(lambda m: None),
        pickle.NEWTRUE: _push(lambda m: True),
        pickle.NEWFALSE: _push(lambda m: False),
        pickle.BININT: _push(lambda m: int.from_bytes(m.take(4), "little", signed=True)),
        pickle.BININT1: _push(lambda m: m.integer(1)),
        pickle.BININT2: _push(lambda m: m.integer(2)),
        pickle.LONG1: _push(lambda m: m.long_integer(m.integer(1))),
        pickle.LONG4: _push(lambda m: m.long_integer(m.integer(4))),
        pickle.BINFLOAT: _push(lambda m: struct.unpack(">d", m.take(8))[0]),
        pickle.SHORT_BINUNICODE: _push(lambda m: m.text(m.integer(1))),
        pickle.BINUNICODE: _push(lambda m: m.text(m.integer(4))),
        pickle.BINUNICODE8: _push(lambda m: m.text(m.integer(8))),
        pickle.SHORT_BINBYTES: _push(lambda m: m.take(m.integer(1))),
        pickle.BINBYTES: _push(lambda m: m.take(m.integer(4))),
        pickle.BINBYTES8: _push(lambda m: m.take(m.integer(8))),
        pickle.EMPTY_TUPLE: _push(lambda m: ()),
        pickle.EMPTY_LIST: _push(lambda m: []),
        pickle.EMPTY_SET: _push(lambda m: Names()),
        pickle.EMPTY_DICT: _push(lambda m: {}),
        pickle.TUPLE: _push(lambda m: tuple(m.items_since_mark())),
        pickle.TUPLE1: _tuple_of(1),
        pickle.TUPLE2: _tuple_of(2),
        pickle.TUPLE3: _tuple_of(3),
        pickle.FROZENSET: _push(lambda m: Names().add(m.items_since_mark())),
        pickle.APPEND: _Machine.append_one,
        pickle.APPENDS: _Machine.append_many,
        pickle.ADDITEMS: _Machine.add_many,
        pickle.SETITEM: _Machine.set_one,
        pickle.SETITEMS: _Machine.set_many,
        pickle.MEMOIZE: lambda m: m.put(len(m.memo)),
        pickle.BINPUT: lambda m: m.put(m.integer(1)),
        pickle.LONG_BINPUT: lambda m: m.put(m.integer(4)),
        pickle.BINGET: _push(lambda m: m.memo[m.integer(1)]),
        pickle.LONG_BINGET: _push(lambda m: m.memo[m.integer(4)]),
        pickle.GLOBAL: _push(lambda m: m.find(m.line(), m.line())),
        pickle.STACK_GLOBAL: _Machine.stack_global,
        pickle.REDUCE: _Machine.call,
        pickle.NEWOBJ: _Machine.call,
        pickle.BUILD: _Machine.build,
        pickle.BINPERSID: _Machine.persistent_id,
    }.items()
}
