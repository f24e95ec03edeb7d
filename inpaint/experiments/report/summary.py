# SPDX-License-Identifier: Apache-2.0
"""The answer of an evaluation in words, made from its figures alone.

A difference counts as one where the paired test, corrected for all comparisons of its kind, is below 0.05.
"""

import math
from collections.abc import Sequence

import numpy as np

from inpaint.experiments.records import Row
from inpaint.experiments.report import statistics, tables
from inpaint.experiments.report.statistics import FIGURES, Figure

LEVEL = 0.05
_FIRST = ("feature_distance", "composite_hole_psnr", "laplacian_ratio", "hole_ssim")  # of the small table
_NAMED = {figure.name: figure for figure in FIGURES}


def _figure(rows: Sequence[Row]) -> Figure | None:
    return next((f for f in statistics.measured(rows) if f.better and f.name != "seconds"), None)


def _share(hole: Sequence[Row]) -> str:
    found = [row["hole_share"] for row in hole if row.get("hole_share") is not None]
    return f"{100 * float(np.median(found)):.0f} % hidden, " if found else ""


def _estimated(rows: Sequence[Row], figure: Figure) -> statistics.Estimate | None:
    found = list(statistics.values(rows, figure).values())
    return statistics.estimate(found) if found else None


def best_of(by_method: dict[str, list[Row]], figure: Figure) -> str | None:
    """Returns the method with the best mean of a figure, or None."""
    made = {m: e.mean for m, rows in by_method.items() if (e := _estimated(rows, figure)) is not None}
    return (max if figure.better > 0 else min)(made, key=made.get) if made else None


def _compared(by_method: dict[str, list[Row]], against: str, figure: Figure) -> tuple[list[str], list[str], list[str]]:
    """Returns methods that are better than `against`, worse, and those that cannot be told from it."""
    others = [m for m in by_method if m != against]
    theirs = statistics.values(by_method[against], figure)
    pairs = {m: statistics.paired(statistics.values(by_method[m], figure), theirs) for m in others}
    kept = [m for m in others if pairs[m] is not None]
    corrected = statistics.holm([pairs[m].p for m in kept])
    better, worse, neither = [], [], []
    for m, p in zip(kept, corrected, strict=True):
        if not (math.isfinite(p) and p < LEVEL):
            neither.append(m)
        else:
            (better if pairs[m].median * figure.better > 0 else worse).append(m)
    return better, worse, neither


