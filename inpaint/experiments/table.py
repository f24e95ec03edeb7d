# SPDX-License-Identifier: Apache-2.0
"""Tables of an evaluation: medians over images, and paired bootstrap intervals of differences between methods."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from inpaint.experiments.records import Row
from inpaint.metrics.frechet import FeatureStatistics, frechet_distance


class Column(NamedTuple):
    """A figure of the table: its name in the rows, its heading, its decimals, that of the untouched images, and whether
    it is left out where no row has it."""

    name: str
    heading: str
    decimals: int
    truth: str | None = None
    optional: bool = False


COLUMNS = (
    Column("hole_psnr", "hole PSNR, dB", 2),
    Column("composite_hole_psnr", "hole PSNR of the composite, dB", 2),
    Column("best_of_k_hole_psnr", "best of K by truth (bound)", 2),
    Column("hole_ssim", "hole SSIM", 3),
    Column("ssim", "SSIM", 3),
    Column("feature_distance", "feature distance", 4),
    Column("lpips", "LPIPS", 4, optional=True),
    Column("lpips_hole", "hole LPIPS", 4, optional=True),
    Column("identity", "identity", 3, optional=True),
    Column("laplacian_ratio", "Laplacian ratio", 2, "true_laplacian_ratio"),
    Column("high_band_ratio", "high-band ratio", 2, "true_high_band_ratio"),
    Column("seam", "seam", 2, "true_seam"),
    Column("diversity", "diversity", 3),
    Column("kept_distance", "distance of kept results", 4, optional=True),
    Column("kept_lpips", "LPIPS of kept results", 4, optional=True),
    Column("known_psnr", "known PSNR of the render, dB", 2),
)
COMPARED = (
    "hole_psnr",
    "composite_hole_psnr",
    "hole_ssim",
    "feature_distance",
    "lpips",
    "lpips_hole",
    "identity",
    "laplacian_ratio",
)

# What the overview shows of every mask, and whether more is better.
OVERVIEW = {"composite_hole_psnr": True, "feature_distance": False}
SIGNED_FROM = 6  # images; of fewer, a median's interval is no more than their range


def per_image(rows: Iterable[Row], name: str) -> dict[str, float]:
    """Returns the figure `name` of every image, averaged over seeds; images without it are left out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row["metrics"].get(name)
        if value is not None:
            found.setdefault(row["image"], []).append(value)
    return {image: float(np.mean(values)) for image, values in found.items()}


