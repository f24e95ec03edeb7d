# SPDX-License-Identifier: Apache-2.0
"""Which pictures a report shows: chosen by rule from the figures, so that nobody picks the nice ones."""

import csv
import io
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from inpaint.experiments import pictures
from inpaint.experiments.records import Row
from inpaint.experiments.report.statistics import Figure, values

# What says how good a picture is, and how diverse its kept ones are: the first that was measured.
BY = ("feature_distance", "change_distance", "judged")
DIVERSE_BY = ("kept_distance", "diversity", "start_deviation")


class Chosen(NamedTuple):
    """A row whose pictures are shown, and why: `rule` is "best", "median", "worst", "most diverse" or "named"."""

    rule: str
    row: Row


def _first(rows: Sequence[Row], names: Sequence[str]) -> str | None:
    return next((n for n in names if any(row["metrics"].get(n) is not None for row in rows)), None)


def ranked_by(rows: Sequence[Row]) -> str | None:
    """Returns the figure that best, median and worst of these rows are told by, or None."""
    return _first(rows, BY)


def choose(rows: Sequence[Row], *, named: Sequence[str] = ()) -> list[Chosen]:
    """Returns the best, the median, the worst and the most diverse of one method on one mask.

    Args:
        rows: of one method and mask; of several seeds the first is shown.
        named: images that a person asked for, shown after the others and called so.
    """
    seed = min(row["seed"] for row in rows)
    rows = [row for row in rows if row["seed"] == seed]
    found, name, diverse = [], ranked_by(rows), _first(rows, DIVERSE_BY)
    if name is not None:
        order = sorted((row for row in rows if row["metrics"].get(name) is not None), key=lambda r: r["metrics"][name])
        places = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
        found = [Chosen(rule, order[at]) for rule, at in places.items()]
    if diverse is not None:
        most = max(
            (row for row in rows if row["metrics"].get(diverse) is not None), key=lambda r: r["metrics"][diverse]
        )
        found.append(Chosen("most diverse", most))
    return found + [Chosen("named", row) for row in rows if row["image"] in named]


def files(folder: pathlib.Path, row: Row) -> dict[str, pathlib.Path]:
    """Returns the pictures of a row that are there, by what they show: given, result, truth, kept 2, kept 3 and so on.

    Only files below `folder` are taken, whatever the row says.
    """
    found = {
        "given": pictures.given_path(folder, row),
        "result": pictures.picture_path(folder, row),
        "truth": pictures.truth_path(folder, row),
    }
    found |= {f"kept {k}": pictures.kept_path(folder, row, k) for k in range(2, 9)}
    inside = folder.resolve()
    return {name: path for name, path in found.items() if path.is_file() and path.resolve().is_relative_to(inside)}


# Replaced by what is a row's own, or of no meaning for one row.
_NARROWED = ("methods", "method", "masks", "degradations", "seeds", "study", "output", "shard", "starts", "steps")
_SWITCHES = re.compile(r"--?(no)?(dry_run|table_only|distributed)(=.*)?$")


def _kept_arguments(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for text in arguments:
        if skip:
            skip = False
            continue
        name, equals, _ = text.lstrip("-").partition("=")
        if text.startswith("-") and name in _NARROWED:
            skip = not equals
        elif not _SWITCHES.match(text):
            kept.append(text)
    return kept


def _listed(text: str) -> str:
    """Returns one entry of a flag that takes a list, quoted where it holds a comma."""
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow([text])
    return file.getvalue()


def command(calls: Sequence[dict[str, Any]], row: Row) -> str | None:
    """Returns the command that makes a row's method and mask again, or None where no call of its label is known.

    Args:
        calls: of `inpaint.experiments.pictures.commands`.
        row: of the folder.
    """
    call = next((c for c in reversed(calls) if row["method"] in c.get("methods", {})), None)
    if call is None:
        return None
    if call.get("whole"):
        # The rows of such a study belong together: it makes all of them or none.
        return shlex.join(["python", "-m", "inpaint", "evaluate", *call["arguments"]])
    task = "--degradations" if row["mask"] in call.get("degradations", ()) else "--masks"
    own = [f"--methods={_listed(call['methods'][row['method']])}", f"{task}={_listed(row['mask'])}"]
    own += [f"--seeds={row['seed']}"]
    own += [f"--{name}={call[name]}" for name in ("starts", "steps") if call.get(name) is not None]
    return shlex.join(["python", "-m", "inpaint", "evaluate", *_kept_arguments(call["arguments"]), *own])


def scores(row: Row, figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """Returns headings and figures of one row, in words."""
    found = []
    for figure in figures:
        value = values([row], figure).get(row["image"])
        if value is not None:
            found.append((figure.heading, f"{value:.{figure.decimals}f}"))
    return found
