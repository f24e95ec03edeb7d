# SPDX-License-Identifier: Apache-2.0
"""Finding faces in photographs: the centres of eyes and mouth that `--landmarks` takes otherwise.

The detector is MediaPipe's, an optional extra (`pip install ".[align]"`) that carries its own models: it finds faces,
and then 468 points in each. Photographs are uint8 `[height, width, 3]`, points (x, y) in pixels from the top left
corner.
"""

import contextlib
import dataclasses
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from inpaint import framing
from inpaint.photograph import Photograph
from stylegan_jax import image_io

# Points of the mesh: corners and middle of the lids of the eye at the left of the picture, at the right, mouth corners.
EYES_AND_MOUTH = ((33, 133, 159, 145), (362, 263, 386, 374), (61, 291))
CONFIDENCE = 0.5
# Sides of what the mesh is looked for in, in sides of the detector's box. What it says depends on them by a pixel or
# two of a face of 100, so the mean is taken.
AROUND = (1.5, 1.75, 2.0)
SMALLEST = 256  # pixels: smaller surroundings are enlarged


def check_installed() -> None:
    """Raises ValueError, saying what to install, where there is no detector."""
    if importlib.util.find_spec("mediapipe") is None:
        raise ValueError(
            'finding faces needs the extra "align": pip install ".[align]" (MediaPipe, with its own models); or give '
            "the eyes and the mouth by --landmarks"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps notes of the detector's libraries, written past Python, from stderr, and their warnings of each other."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Returns intersection over union of two boxes `[4]`, left, top, right, bottom."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inner = float(np.prod(np.maximum(sides, 0)))
    return inner / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inner)


def _windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Returns what the detector looks at, (top, left, height, width): the whole, and overlapping squares of half its
    longer side, in which small faces are twice as large."""
    side = (max(height, width) + 1) // 2
    spans = [
        [(0, n)] if n <= side else [(at, side) for at in sorted({*range(0, n - side, side // 2), n - side})]
        for n in (height, width)
    ]
    tiles = [(top, left, h, w) for top, h in spans[0] for left, w in spans[1]]
    return [(0, 0, height, width), *tiles]


def _boxes(levels: np.ndarray, solutions) -> list[np.ndarray]:
    """Returns boxes `[4]` of faces, the surest first, each face once."""
    found = []
    # One of the two models is made for near faces, the other for far ones.
    for model in (0, 1):
        with solutions.face_detection.FaceDetection(model_selection=model, min_detection_confidence=CONFIDENCE) as net:
            for top, left, height, width in _windows(*levels.shape[:2]):
                part = np.ascontiguousarray(levels[top : top + height, left : left + width])
                for face in net.process(part).detections or ():
                    box = face.location_data.relative_bounding_box
                    corner, size = np.array([box.xmin, box.ymin]), np.array([box.width, box.height])
                    place = np.concatenate([corner, corner + size]) * [width, height, width, height]
                    found.append((float(face.score[0]), place + [left, top, left, top]))
    kept: list[np.ndarray] = []
    for _, place in sorted(found, key=lambda pair: -pair[0]):
        if all(_overlap(place, other) < 0.3 for other in kept):
            kept.append(place)
    return kept


def _points(levels: np.ndarray, box: np.ndarray, around: float, mesh) -> np.ndarray | None:
    """Returns eyes and mouth `[3, 2]` of the face in a box, or None where the mesh finds none there."""
    middle, side = (box[:2] + box[2:]) / 2, int(np.ceil(around * np.max(box[2:] - box[:2])))
    left, top = np.round(middle - side / 2).astype(int)
    height, width = levels.shape[:2]
    rows, columns = (np.clip(np.arange(at, at + side), 0, n - 1) for at, n in ((top, height), (left, width)))
    part = levels[rows[:, None], columns]
    if side < SMALLEST:
        part = image_io.enlarge(image_io.from_uint8(part), SMALLEST)
    faces = mesh.process(np.ascontiguousarray(part)).multi_face_landmarks
    if not faces:
        return None
    mesh_points = np.array([(p.x, p.y) for p in faces[0].landmark]) * side + [left, top]
    return np.stack([mesh_points[list(index)].mean(0) for index in EYES_AND_MOUTH])


def find(levels: np.ndarray) -> list[np.ndarray]:
    """Returns eyes and mouth `[3, 2]` of every face of a photograph, the largest face first.

    Args:
        levels: `[height, width, 3]` uint8.

    Raises:
        ValueError: without the detector.
    """
    check_installed()
    levels, found = np.ascontiguousarray(levels), []
    with _quiet():
        from mediapipe import solutions

        options = {"static_image_mode": True, "max_num_faces": 1, "min_detection_confidence": CONFIDENCE}
        with solutions.face_mesh.FaceMesh(**options) as mesh:
            for box in _boxes(levels, solutions):
                seen = [_points(levels, box, around, mesh) for around in AROUND]
                seen = [points for points in seen if points is not None]
                found += [np.mean(seen, axis=0)] if seen else []
    return sorted(found, key=lambda points: -float(np.linalg.norm(points[1] - points[0])))


def with_holes(photograph: Photograph, faces: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Returns those of `faces` (each `[3, 2]`) whose square at the generator's `size` holds part of the hole."""
    height, width = photograph.known.shape
    hole = photograph.known < 1
    found = []
    for points in faces:
        try:
            frame = framing.aligned(height, width, points, size)
        except ValueError:
            continue
        if (hole & frame.covered()).any():
            found.append(points)
    return found


def restored(photograph: Photograph, levels: np.ndarray, landmarks: np.ndarray, size: int) -> Photograph:
    """Returns a photograph after one of its faces was restored: the hole inside the face's square is hole no more.

    Args:
        photograph: before.
        levels: after, `[height, width, 3]` uint8.
        landmarks: `[3, 2]` of the face.
        size: of the generator.
    """
    frame = framing.aligned(*photograph.known.shape, landmarks, size)
    known = np.where(frame.covered(), 1, photograph.known).astype(np.float32)
    return dataclasses.replace(photograph, levels=levels, known=known)
