# SPDX-License-Identifier: Apache-2.0
"""How long an evaluation may take, before it is run."""

import functools
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from inpaint.experiments.grid import NamedConfig
from inpaint.experiments.records import Row
from inpaint.experiments.run import Runner

# A guess: synthesis with its gradient reached 0.2 (64 px) to 0.5 (256 px) of a matrix product's speed on CPU
# (benchmarks/README.md), and a gradient costs about two renders more than a render.
EFFICIENCY = 0.25
RENDERS_PER_GRADIENT = 3


@functools.cache
def _operations_per_second() -> float:
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    began = time.perf_counter()
    for _ in range(5):
        product(x).block_until_ready()
    return 5 * 2 * 2048**3 / (time.perf_counter() - began)


@functools.cache
def _operations_per_render(runner: Runner) -> float:
    generator = runner.model.generator
    ws = jax.ShapeDtypeStruct((1, generator.config.num_ws, generator.config.w_dim), jnp.float32)
    lowered = jax.jit(lambda ws: generator.synthesis(ws, noise="const")).lower(ws)
    return float(lowered.cost_analysis()["flops"])


def seconds_per_image(runner: Runner, method: NamedConfig, rows: Iterable[Row]) -> float | None:
    """Returns what one restoration takes: the median of this method's rows, or else, roughly, from its operations.

    None for a method without a generator that no row tells about.
    """
    seen = [row["seconds"] for row in rows if row["method"] == method.label]
    if seen:
        return float(np.median(seen))
    forwards, gradients = runner.evaluations(method)
    if not forwards + gradients:
        return None
    operations = (forwards + RENDERS_PER_GRADIENT * gradients) * _operations_per_render(runner)
    return operations / (EFFICIENCY * _operations_per_second())
