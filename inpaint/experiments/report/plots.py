# SPDX-License-Identifier: Apache-2.0
"""Figures of a report as SVG, by matplotlib, which is an optional extra.

Lines and letters take the colour of the page's text, so that a figure can be read on light and on dark ground.
"""

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inpaint.experiments.records import Row
from inpaint.experiments.report import statistics
from inpaint.experiments.report.statistics import Figure

INK = "#010203"  # stands for the colour of the page's text
EQUAL = 90  # dB: above it, 8-bit pictures are equal
SERIES = ("#4477aa", "#cc6677", "#228833", "#b8860b", "#aa3377", "#3399bb", "#777777", "#994400")


class Plot(NamedTuple):
    """A figure: its title, what it shows, and the SVG element."""

    title: str
    note: str
    svg: str


def _settings() -> dict[str, object]:
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return dict.fromkeys(colours, INK) | {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        # Labels are other people's text: no dollar sign begins a formula.
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _svg(figure, name: str) -> str:
    """Returns a matplotlib figure as an SVG element whose ids begin with `name`, and closes it."""
    from matplotlib import pyplot

    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Several figures share a page, and ids are the page's.
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', lambda m: f"<svg {m[1] or ''}", text, count=1)


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else f"{text[: length - 9]}..{text[-7:]}"


def forest(by_method: dict[str, list[Row]], figures: Sequence[Figure], *, name: str) -> str:
    """Returns means with their 95 % intervals, a panel for every figure and a line for every method, as SVG.

    Args:
        by_method: rows of one mask.
        figures: at most four.
        name: prefix of the ids.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib import pyplot, rc_context

    with rc_context(_settings() | {"svg.hashsalt": name}):
        height = 0.9 + 0.24 * len(by_method)
        figure, axes = pyplot.subplots(
            1,
            len(figures),
            figsize=(1.9 + 2.1 * len(figures), height),
            sharey=True,
            layout="constrained",
            squeeze=False,
        )
        for axis, shown in zip(axes[0], figures, strict=True):
            for place, rows in enumerate(by_method.values()):
                found = list(statistics.values(rows, shown).values())
                if not found:
                    continue
                made = statistics.estimate(found)
                axis.plot(made.mean_interval, [place, place], color=SERIES[0], lw=2, solid_capstyle="butt")
                axis.plot(made.mean, place, "o", color=SERIES[0], ms=5)
            axis.set_xlabel(shown.heading, fontsize=8)
            axis.grid(axis="x", alpha=0.3)
        axes[0, 0].set_yticks(range(len(by_method)), [_shortened(m) for m in by_method])
        axes[0, 0].invert_yaxis()
        return _svg(figure, name)


def scatter(by_method: dict[str, list[Row]], x: Figure, y: Figure, *, name: str, level: float | None = None) -> str:
    """Returns the means of two figures against each other with their 95 % intervals, a point for every method, as SVG.

    Args:
        by_method: rows of one mask.
        x, y: the figures.
        name: prefix of the ids.
        level: of a dashed line, such as that of untouched images.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib import pyplot, rc_context

    with rc_context(_settings() | {"svg.hashsalt": name}):
        figure, axis = pyplot.subplots(figsize=(7.2, 4.6), layout="constrained")
        for number, (method, rows) in enumerate(by_method.items()):
            pair = [list(statistics.values(rows, f).values()) for f in (x, y)]
            if not all(pair):
                continue
            a, b = (statistics.estimate(found) for found in pair)
            spread = [np.abs(np.subtract(e.mean_interval, e.mean))[:, None] for e in (a, b)]
            colour, marker = SERIES[number % len(SERIES)], "osD^vPX"[number // len(SERIES) % 7]
            label = _shortened(method)
            axis.errorbar(
                a.mean,
                b.mean,
                yerr=spread[1],
                xerr=spread[0],
                fmt=marker,
                color=colour,
                ms=7,
                elinewidth=0.6,
                label=label,
            )
        if level is not None:
            axis.axhline(level, color=INK, lw=1, ls="--")
        axis.set(xlabel=x.heading, ylabel=y.heading)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return _svg(figure, name)


def curves(by_series: dict[str, dict[str, list[Row]]], shown: Figure, *, name: str) -> str:
    """Returns means with 95 % intervals along a row of labels (masks, perturbations), a series for each method, as SVG.

    Args:
        by_series: rows by method, then by label.
        shown: the figure.
        name: prefix of the ids.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib import pyplot, rc_context

    means_shown: list[float] = []
    labels = list(dict.fromkeys(label for cells in by_series.values() for label in cells))
    with rc_context(_settings() | {"svg.hashsalt": name}):
        figure, axis = pyplot.subplots(figsize=(7.2, 3.6), layout="constrained")
        for number, (method, cells) in enumerate(by_series.items()):
            at, found = [], []
            for place, label in enumerate(labels):
                values = list(statistics.values(cells.get(label, []), shown).values())
                if values:
                    at.append(place)
                    found.append(statistics.estimate(values))
            if not found:
                continue
            means = np.asarray([e.mean for e in found])
            means_shown += means.tolist() if shown.name.endswith("psnr") else []
            spread = np.abs(np.asarray([e.mean_interval for e in found]).T - means)
            offset = 0.08 * (number - (len(by_series) - 1) / 2)
            colour = SERIES[number % len(SERIES)]
            axis.errorbar(
                np.add(at, offset), means, spread, fmt="o-", ms=4, lw=1, color=colour, label=_shortened(method)
            )
        if means_shown and max(means_shown) >= EQUAL:
            # What is equal to the last bit would press all else to the ground.
            axis.set_ylim(top=max([x for x in means_shown if x < EQUAL], default=EQUAL) + 5)
        axis.set_xticks(range(len(labels)), [_shortened(label, 28) for label in labels], rotation=35, ha="right")
        axis.set_ylabel(shown.heading)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=7, frameon=False)
        return _svg(figure, name)
