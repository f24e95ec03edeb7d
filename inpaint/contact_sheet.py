# SPDX-License-Identifier: Apache-2.0
"""One picture for a person: what came in, what was asked, what was found."""

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
    soft = known[..., None]
    hole = np.broadcast_to(1 - 2 * soft, image.shape)
    blank = np.full((tile, tile, 3), 255, np.uint8)

    def labelled(picture: np.ndarray | None, text: str) -> np.ndarray:
        return image_io.labelled(blank if picture is None else image_io.enlarge(picture, tile), text)

    top = [labelled(np.where(soft > 0, soft * image, 0), "input"), labelled(hole, "hole (white)")]
    top += [labelled(picture, title) for picture, title in zip(restored, titles, strict=True)]
    below = [labelled(truth, "truth" if truth is not None else ""), labelled(None, "")]
    below += [labelled(picture, f"raw generator output {i}") for i, picture in enumerate(raw, 1)]
    return np.concatenate([np.concatenate(top, 1), np.concatenate(below, 1)], 0)
