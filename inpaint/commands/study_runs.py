# SPDX-License-Identifier: Apache-2.0
"""Studies with a computation of their own, as rows of an evaluation: they are resumed, tabulated and reported as any.

No flags here: `evaluate` says what is asked.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

import stylegan_jax as sg
from inpaint.experiments import constraint, initialisation, pictures, robustness
from inpaint.experiments.grid import Grid, NamedConfig, draw_mask, inputs_digest
from inpaint.experiments.pictures import Shown
from inpaint.experiments.records import Identity, Records, Row, fingerprint
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import checkpoint, classifiers, image_io


class Asked(NamedTuple):
    """What a study is run on.

    Attributes:
        model, judge: generator, and judge of feature distances.
        grid: methods, one mask, portraits and seeds.
        networks: what objectives ask, by role.
        records: of the folder, which take the rows.
        settings: all that decides a method's rows, by label.
        pictures: folder for pictures, or None.
    """

    model: sg.Model
    judge: LoadedJudge
    grid: Grid
    networks: dict[str, Any]
    records: Records
    settings: dict[str, dict[str, Any]]
    pictures: pathlib.Path | None


def _told(text: str) -> None:
    print(text, flush=True)


def check(kind: str, asked: Asked, *, judged_by: str | None) -> None:
    """Raises ValueError where a study of this kind lacks something, before anything is written."""
    _mask(asked)
    if kind == "semantics" and judged_by is None:
        raise ValueError("--judged_by is needed: the checkpoint of a second classifier, which the search never asks")


def _mask(asked: Asked):
    if len(asked.grid.masks) != 1:
        raise ValueError(f"this study takes one mask, got {len(asked.grid.masks)}")
    mask = asked.grid.masks[0]
    if not hasattr(mask, "draw"):
        raise ValueError(f"this study takes a mask, got the degradation {mask.name}")
    return mask


def _row(asked: Asked, i: int, *, method: str, mask: str, seed: int, figures: dict[str, float]) -> Row:
    portraits, hole = asked.grid.portraits, _mask(asked)
    known = draw_mask(hole, int(portraits.ids[i]), asked.model.resolution, seed=asked.grid.mask_seed)
    return {
        "method": method,
        "mask": mask,
        "image": portraits.names[i],
        "seed": seed,
        "image_id": int(portraits.ids[i]),
        "inputs_sha256": inputs_digest(portraits.images[i], known),
        "hole_share": round(float(1 - known.mean()), 6),
        "metrics": {n: float(f"{v:.6g}") if np.isfinite(v) else None for n, v in figures.items()},
        "versions": checkpoint.library_versions(),
    }


def _done(asked: Asked, names: list[tuple[str, str, int]], settings: dict[str, Any]) -> bool:
    """Returns whether rows (method, mask, seed) of all images are there; raises ValueError where they are others."""
    images = asked.grid.portraits
    for method, mask, seed in names:
        for i, image in enumerate(images.names):
            wanted = Identity(method, mask, image, seed)
            row = _row(asked, i, method=method, mask=mask, seed=seed, figures={})
            if not asked.records.finished(wanted, fingerprint(settings), row["inputs_sha256"]):
                return False
    return True


def run_robustness(asked: Asked, *, judged_by: str | None = None) -> None:
    """Runs `inpaint.experiments.robustness` for every method and seed."""
    mask = _mask(asked)
    own = robustness.Study(
        asked.model,
        asked.judge,
        asked.grid.portraits,
        mask,
        mask_seed=asked.grid.mask_seed,
        networks=asked.networks,
    )
    for method in asked.grid.methods:
        settings = asked.settings[method.label] | {"study": "robustness", "hole": mask.name}
        for seed in asked.grid.seeds:
            own.run(
                method,
                seed=seed,
                records=asked.records,
                settings=settings,
                pictures=asked.pictures,
                report=_told,
            )


def _shown_steps(length: int) -> list[int]:
    return sorted({0, *(step for step in (10, 25, 50, 100) if step < length), length})


def run_initialisation(asked: Asked, *, judged_by: str | None = None) -> None:
    """Runs `inpaint.experiments.initialisation` for every method."""
    mask = _mask(asked)
    names = ["mean", "random", "prescreen"] + (["encoder"] if asked.model.encoder is not None else [])
    seed = asked.grid.seeds[0]
    for method in asked.grid.methods:
        search = method.config.search
        search.seed, steps = seed, _shown_steps(search.steps)
        settings = asked.settings[method.label] | {"study": "initialisation", "hole": mask.name}
        prefix = f"{method.label}: " if len(asked.grid.methods) > 1 else ""
        labels = {
            (name, kind): f"{prefix}{name}, {'1 start' if kind == 'first' else f'best of {search.starts}'}"
            for name in names
            for kind in ("first", "selected")
        }
        masks = [f"{mask.name} after {step} steps" for step in steps]
        if _done(asked, [(label, text, seed) for label in labels.values() for text in masks], settings):
            continue
        found = initialisation.study(
            asked.model,
            asked.grid.portraits,
            mask,
            method.config,
            asked.judge,
            initialisations=names,
            steps=steps,
            report=_told,
        )
        rows = [
            _row(
                asked,
                i,
                method=labels[name, kind],
                mask=masks[k],
                seed=seed,
                figures={field: float(values[i, k]) for field, values in figures._asdict().items()},
            )
            for name, compared in found.items()
            for kind, figures in compared._asdict().items()
            for k in range(len(steps))
            for i in range(len(asked.grid.portraits.names))
        ]
        asked.records.append(rows, settings)


def run_semantics(asked: Asked, *, judged_by: str | None = None) -> None:
    """Runs `inpaint.experiments.constraint` for every method: without a constraint, with it, and with its opposite."""
    mask, seed = _mask(asked), asked.grid.seeds[0]
    judging, judging_hash = checkpoint.load_network(judged_by, classifiers.StoredClassifier)
    for method in asked.grid.methods:
        search = method.config.search
        search.seed, search.keep = seed, 1
        if not search.attributes:
            raise ValueError("--attribute NAME=1 is needed: what the study wants, and wants not")
        attribute = search.attributes[0].rpartition("=")[0]
        targets = {constraint.FREE: None, f"{attribute} present": 1.0, f"{attribute} absent": 0.0}
        settings = asked.settings[method.label] | {"study": "semantics", "hole": mask.name, "judged_by": judging_hash}
        prefix = f"{method.label}: " if len(asked.grid.methods) > 1 else ""
        if _done(asked, [(prefix + name, mask.name, seed) for name in targets], settings):
            continue
        found = constraint.study(
            asked.model,
            asked.grid.portraits,
            mask,
            method.config,
            attribute=attribute,
            asked=asked.networks["classifier"],
            judging=judging,
            targets=targets,
            mask_seed=asked.grid.mask_seed,
            report=_told,
        )
        for name, one in found.items():
            rows = [_semantic_row(asked, i, prefix + name, one, targets[name], seed) for i in range(len(one.judged))]
            if asked.pictures is not None:
                _write_pictures(asked, method, rows, one)
            asked.records.append(rows, settings)


def _semantic_row(
    asked: Asked, i: int, label: str, one: constraint.Constrained, target: float | None, seed: int
) -> Row:
    figures = {"judged": one.judged[i], "asked": one.asked[i], "known_psnr": one.known_psnr[i]}
    if target is not None:
        figures["obeyed"] = one.obeyed(target)[i]
    figures = {name: float(value) for name, value in figures.items()}
    return _row(asked, i, method=label, mask=_mask(asked).name, seed=seed, figures=figures)


def _write_pictures(asked: Asked, method: NamedConfig, rows: list[Row], one: constraint.Constrained) -> None:
    truths = image_io.from_uint8(asked.grid.portraits.images)
    for i, row in enumerate(rows):
        known = asked.grid.known(_mask(asked), i)
        pictures.write(asked.pictures, row, Shown(one.composites[i][None], truths[i] * known[..., None], truths[i]))


RUNS = {"robustness": run_robustness, "initialisation": run_initialisation, "semantics": run_semantics}
