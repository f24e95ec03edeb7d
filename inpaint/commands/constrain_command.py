# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint constrain`: measures whether a semantic constraint is obeyed, and what it costs.

    python -m inpaint constrain --data faces64.npz --split report --limit 24 --judged_by runs/second/model \\
        --output out/constrain

Portraits whose truth is known are restored without a constraint, with the attribute wanted and with it unwanted. A
second classifier, which the search never saw, judges the composites. Writes figures.json, sheet.png (for every person
the three results in shuffled order) and key.json, which says which is which.
"""

import json

import numpy as np
from absl import flags

import stylegan_jax as sg
from inpaint import config as _config
from inpaint import masks, named_methods
from inpaint.commands import figures, study
from inpaint.experiments import constraint
from inpaint.experiments.grid import draw_mask, evenly_spaced
from inpaint.experiments.parse import parse_method
from stylegan_jax import checkpoint, classifiers, image_io

TARGETS = {constraint.FREE: None, "present": 1.0, "absent": 0.0}
_ATTRIBUTE = flags.DEFINE_string("attribute", "teeth_visible", "Attribute, known to both classifiers.")
_CLASSIFIER = flags.DEFINE_string("classifier", None, "Checkpoint that the search asks; by default the demo one.")
_JUDGED_BY = flags.DEFINE_string("judged_by", None, "Checkpoint of the second classifier, which judges.")
_METHOD = flags.DEFINE_string(
    "method", None, "A method, with settings as in `evaluate`; by default the generator's own."
)
_WEIGHT = flags.DEFINE_float("weight", None, "Of the constraint.", lower_bound=0)
_MASK = flags.DEFINE_string("mask", "mouth", "Generator of the hole, as in `evaluate`.")
_STARTS = flags.DEFINE_integer("starts", 8, "Latents optimised for every image.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", None, "Optimisation steps.", lower_bound=1)
_PEOPLE = flags.DEFINE_integer("people", 8, "Rows of the sheet.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", "out/constrain", "Folder for figures and pictures.")


def _settings(model: sg.Model) -> _config.RestoreConfig:
    name = _METHOD.value or named_methods.default_method(has_encoder=model.encoder is not None)
    config = parse_method(name, starts=_STARTS.value, steps=_STEPS.value).config
    config.search.keep, config.search.seed = 1, study.SEED.value
    if _WEIGHT.value is not None:
        config.search.attribute_weight = _WEIGHT.value
    return config


def _figures(found: dict[str, constraint.Constrained]) -> dict[str, dict[str, float]]:
    free = found[constraint.FREE]
    rows = {}
    for name, one in found.items():
        target = TARGETS[name]
        rows[name] = {
            "judged_present": float(np.mean(one.judged > 0.5)),
            "asked_present": float(np.mean(one.asked > 0.5)),
            "known_psnr": float(np.median(one.known_psnr)),
            "known_psnr_lost": float(np.median(free.known_psnr - one.known_psnr)),
        }
        if target is not None:
            rows[name]["obeyed"] = float(np.mean(one.obeyed(target)))
    return rows


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    study.check(arguments)
    if not _JUDGED_BY.value:
        raise ValueError("--judged_by is needed: the checkpoint of a second classifier")
    folder = figures.new_folder(_OUTPUT.value, overwrite=study.OVERWRITE.value)
    studied, mask = study.load(), masks.parse(_MASK.value)
    model, portraits = studied
    kinds = classifiers.StoredClassifier
    asked, asked_hash = checkpoint.load_network(_CLASSIFIER.value or checkpoint.CLASSIFIER, kinds)
    judging, judging_hash = checkpoint.load_network(_JUDGED_BY.value, kinds)
    if asked_hash == judging_hash:
        raise ValueError("--judged_by is the classifier that the search asks; name another one")
    config = _settings(model)
    found = constraint.study(
        model,
        portraits,
        mask,
        config,
        attribute=_ATTRIBUTE.value,
        asked=asked,
        judging=judging,
        targets=TARGETS,
        mask_seed=study.SEED.value,
        report=lambda text: print(text, flush=True),
    )
    facts = {"targets": _figures(found), "attribute": _ATTRIBUTE.value}
    facts |= {"mask": mask.name, "weight": config.search.attribute_weight, "method": config.method}
    facts |= {"starts": config.search.starts, "steps": config.search.steps} | studied.facts
    facts |= {"asked": asked_hash, "judged_by": judging_hash}
    shown = evenly_spaced(len(portraits.names), _PEOPLE.value)
    images = image_io.from_uint8(portraits.images[shown])
    known = np.stack([draw_mask(mask, int(portraits.ids[i]), model.resolution, seed=study.SEED.value) for i in shown])
    some = {
        name: constraint.Constrained(one.composites[shown], one.known_psnr[shown], one.asked[shown], one.judged[shown])
        for name, one in found.items()
    }
    sheet, key = constraint.blind_sheet(np.where(known[..., None] > 0, images, 0), some, seed=study.SEED.value)
    image_io.write_image(folder / "sheet.png", sheet)
    named = [
        {"person": portraits.names[i]} | dict(zip("ABC", order, strict=True))
        for i, order in zip(shown, key, strict=True)
    ]
    image_io.write_text(folder / "key.json", json.dumps(named, indent=1) + "\n")
    figures.write(folder, facts)
    print(json.dumps(facts["targets"], indent=1))
    print(f"pictures in {folder}")
    return 0
