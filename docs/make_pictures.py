# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the README, by its commands: `python docs/make_pictures.py` (some three minutes on two cores).

Eileen Collins' portrait (NASA, public domain) comes with scikit-image, Grace Hopper's (US Navy, public domain) with
matplotlib.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import matplotlib.cbook
import numpy as np
import skimage.data
import skimage.draw
import skimage.io
import skimage.transform

DOCS = pathlib.Path(__file__).parent
FACE = "203.9,101.6,247.4,103.8,223.9,140.8"
HOPPER = "219.1,192.6,308.4,187.9,268.2,275.5"
TILE = 192


def command(folder: pathlib.Path, *arguments: str) -> None:
    """Runs `python -m inpaint` with `arguments` in `folder`."""
    subprocess.run([sys.executable, "-m", "inpaint", *arguments], cwd=folder, check=True)


def photograph(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Writes photo.png and hole.png, an ellipse over the mouth; returns them, `[h, w, 3]` and `[h, w]`."""
    photo = skimage.data.astronaut()
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[skimage.draw.ellipse(141, 224, 15, 24)] = 255
    skimage.io.imsave(folder / "photo.png", photo)
    skimage.io.imsave(folder / "hole.png", hole, check_contrast=False)
    return photo, hole


def constrained(folder: pathlib.Path, photo: np.ndarray, landmarks: str) -> np.ndarray:
    """Returns a face with its mouth hidden, and restored with teeth wanted and unwanted, `[TILE, 3 * TILE, 3]`."""
    left, right, mouth = np.asarray(landmarks.split(","), float).reshape(3, 2)
    width = np.linalg.norm(right - left)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[skimage.draw.ellipse(mouth[1], mouth[0], 0.36 * width, 0.58 * width)] = 255
    skimage.io.imsave(folder / "face.png", photo)
    skimage.io.imsave(folder / "mouth.png", hole, check_contrast=False)
    shown = [np.where(hole[..., None] > 0, np.uint8(128), photo)]
    for target in (1, 0):
        options = ["--image", "face.png", "--mask", "mouth.png", "--landmarks", landmarks, "--keep", "1"]
        options += ["--attribute", f"teeth_visible={target}", "--output", "out/constrained", "--overwrite"]
        command(folder, "restore", *options)
        shown.append(skimage.io.imread(folder / "out/constrained/photo_1.png"))
    centre, reach = ((left + right) / 2 + mouth) / 2, 1.6 * width
    top, bottom, first, last = (int(v) for c in centre[::-1] for v in (c - reach, c + reach))
    tiles = [skimage.transform.resize(x[top:bottom, first:last], (TILE, TILE), anti_aliasing=True) for x in shown]
    return np.rint(255 * np.concatenate(tiles, 1)).astype(np.uint8)


def main() -> None:
    """Writes contact_sheet.png, photograph.png, film.webp, masks.png and constrained.png beside this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        command(folder, "restore")
        shutil.copy(folder / "out/restore/contact_sheet.png", DOCS)
        photo, hole = photograph(folder)
        options = ["--image", "photo.png", "--mask", "hole.png", "--landmarks", FACE, "--film", "--output", "out/photo"]
        command(folder, "restore", *options)
        shutil.copy(folder / "out/photo/film.webp", DOCS)
        shown = [np.where(hole[..., None] > 0, np.uint8(128), photo)]
        shown += [skimage.io.imread(folder / f"out/photo/photo_{k}.png") for k in (1, 2)]
        skimage.io.imsave(DOCS / "photograph.png", np.concatenate([x[16:272, 96:352] for x in shown], 1))
        with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
            hopper = skimage.io.imread(file)
        rows = [constrained(folder, picture, face) for picture, face in ((photo, FACE), (hopper, HOPPER))]
        skimage.io.imsave(DOCS / "constrained.png", np.concatenate(rows))
        kinds = ("mouth", "rectangles:0.1-0.4", "strokes:0.2-0.3", "brush:hard", "square", "noise:0.8")
        for kind in kinds:
            command(folder, "mask", "--kind", kind, "--size", "128", "--output", f"masks/{kinds.index(kind)}")
        files = [next((folder / f"masks/{i}").iterdir()) for i in range(len(kinds))]
        row = [np.pad(skimage.io.imread(file), 4, constant_values=128) for file in files]
        skimage.io.imsave(DOCS / "masks.png", np.concatenate(row, 1), check_contrast=False)


if __name__ == "__main__":
    main()
