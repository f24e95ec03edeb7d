# SPDX-License-Identifier: Apache-2.0
"""A photograph with its hole, and what a search at the generator's size sees of it.

Masks are `known` `[h, w]`, 1 = keep, 0 = hole.
"""

import dataclasses
import os

import numpy as np

from inpaint import framing, holes
from inpaint.operators import Mask
from stylegan_jax import image_io


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An image file and its mask at their own size.

    Attributes:
        levels: `[h, w, 3]` uint8, upright.
        known: `[h, w]` float32 in [0, 1].
        profile: ICC profile of the levels, or None.
        notes: what a person should know about how the files were read.
    """

    levels: np.ndarray
    known: np.ndarray
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A photograph cut to the generator's size.

    Attributes:
        photograph: with its hole as it will be filled.
        frame: where the square lies in it.
        image: `[size, size, 3]` float32 in [-1, 1].
        known: `[size, size]`; what the composite keeps.
        weight: `[size, size]`; what the data term counts: `known` without a band around the hole.
        notes: what a person should know.
    """

    photograph: Photograph
    frame: framing.Frame
    image: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    notes: tuple[str, ...]

    @property
    def hole_share(self) -> float:
        """Part of the photograph's pixels in the square that is hole, in [0, 1]; padding does not count."""
        return holes.share(self.photograph.known[self.frame.covered()])


def _fit_mask(known: np.ndarray, shape: tuple[int, int], mask: object, image: object) -> tuple[np.ndarray, list[str]]:
    """Returns a mask at the image's size, repeating or leaving out pixels where the shapes agree."""
    (height, width), (h, w) = shape, known.shape
    if (h, w) == (height, width):
        return known, []
    if abs(h * width / w - height) > max(1, width / w) or abs(w * height / h - width) > max(1, height / h):
        turned = "; is only one of them turned by EXIF?" if (w, h) == (height, width) else ""
        raise image_io.ImageError(
            f"mask {mask} is {w}x{h} but image {image} is {width}x{height}; they must have the same shape{turned}"
        )
    rows = ((np.arange(height) + 0.5) * h / height).astype(int)
    columns = ((np.arange(width) + 0.5) * w / width).astype(int)
    return known[rows[:, None], columns], [f"the mask of {w}x{h} is resized to the image's {width}x{height}"]


def _grey_note(known: np.ndarray) -> list[str]:
    """Returns a note where a mask looks like black and white that a lossy format has smeared."""
    off = (known > 0) & (known < 1)
    faint = off & ((known < 0.1) | (known > 0.9))
    if faint.mean() < 0.02:
        return []
    return [
        f"{100 * off.mean():.0f} % of the mask is grey and thus soft, mostly near black or white, as JPEG leaves it; "
        "--mask_threshold=128 makes it sharp"
    ]


def read_photograph(
    image: str | os.PathLike,
    *,
    mask: str | os.PathLike | None = None,
    polarity: str = "white_hole",
    threshold: int | None = None,
) -> Photograph:
    """Returns an image file with its mask.

    Args:
        image: file; transparent pixels are hole.
        mask: file of the same shape as the image, at any size; None where transparency is the mask.
        polarity: "white_hole" or "black_hole".
        threshold: mask levels of at least this are white, all others black; None keeps grey as a soft edge.

    Raises:
        stylegan_jax.image_io.ImageError: for unreadable files, other shapes, or a mask without hole or known pixels.
    """
    picture = image_io.read_picture(image)
    notes = [f"{os.path.basename(image)}: {note}" for note in picture.notes]
    known = (picture.alpha >= 128).astype(np.float32)
    if mask is None:
        if known.all():
            raise image_io.ImageError(
                f"{image} needs --mask: it has no transparent pixels (in a folder of masks: the image's stem, or "
                "STEM_mask)"
            )
        named = f"the transparency of {image}"
    else:
        named = f"mask {mask}"
        from_file = image_io.read_mask(mask, polarity=polarity, threshold=threshold)
        from_file, more = _fit_mask(from_file, known.shape, mask, image)
        notes += more + _grey_note(from_file)
        known = known * from_file
    try:
        Mask.checked(known)
    except ValueError as error:
        raise image_io.ImageError(f"{named}: {error}") from error
    return Photograph(picture.levels, known, picture.profile, tuple(notes))


def prepare(
    photograph: Photograph, size: int, *, landmarks: np.ndarray | None = None, dilate: int = 0, band: int = 0
) -> Prepared:
    """Returns a photograph as a search sees it.

    Args:
        photograph: of any size.
        size: of the generator's images.
        landmarks: `[3, 2]`, eyes and mouth as (x, y) pixels of the photograph: cuts the face out by the generator's
            rule; without them the whole photograph is scaled to fit, and the padding is hole.
        dilate: the hole grows by this many pixels of the generator's size, or shrinks where it is negative.
        band: pixels of the generator's size around the hole that do not count in the data term.

    Raises:
        ValueError: where landmarks are no face's, or nothing is left of the hole or of the known pixels.
    """
    height, width = photograph.known.shape
    if landmarks is None:
        frame = framing.letterboxed(height, width, size)
    else:
        frame = framing.aligned(height, width, landmarks, size)
    if dilate:
        radius = max(round(abs(dilate) * frame.scale), 1) * (1 if dilate > 0 else -1)
        photograph = dataclasses.replace(photograph, known=holes.grown(photograph.known, radius))
        if photograph.known.all():
            raise ValueError(f"--mask_dilate={dilate} leaves no hole; use a smaller number")
    image, known = frame.cut(image_io.from_uint8(photograph.levels), photograph.known)
    shown = frame.shown(known)
    if landmarks is not None:
        missed = ((photograph.known < 1) & ~frame.covered()).sum() / (photograph.known < 1).sum()
        if missed == 1:
            raise ValueError("the hole lies outside of the face that the landmarks cut out; check both")
    if not known.any():
        hint = f"--mask_dilate={dilate} is too much" if dilate else "is the mask inverted, or are the landmarks wrong?"
        raise ValueError(f"no known pixel is left at the generator's {size} px: {hint}")
    if shown.min() == 1:
        raise ValueError(f"the hole is too small: nothing is left of it at the generator's {size} px")
    weight = holes.grown(known, band)
    if not weight.any():
        raise ValueError(f"--mask_band={band} leaves no known pixels for the search; use a smaller number")
    notes = list(photograph.notes)
    if landmarks is not None and missed > 0.005:
        notes.append(f"{100 * missed:.0f} % of the hole lies outside of the face and stays as it is")
    return Prepared(photograph, frame, image, known, weight, tuple(notes))
