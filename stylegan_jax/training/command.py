# SPDX-License-Identifier: Apache-2.0
"""`python -m stylegan_jax train`: the flags of a training run.

    python -m stylegan_jax train --data faces64.npz --split train --output runs/faces --config configs/train_faces32.py

Settings come from `--config FILE` and `--config.NAME=VALUE`; a run stops and resumes without loss.
"""

import hashlib
import pathlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from stylegan_jax.checkpoint import CheckpointError
from stylegan_jax.image_io import ImageError
from stylegan_jax.training import config as _config
from stylegan_jax.training import data, trainer

_DATA = flags.DEFINE_string("data", None, "Training images: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. train.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run: state, model, sample sheets, log.")
_LICENCE = flags.DEFINE_string("licence", "", "Licence and credits of the data, stored with the model.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(pathlib.Path(_config.__file__)), "Config file with get_config() returning a TrainConfig."
)


def _sha256(path: pathlib.Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report(line: dict) -> None:
    shown = "  ".join(f"{name} {value}" for name, value in line.items())
    print(shown, flush=True)


def main(argv: list[str]) -> int:
    """Runs the command with the flags already parsed; returns the exit code."""
    if len(argv) > 1:
        print(f"train: unexpected argument {argv[1]!r}; all settings are flags (--help)", file=sys.stderr)
        return 2
    if not _DATA.value or not _OUTPUT.value:
        print("train: --data and --output are needed (--help)", file=sys.stderr)
        return 2
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    config = _CONFIG.value
    try:
        images = data.load_images(_DATA.value, resolution=config.resolution, split=_SPLIT.value)
        run = trainer.Trainer(config, images, _OUTPUT.value)
        device = jax.devices()[0]
        print(f"{len(images)} images at {config.resolution} px, {device.platform} {device.device_kind}", flush=True)
        source = pathlib.Path(_DATA.value)
        provenance = {
            "source": source.name,
            "sha256": _sha256(source),
            "split": _SPLIT.value,
            "licence": _LICENCE.value,
        }
        run.run(provenance=provenance, report=_report)
    except KeyboardInterrupt:
        print(f"train: interrupted; the same command resumes {_OUTPUT.value}", file=sys.stderr)
        return 130
    except (data.DataError, CheckpointError, ImageError, ValueError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    print(f"done: {_OUTPUT.value}/model")
    return 0
