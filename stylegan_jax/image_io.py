# SPDX-License-Identifier: Apache-2.0
"""Reading and writing images and masks; the only place that uses Pillow.

Images are `[h, w, c]` float32 in [-1, 1]; masks are `known` `[h, w]` float32, 1 = keep, 0 = hole. In files, white is
hole unless the caller says otherwise, and transparent pixels are always hole.
"""

import os
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

MASK_POLARITIES = ("white_hole", "black_hole")


class ImageError(ValueError):
    """An image or mask file that is missing, unreadable or unsuitable."""


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Returns `[...]` uint8 for values in [-1, 1] (clipped); `from_uint8` undoes it exactly on 8-bit levels."""
    return np.rint((np.clip(np.asarray(image, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """Returns float32 in [-1, 1] for uint8 levels."""
    return np.asarray(pixels, np.float32) / np.float32(127.5) - 1


def _open(path: str | os.PathLike) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; an image file is needed") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error
    return ImageOps.exif_transpose(picture)


def read_image(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image file as `[h, w, 3]` in [-1, 1] and the known pixels `[h, w]` by its transparency.

    EXIF orientation is applied; palette and 16-bit images become 8-bit RGB; a fully opaque image is known everywhere.

    Raises:
        ImageError: where the file is missing or no image.
    """
    picture = _open(path)
    if picture.mode.startswith("I") or picture.mode == "F":
        levels = np.asarray(picture, np.float64)
        top = 65535.0 if levels.max(initial=0) > 255 else 255.0
        picture = Image.fromarray(np.rint(np.clip(levels / top, 0, 1) * 255).astype(np.uint8))
    pixels = np.asarray(picture.convert("RGBA"))
    known = (pixels[..., 3] >= 128).astype(np.float32)
    return from_uint8(pixels[..., :3]), known


def read_mask(path: str | os.PathLike, *, polarity: str = "white_hole") -> np.ndarray:
    """Returns a mask file as `known` `[h, w]` in [0, 1]; grey levels stay soft, transparent pixels are hole.

    Args:
        path: an image file.
        polarity: "white_hole" (white is to be restored) or "black_hole".

    Raises:
        ImageError: where the file is missing or no image.
        ValueError: for an unknown polarity.
    """
    if polarity not in MASK_POLARITIES:
        raise ValueError(f"unknown mask polarity {polarity!r}; known: {', '.join(MASK_POLARITIES)}")
    pixels = np.asarray(_open(path).convert("RGBA"), np.float32) / 255
    white = pixels[..., :3].mean(-1)
    known = 1 - white if polarity == "white_hole" else white
    # Rounding of the mean must not leave a fully white or black pixel slightly soft.
    known = np.where(known < 1e-6, 0, np.where(known > 1 - 1e-6, 1, known))
    return (known * (pixels[..., 3] >= 0.5)).astype(np.float32)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes `[h, w, 3]`, `[h, w, 1]` or `[h, w]` (float in [-1, 1], or uint8) as PNG, whole or not at all.

    Raises:
        ImageError: where the file cannot be written.
    """
    pixels = image if image.dtype == np.uint8 else to_uint8(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    write_atomically(path, lambda partial: Image.fromarray(pixels).save(partial, format="PNG"))


def write_atomically(path: str | os.PathLike, write: Callable[[str], None]) -> None:
    """Calls `write(temporary_path)` beside `path` and moves the result there.

    Raises:
        ImageError: where the folder cannot be written.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        try:
            write(partial)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
        finally:
            pathlib.Path(partial).unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror or error}") from error


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Returns `[h, w, c]` in [-1, 1] resampled to `[size, size, c]` by Lanczos with antialiasing."""
    channels = [
        np.asarray(
            Image.fromarray(np.asarray(image[..., i], np.float32)).resize((size, size), Image.Resampling.LANCZOS)
        )
        for i in range(image.shape[2])
    ]
    return np.clip(np.stack(channels, -1), -1, 1)


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Returns `[h, w, 3]` (or 1 channel) in [-1, 1] as RGB uint8 `[size, size, 3]`, bicubic, for looking at."""
    pixels = np.broadcast_to(to_uint8(image), (*image.shape[:2], 3))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((size, size), Image.Resampling.BICUBIC))


def labelled(tile: np.ndarray, text: str) -> np.ndarray:
    """Returns a uint8 tile `[h, w, 3]` with a line of `text` above it, `[h + 20, w, 3]`."""
    picture = Image.new("RGB", (tile.shape[1], tile.shape[0] + 20), "white")
    picture.paste(Image.fromarray(tile), (0, 20))
    ImageDraw.Draw(picture).text((2, 3), text, fill="black", font=ImageFont.load_default(size=12))
    return np.asarray(picture)


def grid(images: np.ndarray, *, columns: int) -> np.ndarray:
    """Returns images `[n, h, w, c]` side by side, `columns` in a row, the last row filled with -1."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    padding = np.full((rows * columns - n, height, width, channels), -1, images.dtype)
    tiles = np.concatenate([images, padding]).reshape(rows, columns, height, width, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def resize_mask(known: np.ndarray, size: int) -> np.ndarray:
    """Returns `known` `[h, w]` in [0, 1] averaged over the pixels that become one, or repeated: `[size, size]`."""
    picture = Image.fromarray(np.asarray(known, np.float32))
    filtering = Image.Resampling.BOX if size < known.shape[0] else Image.Resampling.NEAREST
    return np.clip(np.asarray(picture.resize((size, size), filtering)), 0, 1)


def crop_aligned(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Returns the face in `image` cropped as the demo models expect it.

    With eye centres l, r and mouth centre m: e = (l+r)/2, u = r-l, v = m-e; x = u - (-v_y, v_x), of length
    0.8 * max(2.0 |u|, 1.8 |v|); y = (-x_y, x_x); the crop is the square around e + 0.25 v with half sides x and y (the
    recipe of FFHQ, Karras et al. 2019, with another zoom and centre). Pixels are averaged over a 4x4 grid each.

    Args:
        image: `[h, w, c]` in [-1, 1].
        landmarks: `[3, 2]`: left-of-picture eye, right-of-picture eye, mouth, as (x, y) pixels.
        size: of the crop.

    Returns:
        `[size, size, c]`.
    """
    left, right, mouth = np.asarray(landmarks, np.float64)
    eyes, across, down = (left + right) / 2, right - left, mouth - (left + right) / 2
    x = across - np.array([-down[1], down[0]])
    x *= 0.8 * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.25 * down
    samples = 4 * size
    corner, side_x, side_y = centre - x - y, 2 * x / samples, 2 * y / samples
    # Pillow's affine maps output pixel corners to input pixel corners: (a, b, c, d, e, f).
    transform = (side_x[0], side_y[0], corner[0], side_x[1], side_y[1], corner[1])
    channels = []
    for i in range(image.shape[2]):
        plane = Image.fromarray(np.asarray(image[..., i], np.float32))
        plane = plane.transform((samples, samples), Image.Transform.AFFINE, transform, Image.Resampling.BILINEAR)
        channels.append(np.asarray(plane).reshape(size, 4, size, 4).mean((1, 3)))
    return np.clip(np.stack(channels, -1), -1, 1)
