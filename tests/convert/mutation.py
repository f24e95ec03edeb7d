# SPDX-License-Identifier: Apache-2.0
"""Feeds mutated checkpoint files to the reader, in this process and within bounds of its own:

  python tests/convert/mutation.py --rounds=5000 --seed=0

Every file must either be refused with `ConversionError`, or be read as what stands in it, by `reference_reader.py`:
within five seconds, 1.5 GiB of addresses and 600 MB of memory, without running, importing or opening anything. A
mutated file that is still accepted is fine: most bytes of a checkpoint are weights.
"""

from __future__ import annotations

import argparse
import collections
import math
import pathlib
import pickletools
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings

import numpy.random  # noqa: F401  numpy imports it at its first use, which would look like a file's doing

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import reference_reader

from convert import ConversionError, conversion
from convert.snapshot import Snapshot, read_snapshot, walk
from convert.source import from_file, from_snapshot, read_file
from convert.torchfile import LEGACY_HEAD

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SEEDS = (
    "bad/ok_tiny.pkl",
    "bad/half_weights.pkl",
    "bad/tf_version3.pkl",
    "bad/huge_storage_claim.pkl",
    "bad/numpy_huge_shape.pkl",
    "sg2_odd.pkl",
    "sg2_era_py37_torch17.pkl",
    "sg3_t.pkl",
    "tf_ada_cond.pkl",
    "ros1_train_step6.model",
    "ros2_train_zip.pt",
)
MOST_SECONDS, MOST_MEGABYTES, MOST_ADDRESSES = 5, 600, 3 << 29
FORBIDDEN = ("exec", "compile", "import", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pickle.")
VALUES: dict[bytes, list[slice]] = {}  # per file, where instructions that push one plain value stand
SOUND = (0, 1, 5)  # of these, the ones that convert
JUNK = [None, True, -1, 0, 1, 7, 2**100, 0.5, math.inf, math.nan, "relu", "\x1b[2J", [], {}, (), [[]], [1, 2, 1], ["a"]]
EXTREMES = [struct.pack("<q", n) for n in (-1, 0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, -(2**63))]


def structure(data: bytes) -> list[int]:
    """Returns the positions of the pickle's instructions: mutations there say more than those in weights."""
    positions, pushing, values = [], set(), VALUES.setdefault(data, [])
    # In files of torch.save, that of the object: it begins with a dictionary.
    start = max(data.find(b"\x80\x02}"), 0) if data.startswith((b"PK", LEGACY_HEAD)) else 0
    try:
        for opcode, _, offset in pickletools.genops(data[start:]):
            position = start + offset
            if positions and positions[-1] in pushing:
                values.append(slice(positions[-1], position))
            if not opcode.stack_before and len(opcode.stack_after) == 1 and opcode.name not in ("MARK", "FRAME"):
                pushing.add(position)
            positions.append(position)
    except ValueError:
        pass
    return positions or [0]


def mutate(rng: random.Random, data: bytes, positions: list[int]) -> bytes:
    """Returns `data` with one to four random changes."""
    if rng.random() < 0.5:  # one instruction that makes a value for another: the file stays a sound pickle
        first, second = (rng.choice(VALUES[data]) for _ in range(2))
        return data[: first.start] + data[second] + data[first.stop :]
    if rng.random() < 0.2:  # two values of the same length change places: storages above all
        first = rng.choice(VALUES[data])
        same = [other for other in VALUES[data] if other.stop - other.start == first.stop - first.start]
        first, second = sorted((first, rng.choice(same)), key=lambda place: place.start)
        if first.stop <= second.start:
            return (
                data[: first.start] + data[second] + data[first.stop : second.start] + data[first] + data[second.stop :]
            )
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice(positions) if rng.random() < 0.8 else rng.randrange(len(data))
        at = min(at + rng.choice((0, 0, 1, 2)), max(len(changed) - 1, 0))
        length = rng.choice((1, 1, 2, 4, 16, 256))
        match rng.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:  # another instruction of the same file
                changed[at : at + 1] = data[(other := rng.choice(positions)) : other + 1]
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * rng.choice((1, 1, 50))
            case 4:
                size = rng.choice((1, 2, 4, 8))
                changed[at + 1 : at + 1 + size] = rng.choice(EXTREMES)[:size]
            case 5:
                del changed[at:]
            case 6:  # a piece from elsewhere
                other = rng.choice(positions)
                changed[at : at + length] = data[other : other + length]
    return bytes(changed)


def corrupt(rng: random.Random, snapshot: Snapshot) -> None:
    """Changes one to three members of the module trees: sound pickles can say what makes no sense."""
    modules = [module for name in snapshot.present for _, module in walk(snapshot.networks[name])]
    tensors = [tensor for module in modules for tensor in module.tensors.values()]
    for _ in range(rng.choice((1, 1, 2, 3))):
        state = rng.choice(modules).state
        inner = [state, *(value for value in state.values() if isinstance(value, dict) and value)]
        target = rng.choice(inner)
        key = rng.choice([*target, rng.choice(["weight", "b16", "resample_filter", "\x1b[2J", 3])])
        if rng.random() < 0.3:
            target.pop(key, None)
        else:
            target[key] = rng.choice([*JUNK, rng.choice(tensors), rng.choice(modules)])


def read(path: str, rng: random.Random | None = None) -> object:
    """Does everything that a conversion does before JAX is imported and returns what the file holds.

    With `rng` it converts corrupted module trees, and returns nothing.
    """
    tree = None
    if rng is None:
        file = read_file(path)
        tree = file.tree
        try:
            found = from_file(file)
        except ConversionError as error:
            check(error)
            return tree
    else:
        snapshot = read_snapshot(path)
        corrupt(rng, snapshot)
        found = from_snapshot(snapshot)
    name = "G_ema" if "G_ema" in found.present else "G"
    try:
        chosen = conversion._choose(found, network=name, discriminator=True)
        conversion._validated(found, chosen, step=None, allow_nonfinite=False)
    except ConversionError as error:
        check(error)
    return tree


def check(error: ConversionError) -> None:
    """Raises where the message is not one clear line."""
    if not str(error) or "\n" in str(error) or not str(error).isprintable():
        raise AssertionError(f"bad message {error!s:.200}") from error


def peak_megabytes() -> int:
    """Returns the peak memory of this process; where there is no /proc, it counts that of the one that started it."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    rng = random.Random(options.seed)
    files = [(data, structure(data)) for data in ((GOLDEN / name).read_bytes() for name in SEEDS)]
    outcomes, slowest, seen, watching = collections.Counter(), 0.0, [], False

    def watch(event: str, arguments: tuple) -> None:
        if watching and (event.startswith(FORBIDDEN) or (event == "open" and arguments[0] != str(path))):
            seen.append((event, arguments))

    sys.addaudithook(watch)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "mutated.pkl")
        for number in range(options.rounds):
            data, positions = files[rng.randrange(len(files))]
            sound = files.index((data, positions)) in SOUND and rng.random() < 0.3
            path.write_bytes(data if sound else mutate(rng, data, positions))
            signal.alarm(4 * MOST_SECONDS)  # ends this process, should anything hang
            begin, watching, tree = time.perf_counter(), True, None
            try:
                tree = read(str(path), rng if sound else None)
                outcomes["corrupted" if sound else "read"] += 1
            except ConversionError as error:
                watching = False
                check(error)
                outcomes["refused"] += 1
            except BaseException as error:
                raise SystemExit(f"seed {options.seed}, round {number}: {error!r}") from error
            finally:
                watching = False
                slowest = max(slowest, time.perf_counter() - begin)
            found = [] if tree is None else list(reference_reader.differences(tree, reference_reader.read(path)))
            if seen or found or slowest > MOST_SECONDS:
                raise SystemExit(f"seed {options.seed}, round {number}: {seen[:3]} {found[:3]}, {slowest:.1f} s")
    peak = peak_megabytes()
    print(f"{options.rounds} rounds: {dict(outcomes)}, slowest {slowest:.2f} s, peak memory {peak} MB")
    if peak > MOST_MEGABYTES:
        raise SystemExit(f"more than {MOST_MEGABYTES} MB")


if __name__ == "__main__":
    main()
