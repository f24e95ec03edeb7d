# SPDX-License-Identifier: Apache-2.0
"""Speed of StyleGAN2 synthesis: value and gradient with respect to ws.

    python benchmarks/synthesis.py --output benchmarks/results/synthesis.json

Measures the library's form (one shared kernel, modulated activations), the same network with one kernel per sample
(modulated weights), and, where torch is installed, both forms in eager PyTorch, beside the machine's own matrix
multiplication and memory bandwidth in the same run, and the roofline made of both (`roofline.py`). "Useful" operations
are those of the transposed-convolution form: 2 * 9 * in * out per input pixel of an up-convolution and per pixel of a
plain one, once forward and once for the gradient of the input. On a GPU:

    python benchmarks/synthesis.py --sizes 256,1024 --batches 1,16,64 --bfloat16 --output benchmarks/results/gpu.json
"""

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
import measured
import numpy as np
import roofline
from absl import app, flags, logging
from flax import nnx
from jax import Array

import stylegan_jax as sg
from stylegan_jax.ops import modulated_conv

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")
_SIZES = flags.DEFINE_list("sizes", ["64", "256", "1024"], "Resolutions.")
_BATCHES = flags.DEFINE_list("batches", ["1", "4", "16"], "Batch sizes.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs after one that compiles; the fastest counts.")
_LIMIT = flags.DEFINE_float(
    "limit", 60.0, "Leave out forms whose call takes, or is foreseen to take, longer (seconds)."
)
_BFLOAT16 = flags.DEFINE_bool("bfloat16", False, "Compute every block, and the measured rates, in bfloat16.")

CHANNEL_BASE = {64: 4096, 256: 16384, 1024: 32768}


@dataclasses.dataclass
class Case:
    """One measured form at one size."""

    resolution: int
    channel_base: int
    batch: int
    form: str
    seconds: float
    useful_gflops_per_second: float
    share_of_matmul: float
    share_of_roofline: float
    compile_seconds: float | None = None


def useful_operations(config: sg.GeneratorConfig) -> float:
    """Returns the floating-point operations of one image's forward and input-gradient convolutions."""
    total = 0
    for i, width in enumerate(config.widths):
        pixels = (4 << i) ** 2
        total += 9 * width * width * pixels + width * config.image_channels * pixels
        if i:
            total += 9 * config.widths[i - 1] * width * pixels // 4
    return 2.0 * 2.0 * total


