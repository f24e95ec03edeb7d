# SPDX-License-Identifier: Apache-2.0
"""Time and memory of training steps of the hierarchical inpainter at full width, on random weights and images.

python benchmarks/hierarchical_step.py --resolution 256 --batch 1 --steps 2 --output runs/hierarchical_step.json
"""

import dataclasses
import importlib.util
import json
import pathlib
import resource
import tempfile
import time

import jax
import measured
from absl import app, flags
from flax import nnx

import stylegan_jax as sg
from inpaint.learned.hierarchical.trainer import HierarchicalTrainer
from stylegan_jax import stylegan2

_RESOLUTION = flags.DEFINE_integer("resolution", 256, "Of the generator.")
_BATCH = flags.DEFINE_integer("batch", 1, "Images of a step, all of them generated.")
_STEPS = flags.DEFINE_integer("steps", 2, "Timed, after one that compiles.")
_VARIANT = flags.DEFINE_string("variant", "", "Of the config file, such as divinversion.")
_GAME = flags.DEFINE_bool("game", True, "Play the game in every step, as published.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "learned" / "hierarchical256.py"


def _model(resolution: int) -> sg.Model:
    widths = stylegan2.channel_widths(resolution, channel_base=16384 if resolution <= 256 else 32768)
    generator = sg.Generator(sg.GeneratorConfig(widths=widths, conv_clamp=256.0), rngs=nnx.Rngs(0))
    judge = stylegan2.Discriminator(stylegan2.DiscriminatorConfig(widths=widths, conv_clamp=256.0), rngs=nnx.Rngs(1))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=1000)
    return sg.Model(generator, discriminator=judge, w_statistics=statistics, content_hash="random")


def main(_: list[str]) -> None:
    """Runs the steps and prints what they took."""
    specification = importlib.util.spec_from_file_location("config", CONFIG)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    config = dataclasses.replace(
        module.get_config(_VARIANT.value),
        batch=_BATCH.value,
        generated=_BATCH.value,
        adversarial=0.08 if _GAME.value else 0.0,
        r1_gamma=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = HierarchicalTrainer(config, _model(_RESOLUTION.value), None, folder)
        count = sum(x.size for x in jax.tree.leaves(run.state.parameters))
        print(f"{count / 1e6:.1f} million weights are trained", flush=True)
        seconds, statistics = [], {}
        for number in range(_STEPS.value + 1):
            began = time.perf_counter()
            statistics = {name: float(x) for name, x in run.advance(number).items()}
            seconds.append(round(time.perf_counter() - began, 2))
            print(f"step {number}: {seconds[-1]} s {statistics}", flush=True)
    device = jax.devices()[0]
    found = {
        "resolution": _RESOLUTION.value,
        "batch": _BATCH.value,
        "variant": _VARIANT.value,
        "game": _GAME.value,
        "weights": count,
        "first_step_seconds": seconds[0],
        "step_seconds": seconds[1:],
        "peak_host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_device_gib": round((device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30, 2),
        "statistics": statistics,
    }
    print(json.dumps(found, indent=1))
    measured.write(_OUTPUT.value, found)


if __name__ == "__main__":
    app.run(main)
