# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint report DIR`: one page and tables from the folder of an evaluation.

    python -m inpaint evaluate --data faces64.npz --split report --limit 24 --output out/evaluate
    python -m inpaint report out/evaluate
    python -m inpaint report out/evaluate --against ridge --show 1021,44 --output out/page

Writes `report.html`, which needs no network and no other file, `report.md`, `report.csv`, `report.tex`, and, where
matplotlib is installed (`pip install ".[plot]"`), `figures/`. The folder may still be growing: what is finished is
shown.
"""

import pathlib

from absl import flags

from inpaint.experiments.report import build

_AGAINST = flags.DEFINE_string(
    "against", None, "Method that the others are compared with; by default that of the evaluation, or its first."
)
_SHOW = flags.DEFINE_list("show", [], "Images to show beside those that the rules choose; the page says so.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the report; by default that of the evaluation.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if len(arguments) != 1:
        raise ValueError(f"one folder of an evaluation is needed, got {len(arguments)} arguments")
    folder = pathlib.Path(arguments[0])
    report = build.gather(folder, against=_AGAINST.value, named=_SHOW.value)
    written = build.write(report, folder if _OUTPUT.value is None else pathlib.Path(_OUTPUT.value))
    for sentence in report.answer:
        print(sentence)
    if not build.has_matplotlib():
        print('no figures: matplotlib is not installed (pip install ".[plot]")')
    print(f"written to {written[0]} and {len(written) - 1} files beside it")
    return 0
