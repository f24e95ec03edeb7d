# SPDX-License-Identifier: Apache-2.0
"""Reading and writing images and masks; the only place that uses Pillow.

Images are `[h, w, c]` float32 in [-1, 1]; masks are `known` `[h, w]` float32, 1 = keep, 0 = hole. In files, white is
hole unless the caller says otherwise, and transparent pixels are always hole.
"""

import dataclasses
import io
import os
import pathlib
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence

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


@dataclasses.dataclass(frozen=True)
class Picture:
    """What an image file holds, upright and as 8-bit levels.

    Attributes:
        levels: `[h, w, 3]` uint8.
        alpha: `[h, w]` uint8, 255 = opaque.
        profile: the ICC profile of a file that was RGB already, to be written along with its levels.
        notes: what a person should know about how the file was read.
    """

    levels: np.ndarray
    alpha: np.ndarray
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


def file_suffixes() -> frozenset[str]:
    """Returns the endings, such as ".png", by which a file in a folder is taken for an image."""
    Image.init()
    # Nobody means these by a photograph; those of phones and cameras are images that are refused, not passed over.
    documents = {".pdf", ".ps", ".eps", ".h5", ".mpg", ".mpeg", ".fit", ".fits", ".grib", ".bufr", ".emf", ".wmf"}
    unsupported = {".heic", ".heif", ".avif", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".jxl", ".svg"}
    return frozenset(Image.registered_extensions()) - documents | unsupported


