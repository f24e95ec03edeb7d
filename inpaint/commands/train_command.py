# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint train`: trains an encoder of images with holes for a frozen generator, or a classifier.

    python -m inpaint train --data faces64.npz --split train --generator checkpoints/faces --output runs/encoder
    python -m inpaint train --data faces64.npz --split train --check tune --output runs/teeth \
        --config configs/classifier_teeth.py

The type of the settings says which: an EncoderTrainConfig (the default) an encoder, a LinearEncoderTrainConfig one that
is fitted in closed form, a ClassifierTrainConfig a classifier of one attribute, whose labels are an array of the npz, a
HierarchicalTrainConfig or a DifaiTrainConfig a learned inpainter.

`restore` and `evaluate` use an encoder when they are told `--encoder runs/encoder/model`, or when it lies in the folder
`encoder` of the generator's checkpoint. Settings come from `--config FILE` and `--config.NAME=VALUE`; a run stops and
resumes without loss. Without --data an encoder learns from the generator's own samples alone.
"""

import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

import stylegan_jax as sg
from inpaint.learned import attribute_classifier, default_config
from inpaint.learned.attribute_classifier import ClassifierTrainConfig, ClassifierTrainer
from inpaint.learned.difai.train import DifaiTrainConfig, DifaiTrainer
from inpaint.learned.hierarchical.network import HierarchicalInpainter
from inpaint.learned.hierarchical.trainer import HierarchicalTrainer
from inpaint.learned.hierarchical.training import HierarchicalTrainConfig
from inpaint.learned.linear_encoder import LinearEncoderTrainConfig, LinearEncoderTrainer
from inpaint.learned.masked_encoder import EncoderTrainConfig, EncoderTrainer
from stylegan_jax import checkpoint, command_line
from stylegan_jax.encoders import LinearEncoder, MaskedEncoder
from stylegan_jax.encoders.encoding import Encoder
from stylegan_jax.training import data

_DATA = flags.DEFINE_string("data", None, "Training images: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. train.")
_CHECK = flags.DEFINE_list(
    "check", [], "Splits on which a trained classifier is measured, beside kernel ridge regression on pixels."
)
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the run: state, model, log.")
_INITIAL = flags.DEFINE_string(
    "initial",
    None,
    "Checkpoint of an encoder to begin with: a masked one of another generator, or a linear one of this to train on; "
    "to fit a linear one, any of this generator.",
)
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
    if isinstance(_CONFIG.value, ClassifierTrainConfig):
        return _train_classifier(_CONFIG.value)
    if isinstance(_CONFIG.value, LinearEncoderTrainConfig):
        return _fit_linear_encoder(_CONFIG.value)
    if isinstance(_CONFIG.value, HierarchicalTrainConfig):
        return _train_hierarchical(_CONFIG.value)
    if isinstance(_CONFIG.value, DifaiTrainConfig):
        return _train_difai(_CONFIG.value)
    return _train_encoder(command_line.typed_config(_CONFIG.value, EncoderTrainConfig, field="mask_pool"))


Run = EncoderTrainer | LinearEncoderTrainer | ClassifierTrainer | HierarchicalTrainer | DifaiTrainer


def _run(run: Run, what: str, provenance: dict[str, Any]) -> int:
    """Trains to the end, or until interrupted; returns the exit code."""
    device = jax.devices()[0]
    print(f"{what}, {device.platform} {device.device_kind}", flush=True)
    try:
        run.run(
            provenance=provenance,
            report=lambda line: print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True),
        )
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes {_OUTPUT.value} at its last snapshot", flush=True)
        return 130
    print(f"done: {_OUTPUT.value}/model")
    return 0


def _train_encoder(config: EncoderTrainConfig) -> int:
    if _CHECK.value:
        raise ValueError("--check measures classifiers; an encoder is measured by `python -m inpaint evaluate`")
    model = sg.load(_GENERATOR.value)
    images, source = _generator_images(model)
    if images is None and "generated" not in config_flags.get_override_values(flags.FLAGS["config"]):
        config.generated = config.batch
    kinds = MaskedEncoder | LinearEncoder
    initial = checkpoint.load_network(_INITIAL.value, kinds) if _INITIAL.value else (None, None)
    run = EncoderTrainer(config, model, images, _OUTPUT.value, initial=initial[0])
    shown = "its own samples" if images is None else f"{len(images)} images"
    return _run(run, f"{shown} at {model.resolution} px", source | {"initial": initial[1]})


def _generator_images(model: sg.Model) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Returns the images of --data as the generator makes them, or None without, and what a model says of them."""
    if not _DATA.value:
        return None, {"source": "samples of the generator"}
    images = data.load_images(_DATA.value, resolution=model.resolution, split=_SPLIT.value)
    images = data.with_channels(images, model.generator.config.image_channels)
    return images, data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value)


