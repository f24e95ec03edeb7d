# SPDX-License-Identifier: Apache-2.0
"""The flags of `evaluate` that ask a question by name, and what they make of its other flags.

A study says what other flags would say; whatever is given beside it counts more.
"""

import pathlib
import sys

from absl import flags

from inpaint.commands import study_runs
from inpaint.experiments import papers, pictures
from inpaint.experiments.grid import Grid
from inpaint.experiments.parse import parse_method
from inpaint.experiments.records import Records
from inpaint.experiments.report import build
from inpaint.experiments.studies import STUDIES, Study
from inpaint.metrics import frechet_inception

_STUDY = flags.DEFINE_enum(
    "study", None, list(STUDIES), " ".join(f"{name}: {study.question}" for name, study in STUDIES.items())
)
_METHOD = flags.DEFINE_string("method", "latent_search", "What a study studies; its methods are variations of it.")
_JUDGED_BY = flags.DEFINE_string(
    "judged_by", None, "Checkpoint of a second classifier, which the search never asks; judges the study of semantics."
)
_PAPERS = flags.DEFINE_list(
    "papers", ["filipovski", "difai", "hierarchical"], f"Of the study of papers: {', '.join(papers.PAPERS)}."
)
_INCEPTION = flags.DEFINE_string("inception", None, "Checkpoint of Inception, for the FID of the study of papers.")
_CONVENTION = flags.DEFINE_enum(
    "convention", "pytorch_fid", frechet_inception.CONVENTIONS, "Whose FID it is to be compared with."
)
DEMO_ATTRIBUTE = "teeth_visible"  # what the demo classifier knows


def _study() -> Study | None:
    return STUDIES.get(_STUDY.value)


def fill_in() -> None:
    """Gives the flags that are not given what the study says.

    Raises:
        ValueError: for unknown papers.
    """
    study, own = _study(), flags.FLAGS
    if study is None:
        for flag in (_METHOD, _JUDGED_BY, _PAPERS, _INCEPTION):
            if not own[flag.name].using_default_value:
                raise ValueError(
                    f"--{flag.name} says something about a study; add --study, or name methods by --methods"
                )
        return
    filled = {"methods": list(study.texts(_METHOD.value)), "masks": list(study.masks)}
    filled["degradations"] = list(study.degradations)
    if study.against is not None and own["methods"].using_default_value:
        filled["against"] = study.against.replace("{method}", _METHOD.value)
    if study.kind == "semantics":
        filled["attribute"] = [f"{DEMO_ATTRIBUTE}=1"]
    if study.kind == "papers":
        unknown = sorted(set(_PAPERS.value) - set(papers.PAPERS))
        if unknown:
            raise ValueError(f"unknown paper {unknown[0]!r} in --papers; known: {', '.join(papers.PAPERS)}")
        filled["masks"], filled["degradations"] = papers.tasks(_PAPERS.value)
    for name, value in filled.items():
        if own[name].using_default_value and value:
            setattr(own, name, value)


def has_own_run() -> bool:
    """Returns whether the study has a computation of its own."""
    study = _study()
    return study is not None and study.kind in study_runs.RUNS


def note(folder: pathlib.Path, grid: Grid) -> None:
    """Notes this call in the folder, so that every picture can say how it was made."""
    own, study = flags.FLAGS, _study()
    facts = {"arguments": sys.argv[2:], "study": _STUDY.value, "whole": has_own_run()}
    named = {parse_method(text).label: text for text in own["methods"].value or ()}
    facts["methods"] = named or {method.label: method.label for method in grid.methods}
    facts |= {name: own[name].value for name in ("degradations", "against", "starts", "steps")}
    if study is not None and study.kind == "papers":
        facts["papers"] = _PAPERS.value
    pictures.note_command(folder, facts)


def run(asked: study_runs.Asked, *, dry: bool, only_report: bool) -> None:
    """Runs a study that is no grid, and writes its report.

    Args:
        asked: what it is run on.
        dry: only say what would be run.
        only_report: write the report of the rows that are there.
    """
    study, folder = _study(), asked.records.folder
    if not only_report:
        study_runs.check(study.kind, asked, judged_by=_JUDGED_BY.value)
    if dry:
        images, names = len(asked.grid.portraits.names), ", ".join(m.label for m in asked.grid.methods)
        print(f"{study.name}: {images} images by {names}")
        return
    if not only_report:
        asked.records.start()
        note(folder, asked.grid)
        study_runs.RUNS[study.kind](asked, judged_by=_JUDGED_BY.value)
    write_page(folder)


def write_page(folder: pathlib.Path) -> None:
    """Writes the report of a study, and prints its answer; does nothing where no study is asked for."""
    if _study() is None:
        return
    if _INCEPTION.value is not None:
        rows = list(Records(folder).rows.values())
        papers.write_distances(folder, rows, _INCEPTION.value, convention=_CONVENTION.value)
    report = build.gather(folder)
    written = build.write(report, folder)
    print("\n".join(report.answer))
    print(f"report in {written[0]}")
