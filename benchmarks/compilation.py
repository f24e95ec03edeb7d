# SPDX-License-Identifier: Apache-2.0
"""What a search costs before its first step, and its memory: compilation cold and with the persistent cache.

    python benchmarks/compilation.py --output benchmarks/results/compilation.json

For every size a StyleGAN2 of random weights (widths by CHANNEL_BASE) is searched in W+ for one step, in a process
of its own that begins with an empty cache, and again in another that finds it filled. Measured are the seconds that
the first search takes longer than an equal second one, and the largest resident set of the process that found its
programs compiled.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import measured
import numpy as np
from absl import app, flags, logging
from flax import nnx

import inpaint
import stylegan_jax as sg
from stylegan_jax import stylegan2

_SIZES = flags.DEFINE_list("sizes", ["64", "256", "1024"], "Resolutions.")
_STARTS = flags.DEFINE_integer("starts", 4, "Starts, all at once.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")
_CHILD = flags.DEFINE_integer("child", None, "Measure this size in this process (used by the benchmark itself).")
_CACHE = flags.DEFINE_string("cache", None, "Folder of the persistent cache (used by the benchmark itself).")

CHANNEL_BASE = {64: 4096, 256: 16384, 1024: 32768}


def measure(resolution: int, starts: int) -> dict[str, Any]:
    """Returns the seconds of the first and of a second equal search, and the largest resident set in bytes."""
    config = sg.GeneratorConfig(widths=stylegan2.channel_widths(resolution, channel_base=CHANNEL_BASE[resolution]))
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=512)
    model = sg.Model(generator, w_statistics=statistics)
    known = np.ones((resolution, resolution), np.float32)
    known[resolution // 4 : resolution // 2, resolution // 4 : resolution // 2] = 0
    image = np.zeros((resolution, resolution, config.image_channels), np.float32)
    problem = inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))
    method = inpaint.methods.latent_search(steps=1, coarse_share=0, initialisation=inpaint.RandomMapping())
    seconds = []
    for seed in range(2):
        began = time.perf_counter()
        inpaint.solve(model, problem, method, starts=starts, chunk=starts, key=jax.random.key(seed))
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"first": seconds[0], "second": seconds[1], "peak": peak}


def child(resolution: int, cache: str) -> dict[str, Any]:
    """Returns what `measure` finds in a process of its own."""
    command = [sys.executable, __file__, f"--child={resolution}", f"--cache={cache}", f"--starts={_STARTS.value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> None:
    """Measures every size and writes the results."""
    logging.set_verbosity(logging.WARNING)
    if _CHILD.value is not None:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
        print(json.dumps(measure(_CHILD.value, _STARTS.value)))
        return
    rows = []
    for resolution in map(int, _SIZES.value):
        with tempfile.TemporaryDirectory() as cache:
            cold, cached = child(resolution, cache), child(resolution, cache)
        row = {
            "resolution": resolution,
            "starts": _STARTS.value,
            "cold_seconds": round(cold["first"] - cold["second"], 2),
            "cached_seconds": round(cached["first"] - cached["second"], 2),
            "search_seconds": round(cold["second"], 2),
            "peak_mebibytes": round(cached["peak"] / 2**20),
        }
        rows.append(row)
        print(row, flush=True)
    measured.write(_OUTPUT.value, {"rows": rows})


if __name__ == "__main__":
    app.run(main)
