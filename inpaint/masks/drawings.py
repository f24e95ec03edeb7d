# SPDX-License-Identifier: Apache-2.0
"""Irregular masks from QuickDraw's drawings (simplified ndjson: one JSON object per line, coordinates 0 to 255).

Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from jax import Array

from inpaint.masks import conditions, irregular

# The longest simplified drawings have some ten thousand characters.
_LONGEST_LINE = 1 << 20
_BLANK_LINES = 1000


def quickdraw(key: Array, size: int, *, path: str | os.PathLike, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Returns strokes from random drawings as hole, the share of the area in [low, high].

    Each stroke is a random one of a random drawing, at its place there; number, widths, upscaling, crop and band as in
    `irregular.hole_of_strokes`. Files may be larger than memory: a random place is sought and the next whole line
    taken, so a drawing's chance grows with the length of the line before it.

    Args:
        key: of JAX.
        size: height and width in pixels.
        path: an .ndjson file, or a folder of them (then a file's chance is its share of the bytes).
        low, high: band of the hole share.

    Returns:
        known `[size, size]`.

    Raises:
        ValueError: for missing or empty files, a line that is no simplified drawing (with its number), a band that is
            reversed or cannot be met, or a size below 8.

    Source: karfly/qd-imd; Ha and Eck (2018), the Quick, Draw! dataset.
    """
    files = list_files(pathlib.Path(path))

    def stroke(rng: np.random.Generator) -> np.ndarray:
        drawing = random_drawing(rng, files)
        return drawing[rng.integers(len(drawing))] / 255

    return conditions.to_known(
        irregular.hole_of_strokes(conditions.host_generator(key), size, stroke, low=low, high=high)
    )


def list_files(path: pathlib.Path) -> dict[pathlib.Path, int]:
    """Returns the files that hold drawings and their sizes in bytes."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected an .ndjson file of QuickDraw drawings, or a folder")
    paths = sorted(path.glob("*.ndjson")) if path.is_dir() else [path]
    sizes = {file: file.stat().st_size for file in paths}
    filled = {file: size for file, size in sizes.items() if size}
    if not filled:
        raise ValueError(f"{path} holds no drawings: " + ("every file is empty" if sizes else "no .ndjson file in it"))
    return filled


def random_drawing(rng: np.random.Generator, files: Mapping[pathlib.Path, int]) -> list[np.ndarray]:
    """Returns the strokes, each `[n, 2]` in [0, 255], of a random drawing."""
    place = int(rng.integers(sum(files.values())))
    for path, size in files.items():  # noqa: B007 - the loop ends at the file that holds the place
        if place < size:
            break
        place -= size
    with open(path, "rb") as file:
        file.seek(place)
        _rest_of_line(file)
        start, line = _next_line(file, path)
        try:
            return _strokes(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {_line_number(file, start)}: {error}") from error


def _rest_of_line(file: BinaryIO) -> None:
    """Moves to the beginning of the next line, with bounded memory."""
    while part := file.readline(_LONGEST_LINE):
        if part.endswith(b"\n"):
            return


def _next_line(file: BinaryIO, path: pathlib.Path) -> tuple[int, bytes]:
    """Returns where the next line that is not blank begins, and the line; after the last comes the first."""
    for _ in range(_BLANK_LINES):
        start = file.tell()
        # One byte more than allowed shows that a line is too long.
        line = file.readline(_LONGEST_LINE + 1)
        if not line:
            file.seek(0)
        elif line.strip():
            return start, line
    raise ValueError(f"{path} holds no drawings: only blank lines were found")


def _line_number(file: BinaryIO, start: int) -> int:
    """Returns the number of the line that begins at byte `start`, read only to report an error."""
    file.seek(0)
    number = 1
    while start > 0:
        chunk = file.read(min(start, 1 << 20))
        number += chunk.count(b"\n")
        start -= len(chunk)
    return number


def _strokes(line: bytes) -> list[np.ndarray]:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"longer than {_LONGEST_LINE} bytes; expected one drawing a line")
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise ValueError(f"no JSON object ({error}); expected one drawing a line") from error
    drawing = entry.get("drawing") if isinstance(entry, dict) else None
    if not isinstance(drawing, list) or not drawing:
        raise ValueError('no strokes under "drawing"; expected {"drawing": [[[x, ...], [y, ...]], ...]}')
    return [_stroke(stroke) for stroke in drawing]


def _stroke(stroke: object) -> np.ndarray:
    if isinstance(stroke, list) and len(stroke) == 3:
        raise ValueError("a stroke has times: this is QuickDraw's raw format, the simplified drawings are needed")
    try:
        points = np.array(stroke, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or len(points) != 2 or not points.size:
        raise ValueError("a stroke must be [[x, ...], [y, ...]] with as many x as y, at least one")
    if not (points.min() >= 0 and points.max() <= 255):
        raise ValueError(f"coordinates must lie in 0 to 255, got {points.min():g} to {points.max():g}")
    return points.T
