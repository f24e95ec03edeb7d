# SPDX-License-Identifier: Apache-2.0
"""From the folder of an evaluation to the files of its report."""

import importlib.util
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from inpaint.experiments import papers, pictures
from inpaint.experiments.records import Records, Row
from inpaint.experiments.report import page, plots, statistics, summary, tables
from inpaint.experiments.report.page import Report, Section
from inpaint.experiments.report.plots import Plot
from inpaint.experiments.studies import STUDIES, Study
from stylegan_jax import image_io

FILES = ("report.html", "report.md", "report.csv", "report.tex")
PANELS = ("feature_distance", "composite_hole_psnr", "laplacian_ratio", "known_psnr")
NOTES = (
    "Means and medians are over images, averaged over seeds before; intervals are percentiles of 10,000 bootstrap "
    "resamples of the images, and hold for images like these, not for others.",
    "Tests are Wilcoxon's signed-rank test on the images' differences, two-sided, corrected after Holm over the "
    "methods. No difference found does not mean that there is none: mind the interval.",
    "Best, median and worst are chosen by the feature distance of the judging network, which no search sees; the most "
    "diverse by the distance between the results that were kept. Nothing is picked by hand unless it is called named.",
    "Feature distance, hole SSIM, detail, noise and seam are of the composite; render means the generator's own image. "
    "Detail, noise and seam are divided by those of the untouched image.",
    "The start is selected by its objective, never by the truth; 'best of K by truth' is a bound and no result.",
)