def fastest(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Returns the seconds of the fastest of `repeats` runs, and of the first one before them."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times[1:]), times[0]


def per_sample_modulated_conv2d(
    x: Array, weight: Array, styles: Array, *, demodulate: bool = True, up_taps: Array | None = None
) -> Array:
    """Returns what `modulated_conv2d` does, with the modulation on the weights: one kernel per sample."""

    def one(x: Array, style: Array) -> Array:
        kernel = weight * style[None, None, :, None]
        if demodulate:
            kernel = kernel * jax.lax.rsqrt(jnp.sum(jnp.square(kernel), (0, 1, 2)) + modulated_conv.EPSILON)
        if up_taps is not None:
            y = jax.lax.conv_general_dilated(
                x[None],
                jnp.flip(kernel, (0, 1)),
                (1, 1),
                ((2, 2), (2, 2)),
                lhs_dilation=(2, 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            return modulated_conv.resample.upfirdn2d(y, up_taps, padding=(1, 1, 1, 1), gain=4.0)[0]
        pad = weight.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x[None], kernel, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]

    return jax.vmap(one)(x, styles)


def time_jax(config: sg.GeneratorConfig, batch: int, *, per_sample: bool) -> tuple[float, float]:
    """Returns seconds per call and of compilation for value and gradient on random weights."""
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    graph, state = nnx.split(generator)
    ws = jax.random.normal(jax.random.key(1), (batch, config.num_ws, config.w_dim))

    @jax.jit
    def value_and_gradient(state, ws):
        synthesis = nnx.merge(graph, state).synthesis
        return jax.value_and_grad(lambda ws: jnp.mean(jnp.square(synthesis(ws))))(ws)

    form = per_sample_modulated_conv2d if per_sample else modulated_conv.modulated_conv2d
    with mock.patch.object(modulated_conv, "modulated_conv2d", form):
        return fastest(lambda: jax.block_until_ready(value_and_gradient(state, ws)), _REPEATS.value)


def fits(config: sg.GeneratorConfig, batch: int) -> bool:
    """Returns whether the activations fit this machine; on a CPU alone, where nothing else says so in time."""
    memory = batch * sum((4 << i) ** 2 * width for i, width in enumerate(config.widths)) * 4 * 14
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if jax.default_backend() != "cpu" or memory <= 0.8 * available:
        return True
    print(f"batch {batch}: about {memory / 2**30:.0f} GiB needed, left out", flush=True)
    return False


def measure(resolution: int, batch: int, rate: float, bandwidth: float) -> list[Case]:
    """Returns the cases of one size; forms that would take too long or too much memory are left out."""
    base = CHANNEL_BASE.get(resolution, 16384)
    low = 4 if _BFLOAT16.value else None
    config = sg.GeneratorConfig(widths=sg.channel_widths(resolution, channel_base=base), bfloat16_from=low)
    operations, size = batch * useful_operations(config), 2 if low else 4
    least = roofline.least_seconds(config, batch, rate=1e9 * rate, bandwidth=1e9 * bandwidth, item_size=size)
    cases: list[Case] = []

    def add(form: str, run: Callable[[], tuple[float, float | None]]) -> None:
        seconds, first = run()
        speed = operations / seconds / 1e9
        case = Case(resolution, base, batch, form, seconds, speed, speed / rate, least / seconds, first)
        cases.append(case)
        print(f"{resolution:5d} px  batch {batch:2d}  {form:24s} {seconds:8.3f} s  {speed:7.1f} GFLOP/s", flush=True)

    if not fits(config, batch):
        return cases
    add("jax shared kernel", lambda: time_jax(config, batch, per_sample=False))
    if cases[0].seconds > _LIMIT.value:
        return cases
    if importlib.util.find_spec("torch") and jax.default_backend() == "cpu" and not low:
        import torch_synthesis

        for per_sample in (False, True):
            name = f"torch {'per-sample' if per_sample else 'shared'} kernel"
            add(
                name,
                lambda p=per_sample: torch_synthesis.time_torch(config, batch, per_sample=p, repeats=_REPEATS.value),
            )
    # Last, and only where it is foreseen to end: it was found to take some 8 times the batch as long.
    if cases[0].seconds * 8 * batch < _LIMIT.value:
        add("jax per-sample kernel", lambda: time_jax(config, batch, per_sample=True))
    return cases


def main(argv: list[str]) -> None:
    """Measures all sizes and writes the results."""
    logging.set_verbosity(logging.WARNING)
    dtype = jnp.bfloat16 if _BFLOAT16.value else jnp.float32
    rate, bandwidth = measured.matmul_rate(dtype), measured.memory_bandwidth(dtype)
    print(f"{measured.device()}, {os.cpu_count()} cores, {dtype.__name__}: ", end="")
    print(f"matmul {rate:.0f} GFLOP/s, memory {bandwidth:.0f} GB/s", flush=True)
    sizes = [(int(size), int(batch)) for size in _SIZES.value for batch in _BATCHES.value]
    cases = [case for size, batch in sizes for case in measure(size, batch, rate, bandwidth)]
    found = {"dtype": dtype.__name__, "matmul_gflops_per_second": rate, "memory_gigabytes_per_second": bandwidth}
    found["cases"] = [dataclasses.asdict(case) for case in cases]
    if importlib.util.find_spec("torch"):
        found["torch"] = __import__("torch").__version__
    measured.write(_OUTPUT.value, found)
    ours = {(c.resolution, c.batch): c.seconds for c in cases if c.form == "jax shared kernel"}
    for case in cases:
        ratio = case.seconds / ours[case.resolution, case.batch]
        print(
            f"| {case.resolution} | {case.batch} | {case.form} | {case.seconds:.3f} | "
            f"{case.useful_gflops_per_second:.0f} | {100 * case.share_of_matmul:.0f} % | "
            f"{100 * case.share_of_roofline:.0f} % | {np.round(ratio, 2)} |"
        )


if __name__ == "__main__":
    app.run(main)
