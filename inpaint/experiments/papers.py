# SPDX-License-Identifier: Apache-2.0
"""The tables of papers, in their layout: our figures by the paper's protocol beside those that it prints.

The printed figures are the authors', on their images, masks, generators and sizes: they stand there to be reproduced by
whoever has the same, and are no comparison with what was measured on other data.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from inpaint import masks
from inpaint.experiments import pictures
from inpaint.experiments.records import Row
from inpaint.experiments.report.tables import Cell, Table
from inpaint.metrics import frechet_inception as fid
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features import Inception

FID = "fid.json"
THEIRS = "(theirs, other data)"
STROKES = "strokes:0-1"  # stands for QD-IMD's files; --masks quickdraw:PATH@... takes QuickDraw's own drawings


class Measure(NamedTuple):
    """A figure as a paper prints it: the name in our rows (mean over images, times `times`), or "fid"."""

    name: str
    decimals: int
    times: float = 1.0


L1 = Measure("relative_l1", 2, 100)
LUMINANCE_SSIM, LUMINANCE_PSNR = Measure("luminance_ssim", 3), Measure("luminance_psnr", 3)
SSIM, PSNR, LPIPS, DISTANCE = Measure("ssim", 3), Measure("psnr", 2), Measure("lpips", 3), Measure("fid", 2)
DIVERSITY = Measure("kept_lpips", 4)


class Line(NamedTuple):
    """A line of a table: its labels, mask or degradation, figure, and what the paper prints in its columns."""

    labels: tuple[str, ...]
    task: str
    measure: Measure
    printed: tuple[str, ...]


class PaperTable(NamedTuple):
    """A table of a paper: its title, what is special about it, headings of labels and printed columns, and lines."""

    title: str
    note: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


def _lines(measures: Sequence[tuple[str, Measure]], tasks: Mapping[str, str], printed: str) -> tuple[Line, ...]:
    """Returns a line for every figure and task; `printed` holds a line of numbers for each."""
    wanted = [(heading, name, task, measure) for heading, measure in measures for name, task in tasks.items()]
    numbers = [tuple(line.split()) for line in printed.strip().splitlines()]
    return tuple(
        Line((heading, name), task, measure, values)
        for (heading, name, task, measure), values in zip(wanted, numbers, strict=True)
    )


_FILIPOVSKI = PaperTable(
    "Filipovski et al., Table 1",
    "FFHQ; DCGAN at 64 x 64, StyleGAN at 256 x 256. l1 is sum |a - b| / sum (a + b), SSIM has a uniform window of 11, "
    "and both, as PSNR, are of the luminance of the whole image.",
    ("metric", "mask"),
    ("DCGAN", "StyleGAN"),
    _lines(
        (("l1, %", L1), ("SSIM", LUMINANCE_SSIM), ("PSNR", LUMINANCE_PSNR), ("FID", DISTANCE)),
        {"regular": "rectangles:0.1-0.4", "noise": "noise:0.8", "Quick Draw": STROKES},
        """2.25 2.38
        5.6 2.79
        0.65 0.79
        0.875 0.891
        0.729 0.812
        0.964 0.946
        25.481 24.576
        20.745 25.654
        34.055 32.326
        30.598 35.455
        203.981 148.268
        25.351 32.309""",
    ),
)
_BANDS = {f"{low}-{low + 10} %": f"strokes:0.{low // 10}-0.{low // 10 + 1}" for low in (10, 20, 30, 40)}
_DIFAI = (
    PaperTable(
        "DiFaI, Table 1",
        "CelebA-HQ at 256 x 256, 2,000 test images.",
        ("metric", "mask"),
        ("DiFaI", "LBAM", "EC", "MLGN"),
        _lines(
            (("SSIM", SSIM), ("LPIPS", LPIPS), ("FID", DISTANCE)),
            {"Quickdraw": STROKES} | _BANDS,
            """0.833 0.821 0.817 0.832
            0.837 0.814 0.827 0.839
            0.777 0.744 0.761 0.777
            0.709 0.667 0.681 0.706
            0.633 0.583 0.595 0.624
            0.049 0.047 0.047 0.063
            0.052 0.057 0.051 0.065
            0.084 0.087 0.082 0.103
            0.124 0.126 0.128 0.148
            0.170 0.172 0.183 0.201
            25.95 25.79 27.49 28.45
            24.74 27.63 25.65 26.73
            34.55 36.51 34.80 38.34
            46.87 48.47 47.14 52.54
            64.86 64.40 63.75 73.07""",
        ),
    ),
    PaperTable(
        "DiFaI, Table 2",
        "Mean LPIPS between results for one image; theirs over 4,000 pairs from 1,000 images, ours over all pairs of "
        "kept results.",
        ("metric", "mask"),
        ("PIC", "DiFaI"),
        _lines(
            (("diversity", DIVERSITY),),
            {name: _BANDS[name] for name in ("20-30 %", "30-40 %")},
            """0.0714 0.0849
            0.1079 0.1313""",
        ),
    ),
    PaperTable(
        "DiFaI, Table 3",
        "Their ablation, on Quickdraw masks.",
        ("metric", "mask"),
        ("SPADE", "without RN", "DiFaI"),
        _lines(
            (("SSIM", SSIM), ("LPIPS", LPIPS), ("FID", DISTANCE)),
            {"Quickdraw": STROKES},
            """0.816 0.817 0.833
            0.056 0.057 0.049
            27.96 28.45 25.95""",
        ),
    ),
)
_HIERARCHICAL = (
    PaperTable(
        "Hierarchical encoding, Table 1",
        "FFHQ's validation images at 256 x 256, masks of CoModGAN's generator. The paper has models in rows; here they "
        "are columns, beside ours.",
        ("metric", "masks"),
        ("pSp", "HFGI", "HyperStyle", "CoModGAN", "InvertFill", "DivInversion", "hierarchical"),
        _lines(
            (("FID", DISTANCE), ("LPIPS", LPIPS)),
            {"all": "brush:all", "easy": "brush:easy", "difficult": "brush:hard"},
            """8.23 7.66 7.46 7.35 7.45 5.92 4.85
            3.15 2.24 3.08 4.68 1.13 2.26 1.87
            9.63 8.87 8.67 7.13 9.58 6.23 5.72
            0.272 0.214 0.208 0.151 0.152 0.153 0.144
            0.164 0.152 0.159 0.170 0.123 0.145 0.135
            0.374 0.352 0.337 0.230 0.235 0.223 0.209""",
        ),
    ),
    PaperTable(
        "Hierarchical encoding, Table 2",
        "Their ablation, on all masks.",
        ("metric", "masks"),
        ("DivInversion, stage 1", "hierarchical W+", "DivInversion, two stages", "hierarchical, two stages", "full"),
        _lines((("FID", DISTANCE),), {"all": "brush:all"}, "16.65 13.61 5.92 5.20 4.85"),
    ),
)
_LEVELS = ("XS", "S", "M", "L", "XL")
_ROBUST = PaperTable(
    "Robust unsupervised restoration, levels XS to XL",
    "FFHQ-X at 1024 x 1024; printed is a Frechet distance of patches at XL, which ours, of whole images, is not. "
    "Ours has the downsampling kernel that is named, theirs a random one.",
    ("metric", "task and level"),
    ("paper", "repository"),
    tuple(
        Line(
            (heading, f"{task} {level}"),
            f"{name}:{level}",
            measure,
            printed if level == "XL" and heading == "FID" else ("-", "-"),
        )
        for heading, measure in (("FID", DISTANCE), ("LPIPS", LPIPS), ("PSNR", PSNR))
        for task, name, printed in (
            ("upsampling", "downsample", ("21.3", "21.5")),
            ("denoising", "poisson", ("17.9", "17.8")),
            ("deartifacting", "jpeg", ("18.7", "16.7")),
        )
        for level in _LEVELS
    ),
)
PAPERS = {
    "filipovski": (_FILIPOVSKI,),
    "difai": _DIFAI,
    "hierarchical": _HIERARCHICAL,
    "robust_unsupervised": (_ROBUST,),
}
DEGRADED = frozenset({"robust_unsupervised"})  # papers whose tasks are degradations, not masks


def tasks(papers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the masks and the degradations that the tables of these papers ask for, each once."""
    found: tuple[list[str], list[str]] = ([], [])
    for paper in papers:
        for table in PAPERS[paper]:
            found[paper in DEGRADED].extend(line.task for line in table.lines)
    return list(dict.fromkeys(found[0])), list(dict.fromkeys(found[1]))


