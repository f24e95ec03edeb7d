# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint train`: trains an encoder of images with holes for a frozen generator.

    python -m inpaint train --data faces64.npz --split train --generator checkpoints/faces --output runs/encoder

`restore` and `evaluate` use it when they are told `--encoder runs/encoder/model`, or when it lies in the folder
`encoder` of the generator's checkpoint. Settings come from `--config FILE` and `--config.NAME=VALUE`; a run stops and
resumes without loss. Without --data it learns from the generator's own samples alone.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

import stylegan_jax as sg
from inpaint.learned import default_config
from inpaint.learned.masked_encoder import EncoderTrainConfig, EncoderTrainer
from stylegan_jax import checkpoint, command_line
from stylegan_jax.encoders import MaskedEncoder
from stylegan_jax.training import data

_DATA = flags.DEFINE_string("data", None, "Training images: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. train.")
_GENERATOR = flags.DEFINE_string(
    "generator",
    None,
    "Checkpoint directory, or one that is shipped: faces32 (the demo generator, by default), dcgan64.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run: state, model, log.")
_INITIAL = flags.DEFINE_string("initial", None, "Checkpoint of another generator's encoder to begin a new run with.")
_LICENCE = flags.DEFINE_string("licence", "", "Licence and credits of the data, stored with the encoder.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(pathlib.Path(default_config.__file__)), "Config file with get_config() returning EncoderTrainConfig."
)


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _OUTPUT.value:
        raise ValueError("--output is needed")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    config = command_line.typed_config(_CONFIG.value, EncoderTrainConfig, field="mask_pool")
    model = sg.load(_GENERATOR.value)
    images, source = None, {"source": "samples of the generator"}
    if _DATA.value:
        images = data.load_images(_DATA.value, resolution=model.resolution, split=_SPLIT.value)
        images = data.with_channels(images, model.generator.config.image_channels)
        source = data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value)
    elif "generated" not in config_flags.get_override_values(flags.FLAGS["config"]):
        config.generated = config.batch
    initial = checkpoint.load_network(_INITIAL.value, MaskedEncoder) if _INITIAL.value else (None, None)
    run = EncoderTrainer(config, model, images, _OUTPUT.value, initial=initial[0])
    device = jax.devices()[0]
    shown = "its own samples" if images is None else f"{len(images)} images"
    print(f"{shown} at {model.resolution} px, {device.platform} {device.device_kind}", flush=True)
    try:
        run.run(
            provenance=source | {"initial": initial[1]},
            report=lambda line: print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True),
        )
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes {_OUTPUT.value} at its last snapshot", flush=True)
        return 130
    print(f"done: {_OUTPUT.value}/model")
    return 0
