# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint rank`: measures how well scores that know no truth tell good starts from bad ones.

    python -m inpaint rank --data faces64.npz --split tune --limit 24 --mask lower_half --output out/rank

Portraits whose truth is known are restored from many starts; every start is scored by the objective, by single terms,
by how central it is among the others, and by --combinations of these. Writes figures.json, table.md, and scores.npz,
which holds all scores and figures of all starts.
"""

import numpy as np
from absl import flags

from inpaint import masks
from inpaint.commands import figures, networks, study
from inpaint.experiments import ranking
from inpaint.experiments.parse import parse_method
from inpaint.metrics.judge import LoadedJudge
from inpaint.named_methods import METHODS, build_method, default_method
from inpaint.search.scoring import combined, parse_score
from stylegan_jax import image_io

_METHOD = flags.DEFINE_string("method", None, "The search, as in `evaluate`; by default what restore would take.")
_COMBINATIONS = flags.DEFINE_list(
    "combinations",
    ["objective+critic", "objective+centrality", "objective+critic+centrality"],
    "Sums of scores, NAME:WEIGHT+NAME:WEIGHT, each in units of its deviation over the starts of an image.",
)
_MASK = flags.DEFINE_string("mask", "centre", "Generator of the hole, as in `evaluate`.")
_STARTS = flags.DEFINE_integer("starts", 16, "Latents optimised for every image.", lower_bound=3)
_STEPS = flags.DEFINE_integer("steps", None, "Optimisation steps; by default the method's.", lower_bound=1)
_TOGETHER = flags.DEFINE_integer("together", 4, "Images restored together.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "out/rank", "Folder for figures, scores and table.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    study.check(arguments)
    for text in _COMBINATIONS.value:
        parse_score(text)
    mask = masks.parse(_MASK.value)
    folder = figures.new_folder(_OUTPUT.value, overwrite=study.OVERWRITE.value)
    studied, judge = study.load(), LoadedJudge()
    text = _METHOD.value or default_method(has_encoder=studied.model.encoder is not None)
    config = parse_method(text, starts=_STARTS.value, steps=_STEPS.value).config
    config.search.seed = study.SEED.value
    networks.constrain(config)
    asked = None
    if METHODS[config.method].searches:
        method = build_method(config)
        asked = networks.load(method.needs, method.attributes)
    ranked = ranking.study(
        *studied,
        mask,
        config,
        judge,
        networks=asked and asked.found,
        together=_TOGETHER.value,
        report=lambda text: print(text, flush=True),
    )
    written = ranking.table(ranked, combinations=_COMBINATIONS.value)
    scores = {name: ranking.quality(ranked, score)._asdict() for name, score in ranked.scores.items()}
    sums = {text: combined(ranked.scores, parse_score(text)) for text in _COMBINATIONS.value}
    scores |= {text: ranking.quality(ranked, score)._asdict() for text, score in sums.items()}
    facts = {"scores": scores, "mask": mask.name, "method": text, "judge": judge.content_hash}
    facts |= {"starts": config.search.starts, "steps": config.search.steps} | studied.facts
    arrays = ranked.scores | {"hole_psnr": ranked.hole_psnr, "feature_distance": ranked.feature_distance}

    def write(path: str) -> None:
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    image_io.write_atomically(folder / "scores.npz", write)
    image_io.write_text(folder / "table.md", written)
    figures.write(folder, facts)
    print(written, end="")
    print(f"written to {folder}")
    return 0
