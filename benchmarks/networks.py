# SPDX-License-Identifier: Apache-2.0
"""Throughput and peak memory of StyleGAN3, StyleGAN2 and the encoders, on random weights of the published widths.

    python benchmarks/networks.py --output benchmarks/results/networks.json

Every case runs in a process of its own, so that its largest resident set is its own. Generators: value and gradient
with respect to ws; encoders: latents of images. "Program" is what the compiled step says that it takes beside its
arguments.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import measured
from absl import app, flags, logging
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import encoders, stylegan3

_CASES = flags.DEFINE_multi_string("case", None, "A case, NAME:BATCH (repeatable); by default all with 1 and 4.")
_ONE = flags.DEFINE_string("one", None, "Run this case in this process, and print its row as JSON.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs after one that compiles; the fastest counts.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")

Built = tuple[Callable[[Any, jax.Array], Any], Any, jax.Array]  # function, its network's state, its other argument


def _gradient(generator: nnx.Module, batch: int) -> Built:
    graph, state = nnx.split(generator.synthesis)
    config = generator.config

    def run(state: Any, ws: jax.Array) -> Any:
        return jax.value_and_grad(lambda ws: jnp.mean(jnp.square(nnx.merge(graph, state)(ws, noise="none"))))(ws)

    return run, state, jax.random.normal(jax.random.key(1), (batch, config.num_ws, config.w_dim))


def _latents(encoder: nnx.Module, batch: int) -> Built:
    graph, state = nnx.split(encoder)
    size, channels = encoder.config.size, encoder.config.image_channels
    return (lambda s, x: nnx.merge(graph, s)(x)), state, jnp.zeros((batch, *size, channels))


def _stylegan2(batch: int) -> Built:
    config = sg.GeneratorConfig(widths=sg.channel_widths(256, channel_base=16384))
    return _gradient(sg.Generator(config, rngs=nnx.Rngs(0)), batch)


def _stylegan3(batch: int, *, rotation: bool) -> Built:
    scale = 2 if rotation else 1
    widths = stylegan3.channel_widths(256, channel_base=16384 * scale, channel_max=512 * scale)
    options = dict(kernel=1, radial_filters=True) if rotation else {}
    config = stylegan3.GeneratorConfig(widths=widths, resolution=256, **options)
    return _gradient(stylegan3.Generator(config, rngs=nnx.Rngs(0)), batch)


def _style_encoder(batch: int) -> Built:
    return _latents(encoders.StyleEncoder(encoders.StyleEncoderConfig(num_ws=14), rngs=nnx.Rngs(0)), batch)


def _demo_encoder(batch: int) -> Built:
    graph, state = nnx.split(sg.load().encoder)
    size = sg.load().resolution
    known = jnp.ones((batch, size, size)).at[:, size // 4 : -size // 4, size // 4 : -size // 4].set(0)
    return (lambda s, x: nnx.merge(graph, s)(x, known)), state, jnp.zeros((batch, size, size, 3))


CASES = {
    "StyleGAN2, 256 px, value and gradient": _stylegan2,
    "StyleGAN3-T, 256 px, value and gradient": lambda batch: _stylegan3(batch, rotation=False),
    "StyleGAN3-R, 256 px, value and gradient": lambda batch: _stylegan3(batch, rotation=True),
    "pSp's and e4e's encoder (IR-SE50), 256 px": _style_encoder,
    "the demo model's linear encoder, 64 px": _demo_encoder,
}


def measure(name: str, batch: int) -> dict[str, Any]:
    """Returns the row of one case."""
    function, state, x = CASES[name](batch)
    began = time.perf_counter()
    program = jax.jit(function).lower(state, x).compile()
    compiled, times = time.perf_counter() - began, []
    for _ in range(_REPEATS.value + 1):
        began = time.perf_counter()
        jax.block_until_ready(program(state, x))
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "case": name,
        "batch": batch,
        "seconds": round(min(times[1:]), 3),
        "images_per_second": round(batch / min(times[1:]), 2),
        "compile_seconds": round(compiled, 1),
        "program_mib": round(program.memory_analysis().temp_size_in_bytes / 2**20),
        "peak_mib": round(peak / 2**20),
    }


def main(argv: list[str]) -> None:
    """Measures all cases and writes the results."""
    logging.set_verbosity(logging.WARNING)
    if _ONE.value:
        name, _, batch = _ONE.value.rpartition(":")
        print(json.dumps(measure(name, int(batch))))
        return
    rows = []
    for case in _CASES.value or [f"{name}:{batch}" for name in CASES for batch in (1, 4)]:
        command = [sys.executable, __file__, f"--one={case}", f"--repeats={_REPEATS.value}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    measured.write(_OUTPUT.value, {"rows": rows})


if __name__ == "__main__":
    app.run(main)