def _value(rows: Sequence[Row], measure: Measure, distance: float | None) -> float | None:
    if measure.name == "fid":
        return distance
    found = [row["metrics"][measure.name] for row in rows if row["metrics"].get(measure.name) is not None]
    return measure.times * float(np.mean(found)) if found else None


def _canonical(task: str) -> str:
    name = task.partition(":")[0]
    return masks.parse(task).name if name in masks.KNOWN else task


def fill(table: PaperTable, rows: Sequence[Row], distances: Mapping[str, float]) -> Table | None:
    """Returns a paper's table with a column for each of our methods, or None where no row belongs to it.

    Args:
        table: of `PAPERS`.
        rows: of an evaluation.
        distances: FID by `cell_name`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines, seen = [], set()
    for line in table.lines:
        task = _canonical(line.task)
        cells = [Cell(text) for text in line.labels]
        for method in methods:
            own = [row for row in rows if row["method"] == method and row["mask"] == task]
            seen |= {method} if own else set()
            value = _value(own, line.measure, distances.get(cell_name(method, task)))
            cells.append(Cell("-" if value is None else f"{value:.{line.measure.decimals}f}", value))
        cells += [Cell(text, None if text == "-" else float(text)) for text in line.printed]
        lines.append(cells)
    if not seen:
        return None
    kept = [*range(len(table.labels)), *(len(table.labels) + i for i, m in enumerate(methods) if m in seen)]
    kept += range(len(table.labels) + len(methods), len(table.labels) + len(methods) + len(table.columns))
    headings = [*table.labels, *methods, *(f"{name} {THEIRS}" for name in table.columns)]
    images = max(len({r["image"] for r in rows if r["method"] == m}) for m in seen)
    note = (
        f"{table.note} Ours: means over {images} images; '-' was not measured (FID needs --inception, LPIPS --lpips)."
    )
    made = tuple(tuple(line[i] for i in kept) for line in lines)
    return Table(table.title, note, tuple(headings[i] for i in kept), made)


def filled(rows: Sequence[Row], distances: Mapping[str, float]) -> list[Table]:
    """Returns the tables of all papers that `rows` have something for; see `fill`."""
    found = [fill(table, rows, distances) for group in PAPERS.values() for table in group]
    return [table for table in found if table is not None]


def cell_name(method: str, mask: str) -> str:
    """Returns what a cell is called in the file of distances."""
    return json.dumps([method, mask])


def read_distances(folder: pathlib.Path) -> dict[str, float]:
    """Returns FID by `cell_name` as `write_distances` left it in a folder, or nothing."""
    path = folder / FID
    return json.loads(path.read_text(encoding="utf-8"))["distances"] if path.is_file() else {}


def write_distances(folder: pathlib.Path, rows: Sequence[Row], inception: str, *, convention: str) -> dict[str, Any]:
    """Measures FID between the composites and the untouched images of every cell whose pictures are there, and writes
    it into the folder.

    Args:
        folder: of the evaluation.
        rows: of it.
        inception: checkpoint of the network.
        convention: of `inpaint.metrics.frechet_inception`.
    """
    network, content_hash = checkpoint.load_network(inception, Inception)
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cells.setdefault(cell_name(row["method"], row["mask"]), []).append(row)
    found = {}
    for name, own in cells.items():
        pairs = [(pictures.picture_path(folder, row), pictures.truth_path(folder, row)) for row in own]
        if len(pairs) < 2 or not all(path.is_file() for pair in pairs for path in pair):
            continue
        sides = [
            fid.inception_statistics(
                network,
                (image_io.read_picture(path).levels for path in dict.fromkeys(side)),
                convention=convention,
                network_hash=content_hash,
            )
            for side in zip(*pairs, strict=True)
        ]
        found[name] = float(fid.inception_distance(*sides))
    facts = {"distances": found, "convention": convention, "inception": content_hash}
    image_io.write_text(folder / FID, json.dumps(facts, indent=1) + "\n")
    return facts
