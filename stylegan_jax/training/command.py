# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax train`: the flags of a training run.

    python -m stylegan_jax train --data faces64.npz --split train --output runs/faces --config configs/train_faces32.py

Settings come from `--config FILE` and `--config.NAME=VALUE`, and their type says what is trained: a TrainConfig a
StyleGAN2, a DcganTrainConfig a DCGAN. A run stops and resumes without loss.
"""

import dataclasses
import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from stylegan_jax import checkpoint, command_line, dcgan
from stylegan_jax.training import data, default_config, trainer
from stylegan_jax.training.config import TrainConfig
from stylegan_jax.training.dcgan import DcganTrainConfig, DcganTrainer

_DATA = flags.DEFINE_string("data", None, "Training images: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. train.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run: state, model, sample sheets, log.")
_INITIAL = flags.DEFINE_string("initial", None, "Checkpoint of lower or equal resolution to begin a new run with.")
_JUDGED_BY = flags.DEFINE_string(
    "initial_discriminator", None, "Checkpoint whose discriminator to begin with, in place of that of --initial."
)
_LICENCE = flags.DEFINE_string("licence", "", "Licence and credits of the data, stored with the model.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(pathlib.Path(default_config.__file__)), "Config file with get_config() returning the settings."
)


def _report(line: dict) -> None:
    shown = "  ".join(f"{name} {value}" for name, value in line.items())
    print(shown, flush=True)


def _initial(config: TrainConfig) -> checkpoint.Model | None:
    """Returns the networks that a new run begins with, or None."""
    if not _INITIAL.value:
        if _JUDGED_BY.value:
            raise ValueError("--initial_discriminator needs --initial, the checkpoint of the generator")
        return None
    initial = checkpoint.load(_INITIAL.value)
    if not _JUDGED_BY.value:
        return initial
    judge = checkpoint.load(_JUDGED_BY.value).discriminator
    if judge is None:
        raise ValueError(f"{_JUDGED_BY.value} holds no discriminator")
    kind = "dcgan" if isinstance(judge, dcgan.Discriminator) else "stylegan2"
    if kind != config.discriminator:
        raise ValueError(
            f"the discriminator of {_JUDGED_BY.value} is of the kind {kind}, the config asks for {config.discriminator}"
        )
    return dataclasses.replace(initial, discriminator=judge)


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value or not _OUTPUT.value:
        raise ValueError("--data and --output are needed")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    kind = DcganTrainConfig if isinstance(_CONFIG.value, DcganTrainConfig) else TrainConfig
    config = command_line.typed_config(_CONFIG.value, kind, field="resolution")
    if kind is DcganTrainConfig and _INITIAL.value:
        raise ValueError("--initial is for style-based generators; a DCGAN is trained at one resolution from the start")
    images = data.load_images(_DATA.value, resolution=config.resolution, split=_SPLIT.value)
    initial = _initial(config)
    if kind is DcganTrainConfig:
        run = DcganTrainer(config, images, _OUTPUT.value)
    else:
        run = trainer.Trainer(config, images, _OUTPUT.value, initial=initial)
    device = jax.devices()[0]
    print(f"{len(images)} images at {config.resolution} px, {device.platform} {device.device_kind}", flush=True)
    provenance = data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value)
    if initial is not None:
        provenance["initial"] = initial.content_hash
    if _JUDGED_BY.value:
        provenance["initial_discriminator"] = checkpoint.load(_JUDGED_BY.value).content_hash
    try:
        run.run(provenance=provenance, report=_report)
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes {_OUTPUT.value}", flush=True)
        return 130
    print(f"done: {_OUTPUT.value}/model")
    return 0
