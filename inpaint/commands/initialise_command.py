# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint initialise`: measures what it matters where a search begins.

    python -m inpaint initialise --data faces64.npz --split report --limit 24 --output out/initialise

Portraits whose truth is known are restored from every initialisation with the same objective, space and optimiser.
Writes figures.json, table.md (median hole PSNR in dB, and in brackets the feature distance) and, where matplotlib is
installed, curves.png: one start, and the selected one of many, against steps.
"""

import json
import pathlib

import jax
import numpy as np
from absl import flags

import stylegan_jax as sg
from inpaint import masks, output
from inpaint.experiments import initialisation
from inpaint.experiments.grid import load_portraits
from inpaint.experiments.parse import parse_method
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import checkpoint, image_io

FIGURES = "figures.json"
_DATA = flags.DEFINE_string("data", None, "Portraits: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. report.")
_LIMIT = flags.DEFINE_integer("limit", None, "Take so many portraits, evenly spaced.", lower_bound=1)
_GENERATOR = flags.DEFINE_string(
    "generator", None, "Checkpoint directory, or one that is shipped; by default the demo."
)
_ENCODER = flags.DEFINE_string("encoder", None, "Checkpoint of an encoder trained for the generator.")
_METHOD = flags.DEFINE_string(
    "method",
    "latent_search+search.coarse_share=0+search.noise=none",
    "The search, as in `evaluate`; by default all of it in W+, without noise, as encoders know the generator.",
)
_INITIALISATIONS = flags.DEFINE_list(
    "initialisations", None, "Some of mean, random, prescreen, encoder; by default all that the generator allows."
)
_SHOWN = flags.DEFINE_list("shown", ["0", "10", "25", "50", "100", "150"], "Steps at which the search is looked at.")
_MASK = flags.DEFINE_string("mask", "centre", "Generator of the hole, as in `evaluate`.")
_STARTS = flags.DEFINE_integer("starts", 16, "Latents optimised for every image.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 150, "Optimisation steps.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the searches.")
_OUTPUT = flags.DEFINE_string("output", "out/initialise", "Folder for figures, table and curves.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what an earlier call left there.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")


def _shown() -> list[int]:
    try:
        steps = [int(text) for text in _SHOWN.value]
    except ValueError:
        raise ValueError(f"--shown must be whole numbers, got {','.join(_SHOWN.value)}") from None
    initialisation.check_steps(steps, _STEPS.value)
    return steps


def _write_curves(path: pathlib.Path, found: dict[str, initialisation.Compared], steps: list[int]) -> bool:
    try:
        image_io.write_atomically(
            path, lambda partial: initialisation.draw_curves(str(partial), found, steps, _STARTS.value)
        )
    except ImportError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value:
        raise ValueError("--data is needed: portraits whose truth is known")
    steps, config = _shown(), parse_method(_METHOD.value, starts=_STARTS.value, steps=_STEPS.value).config
    config.search.seed = _SEED.value
    folder = output.check_folder(_OUTPUT.value, held=(FIGURES,))
    if (folder / FIGURES).exists() and not _OVERWRITE.value:
        raise ValueError(f"--output {folder} holds a study already; name another or pass --overwrite")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model, mask, judge = sg.load(_GENERATOR.value), masks.parse(_MASK.value), LoadedJudge()
    if _ENCODER.value is not None:
        model = checkpoint.with_encoder(model, _ENCODER.value)
    names = _INITIALISATIONS.value
    if names is None:
        names = ["mean", "random", "prescreen"] + (["encoder"] if model.encoder is not None else [])
    portraits = load_portraits(_DATA.value, resolution=model.resolution, split=_SPLIT.value, limit=_LIMIT.value)
    found = initialisation.study(
        model,
        portraits,
        mask,
        config,
        judge,
        initialisations=names,
        steps=steps,
        report=lambda text: print(text, flush=True),
    )
    facts = {
        "medians": {
            name: {
                f"{kind}_{figure}": np.round(np.median(values, axis=0), 4).tolist()
                for kind, figures in compared._asdict().items()
                for figure, values in figures._asdict().items()
            }
            for name, compared in found.items()
        }
    }
    facts |= {"shown": steps, "portraits": len(portraits.names), "mask": mask.name, "method": _METHOD.value}
    facts |= {"starts": config.search.starts, "steps": config.search.steps, "seed": _SEED.value}
    facts |= {"generator": model.content_hash, "encoder": model.encoder_hash, "judge": judge.content_hash}
    written = initialisation.table(found, steps, config.search.starts)
    if not _write_curves(folder / "curves.png", found, steps):
        print("no curves.png: matplotlib is not installed")
    for name, text in (("table.md", written), (FIGURES, json.dumps(facts, indent=1) + "\n")):
        image_io.write_atomically(folder / name, lambda path, text=text: pathlib.Path(path).write_text(text, "utf-8"))
    print(written, end="")
    print(f"written to {folder}")
    return 0
