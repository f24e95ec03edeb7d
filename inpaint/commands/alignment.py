# SPDX-License-Identifier: Apache-2.0
"""`--align`: the faces of a photograph, found and restored one after the other."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from inpaint import faces, inputs, output
from inpaint.photograph import Photograph
from stylegan_jax import image_io

ALIGN = flags.DEFINE_bool(
    "align",
    False,
    "Find the faces whose surroundings hold part of the hole, and restore one after the other; needs the extra align.",
)
FACES = "faces.json"  # tells that a folder holds the faces of a photograph, each in a folder of its own

Restore = Callable[[inputs.Source, Photograph, pathlib.Path], dict[str, Any]]


def check(*, landmarks: str | None, image: str | None) -> None:
    """Raises ValueError where --align cannot be followed."""
    if not ALIGN.value:
        return
    if image is None or landmarks is not None:
        raise ValueError("--align needs --image, and finds what --landmarks would say: give only one of the two")
    if flags.FLAGS["latents"].value is not None:
        raise ValueError("--latents are of one face, and --align may find several; cut it out by --landmarks")
    faces.check_installed()


def find(photograph: Photograph, size: int, what: object) -> list[np.ndarray]:
    """Returns eyes and mouth `[3, 2]` of the faces that part of the hole belongs to, the largest first.

    Raises:
        ValueError: where there are none.
    """
    every = faces.find(photograph.levels)
    found = faces.with_holes(photograph, every, size)
    if not found:
        told = f"{len(every)} faces were found, none of them near the hole" if every else "no face was found"
        raise ValueError(f"{what}: {told}; give the eyes and the mouth by --landmarks")
    return found


def restore_faces(
    source: inputs.Source, photograph: Photograph, folder: pathlib.Path, *, size: int, restore: Restore
) -> dict[str, Any]:
    """Restores all faces of a photograph, and returns its row of the summary.

    One face goes into `folder` as by --landmarks. Several go into `face1`, `face2` and so on below it, each restored in
    the photograph that the one before has left, and `photo.png` has all of them.

    Args:
        source: the image.
        photograph: as it was read.
        folder: of the results.
        size: of the generator.
        restore: restores a source with landmarks into a folder and returns its row.
    """
    found = find(photograph, size, source.image)
    if len(found) == 1:
        return restore(dataclasses.replace(source, landmarks=found[0]), photograph, folder)
    output.check_folder(folder, held=(FACES,))
    rows = []
    # Before the first face, so that a call that was cut short is known as ours.
    points = [face.round(2).tolist() for face in found]
    image_io.write_text(folder / FACES, json.dumps(points) + "\n")
    for number, face in enumerate(found, 1):
        if not faces.with_holes(photograph, [face], size):
            continue  # another face's square held its hole, too
        own = dataclasses.replace(source, name=f"{source.name}-face{number}", landmarks=face)
        place = folder / f"face{number}"
        rows.append(restore(own, photograph, place))
        after = image_io.read_picture(place / "photo_1.png").levels
        photograph = faces.restored(photograph, after, face, size)
    image_io.write_image(folder / "photo.png", photograph.levels, profile=photograph.profile)
    done = [row for row in rows if row["status"] == "done"]
    row = {"image": str(source.image), "folder": folder.name, "faces": len(rows)}
    row["hole_share"] = max(one["hole_share"] for one in rows)
    if not done:
        return row | {"status": "skipped"}
    sums = {name: sum(one[name] for one in done) for name in ("seconds", "starts", "kept")}
    warnings = [text for one in done for text in one["warnings"]]
    worst = min(one["known_psnr"] for one in done)
    return row | {"status": "done", "known_psnr": worst, "warnings": warnings, "photos": True} | sums
