# SPDX-License-Identifier: Apache-2.0
"""Time and memory of training steps of DiFaI at full width, on random weights and images.

python benchmarks/difai_step.py --batch 1 --steps 2 --output runs/difai_step.json
python benchmarks/difai_step.py --batch 8 --steps 0

With --steps 0 the step is only compiled, which tells what memory it asks for.
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
import numpy as np
from absl import app, flags
from flax import nnx

import stylegan_jax as sg
from inpaint.learned.difai.train import DifaiTrainer
from stylegan_jax import checkpoint, stylegan2
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig
from stylegan_jax.features import Vgg
from stylegan_jax.features.vgg import VGG19

_BATCH = flags.DEFINE_integer("batch", 1, "Images of a step.")
_STEPS = flags.DEFINE_integer("steps", 2, "Timed, after one that compiles; 0: compile only.")
_VARIANT = flags.DEFINE_string("variant", "", "Of the config file, such as spade.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "learned" / "difai256.py"
SIZE = 256


def _model() -> sg.Model:
    widths = stylegan2.channel_widths(SIZE, channel_base=16384)
    generator = sg.Generator(sg.GeneratorConfig(widths=widths, conv_clamp=256.0), rngs=nnx.Rngs(0))
    encoder = LinearEncoder(
        LinearEncoderConfig(resolution=SIZE, seen=32, num_ws=generator.config.num_ws, w_dim=512, components=256),
        rngs=nnx.Rngs(1),
    )
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=1000)
    return sg.Model(generator, w_statistics=statistics, encoder=encoder, encoder_hash="random", content_hash="random")


def _config(folder: str):
    specification = importlib.util.spec_from_file_location("config", CONFIG)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    checkpoint.save_network(f"{folder}/vgg19", Vgg(VGG19, rngs=nnx.Rngs(2)), provenance={"source": "random"})
    return dataclasses.replace(module.get_config(_VARIANT.value), batch=_BATCH.value, features=f"{folder}/vgg19")


def main(_: list[str]) -> None:
    """Runs the steps and prints what they took."""
    with tempfile.TemporaryDirectory() as folder:
        images = np.random.default_rng(0).integers(0, 256, (max(_BATCH.value, 2), SIZE, SIZE, 3), np.uint8)
        run = DifaiTrainer(_config(folder), _model(), images, f"{folder}/run")
        count = sum(x.size for x in jax.tree.leaves(run.state.parameters))
        print(f"{count / 1e6:.1f} million weights are trained", flush=True)
        began = time.perf_counter()
        memory = run.compiled_memory()
        found = {"compile_seconds": round(time.perf_counter() - began, 1), "asked_gib": round(memory / 2**30, 2)}
        print(found, flush=True)
        seconds = []
        for number in range(_STEPS.value):
            began = time.perf_counter()
            statistics = {name: float(x) for name, x in run.advance(number).items()}
            seconds.append(round(time.perf_counter() - began, 2))
            print(f"step {number}: {seconds[-1]} s {statistics}", flush=True)
    device = jax.devices()[0]
    found |= {
        "batch": _BATCH.value,
        "variant": _VARIANT.value,
        "weights": count,
        "step_seconds": seconds,
        "peak_host_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_device_gib": round((device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30, 2),
    }
    print(json.dumps(found, indent=1))
    measured.write(_OUTPUT.value, found)


if __name__ == "__main__":
    app.run(main)
