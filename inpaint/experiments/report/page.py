# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML page that needs nothing else: no network, no other file.

Whatever comes from data (names of methods, masks and images, settings, paths) is escaped, and a content security policy
allows the page's own script alone, by its hash.
"""

import base64
import hashlib
import html
import importlib.resources
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from inpaint.experiments.records import Row
from inpaint.experiments.report import choice
from inpaint.experiments.report.choice import Chosen
from inpaint.experiments.report.plots import Plot
from inpaint.experiments.report.statistics import Figure
from inpaint.experiments.report.tables import Table
from stylegan_jax import image_io

LARGEST = 320  # pixels of a picture's side on the page


class Card(NamedTuple):
    """A chosen row with its pictures by what they show, its scores (heading, figure) and the command that made it."""

    chosen: Chosen
    files: dict[str, pathlib.Path]
    scores: list[tuple[str, str]]
    command: str | None


class Section(NamedTuple):
    """What belongs to one mask: its name, tables, figures and cards."""

    name: str
    tables: list[Table]
    plots: list[Plot]
    cards: list[Card]


class Report(NamedTuple):
    """All that a page shows: title, facts below it, the answer sentence by sentence, its small table, figures that
    concern all masks, sections, and notes at the end."""

    title: str
    facts: str
    answer: list[str]
    overview: Table
    plots: list[Plot]
    sections: list[Section]
    notes: list[str]


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"><button type="button">{_escaped(h)}</button></th>' for h in table.headings)
    lines = []
    for row in table.rows:
        cells = []
        for cell in row:
            value = "" if cell.value is None else f' data-value="{cell.value:.9g}"'
            cells.append(f"<td{value}{' class=best' if cell.best else ''}>{_escaped(cell.text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h3>{_escaped(table.title)}</h3><p class="note">{_escaped(table.note)} Click a heading to sort.</p>'
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _picture(path: pathlib.Path) -> str:
    """Returns a picture file as a data address."""
    kind, data = image_io.encoded_picture(path, largest=LARGEST)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _card(card: Card, pictures: dict[pathlib.Path, str]) -> str:
    row, rule = card.chosen.row, card.chosen.rule
    for path in card.files.values():
        if path not in pictures:
            pictures[path] = _picture(path)
    address = {name: pictures[path] for name, path in card.files.items()}
    title = f"{_escaped(rule)}: image {_escaped(str(row['image']))}"
    parts = [f'<article class="card" data-truth="{address.get("truth", "")}"><h4>{title}</h4>']
    left = address.get("given") or address.get("truth")
    if left and "result" in address:
        options = [name for name in ("given", "truth") if name in address]
        chooser = "".join(f'<option value="{name}">{name}</option>' for name in options)
        parts.append(
            f'<div class="compare"><img class="under" src="{left}" alt="given, or the truth" draggable="false">'
            f'<img class="over" src="{address["result"]}" alt="the result" draggable="false"></div>'
            '<input class="slide" type="range" min="0" max="100" value="50" aria-label="where the result begins">'
            f'<div class="sides"><select aria-label="left picture">{chooser}</select><span>result</span></div>'
        )
    elif "result" in address:
        parts.append(f'<div class="compare" style="--at:0%"><img src="{address["result"]}" alt="the result"></div>')
        parts.append('<input class="slide" type="range" hidden>')
    kept = "".join(
        f'<img src="{src}" alt="{name}" title="{name}">' for name, src in address.items() if name.startswith("kept")
    )
    parts.append(f'<div class="kept">{kept}</div>' if kept else "")
    parts.append("<dl>" + "".join(f"<dt>{_escaped(a)}</dt><dd>{_escaped(b)}</dd>" for a, b in card.scores) + "</dl>")
    if card.command is not None:
        parts.append(f"<details><summary>command</summary><pre><code>{_escaped(card.command)}</code></pre></details>")
    return "".join(parts) + "</article>"


def _plot(plot: Plot) -> str:
    # The SVG is matplotlib's, which escapes the labels.
    title, note = _escaped(plot.title), _escaped(plot.note)
    caption = f"<figcaption>{title}. {note}</figcaption>"
    return f'<figure role="group" aria-label="{title}"><div class="scroll">{plot.svg}</div>{caption}</figure>'


def _section(number: int, section: Section, pictures: dict[pathlib.Path, str]) -> str:
    parts = [f'<section id="mask-{number}"><h2>{_escaped(section.name)}</h2>']
    parts += [_plot(plot) for plot in section.plots]
    by_method: dict[str, list[Card]] = {}
    for card in section.cards:
        by_method.setdefault(card.chosen.row["method"], []).append(card)
    for method, cards in by_method.items():
        parts.append(f"<h3>{_escaped(method)}</h3>")
        parts.append(f'<div class="cards">{"".join(_card(card, pictures) for card in cards)}</div>')
    parts += [_table(table) for table in section.tables]
    return "".join(parts) + "</section>"


def _answer(sentences: Sequence[str]) -> str:
    items = [
        f"<li{' class=question' if text.startswith('Question: ') else ''}>{_escaped(text)}</li>" for text in sentences
    ]
    return f'<ul class="answer">{"".join(items)}</ul>'


def write_html(report: Report) -> str:
    """Returns the page of a report."""
    own = importlib.resources.files("inpaint.experiments.report")
    style, script = (own.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    pictures: dict[pathlib.Path, str] = {}
    links = [f'<a href="#mask-{i}">{_escaped(section.name)}</a>' for i, section in enumerate(report.sections)]
    body = [
        f"<h1>{_escaped(report.title)}</h1>",
        f'<p class="facts">{_escaped(report.facts)}</p>',
        _answer(report.answer),
        f"<nav>{''.join(links)}</nav>",
        _table(report.overview),
        *[_plot(plot) for plot in report.plots],
        *[_section(i, section, pictures) for i, section in enumerate(report.sections)],
        '<section id="notes"><h2>Notes</h2><ul>',
        *[f"<li>{_escaped(note)}</li>" for note in report.notes],
        "</ul></section>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_escaped(report.title)}</title><style>{style}</style></head>\n<body>{''.join(body)}\n"
        f"<script>{script}</script></body></html>\n"
    )


def cards(
    folder: pathlib.Path, rows: Sequence[Row], figures: Sequence[Figure], calls: Sequence[dict], *, named: Sequence[str]
) -> list[Card]:
    """Returns the chosen cards of one method on one mask; those without pictures are left out.

    Args:
        folder: of the evaluation.
        rows: of the method on the mask.
        figures: that a card shows.
        calls: of the folder.
        named: images that a person asked for.
    """
    found = []
    for chosen in choice.choose(rows, named=named):
        there = choice.files(folder, chosen.row)
        if "result" in there:
            scored = choice.scores(chosen.row, figures)
            found.append(Card(chosen, there, scored, choice.command(calls, chosen.row)))
    return found