def bootstrap_interval(
    values: np.ndarray, *, resamples: int = 10_000, coverage: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile interval of the median of `values` `[n]` under resampling with replacement.

    Args:
        values: one per image; of differences between two methods on the same image the interval is a paired one.
        resamples: how often.
        coverage: of the interval.
        seed: of the resampling.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be [n], n at least 1, got {list(values.shape)}")
    index = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    medians = np.median(values[index], axis=1)
    low, high = np.quantile(medians, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def embedding_distance(rows: Iterable[Row]) -> float | None:
    """Returns the Frechet distance between the embeddings of restored and true images, or None for one image."""
    rows = [row for row in rows if None not in row["metrics"]["embedding"]]
    if len({row["image"] for row in rows}) < 2:
        return None
    restored, true = (
        FeatureStatistics.of([row["metrics"][name] for row in rows]) for name in ("embedding", "true_embedding")
    )
    return frechet_distance(restored, true)


def _cell(values: Mapping[str, float], decimals: int) -> str:
    return f"{np.median(list(values.values())):.{decimals}f}" if values else "-"


def _markdown(headings: list[str], lines: list[list[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _columns(by_method: Mapping[str, list[Row]]) -> list[Column]:
    measured = {name for rows in by_method.values() for row in rows for name in row["metrics"]}
    return [column for column in COLUMNS if column.name in measured or not column.optional]


def _untouched(rows: list[Row], columns: list[Column]) -> list[str]:
    cells = [_cell(per_image(rows, c.truth), c.decimals) if c.truth else "" for c in columns]
    return ["untouched images", "", *cells, "", "", ""]


def _medians(by_method: Mapping[str, list[Row]]) -> str:
    lines, columns = [], _columns(by_method)
    for method, rows in by_method.items():
        images = len({row["image"] for row in rows})
        frechet = embedding_distance(rows)
        lines.append(
            [
                method + ("*" if rows[0].get("substitute") else ""),
                str(images),
                *[_cell(per_image(rows, c.name), c.decimals) for c in columns],
                "-" if frechet is None else f"{frechet:.3f}",
                f"{np.mean([row['forwards'] for row in rows]):.0f} + {np.mean([row['gradients'] for row in rows]):.0f}",
                f"{sum(row['seconds'] for row in rows):.0f}",
            ]
        )
    lines.append(_untouched([row for rows in by_method.values() for row in rows], columns))
    headings = ["method", "images", *[c.heading for c in columns], "Frechet", "renders + gradients", "seconds"]
    return _markdown(headings, lines)


def _paired(ours: list[Row], theirs: list[Row], name: str) -> np.ndarray:
    """Returns the differences of a figure between two methods, of every image that both have, `[n]`."""
    found = [per_image(rows, name) for rows in (ours, theirs)]
    return np.asarray([found[0][image] - found[1][image] for image in sorted(set(found[0]) & set(found[1]))])


def _tendency(difference: np.ndarray, *, more_is_better: bool) -> str:
    """Returns " +" or " -" where the interval of enough differences `[n]` leaves out 0, for the better or the worse."""
    if len(difference) < SIGNED_FROM:
        return ""
    low, high = bootstrap_interval(difference)
    if low <= 0 <= high:
        return ""
    return " +" if (low > 0) == more_is_better else " -"


def _figure_by_mask(
    cells: Mapping[tuple[str, str], list[Row]], column: Column, *, more_is_better: bool, against: str | None
) -> str:
    """Returns a table of methods by masks of one figure; `cells` are rows by method and mask."""
    methods, masks = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    medians = {}
    for cell, rows in cells.items():
        if values := per_image(rows, column.name):
            medians[cell] = float(np.median(list(values.values())))
    choose = max if more_is_better else min
    best = {mask: choose((v for cell, v in medians.items() if cell[1] == mask), default=None) for mask in masks}

    def text(method: str, mask: str) -> str:
        if (method, mask) not in medians:
            return "-"
        value = medians[method, mask]
        shown = f"{value:.{column.decimals}f}"
        shown = f"**{shown}**" if value == best[mask] else shown
        if method == against or (against, mask) not in medians:
            return shown
        difference = _paired(cells[method, mask], cells[against, mask], column.name)
        return shown + _tendency(difference, more_is_better=more_is_better)

    return _markdown(["method", *masks], [[method, *(text(method, mask) for mask in masks)] for method in methods])


def _frechet_by_mask(cells: Mapping[tuple[str, str], list[Row]]) -> str:
    """Returns a table of methods by masks of the Frechet distance, the smallest of a mask in bold."""
    methods, masks = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    values = {cell: value for cell, rows in cells.items() if (value := embedding_distance(rows)) is not None}
    best = {mask: min((v for cell, v in values.items() if cell[1] == mask), default=None) for mask in masks}

    def text(method: str, mask: str) -> str:
        if (method, mask) not in values:
            return "-"
        value = values[method, mask]
        return f"**{value:.3f}**" if value == best[mask] else f"{value:.3f}"

    return _markdown(["method", *masks], [[method, *(text(method, mask) for mask in masks)] for method in methods])


def _overview(rows: list[Row], against: str | None) -> list[str]:
    """Returns a table of methods by masks for every figure of `OVERVIEW`, each under its name."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["mask"]), []).append(row)
    found = []
    for column in (column for column in COLUMNS if column.name in OVERVIEW):
        made = _figure_by_mask(cells, column, more_is_better=OVERVIEW[column.name], against=against)
        found += [f"{column.heading[0].upper()}{column.heading[1:]}:\n", made]
    return [*found, "Frechet distance:\n", _frechet_by_mask(cells)]


def _differences(by_method: Mapping[str, list[Row]], against: str) -> str:
    lines, compared = [], [column for column in _columns(by_method) if column.name in COMPARED]
    for method, rows in by_method.items():
        if method == against:
            continue
        line = [method]
        for column in compared:
            difference = _paired(rows, by_method[against], column.name)
            if not len(difference):
                line.append("-")
                continue
            low, high = bootstrap_interval(difference)
            line.append(f"{np.median(difference):+.3g} [{low:+.3g}, {high:+.3g}]")
        lines.append(line)
    return _markdown(["method", *[column.heading for column in compared]], lines)


NOTES = """\
Medians over images (averaged over seeds before). PSNR: clipped render, hole pixels x channels, range 2. "Best of K by
truth" chooses the start by the truth: a bound, no result. Hole SSIM and all that follows it but the last are of the
composite. Feature distance and Frechet distance: the judging network, which no search sees. Laplacian and high-band
ratio: detail in the hole / detail around it, 1 like its surroundings, less is blur; seam: 1 is invisible; diversity:
root mean square difference between the starts' holes. Renders + gradients: of the generator, for one image. Seconds:
of all images, with compilation, as timed on the device of each row.
"""
SUBSTITUTED = "*: features of the discriminator in place of LPIPS, so not the published objective.\n"
NOTES_ON_NETWORKS = {
    "lpips": "LPIPS: of the composite, whole, and as the mean of its map over the hole.\n",
    "identity": "Identity: cosine of ArcFace's embeddings of composite and truth; 1 is the same face.\n",
}


def report(rows: Iterable[Row], *, against: str | None = None, title: str = "Evaluation") -> str:
    """Returns the tables of `rows` as Markdown, one for every mask.

    Args:
        rows: of an evaluation.
        against: method that the others are compared with, by the median of the paired differences and its 95 %
            bootstrap interval.
        title: heading.

    Raises:
        ValueError: where no row is of the method `against`.
    """
    rows = list(rows)
    order = list(dict.fromkeys(row["method"] for row in rows))
    if against is not None and against not in order:
        raise ValueError(f"no rows of {against!r}; methods: {', '.join(order) or 'none'}")
    measured = {name for row in rows for name in row["metrics"]}
    parts = [f"# {title}\n", NOTES, *[text for name, text in NOTES_ON_NETWORKS.items() if name in measured]]
    parts += [SUBSTITUTED] if any(row.get("substitute") for row in rows) else []
    masks = list(dict.fromkeys(row["mask"] for row in rows))
    if len(masks) > 1:
        told = f"; + and -: better and worse than {against} by the interval of the paired difference" if against else ""
        parts += ["## Overview\n", f"The best median of a column is bold{told}.\n", *_overview(rows, against)]
    for mask in masks:
        here = [row for row in rows if row["mask"] == mask]
        by_method = {m: found for m in order if (found := [row for row in here if row["method"] == m])}
        share = np.median([row["hole_share"] for row in here])
        parts += [f"## {mask} (hole {100 * share:.0f} %)\n", _medians(by_method)]
        if against in by_method and len(by_method) > 1:
            parts += [f"Difference to {against}, median and 95 % interval:\n", _differences(by_method, against)]
    return "\n".join(parts)