def _train_hierarchical(config: HierarchicalTrainConfig) -> int:
    if _CHECK.value:
        raise ValueError("--check measures classifiers; an inpainter is measured by `python -m inpaint evaluate`")
    model = sg.load(_GENERATOR.value)
    images, source = _generator_images(model)
    if images is None and "generated" not in config_flags.get_override_values(flags.FLAGS["config"]):
        config.generated = config.batch
    initial = checkpoint.load_network(_INITIAL.value, HierarchicalInpainter) if _INITIAL.value else (None, None)
    run = HierarchicalTrainer(config, model, images, _OUTPUT.value, initial=initial[0])
    shown = "its own samples" if images is None else f"{len(images)} images and its own samples"
    return _run(run, f"{shown} at {model.resolution} px", source | {"initial": initial[1]})


def _train_difai(config: DifaiTrainConfig) -> int:
    for flag in (_CHECK, _INITIAL):
        if flag.value:
            raise ValueError(f"--{flag.name} is of no use for DiFaI; an inpainter is measured by `inpaint evaluate`")
    if not _DATA.value:
        raise ValueError("DiFaI learns from images: name them by --data, a folder or an npz")
    model = sg.load(_GENERATOR.value)
    images, source = _generator_images(model)
    run = DifaiTrainer(config, model, images, _OUTPUT.value)
    return _run(run, f"{len(images)} images at {model.resolution} px", source)


def _fit_linear_encoder(config: LinearEncoderTrainConfig) -> int:
    if _CHECK.value:
        raise ValueError("--check measures classifiers; an encoder is measured by `python -m inpaint evaluate`")
    if not _DATA.value:
        raise ValueError("a linear encoder needs --data, images to invert")
    model = sg.load(_GENERATOR.value)
    images = data.load_images(_DATA.value, resolution=model.resolution, split=_SPLIT.value)
    images = data.with_channels(images, model.generator.config.image_channels)
    initial = checkpoint.load_network(_INITIAL.value, Encoder) if _INITIAL.value else (None, None)
    run = LinearEncoderTrainer(config, model, images, _OUTPUT.value, initial=initial[0])
    source = data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value)
    return _run(run, f"{len(images)} images at {model.resolution} px", source | {"initial": initial[1]})


def _train_classifier(config: ClassifierTrainConfig) -> int:
    for flag in (_GENERATOR, _INITIAL):
        if flag.value:
            raise ValueError(f"--{flag.name} belongs to an encoder; a classifier has no use for it")
    if not _DATA.value:
        raise ValueError("a classifier needs --data, an npz with labels")

    def read(split: str | None):
        return data.load_labelled_images(
            _DATA.value, labels=config.labels, resolution=config.resolution, split=split, channels=3
        )

    images, labels = read(_SPLIT.value)
    checked = {split: read(split) for split in _CHECK.value}
    run = ClassifierTrainer(config, images, labels, _OUTPUT.value)
    provenance = data.provenance(_DATA.value, split=_SPLIT.value, licence=_LICENCE.value)
    what = f"{len(images)} images at {config.resolution} px, {config.attribute} on {int(labels.sum())}"
    status = _run(run, what, provenance)
    for split, (others, truth) in checked.items() if status == 0 else ():
        found = attribute_classifier.predict(run.classifier(), others, attribute=config.attribute)
        print(f"{split}: {attribute_classifier.agreement(found, truth).line()}")
        found = attribute_classifier.kernel_ridge(images, labels, others)
        print(f"{split}, kernel ridge regression: {attribute_classifier.agreement(found, truth).line()}")
    return status
