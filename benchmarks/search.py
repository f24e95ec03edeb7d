# SPDX-License-Identifier: Apache-2.0
"""Speed of whole searches: start-steps per second against starts, and what they cost beyond bare value and gradient.

    python benchmarks/search.py --starts 1,4,16,64 --output benchmarks/results/search.json

A search in W+ (masked L2, prior, Adam) from random latents is run twice, and the second run is timed: everything from
drawing latents to the final renders, compilation excepted. Beside it, as many calls of nothing but the value and
gradient of the masked L2 for equally many starts at once.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import measured
import numpy as np
from absl import app, flags, logging

import inpaint
import stylegan_jax as sg
from inpaint import losses, sample

_GENERATOR = flags.DEFINE_string("generator", None, "Checkpoint directory; by default the demo generator.")
_STARTS = flags.DEFINE_list("starts", ["1", "4", "16", "64"], "Numbers of starts, all at once.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of every start.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs; the fastest counts.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")


def fastest(function) -> float:
    """Returns the seconds of the fastest of some calls, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(_REPEATS.value):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def bare(model: sg.Model, image: np.ndarray, known: np.ndarray, starts: int) -> float:
    """Returns the seconds of `--steps` calls of value and gradient for `starts` starts at once."""
    generator = model.generator
    ws = generator.map(jax.random.normal(jax.random.key(0), (starts, generator.config.z_dim)))

    def loss(ws: jax.Array, generator: sg.Generator) -> jax.Array:
        renders = generator.synthesis(ws, noise="none")
        return jnp.sum(jax.vmap(lambda x: losses.l2(x, jnp.asarray(image), jnp.asarray(known)[..., None]))(renders))

    step = jax.jit(jax.value_and_grad(loss))
    return fastest(lambda: [step(ws, generator) for _ in range(_STEPS.value)])


def searched(model: sg.Model, image: np.ndarray, known: np.ndarray, starts: int) -> float:
    """Returns the seconds of a search of `--steps` steps with `starts` starts at once."""
    method = inpaint.methods.latent_search(
        steps=_STEPS.value, coarse_share=0, noise="none", initialisation=inpaint.RandomMapping()
    )
    problem = inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))
    options = dict(starts=starts, chunk=starts, key=jax.random.key(0))
    return fastest(lambda: inpaint.solve(model, problem, method, **options).scores)


def main(argv: list[str]) -> None:
    """Measures every number of starts and writes the results."""
    logging.set_verbosity(logging.WARNING)
    model = sg.load(_GENERATOR.value)
    image, known = sample.portrait(model.resolution), sample.centre_hole(model.resolution)
    rows: list[dict[str, Any]] = []
    for starts in map(int, _STARTS.value):
        whole, least = searched(model, image, known, starts), bare(model, image, known, starts)
        row = {
            "starts": starts,
            "start_steps_per_second": round(starts * _STEPS.value / whole, 1),
            "seconds": round(whole, 3),
            "bare_seconds": round(least, 3),
            "overhead": round(whole / least - 1, 3),
        }
        first = rows[0] if rows else row
        row["cost_of_a_start"] = round(whole / starts / (first["seconds"] / first["starts"]), 2)
        rows.append(row)
        print(row, flush=True)
    measured.write(_OUTPUT.value, {"generator": model.content_hash, "steps": _STEPS.value, "rows": rows})


if __name__ == "__main__":
    app.run(main)
