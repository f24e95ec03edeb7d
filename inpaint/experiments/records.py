# SPDX-License-Identifier: Apache-2.0
"""Rows of an evaluation in JSON lines files, written so that a kill at any moment loses nothing that was finished.

A file holds two kinds of lines: `{"settings": fingerprint, ...}`, all that decided the rows with this fingerprint, and
rows, one for every restored image. Several processes write files of their own into one folder.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = dict[str, Any]


class Identity(NamedTuple):
    """What a row is about; every row of an evaluation has another."""

    method: str
    mask: str
    image: str
    seed: int


def identity(row: Mapping[str, Any]) -> Identity:
    """Returns what `row` is about."""
    return Identity(*(row[name] for name in Identity._fields))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Returns a short hash of JSON-like settings."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Records:
    """All finished rows of a folder, and a file in it that takes new ones."""

    def __init__(self, folder: str | os.PathLike, *, name: str = "rows.jsonl"):
        """Reads every `rows*.jsonl` of `folder`; new rows go to `name`, behind what it holds.

        Raises:
            ValueError: where a line before the last one of a file is damaged, or the folder holds other files only.
        """
        self.folder, self.path = pathlib.Path(folder), pathlib.Path(folder) / name
        self.rows: dict[Identity, Row] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"--output {folder} is a file; name a folder")
        files = sorted(self.folder.glob("rows*.jsonl"))
        if not files and self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"--output {folder} holds other files; name an empty or a new folder")
        for file in files:
            for line in _complete_lines(file):
                self._take(line)
        self._written = set()

    def _take(self, line: dict[str, Any]) -> None:
        if "settings" in line:
            self.settings[line["settings"]] = line
        else:
            self.rows[identity(line)] = line

    def start(self) -> None:
        """Makes the folder and the file for new rows, so that a folder with pictures alone is still known as ours."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def finished(self, wanted: Identity, expected: str, inputs: str) -> bool:
        """Returns whether the row `wanted` exists, with the fingerprint `expected` and the digest of its `inputs`.

        Raises:
            ValueError: where it was made with other settings, or from another image or mask.
        """
        row = self.rows.get(wanted)
        if row is None:
            return False
        if row["fingerprint"] != expected:
            raise ValueError(
                f"{self.folder} holds rows of {wanted.method} on {wanted.mask} made with other settings; "
                "name another --output, or give the method another label (LABEL=METHOD)"
            )
        if row["inputs_sha256"] != inputs:
            raise ValueError(
                f"{self.folder} holds rows of image {wanted.image} on {wanted.mask} made from another image or mask; "
                "name another --output"
            )
        return True

    def append(self, rows: Iterable[Row], settings: Mapping[str, Any]) -> None:
        """Writes `rows`, which were made with `settings`, to the disk before it returns."""
        made_with = fingerprint(settings)
        lines = []
        if made_with not in self._written:
            lines.append({"settings": made_with, **settings})
        lines += [row | {"fingerprint": made_with} for row in rows]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        self.folder.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(self.path)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._written.add(made_with)
        for line in lines:
            self._take(line)


def _complete_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    # What follows the last line feed was torn by a kill; its row is made again.
    found, lines = [], path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} is damaged in line {number}; repair or remove it") from error
    return found


def _drop_torn_line(path: pathlib.Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