def _listing(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _mask_sentence(mask: str, by_method: dict[str, list[Row]], against: str | None, figure: Figure) -> str | None:
    best = best_of(by_method, figure)
    if best is None:
        return None
    made = _estimated(by_method[best], figure)
    interval = " to ".join(f"{x:.{figure.decimals}f}" for x in made.mean_interval)
    rows = [row for own in by_method.values() for row in own]
    text = f"{mask} ({_share(rows)}{made.count} images): {best} has the best mean {figure.heading}, "
    text = (
        text
        if len(by_method) > 1
        else f"{mask} ({_share(rows)}{made.count} images): {best} has a mean {figure.heading} of "
    )
    text += f"{made.mean:.{figure.decimals}f} (95 % interval {interval})."
    if against not in by_method or len(by_method) < 2:
        return text
    if made.count < statistics.FEWEST:
        return text + f" With {made.count} images no difference to {against} can be told."
    parts = zip(("better", "worse", "not to be told from it"), _compared(by_method, against, figure), strict=True)
    told = "; ".join(f"{how}: {_listing(names)}" for how, names in parts if names)
    return f"{text} Against {against}, {told}."


def _blur_sentence(cells: dict[str, dict[str, list[Row]]], method: str) -> str | None:
    """Returns how the holes of a method look beside untouched ones."""
    parts = []
    rows = [row for by_method in cells.values() for row in by_method.get(method, [])]
    for name, less, more in (
        ("laplacian_ratio", "of the detail of the untouched images (less than 1 is blur)", ""),
        ("noise", "of their fine texture and noise", ""),
        ("seam", "of their step at the border (more than 1 is a visible seam)", ""),
    ):
        made = _estimated(rows, _NAMED[name])
        if made is not None:
            parts.append(f"{made.median:.2f} {less}{more}")
    return f"Holes of {method} have {', '.join(parts)}: medians." if parts else None


def _bound_sentence(cells: dict[str, dict[str, list[Row]]], method: str) -> str | None:
    rows = [row for by_method in cells.values() for row in by_method.get(method, [])]
    ours = statistics.values(rows, _NAMED["hole_psnr"])
    bound = statistics.values(rows, _NAMED["best_of_k_hole_psnr"])
    gains = [bound[image] - ours[image] for image in ours if image in bound]
    if not gains or max(gains) < 0.01:
        return None
    return (
        f"Of the starts of {method}, the nearest to the truth is {np.median(gains):.2f} dB better than the one that "
        "is chosen without it (median): what a better choice could gain at most."
    )


def _worst_sentence(cells: dict[str, dict[str, list[Row]]], method: str, figure: Figure) -> str | None:
    found = [
        (statistics.values(by_method[method], figure), mask) for mask, by_method in cells.items() if method in by_method
    ]
    pairs = [(value, image, mask) for values, mask in found for image, value in values.items()]
    if not pairs:
        return None
    value, image, mask = (min if figure.better > 0 else max)(pairs)
    return f"The worst picture of {method}: image {image} on {mask}, {figure.heading} {value:.{figure.decimals}f}."


def _failures(rows: Sequence[Row]) -> str | None:
    frozen = sum(row.get("frozen") or 0 for row in rows)
    return f"{frozen} starts met non-finite values and were stopped." if frozen else None


def robustness_sentences(cells: dict[str, dict[str, list[Row]]]) -> list[str]:
    """Returns what disturbances change, method by method, beside the undisturbed repeat and another seed.

    Args:
        cells: rows by disturbance and method (`statistics.cells`).
    """
    figure, said = _NAMED["change_psnr"], []
    methods = list(dict.fromkeys(m for by_method in cells.values() for m in by_method))
    for method in methods:
        made = {
            mask: _estimated(by_method[method], figure).median
            for mask, by_method in cells.items()
            if method in by_method and statistics.values(by_method[method], figure)
        }
        if not made:
            continue
        floor = {name: f"{made[name]:.1f} dB" for name in ("repeat", "rounding", "seed") if name in made}
        changes = sorted((value, name) for name, value in made.items() if name not in floor)
        text = f"{method}: the same search again agrees with itself at {floor.get('repeat', '-')} in the hole"
        text += f", after changes at the level of rounding at {floor['rounding']}" if "rounding" in floor else ""
        text += f", with another seed at {floor['seed']}" if "seed" in floor else ""
        if changes:
            worst, mildest = changes[0], changes[-1]
            text += f". Of the disturbances, {worst[1]} changes most ({worst[0]:.1f} dB), {mildest[1]} least "
            text += f"({mildest[0]:.1f} dB)"
        text += "; higher is less changed (medians)."
        more = [name for value, name in changes if value < made.get("seed", -math.inf)]
        said.append(text + (f" More than another seed do: {_listing(more, 12)}." if more else ""))
    return said


def answer(rows: Sequence[Row], *, against: str | None = None, question: str | None = None) -> list[str]:
    """Returns what the rows say, sentence by sentence, the most important first.

    Args:
        rows: of an evaluation.
        against: method that the others are compared with.
        question: of the study, said first.
    """
    said = [f"Question: {question}"] if question else []
    if not rows:
        return [*said, "There are no rows."]
    cells = statistics.cells(rows)
    if any(row["metrics"].get("change_psnr") is not None for row in rows):
        return [*said, *robustness_sentences(cells)]
    figure = _figure(rows)
    if figure is None:
        return [*said, "Nothing was measured that can be better or worse."]
    found = {mask: _mask_sentence(mask, by_method, against, figure) for mask, by_method in cells.items()}
    said += [text for text in found.values() if text]
    wins = [best_of(by_method, figure) for by_method in cells.values()]
    best = max(dict.fromkeys(wins), key=wins.count)
    if best is not None:
        said += [
            text
            for text in (
                _blur_sentence(cells, best),
                _bound_sentence(cells, best),
                _worst_sentence(cells, best, figure),
                _failures(rows),
            )
            if text
        ]
    return said


def overview(rows: Sequence[Row]) -> tables.Table:
    """Returns the small table of the first screen: the mean of the first figures for every method, over all masks."""
    figures = [f for f in statistics.measured(rows) if f.better or f.name == "laplacian_ratio"]
    figures = sorted(figures, key=lambda f: f.name not in _FIRST)[:4]
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row | {"image": f"{row['mask']}/{row['image']}"})
    whole = tables.figures_table(by_method, title="All masks together")
    keep = [0, *[whole.headings.index(f.heading) for f in figures]]
    chosen = tuple(tuple(row[i] for i in keep) for row in whole.rows)
    return tables.Table(whole.title, whole.note, tuple(whole.headings[i] for i in keep), chosen)
