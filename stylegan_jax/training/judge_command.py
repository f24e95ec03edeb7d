# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax train_judge`: trains the network that judges restorations (docs/judge.md).

python -m stylegan_jax train_judge --data faces64.npz --split train --check tune --output runs/judge
"""

import jax
from absl import flags

from stylegan_jax.training import data, judge

_DATA = flags.DEFINE_string("data", None, "Training images: a folder, or an npz with uint8 images [n, h, w, 3].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. train.")
_CHECK = flags.DEFINE_string("check", None, "Measure both tasks at the end on the images of this split.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run: state, model, log.")
_IMAGES = flags.DEFINE_integer("images", judge.JudgeTrainConfig.images, "Length of the run.")
_BATCH = flags.DEFINE_integer("batch", judge.JudgeTrainConfig.batch, "Images per step.")
_SEED = flags.DEFINE_integer("seed", judge.JudgeTrainConfig.seed, "Of everything random.")
_LICENCE = flags.DEFINE_string("licence", "", "Licence and credits of the data, stored with the network.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value or not _OUTPUT.value:
        raise ValueError("--data and --output are needed")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    config = judge.JudgeTrainConfig(images=_IMAGES.value, batch=_BATCH.value, seed=_SEED.value)
    images = data.load_images(_DATA.value, resolution=config.resolution, split=_SPLIT.value)
    checked = data.load_images(_DATA.value, resolution=config.resolution, split=_CHECK.value) if _CHECK.value else None
    run = judge.JudgeTrainer(config, images, _OUTPUT.value)
    run.run(
        provenance=data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value),
        report=lambda line: print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True),
    )
    if checked is not None:
        found = run.measure(checked)
        print(f"{len(checked)} images of {_CHECK.value!r}: " + "  ".join(f"{k} {v:.4f}" for k, v in found.items()))
    print(f"done: {_OUTPUT.value}/model")
    return 0
