# SPDX-License-Identifier: Apache-2.0
"""Tables of a report, and how they are written: Markdown, CSV and LaTeX (HTML is the page's)."""

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from inpaint.experiments.records import Row
from inpaint.experiments.report import statistics
from inpaint.experiments.report.statistics import Figure


class Cell(NamedTuple):
    """What a table shows, the number that it is sorted by (None for text), and whether it is the best of its column."""

    text: str
    value: float | None = None
    best: bool = False


class Table(NamedTuple):
    """A table: its title, what its cells are, headings, and rows of as many cells."""

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _number(value: float, decimals: int, *, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.{decimals}f}" if math.isfinite(value) else "-"


def _with_interval(value: float, interval: tuple[float, float], decimals: int, *, sign: bool = False) -> str:
    low, high = (_number(x, decimals, sign=sign) for x in interval)
    return f"{_number(value, decimals, sign=sign)} [{low}, {high}]"


def _best(estimates: Sequence[float | None], figure: Figure) -> float | None:
    found = [x for x in estimates if x is not None and math.isfinite(x)]
    if not figure.better or len(found) < 2:
        return None
    return max(found) if figure.better > 0 else min(found)


def figures_table(by_method: dict[str, list[Row]], *, title: str, average: str = "mean") -> Table:
    """Returns a row for every method and a column for every figure that was measured.

    Args:
        by_method: rows of one mask.
        title: of the table.
        average: "mean" or "median", with its 95 % bootstrap interval over images.
    """
    figures = statistics.measured([row for rows in by_method.values() for row in rows])
    columns = []
    for figure in figures:
        found = {m: list(statistics.values(rows, figure).values()) for m, rows in by_method.items()}
        made = {m: statistics.estimate(v) if v else None for m, v in found.items()}
        best = _best([None if e is None else getattr(e, average) for e in made.values()], figure)
        column = {}
        for m, e in made.items():
            value = None if e is None else getattr(e, average)
            text = "-" if e is None else _with_interval(value, getattr(e, f"{average}_interval"), figure.decimals)
            column[m] = Cell(text, value, value is not None and value == best)
        columns.append(column)
    rows = tuple(
        (Cell(m), Cell(str(n := len({row["image"] for row in own})), float(n)), *[column[m] for column in columns])
        for m, own in by_method.items()
    )
    note = f"{average.capitalize()} over images, and its 95 % bootstrap interval."
    return Table(title, note, ("method", "images", *[figure.heading for figure in figures]), rows)


def tests_table(by_method: dict[str, list[Row]], against: str, *, title: str) -> Table:
    """Returns the paired comparison of every other method with `against`, in the figures that can be better.

    Args:
        by_method: rows of one mask.
        against: method that the others are compared with.
        title: of the table.
    """
    figures = [f for f in statistics.measured([r for rows in by_method.values() for r in rows]) if f.better]
    others = [m for m in by_method if m != against]
    found = {
        (m, f.name): statistics.paired(statistics.values(by_method[m], f), statistics.values(by_method[against], f))
        for m in others
        for f in figures
    }
    corrected = {}
    for f in figures:
        keys = [(m, f.name) for m in others if found[m, f.name] is not None]
        corrected |= dict(zip(keys, statistics.holm([found[key].p for key in keys]), strict=True))
    rows = []
    for m in others:
        line = [Cell(m)]
        for f in figures:
            pair = found[m, f.name]
            if pair is None:
                line += [Cell("-"), Cell("-")]
                continue
            p = corrected[m, f.name]
            text = _with_interval(pair.median, pair.interval, f.decimals, sign=True)
            line += [Cell(text, pair.median), Cell(p_text(p), p if math.isfinite(p) else None)]
        rows.append(tuple(line))
    headings = ("method", *[text for f in figures for text in (f.heading, "p")])
    note = (
        f"Difference to {against}, image by image: median, 95 % bootstrap interval, and p of Wilcoxon's signed-rank "
        "test after Holm's correction over the methods."
    )
    return Table(title, note, headings, tuple(rows))


