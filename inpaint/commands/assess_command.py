# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint assess`: how good a generator is, and whether it remembers its training images.

    python -m inpaint assess --data faces64.npz --split tune --generator runs/faces64/model --output out/assess

Writes figures.json and pictures: samples (psi 1 and 0.7), interpolations, samples above their nearest training images,
and whole held-back images beside what a search in W+ makes of them. `--restored` takes a folder of pictures, such as
those of an evaluation, and looks for their nearest training images too. The pictures show training images: mind their
licence.
"""

import pathlib

import jax
import numpy as np
from absl import flags

import stylegan_jax as sg
from inpaint import methods
from inpaint.commands import figures
from inpaint.experiments import assess
from inpaint.experiments.grid import evenly_spaced
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import checkpoint, image_io
from stylegan_jax.training import data

_DATA = flags.DEFINE_string("data", None, "npz with uint8 images [n, h, w, c] and split.")
_TRAIN = flags.DEFINE_string("train_split", "train", "Split that the generator was trained on.")
_SPLIT = flags.DEFINE_string("split", "tune", "Split of held-back images.")
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_JUDGE = flags.DEFINE_string("judge", None, "Checkpoint directory of a judge; by default the one of the package.")
_RESTORED = flags.DEFINE_string("restored", None, "Folder of restored images to compare with the training images.")
_SAMPLES = flags.DEFINE_integer("samples", 1000, "Samples drawn.", lower_bound=32)
_INVERT = flags.DEFINE_integer("invert", 12, "Held-back images that are searched for whole.", lower_bound=1)
_STARTS = flags.DEFINE_integer("starts", 4, "Latents optimised for each of them.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 150, "Optimisation steps.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of samples and searches.")
_OUTPUT = flags.DEFINE_string("output", "out/assess", "Folder for figures and pictures.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what an earlier call left there.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")


def _load(model: sg.Model, path: str, split: str | None) -> np.ndarray:
    images = data.load_images(path, resolution=model.resolution, split=split)
    return image_io.from_uint8(data.with_channels(images, model.generator.config.image_channels))


def _magnified(picture: np.ndarray, times: int = 2) -> np.ndarray:
    return picture.repeat(times, 0).repeat(times, 1)


def _write_pictures(folder: pathlib.Path, model: sg.Model, samples: np.ndarray, truncated: np.ndarray) -> None:
    for name, images in (("samples.png", samples), ("samples_psi0.7.png", truncated)):
        image_io.write_image(folder / name, _magnified(image_io.grid(images[:32], columns=8)))
    lines = assess.interpolate(jax.random.key(_SEED.value + 2), model.generator)
    strip = image_io.grid(lines.reshape(-1, *lines.shape[2:]), columns=lines.shape[1])
    image_io.write_image(folder / "interpolation.png", _magnified(strip))


def _inversion(folder: pathlib.Path, model: sg.Model, held_back: np.ndarray) -> dict[str, float]:
    chosen = evenly_spaced(len(held_back), _INVERT.value)
    key, method = jax.random.key(_SEED.value), methods.latent_search(steps=_STEPS.value, mahalanobis=0.0)
    found, psnr = assess.invert(key, model, held_back[chosen], method, starts=_STARTS.value)
    shown = image_io.grid(np.concatenate([held_back[chosen], found]), columns=len(chosen))
    image_io.write_image(folder / "inversion.png", _magnified(shown))
    return {"inversion_psnr": float(np.median(psnr)), "inversion_psnr_worst": float(psnr.min())}


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value:
        raise ValueError("--data is needed: an npz with images and split")
    if _SPLIT.value == _TRAIN.value:
        raise ValueError(f"--split {_SPLIT.value} is what the generator was trained on; name held-back images")
    folder = figures.new_folder(_OUTPUT.value, overwrite=_OVERWRITE.value)
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model, judge = sg.load(_GENERATOR.value), LoadedJudge(_JUDGE.value)
    train, held_back = (assess.embed(judge, _load(model, _DATA.value, x)) for x in (_TRAIN.value, _SPLIT.value))
    restored = None if _RESTORED.value is None else assess.embed(judge, _load(model, _RESTORED.value, None))
    drawn = [
        assess.draw_samples(jax.random.key(_SEED.value + 1), model.generator, count, truncation_psi=psi)
        for count, psi in ((_SAMPLES.value, 1.0), (32, 0.7))
    ]
    samples = assess.embed(judge, drawn[0])
    measured = assess.distances(samples, train, held_back)
    _write_pictures(folder, model, *drawn)
    pairs = {"neighbours.png": samples} | ({} if restored is None else {"restored_neighbours.png": restored})
    for name, images in pairs.items():
        image_io.write_image(folder / name, _magnified(assess.neighbours_sheet(images, train)))
    if restored is not None:
        measured["restored_nearest"] = assess.nearest_ratio(restored, train, held_back)
    measured |= _inversion(folder, model, held_back.images)
    facts = {name: round(value, 4) for name, value in measured.items()}
    facts |= {"generator": model.content_hash, "judge": judge.content_hash, "split": _SPLIT.value}
    facts |= {"samples": _SAMPLES.value, "starts": _STARTS.value, "steps": _STEPS.value, "seed": _SEED.value}
    print(figures.write(folder, facts), end="")
    print(f"pictures in {folder}")
    return 0