def has_matplotlib() -> bool:
    """Returns whether figures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def _panels(rows: Sequence[Row]) -> list[statistics.Figure]:
    found = {figure.name: figure for figure in statistics.measured(rows)}
    chosen = [found[name] for name in PANELS if name in found]
    return chosen or [f for f in found.values() if f.name != "seconds"][:4]


def _plots(number: int, mask: str, by_method: dict[str, list[Row]], study: Study | None) -> list[Plot]:
    rows = [row for own in by_method.values() for row in own]
    figures, found = _panels(rows), []
    if study is not None and study.trade_off is not None:
        known = {f.name: f for f in statistics.FIGURES}
        x, y = (known[name] for name in study.trade_off)
        svg = plots.scatter(by_method, x, y, name=f"t{number}", level=1.0 if y.over else None)
        line = "; dashed: the untouched images" if y.over else ""
        found.append(Plot(f"{mask}: {y.heading} against {x.heading}", f"Means and 95 % intervals{line}.", svg))
    if figures and len(by_method) > 1:
        svg = plots.forest(by_method, figures, name=f"f{number}")
        found.append(Plot(f"{mask}: every method", "Means and 95 % bootstrap intervals over images.", svg))
    return found


def _whole_plots(rows: Sequence[Row], study: Study | None) -> list[Plot]:
    """Returns figures that run over masks: those that the study names."""
    known, found = {f.name: f for f in statistics.FIGURES}, []
    for number, name in enumerate(() if study is None else study.along_masks):
        if not any(row["metrics"].get(name) is not None for row in rows):
            continue
        by_series: dict[str, dict[str, list[Row]]] = {}
        for row in rows:
            by_series.setdefault(row["method"], {}).setdefault(row["mask"], []).append(row)
        svg = plots.curves(by_series, known[name], name=f"c{number}")
        found.append(Plot(known[name].heading, "Means and 95 % bootstrap intervals over images.", svg))
    return found


def _sections(folder: pathlib.Path, rows: Sequence[Row], against: str | None, study, calls, named) -> list[Section]:
    found = []
    for number, (mask, by_method) in enumerate(statistics.cells(rows).items()):
        own = [row for rows in by_method.values() for row in rows]
        figures = statistics.measured(own)
        drawn = _plots(number, mask, by_method, study) if has_matplotlib() else []
        cards = [
            card
            for method_rows in by_method.values()
            for card in page.cards(folder, method_rows, figures, calls, named=named)
        ]
        found.append(Section(mask, tables.all_tables(own, against=against), drawn, cards))
    return found


def _study(calls: Sequence[dict[str, Any]]) -> Study | None:
    name = next((call.get("study") for call in reversed(calls) if call.get("study")), None)
    return STUDIES.get(name)


def _against(asked: str | None, calls: Sequence[dict[str, Any]], rows: Sequence[Row]) -> str | None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if asked is not None:
        if asked not in methods:
            raise ValueError(f"--against {asked!r} has no rows; methods: {', '.join(methods)}")
        return asked
    told = next((call.get("against") for call in reversed(calls) if call.get("against")), None)
    if told in methods:
        return told
    return methods[0] if len(methods) > 1 else None


def _facts(rows: Sequence[Row], against: str | None) -> str:
    images, seeds = ({row[name] for row in rows} for name in ("image", "seed"))
    methods, masks = ({row[name] for row in rows} for name in ("method", "mask"))
    devices = ", ".join(sorted({row["device"] for row in rows if row.get("device")}))
    versions = next((row["versions"] for row in reversed(rows) if row.get("versions")), {})
    text = f"{len(rows)} rows: {len(methods)} methods, {len(masks)} masks, {len(images)} images, {len(seeds)} seeds"
    text += f"; compared with {against}" if against else ""
    text += f"; {devices}" if devices else ""
    return text + (f"; jax {versions['jax']}" if "jax" in versions else "")


def gather(folder: pathlib.Path, *, against: str | None = None, named: Sequence[str] = ()) -> Report:
    """Returns the report of a folder.

    Args:
        folder: of a finished evaluation, or of one that is under way.
        against: method that the others are compared with; by default the evaluation's, or the first.
        named: images to show beside those that the rules choose.

    Raises:
        ValueError: where the folder holds no rows, or `against` or an image is none of them.
    """
    if not folder.is_dir() or not any(folder.glob("rows*.jsonl")):
        raise ValueError(f"{folder} holds no rows*.jsonl; name the --output folder of an evaluation")
    rows, calls = list(Records(folder).rows.values()), pictures.commands(folder)
    if not rows:
        raise ValueError(f"{folder} holds no finished rows yet")
    missing = sorted(set(named) - {row["image"] for row in rows})
    if missing:
        raise ValueError(f"no rows of image {missing[0]!r}")
    against, study = _against(against, calls, rows), _study(calls)
    sections, notes = _sections(folder, rows, against, study, calls, named), list(NOTES)
    if study is not None and study.kind == "papers":
        printed = papers.filled(rows, papers.read_distances(folder))
        sections = [Section("Tables of the papers", printed, [], []), *sections]
    if not has_matplotlib():
        notes.insert(0, 'There are no figures: matplotlib is not installed (pip install ".[plot]").')
    if not any(section.cards for section in sections):
        notes.insert(0, "There are no pictures: the evaluation wrote none (--nosave_images), or they are gone.")
    overview = summary.overview(rows)
    if study is not None and study.along_masks:
        known = {f.name: f for f in statistics.measured(rows)}
        pivots = [tables.pivot_table(rows, known[name]) for name in study.along_masks if name in known]
        if pivots:
            overview = pivots[0]
            sections = [Section("At a glance", pivots[1:], [], []), *sections]
    title = f"Study: {study.name}" if study is not None else f"Evaluation {folder.resolve().name}"
    said = summary.answer(rows, against=against, question=None if study is None else study.question)
    drawn = _whole_plots(rows, study) if has_matplotlib() else []
    return Report(title, _facts(rows, against), said, overview, drawn, sections, notes)


def write(report: Report, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes page, tables and figures of a report into `folder`; returns the files."""
    every = [report.overview, *[table for section in report.sections for table in section.tables]]
    words = "".join(f"* {text}\n" for text in report.answer)
    head = f"# {report.title}\n\n{report.facts}\n\n{words}\n"
    texts = (page.write_html(report), head + tables.markdown(every), tables.comma_separated(every), tables.latex(every))
    written = []
    for name, text in zip(FILES, texts, strict=True):
        image_io.write_text(folder / name, text)
        written.append(folder / name)
    drawn = [*report.plots, *[plot for section in report.sections for plot in section.plots]]
    for number, plot in enumerate(drawn, 1):
        path = folder / "figures" / f"{number}_{re.sub(r'[^a-z0-9]+', '_', plot.title.lower())[:60]}.svg"
        # As a file of its own it has no page to take a colour from, and needs a ground.
        svg = plot.svg.replace("<svg ", '<svg style="background:#fff;color:#1b1b1f" ', 1)
        image_io.write_text(path, f'<?xml version="1.0" encoding="utf-8"?>\n{svg}')
        written.append(path)
    return written
