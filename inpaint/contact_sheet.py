# SPDX-License-Identifier: Apache-2.0
"""One picture for a person: what came in, what was asked, what was found."""

from collections.abc import Sequence

import numpy as np

from stylegan_jax import image_io


def contact_sheet(
    image: np.ndarray,
    known: np.ndarray,
    restored: np.ndarray,
    raw: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    titles: list[str],
    tile: int = 192,
) -> np.ndarray:
    """Returns input, hole and restorations in one row, and truth and raw renders below them.

    Args:
        image: input `[h, w, c]`; shown with the hole in mid grey.
        known: `[h, w]`, 1 = keep.
        restored, raw: `[k, h, w, c]`.
        truth: `[h, w, c]`, or None where nobody knows it.
        titles: one for every restoration.
        tile: pixels that every image is enlarged to.

    Returns:
        uint8 `[2 * (tile + 20), (k + 2) * tile, 3]`.
    """
    hole = np.broadcast_to(1 - 2 * known[..., None], image.shape)
    top = [_tile(_shown(image, known), "input", tile), _tile(hole, "hole (white)", tile)]
    top += [_tile(picture, title, tile) for picture, title in zip(restored, titles, strict=True)]
    below = [_tile(truth, "truth" if truth is not None else "", tile), _tile(None, "", tile)]
    below += [_tile(picture, f"raw generator output {i}", tile) for i, picture in enumerate(raw, 1)]
    return np.concatenate([np.concatenate(top, 1), np.concatenate(below, 1)], 0)


def edit_sheet(
    image: np.ndarray,
    known: np.ndarray,
    edited: np.ndarray,
    raw: np.ndarray,
    *,
    titles: Sequence[Sequence[str]],
    tile: int = 192,
) -> np.ndarray:
    """Returns a row of pictures for every result, its raw renders below them, and the input before the first.

    Args:
        image, known: as in `contact_sheet`.
        edited, raw: `[k, s, h, w, c]`, s edits of k results.
        titles: `[k][s]`.
        tile: pixels that every image is enlarged to.

    Returns:
        uint8 `[2 * k * (tile + 20), (s + 1) * tile, 3]`.
    """
    rows = []
    for i, (pictures, renders, names) in enumerate(zip(edited, raw, titles, strict=True)):
        first = None if i else _shown(image, known)
        top = [_tile(first, "" if i else "input", tile)]
        top += [_tile(picture, name, tile) for picture, name in zip(pictures, names, strict=True)]
        below = [_tile(None, "", tile), *(_tile(render, "raw generator output", tile) for render in renders)]
        rows += [np.concatenate(top, 1), np.concatenate(below, 1)]
    return np.concatenate(rows, 0)


def recovery_sheet(
    measurement: np.ndarray | None,
    recovered: np.ndarray,
    again: np.ndarray | None,
    *,
    truth: np.ndarray | None,
    titles: Sequence[str],
    below: Sequence[str],
    tile: int = 192,
) -> np.ndarray:
    """Returns measurement and results in one row, and truth and the results measured again below them.

    Args:
        measurement: `[h, w, c]`, or None where it is no picture.
        recovered: `[k, h, w, c]`.
        again: measurements of the results `[k, h, w, c]`, or None where they are no pictures.
        truth: `[h, w, c]`, or None where nobody knows it.
        titles, below: one each for every result.
        tile: pixels that every image is enlarged to.

    Returns:
        uint8 `[2 * (tile + 20), (k + 1) * tile, 3]`.
    """
    what = "measurement: no picture" if measurement is None else f"measurement {_size(measurement)}"
    top = [_tile(measurement, what, tile)]
    top += [_tile(picture, title, tile) for picture, title in zip(recovered, titles, strict=True)]
    bottom = [_tile(truth, "truth" if truth is not None else "", tile)]
    seconds = [None] * len(recovered) if again is None else again
    bottom += [_tile(picture, title, tile) for picture, title in zip(seconds, below, strict=True)]
    return np.concatenate([np.concatenate(top, 1), np.concatenate(bottom, 1)], 0)


def _size(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    return f"{width}x{height}"


def _shown(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    soft = known[..., None]
    return np.where(soft > 0, soft * image, 0)


def _tile(picture: np.ndarray | None, text: str, size: int) -> np.ndarray:
    """Returns a picture enlarged, or white where there is none, below a line of text."""
    blank = np.full((size, size, 3), 255, np.uint8)
    return image_io.labelled(blank if picture is None else image_io.enlarge(picture, size), text)