def _refuse_by_content(path: str | os.PathLike) -> None:
    """Names files that Pillow would report in other words, or wait for."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ImageError(f"{path} is a link to a file that does not exist")
    if not os.path.exists(path):
        raise ImageError(f"{path} does not exist")
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder; an image file is needed")
    if not os.path.isfile(path):
        raise ImageError(f"{path} is not an ordinary file; an image file is needed")
    with open(path, "rb") as file:
        head = file.read(32)
    if not head:
        raise ImageError(f"{path} is empty (0 bytes)")
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        raise ImageError(f"{path} is HEIC, which Pillow cannot read; convert it to JPEG or PNG")
    if b"<svg" in head:
        raise ImageError(f"{path} is SVG, a drawing without pixels; export it as PNG")


def _open(path: str | os.PathLike) -> tuple[Image.Image, list[str]]:
    """Returns the first frame of a file, upright, and notes."""
    notes = []
    try:
        _refuse_by_content(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                frames = getattr(picture, "n_frames", 1)
                # A telephone's MPO holds previews or the other eye's view behind the photograph.
                if frames > 1 and picture.format != "MPO":
                    notes.append(f"it has {frames} frames or pages; the first is used")
                picture.load()
            return ImageOps.exif_transpose(picture), notes
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not an image that Pillow can read; use PNG, JPEG, WebP or TIFF") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path} is too large: more than {Image.MAX_IMAGE_PIXELS} pixels; shrink it") from error
    except PermissionError as error:
        raise ImageError(f"{path} cannot be read: no permission") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, KeyError) as error:
        raise ImageError(f"{path} cannot be read: {error}; is the file damaged?") from error


def _to_eight_bits(picture: Image.Image, path: str | os.PathLike) -> tuple[Image.Image, list[str]]:
    """Returns a picture of wide numbers as 8-bit grey, and notes about the range that was taken."""
    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all():
        raise ImageError(f"{path} holds values that are not finite; save it as 8 or 16 bit")
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    notes = []
    if picture.mode.startswith("I;16"):
        top = 65535.0
    else:
        # Files of 32 bits do not say where white is.
        tops = (1.0, 255.0) if picture.mode == "F" else (255.0, 65535.0)
        top = next((t for t in tops if high <= t), None)
        if top is None or low < 0:
            raise ImageError(
                f"{path} holds values from {low:g} to {high:g}; 32-bit files must lie in 0..{tops[0]:g} or "
                f"0..{tops[1]:g}; save it as 8 or 16 bit"
            )
        notes.append(f"its 32-bit values are taken as 0..{top:g}")
    return Image.fromarray(np.rint(values / top * 255).astype(np.uint8)), notes


def read_picture(path: str | os.PathLike) -> Picture:
    """Returns what an image file holds, whatever its format.

    EXIF orientation is applied; of several frames the first counts; 16 bits become 8; grey, palette and CMYK become
    RGB, transparency (a palette's too) the alpha channel. Colours are taken for sRGB whatever the profile says. 32-bit
    values are read as 0..1 or 0..255 (float) and 0..255 or 0..65535 (integer), whichever they fit in first.

    Raises:
        ImageError: where the file is missing, no image, damaged, or larger than Pillow's limit.
    """
    picture, notes = _open(path)
    if picture.mode[0] in "IF":
        picture, more = _to_eight_bits(picture, path)
        notes += more
    profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA", "P", "PA") else None
    try:
        pixels = np.asarray(picture.convert("RGBA"))
    except ValueError as error:
        raise ImageError(f"{path} has pixels of kind {picture.mode}; save it as RGB") from error
    return Picture(pixels[..., :3], pixels[..., 3], profile or None, tuple(notes))


def read_image(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image file as `[h, w, 3]` in [-1, 1] and the known pixels `[h, w]` by its transparency.

    The file is read as by `read_picture`; a fully opaque image is known everywhere.

    Raises:
        ImageError: where the file is missing or no image.
    """
    picture = read_picture(path)
    return from_uint8(picture.levels), (picture.alpha >= 128).astype(np.float32)


def read_mask(path: str | os.PathLike, *, polarity: str = "white_hole", threshold: int | None = None) -> np.ndarray:
    """Returns a mask file as `known` `[h, w]` in [0, 1]; transparent pixels are hole.

    Args:
        path: an image file.
        polarity: "white_hole" (white is to be restored) or "black_hole".
        threshold: levels of at least this (1 to 255) are white and all others black; None keeps grey soft.

    Raises:
        ImageError: where the file is missing or no image.
        ValueError: for an unknown polarity.
    """
    if polarity not in MASK_POLARITIES:
        raise ValueError(f"unknown mask polarity {polarity!r}; known: {', '.join(MASK_POLARITIES)}")
    picture = read_picture(path)
    white = picture.levels.astype(np.float32).mean(-1) / 255
    if threshold is not None:
        white = (white * 255 > threshold - 1e-3).astype(np.float32)
    known = 1 - white if polarity == "white_hole" else white
    # Rounding of the mean must not leave a fully white or black pixel slightly soft.
    known = np.where(known < 1e-6, 0, np.where(known > 1 - 1e-6, 1, known))
    return (known * (picture.alpha >= 128)).astype(np.float32)


def write_image(path: str | os.PathLike, image: np.ndarray, *, profile: bytes | None = None) -> None:
    """Writes an image as PNG, whole or not at all.

    Args:
        path: destination.
        image: `[h, w, 3]`, `[h, w, 1]` or `[h, w]`, float in [-1, 1], or uint8.
        profile: ICC profile to write along.

    Raises:
        ImageError: where the file cannot be written.
    """
    pixels = image if image.dtype == np.uint8 else to_uint8(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    write_atomically(path, lambda partial: Image.fromarray(pixels).save(partial, format="PNG", icc_profile=profile))


def jpeg_round_trip(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Returns what a JPEG file shows of an image, its colours at half the size (4:2:0); no file is written.

    Args:
        image: `[h, w, 3]`, or `[h, w, 1]` for a grey file, float in [-1, 1] (clipped).
        quality: 1 to 100.

    Returns:
        float32 of the same shape.
    """
    pixels, file = to_uint8(image), io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(file, format="JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as shown:
        return from_uint8(np.asarray(shown).reshape(pixels.shape))


def encoded_picture(path: str | os.PathLike, *, largest: int) -> tuple[str, bytes]:
    """Returns an image file for a page: its media type and content, PNG where it is small, else WebP.

    Args:
        path: of the file.
        largest: pixels that its longer side is reduced to.

    Raises:
        ImageError: where the file is missing or no image.
    """
    picture, file = Image.fromarray(read_picture(path).levels), io.BytesIO()
    picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    if max(picture.size) <= 64:
        picture.save(file, format="PNG", optimize=True)
        return "image/png", file.getvalue()
    picture.save(file, format="WEBP", quality=90, method=4)
    return "image/webp", file.getvalue()


ANIMATIONS = ("webp", "gif")


def write_animation(path: str | os.PathLike, frames: np.ndarray, *, durations: Sequence[int]) -> None:
    """Writes an endless animation, WebP or GIF by the path's ending, whole or not at all.

    Args:
        path: destination.
        frames: uint8 `[n, h, w, 3]`.
        durations: of every frame, in milliseconds.

    Raises:
        ImageError: where the file cannot be written.
    """
    kind = pathlib.Path(path).suffix[1:]
    if kind not in ANIMATIONS:
        raise ValueError(f"an animation must end in .webp or .gif, got {path}")
    first, *rest = (Image.fromarray(frame) for frame in frames)
    options = {"save_all": True, "append_images": rest, "duration": list(durations), "loop": 0}
    options |= {"quality": 90, "method": 3} if kind == "webp" else {"optimize": False}
    write_atomically(path, lambda partial: first.save(partial, format=kind.upper(), **options))


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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all; raises ImageError where the folder cannot be written."""
    write_atomically(path, lambda partial: pathlib.Path(partial).write_text(text, encoding="utf-8"))


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Returns `[h, w, c]` in [-1, 1] resampled by Lanczos with antialiasing to `size` squared, or (height, width)."""
    height, width = _height_width(size)
    channels = [
        np.asarray(
            Image.fromarray(np.asarray(image[..., i], np.float32)).resize((width, height), Image.Resampling.LANCZOS)
        )
        for i in range(image.shape[2])
    ]
    return np.clip(np.stack(channels, -1), -1, 1)


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Returns `[h, w, 3]` (or 1 channel) in [-1, 1] as RGB uint8 `[size, size, 3]`, bicubic, for looking at."""
    pixels = np.broadcast_to(to_uint8(image), (*image.shape[:2], 3))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((size, size), Image.Resampling.BICUBIC))


def labelled(tile: np.ndarray, text: str) -> np.ndarray:
    """Returns a uint8 tile `[h, w, 3]` with a line of `text` above it, `[h + 20, w, 3]`; long text loses its middle."""
    font, width = ImageFont.load_default(size=12), tile.shape[1]
    picture = Image.new("RGB", (width, tile.shape[0] + 20), "white")
    picture.paste(Image.fromarray(tile), (0, 20))
    shown, kept = text, len(text)
    while kept > 2 and font.getlength(shown) > width - 4:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    ImageDraw.Draw(picture).text((2, 3), shown, fill="black", font=font)
    return np.asarray(picture)


def grid(images: np.ndarray, *, columns: int) -> np.ndarray:
    """Returns images `[n, h, w, c]` side by side, `columns` in a row, the last row filled with -1."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    padding = np.full((rows * columns - n, height, width, channels), -1, images.dtype)
    tiles = np.concatenate([images, padding]).reshape(rows, columns, height, width, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def resize_mask(known: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Returns `known` `[h, w]` in [0, 1] at `size` squared, or (height, width).

    Of the pixels that become one the mean is taken; pixels that become several are repeated.
    """
    height, width = _height_width(size)
    picture = Image.fromarray(np.asarray(known, np.float32))
    filtering = Image.Resampling.BOX if height < known.shape[0] else Image.Resampling.NEAREST
    return np.clip(np.asarray(picture.resize((width, height), filtering)), 0, 1)


def warp(
    image: np.ndarray, transform: np.ndarray, shape: tuple[int, int], *, samples: int = 1, cubic: bool = False
) -> np.ndarray:
    """Returns what an affine map finds in an image; 0 outside of it.

    Points count from a picture's corner, so that the first pixel's centre is (0.5, 0.5).

    Args:
        image: `[h, w, c]`.
        transform: `[2, 3]`: the source point (x, y) of an output point p is `transform @ (p_x, p_y, 1)`.
        shape: (height, width) of the output.
        samples: every output pixel is the mean over a grid of this many by this many points.
        cubic: interpolates with a cubic, which may overshoot, where the default is bilinear.

    Returns:
        `[height, width, c]` float32.
    """
    transform = np.asarray(transform, np.float64) / np.asarray([samples, samples, 1.0])
    # Where even the points lie further apart than pixels, these are averaged first, so that none is passed over.
    block = max(int(np.hypot(transform[0, 0], transform[1, 0])), 1)
    transform = tuple((transform / block).reshape(-1))
    interpolation = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    height, width = shape
    channels = []
    for i in range(image.shape[2]):
        plane = Image.fromarray(np.asarray(image[..., i], np.float32))
        plane = plane.reduce(block) if block > 1 else plane
        plane = plane.transform((width * samples, height * samples), Image.Transform.AFFINE, transform, interpolation)
        channels.append(np.asarray(plane).reshape(height, samples, width, samples).mean((1, 3)))
    return np.stack(channels, -1)


def alignment(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Returns where the demo models expect a face: the map from points of the crop to points of the photograph.

    With eye centres l, r and mouth centre m: e = (l+r)/2, u = r-l, v = m-e; x = u - (-v_y, v_x), of length
    0.8 * max(2.0 |u|, 1.8 |v|); y = (-x_y, x_x); the crop is the square around e + 0.25 v with half sides x and y (the
    recipe of FFHQ, Karras et al. 2019, with another zoom and centre).

    Args:
        landmarks: `[3, 2]`: left-of-picture eye, right-of-picture eye, mouth, as (x, y) pixels.
        size: of the crop.

    Returns:
        `[2, 3]`, for `warp`.
    """
    left, right, mouth = np.asarray(landmarks, np.float64)
    eyes, across, down = (left + right) / 2, right - left, mouth - (left + right) / 2
    x = across - np.array([-down[1], down[0]])
    x *= 0.8 * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    return np.stack([2 * x / size, 2 * y / size, eyes + 0.25 * down - x - y], -1)


def crop_aligned(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Returns the face in `image` cropped as the demo models expect it, see `alignment`.

    Pixels are averaged over a 4x4 grid each.

    Args:
        image: `[h, w, c]` in [-1, 1].
        landmarks: `[3, 2]`: left-of-picture eye, right-of-picture eye, mouth, as (x, y) pixels.
        size: of the crop.

    Returns:
        `[size, size, c]`.
    """
    return np.clip(warp(image, alignment(landmarks, size), (size, size), samples=4), -1, 1)
