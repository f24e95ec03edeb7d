# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint initialise`: measures what it matters where a search begins.

    python -m inpaint initialise --data faces64.npz --split report --limit 24 --output out/initialise

Portraits whose truth is known are restored from every initialisation with the same objective, space and optimiser.
Writes figures.json, table.md (median hole PSNR in dB, and in brackets the feature distance) and, where matplotlib is
installed, curves.png: one start, and the selected one of many, against steps.
"""

import pathlib

import numpy as np
from absl import flags

from inpaint import masks
from inpaint.commands import figures, study
from inpaint.experiments import initialisation
from inpaint.experiments.parse import parse_method
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import image_io

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
_OUTPUT = flags.DEFINE_string("output", "out/initialise", "Folder for figures, table and curves.")


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
    study.check(arguments)
    steps, config = _shown(), parse_method(_METHOD.value, starts=_STARTS.value, steps=_STEPS.value).config
    config.search.seed = study.SEED.value
    folder = figures.new_folder(_OUTPUT.value, overwrite=study.OVERWRITE.value)
    studied, mask, judge = study.load(), masks.parse(_MASK.value), LoadedJudge()
    names = _INITIALISATIONS.value
    if names is None:
        names = ["mean", "random", "prescreen"] + (["encoder"] if studied.model.encoder is not None else [])
    found = initialisation.study(
        *studied,
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
                f"{kind}_{figure}": np.round(np.median(values, axis=0).astype(float), 4).tolist()
                for kind, values_of in compared._asdict().items()
                for figure, values in values_of._asdict().items()
            }
            for name, compared in found.items()
        }
    }
    facts |= {"shown": steps, "mask": mask.name, "method": _METHOD.value, "judge": judge.content_hash}
    facts |= {"starts": config.search.starts, "steps": config.search.steps} | studied.facts
    written = initialisation.table(found, steps, config.search.starts)
    if not _write_curves(folder / "curves.png", found, steps):
        print('no curves.png: matplotlib is not installed (pip install ".[plot]")')
    image_io.write_text(folder / "table.md", written)
    figures.write(folder, facts)
    print(written, end="")
    print(f"written to {folder}")
    return 0
