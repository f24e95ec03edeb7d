# SPDX-License-Identifier: Apache-2.0
"""What benchmarks share: times of calls taken in turn, and the file that results are written to."""

import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stylegan_jax import checkpoint


def fastest(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Returns the seconds of the fastest of `repeats` calls of each, taken in turn after one that compiles.

    In turn, so that a busy machine slows all of them.
    """
    seconds = dict.fromkeys(runs, float("inf"))
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            if repeat:
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds


def matmul_rate(dtype: jnp.dtype = jnp.float32) -> float:
    """Returns the machine's matrix multiplication in GFLOP/s, by default in float32."""
    size = 8192 if jax.default_backend() != "cpu" else 2048
    a, product = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype), jax.jit(lambda a: a @ a)
    return 2 * size**3 / fastest({"": lambda: product(a)}, 5)[""] / 1e9


def memory_bandwidth(dtype: jnp.dtype = jnp.float32) -> float:
    """Returns the GB/s at which 512 MiB are read and written, in place: pages new to the process would cost more."""
    values, passes = jnp.zeros(2**29 // jnp.dtype(dtype).itemsize, dtype), 8

    @jax.jit
    def turned(values: jax.Array, step: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, passes, lambda _, x: x + step, values)

    step = jnp.ones((), dtype)
    return 2 * passes * values.nbytes / fastest({"": lambda: turned(values, step)}, 3)[""] / 1e9


def device() -> str:
    """Returns platform and kind of the first device."""
    first = jax.devices()[0]
    return f"{first.platform} {first.device_kind}"


def conditions() -> dict[str, Any]:
    """Returns date, device, cores and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": device(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": checkpoint.library_versions(),
    }


def write(path: str | os.PathLike | None, found: dict[str, Any]) -> None:
    """Writes `found` beside the conditions of the run as JSON; without a path nothing."""
    if not path:
        return
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(conditions() | found, indent=1) + "\n", encoding="utf-8")