def pivot_table(rows: Sequence[Row], figure: Figure, *, average: str = "median") -> Table:
    """Returns one figure with a row for every mask (or disturbance) and a column for every method.

    Args:
        rows: of an evaluation.
        figure: that is shown.
        average: "mean" or "median", with its 95 % bootstrap interval over images.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for mask, by_method in statistics.cells(rows).items():
        line = [Cell(mask)]
        for method in methods:
            found = list(statistics.values(by_method.get(method, []), figure).values())
            if not found:
                line.append(Cell("-"))
                continue
            made = statistics.estimate(found)
            value, interval = getattr(made, average), getattr(made, f"{average}_interval")
            line.append(Cell(_with_interval(value, interval, figure.decimals), value))
        lines.append(tuple(line))
    note = f"{average.capitalize()} over images, and its 95 % bootstrap interval."
    return Table(figure.heading, note, ("", *methods), tuple(lines))


def p_text(p: float) -> str:
    """Returns a p-value in words of a table."""
    return "-" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def all_tables(rows: Sequence[Row], *, against: str | None) -> list[Table]:
    """Returns for every mask means, medians and, where there is something to compare with, paired tests."""
    found = []
    for mask, by_method in statistics.cells(rows).items():
        found += [
            figures_table(by_method, title=f"{mask}: means", average="mean"),
            figures_table(by_method, title=f"{mask}: medians", average="median"),
        ]
        if against in by_method and len(by_method) > 1:
            found.append(tests_table(by_method, against, title=f"{mask}: compared with {against}"))
    return found


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def markdown(tables: Sequence[Table]) -> str:
    """Returns tables as Markdown; the best of a column is bold."""

    def shown(cell: Cell) -> str:
        text = _flat(cell.text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
        return f"**{text}**" if cell.best else text

    parts = []
    for table in tables:
        lines = [[shown(Cell(h)) for h in table.headings], ["---"] * len(table.headings)]
        lines += [[shown(cell) for cell in row] for row in table.rows]
        heading = f"## {shown(Cell(table.title))}\n\n{shown(Cell(table.note))}\n\n"
        parts.append(heading + "".join("| " + " | ".join(line) + " |\n" for line in lines))
    return "\n".join(parts)


def comma_separated(tables: Sequence[Table]) -> str:
    """Returns one CSV: table, row, column, text and number of every cell; a text that a spreadsheet would run as a
    formula is led by an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "row", "column", "text", "value"])

    def safe(text: str) -> str:
        return f"'{text}" if text[:1] in "=+-@\t\r" and not re.fullmatch(r"[+-]?[\d.].*|-", text) else text

    for table in tables:
        for row in table.rows:
            for heading, cell in zip(table.headings[1:], row[1:], strict=True):
                value = "" if cell.value is None else f"{cell.value:.9g}"
                writer.writerow([safe(table.title), safe(row[0].text), heading, safe(cell.text), value])
    return file.getvalue()


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_LATEX |= {">": r"\textgreater{}", "|": r"\textbar{}"} | {c: "\\" + c for c in "&%$#_{}"}


def latex(tables: Sequence[Table]) -> str:
    """Returns tables as LaTeX `table` environments that need no package; the best of a column is bold."""

    def shown(cell: Cell) -> str:
        text = "".join(_LATEX.get(c, c) for c in _flat(cell.text))
        return rf"\textbf{{{text}}}" if cell.best else text

    parts = []
    for table in tables:
        lines = [" & ".join(shown(Cell(h)) for h in table.headings) + r" \\ \hline"]
        lines += [" & ".join(shown(cell) for cell in row) + r" \\" for row in table.rows]
        body, columns = "\n".join(lines), "l" + "r" * (len(table.headings) - 1)
        caption = shown(Cell(f"{table.title}. {table.note}"))
        parts.append(
            f"\\begin{{table}}\n\\centering\\footnotesize\n\\begin{{tabular}}{{{columns}}}\n\\hline\n{body}\n\\hline\n"
            f"\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n"
        )
    return "\n".join(parts)
