# SPDX-License-Identifier: Apache-2.0
"""Which files belong together: images, their masks and their landmarks, single or in folders, matched by stem."""

import dataclasses
import json
import os
import pathlib
import unicodedata
import zlib

import numpy as np

from stylegan_jax import image_io

# "a_mask.png" is the mask of "a.jpg"; an equal stem comes first.
MASK_SUFFIXES = ("_mask", "-mask", ".mask")


@dataclasses.dataclass(frozen=True)
class Source:
    """One image to restore.

    Attributes:
        name: the file's stem, which names the folder of its results.
        image: path as the user gave it.
        mask: path, or None where the image's transparency is the mask.
        landmarks: `[3, 2]` (x, y) pixels, or None.
        trouble: what hinders the restoration, or "".
    """

    name: str
    image: pathlib.Path
    mask: pathlib.Path | None = None
    landmarks: np.ndarray | None = None
    trouble: str = ""

    @property
    def image_id(self) -> int:
        """The number that stands for the image in random keys; it depends on the name only."""
        return zlib.crc32(_normal(self.name).encode()) & 0x7FFFFFFF


def _normal(stem: str) -> str:
    """Returns a stem in one Unicode form: file systems disagree about accents."""
    return unicodedata.normalize("NFC", stem)


def _files(folder: pathlib.Path, flag: str, suffixes: frozenset[str]) -> tuple[dict[str, list[pathlib.Path]], int]:
    """Returns {stem: files} of a folder in order, and how many other files lie there."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(f"{flag} {folder} cannot be listed: {error.strerror}") from error
    found, others = {}, 0
    for path in entries:
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.suffix.lower() in suffixes:
            found.setdefault(_normal(path.stem), []).append(path)
        else:
            others += 1
    return found, others


def _single(paths: list[pathlib.Path], what: str) -> pathlib.Path:
    if len(paths) > 1:
        raise ValueError(f"{what} is ambiguous: {' and '.join(str(path) for path in paths)}; remove or rename one")
    return paths[0]


def _mask_of(name: str, masks: dict[str, list[pathlib.Path]], *, beside: bool) -> pathlib.Path | None:
    """Returns the mask for a stem; `beside`: images lie in the same folder, and are not their own masks."""
    for suffix in MASK_SUFFIXES if beside else ("", *MASK_SUFFIXES):
        if name + suffix in masks:
            return _single(masks[name + suffix], f"the mask of {name}")
    return None


def _points(value: object, where: str) -> np.ndarray:
    if isinstance(value, dict) and set(value) == {"landmarks"}:
        value = value["landmarks"]
    try:
        points = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.size != 6 or points.shape not in ((6,), (3, 2)):
        raise ValueError(f"{where} must hold [[x, y], [x, y], [x, y]] of left eye, right eye and mouth")
    return points.reshape(3, 2)


def _json(path: pathlib.Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else f"no valid JSON ({error})"
        raise ValueError(f"--landmarks {path}: {what}") from error


class Landmarks:
    """The value of `--landmarks`: six numbers, a JSON file `{stem: [[x, y], [x, y], [x, y]]}`, or a folder of files.

    Raises:
        ValueError: where it is none of these.
    """

    def __init__(self, given: str):
        path = pathlib.Path(given)
        self.given, self.numbers, self.table, self.folder = given, None, None, None
        if path.is_dir():
            self.folder = path
        elif path.is_file():
            self.table = _json(path)
            if not isinstance(self.table, dict):
                raise ValueError(f"--landmarks {path} must hold an object of image names, {{name: [[x, y], ...]}}")
            self.table = {_normal(pathlib.PurePath(name).stem): value for name, value in self.table.items()} | {
                _normal(name): value for name, value in self.table.items()
            }
        else:
            try:
                self.numbers = [float(number) for number in given.split(",")]
            except ValueError as error:
                raise ValueError(f"--landmarks {given} is neither a file or folder nor six numbers") from error
            if len(self.numbers) != 6:
                raise ValueError(f"--landmarks needs six numbers (left eye, right eye, mouth), got {len(self.numbers)}")

    def of(self, name: str) -> np.ndarray:
        """Returns the landmarks `[3, 2]` of the image with stem `name`; ValueError where there are none."""
        if self.numbers is not None:
            return np.asarray(self.numbers).reshape(3, 2)
        if self.table is not None:
            if _normal(name) not in self.table:
                raise ValueError(f"--landmarks {self.given} has no entry {name!r}")
            return _points(self.table[_normal(name)], f"--landmarks {self.given}, entry {name!r}")
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise ValueError(f"--landmarks {self.given} has no file {name}.json")
        return _points(_json(path), f"--landmarks {path}")


def find(image: str, *, mask: str | None = None, landmarks: str | None = None) -> tuple[list[Source], list[str]]:
    """Returns the images to restore with what belongs to them, and notes; `image` is a file or a folder.

    Troubles of one image of a folder are left in its `Source`; nothing is opened but JSON files.

    Args:
        image: file, or folder of images.
        mask: file for all images, or folder matched by stem; also `STEM_mask`, `STEM-mask` and `STEM.mask`.
        landmarks: see `Landmarks`.

    Raises:
        ValueError: where the whole call makes no sense: no images, two of one stem, wrong landmarks.
    """
    folder, points = pathlib.Path(image), None if landmarks is None else Landmarks(landmarks)
    many, notes = folder.is_dir(), []
    if many and points is not None and points.numbers is not None:
        raise ValueError("--landmarks of six numbers fit one image; for a folder name a JSON file or a folder of them")
    mask_folder = pathlib.Path(mask) if mask is not None and os.path.isdir(mask) else None
    suffixes = image_io.file_suffixes()
    home = folder if many else folder.parent
    beside = mask_folder is not None and home.is_dir() and os.path.samefile(home, mask_folder)
    masks = {} if mask_folder is None else _files(mask_folder, "--mask", suffixes)[0]
    if mask_folder is not None and not masks:
        raise ValueError(f"--mask {mask} holds no image files")
    if many:
        found, others = _files(folder, "--image", suffixes)
        if beside:
            found = {stem: paths for stem, paths in found.items() if not stem.endswith(MASK_SUFFIXES)}
        if not found:
            raise ValueError(f"--image {image} holds no image files")
        if others:
            notes.append(f"{others} files of {image} are no images and left out")
        images = [_single(paths, f"the image {stem}") for stem, paths in found.items()]
    else:
        images = [folder]
    sources = []
    for path in images:
        own_mask, own_points, trouble = None if mask is None else pathlib.Path(mask), None, ""
        try:
            if mask_folder is not None:
                own_mask = _mask_of(_normal(path.stem), masks, beside=beside)
            own_points = None if points is None else points.of(path.stem)
        except ValueError as error:
            trouble = str(error)
        sources.append(Source(path.stem, path, own_mask, own_points, trouble))
    return sources, notes
