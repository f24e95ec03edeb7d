# SPDX-License-Identifier: Apache-2.0
"""Where the pictures of an evaluation lie below its folder, and the commands that made them.

| folder | what |
|---|---|
| `images/METHOD/MASK/SEED/IMAGE.png` | the composite that was selected and measured |
| `kept/METHOD/MASK/SEED/IMAGE_K.png` | others that were kept, K from 2 on, as different as good ones get |
| `given/MASK/IMAGE.png` | what the method was shown, where that is a picture of this size; holes are grey |
| `truth/IMAGE.png` | the untouched image |
| `commands.jsonl` | a line for every call: its arguments, and the text of every method by label |
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from inpaint.experiments.records import Row
from inpaint.output import file_name
from stylegan_jax import image_io

COMMANDS = "commands.jsonl"


def picture_path(folder: pathlib.Path, row: Row) -> pathlib.Path:
    """Returns where the composite of a row lies."""
    return folder.joinpath("images", *_cell(row), f"{file_name(row['image'])}.png")


def kept_path(folder: pathlib.Path, row: Row, number: int) -> pathlib.Path:
    """Returns where the kept composite `number` of a row lies, from 2 on; the first is that of `picture_path`."""
    return folder.joinpath("kept", *_cell(row), f"{file_name(row['image'])}_{number}.png")


def given_path(folder: pathlib.Path, row: Row) -> pathlib.Path:
    """Returns where the picture that a row's method was shown lies."""
    return folder / "given" / file_name(row["mask"]) / f"{file_name(row['image'])}.png"


def truth_path(folder: pathlib.Path, row: Row) -> pathlib.Path:
    """Returns where the untouched image of a row lies."""
    return folder / "truth" / f"{file_name(row['image'])}.png"


def _cell(row: Row) -> tuple[str, str, str]:
    return file_name(row["method"]), file_name(row["mask"]), str(row["seed"])


class Shown(NamedTuple):
    """Pictures of one row: the composites that were kept `[k, h, w, c]`, the selected one first, what was given (None
    where it is no picture) and the truth, `[h, w, c]` in [-1, 1]."""

    kept: np.ndarray
    given: np.ndarray | None
    truth: np.ndarray


def write(folder: pathlib.Path, row: Row, shown: Shown) -> None:
    """Writes the pictures of a row; what is given and true is written once for all methods."""
    image_io.write_image(picture_path(folder, row), shown.kept[0])
    for number, picture in enumerate(shown.kept[1:], 2):
        image_io.write_image(kept_path(folder, row, number), picture)
    for path, picture in ((given_path(folder, row), shown.given), (truth_path(folder, row), shown.truth)):
        if picture is not None and not path.exists():
            image_io.write_image(path, np.clip(picture, -1, 1))


def note_command(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Appends the facts of a call (`arguments`, `methods` by label, and what else is JSON-like) to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / COMMANDS, "a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def commands(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the facts of all calls that wrote into a folder, the latest last; torn lines are left out."""
    path, found = pathlib.Path(folder) / COMMANDS, []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found
