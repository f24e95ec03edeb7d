# SPDX-License-Identifier: Apache-2.0
"""How many starts a device can hold at once."""

import jax
import numpy as np

import stylegan_jax as sg

SHARE = 0.8  # of what there is; the rest is for renders, copies and other programs


def capacity_bytes(device: jax.Device) -> int | None:
    """Returns the bytes that programs can have on `device`, or None where nobody knows.

    Of an accelerator they are its allocator's limit, which does not change with what else was done before; of a CPU
    what the system calls available, shared by all its devices.
    """
    statistics = device.memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    if device.platform != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return available * 1024 // jax.local_device_count("cpu")


def estimated_bytes(generator: sg.Generator) -> int:
    """Returns about how much memory a step takes for one start, beside the weights."""
    # A guess on the safe side: value and gradient hold 14 times the block outputs in float32.
    return generator.config.activations * 4 * 14


def default_chunk(generator: sg.Generator, *, devices: int | None = None) -> int:
    """Returns how many starts to run at once: as many as fit an estimate of their activations, 64 at most on each
    device. The search asks the compiled step, too, before it trusts it.

    Args:
        generator: that is searched.
        devices: that share the starts; by default all of this process.
    """
    per_start, devices = estimated_bytes(generator), devices or jax.local_device_count()
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    budget = 4 * 2**30 if limit is None else SHARE * limit
    return int(np.clip(budget // per_start, 1, 64)) * devices


def dealt(chunk: int, *, devices: int) -> int:
    """Returns `chunk` rounded up to a multiple of the devices."""
    return -(-chunk // devices) * devices


def fitting_chunk(size: int, *, needed: int, capacity: int | None, devices: int) -> int:
    """Returns `size` if its memory fits, or the largest power of two for each device that does.

    Args:
        size: starts at once, on all devices together, a multiple of `devices`.
        needed: bytes of a device that a step of `size` starts takes.
        capacity: bytes that a device has, or None where nobody knows.
        devices: that share the starts.
    """
    if capacity is None or needed <= SHARE * capacity:
        return size
    per_device = int(size // devices * SHARE * capacity // needed)
    # Powers of two, so that a little more or less memory seldom changes the chunk, and with it the rounding.
    return 2 ** max(per_device.bit_length() - 1, 0) * devices


def is_exhausted(error: Exception) -> bool:
    """Returns whether an error of a program says that memory did not suffice."""
    return any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory"))
