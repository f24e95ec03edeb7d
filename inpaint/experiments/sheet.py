# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: an image in every line, a method in every column."""

import pathlib
from collections.abc import Sequence

import numpy as np

from inpaint.experiments.grid import Grid, evenly_spaced
from inpaint.experiments.pictures import picture_path
from inpaint.experiments.records import Identity, Records
from inpaint.output import file_name
from stylegan_jax import image_io


def write_sheets(
    folder: pathlib.Path, grid: Grid, records: Records, *, lines: int = 6, tile: int = 128
) -> list[pathlib.Path]:
    """Writes a sheet for every task whose pictures are there: what is given, every method's composites, the truth.

    Args:
        folder: of the evaluation; sheets go to its subfolder `sheets`.
        grid: what was run.
        records: its rows.
        lines: images shown, evenly spaced.
        tile: pixels that an image is enlarged to.

    Returns:
        The files written.
    """
    chosen = evenly_spaced(len(grid.portraits.names), lines)
    written = []
    for mask in grid.masks:
        rows = [_line(folder, grid, records, mask, i, tile=tile) for i in chosen]
        rows = [row for row in rows if row is not None]
        if rows:
            path = folder / "sheets" / f"{file_name(mask.name)}.png"
            image_io.write_image(path, np.concatenate(rows))
            written.append(path)
    return written


def _line(folder, grid: Grid, records: Records, mask, i: int, *, tile: int) -> np.ndarray | None:
    truth = image_io.from_uint8(grid.portraits.images[i])
    given = np.clip(np.asarray(grid.problem(mask, i).measurement), -1, 1)
    # What is no image has no picture.
    pictures: list[tuple[str, np.ndarray | None]] = [("given", given if given.ndim == 3 else None)]
    for method in grid.methods:
        row = records.rows.get(Identity(method.label, mask.name, grid.portraits.names[i], grid.seeds[0]))
        path = None if row is None else picture_path(folder, row)
        there = path is not None and path.is_file()
        pictures.append((method.label, image_io.read_image(path)[0] if there else None))
    if all(picture is None for _, picture in pictures[1:]):
        return None
    pictures.append(("truth", truth))
    return np.concatenate(_tiles(pictures, tile), 1)


def _tiles(pictures: Sequence[tuple[str, np.ndarray | None]], tile: int) -> list[np.ndarray]:
    blank = np.full((tile, tile, 3), 255, np.uint8)
    return [
        image_io.labelled(blank if picture is None else image_io.enlarge(picture, tile), name)
        for name, picture in pictures
    ]
