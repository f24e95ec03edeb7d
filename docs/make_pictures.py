# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the README, by its commands: `python docs/make_pictures.py` (some eight minutes on two cores).

Eileen Collins' portrait (NASA, public domain) comes with scikit-image, that of Grace Hopper (US Navy, public domain)
with matplotlib (`pip install ".[plot]"`).
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
import skimage.util

from inpaint import sample
from stylegan_jax import image_io

DOCS = pathlib.Path(__file__).parent
FACE = "203.9,101.6,247.4,103.8,223.9,140.8"
HOPPER = "222.7,190,306,186.7,266.7,280"


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


def constrained(folder: pathlib.Path, name: str, photo: np.ndarray, face: str) -> np.ndarray:
    """Returns a photograph with its mouth hidden, restored without a constraint, with teeth and without, in a row.

    Args:
        folder: to work in; `name`.png and the mask `name`_mouth.png are written there.
        name: of the photograph.
        photo: `[h, w, 3]`.
        face: both eyes and the mouth, as for --landmarks.
    """
    left, right, mouth = np.asarray(face.split(","), float).reshape(3, 2)
    width = np.linalg.norm(right - left)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[skimage.draw.ellipse(mouth[1], mouth[0], 0.36 * width, 0.58 * width)] = 255
    skimage.io.imsave(folder / f"{name}.png", photo)
    skimage.io.imsave(folder / f"{name}_mouth.png", hole, check_contrast=False)
    shown = [np.where(hole[..., None] > 0, np.uint8(128), photo)]
    for target in ("free", "1", "0"):
        output = f"out/{name}_{target}"
        options = ["--image", f"{name}.png", "--mask", f"{name}_mouth.png", "--landmarks", face, "--output", output]
        command(folder, "restore", *options, *([] if target == "free" else ["--attribute", f"teeth_visible={target}"]))
        shown.append(skimage.io.imread(folder / output / "photo_1.png"))
    (x, y), reach = np.rint((left + right + mouth) / 3).astype(int), int(1.95 * width)
    tiles = [image[y - reach : y + reach, x - reach : x + reach] for image in shown]
    tiles = [skimage.transform.resize(tile, (224, 224), anti_aliasing=True) for tile in tiles]
    return skimage.util.img_as_ubyte(np.concatenate(tiles, 1))


def learned(folder: pathlib.Path, hole: str) -> np.ndarray:
    """Returns the sample portrait, what is left of it, and samples: `hierarchical` (4), `difai` (3), `pathwise` (3).

    Args:
        folder: to work in.
        hole: generator of the mask, see `python -m inpaint mask`.
    """
    portrait = image_io.to_uint8(sample.portrait(64))
    skimage.io.imsave(folder / "portrait.png", portrait)
    command(folder, "mask", "--kind", hole, "--size", "64", "--output", hole)
    mask = next((folder / hole).iterdir())
    row = [portrait, np.where(skimage.io.imread(mask)[..., None] > 127, np.uint8(128), portrait)]
    for method, count in (("hierarchical", 4), ("difai", 3), ("pathwise", 3)):
        output = f"out/{method}_{hole}"
        options = ["--method", method, "--samples", str(count), "--keep", str(count), "--output", output]
        command(folder, "restore", "--image", "portrait.png", "--mask", str(mask), *options)
        row += [skimage.io.imread(folder / output / f"restored_{k}.png") for k in range(1, count + 1)]
    return np.concatenate(row, 1).repeat(2, 0).repeat(2, 1)


def main() -> None:
    """Writes contact_sheet, photograph, constrained, edited, masks and learned .png and film.webp beside this file."""
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
        rows = [constrained(folder, "astronaut", photo, FACE), constrained(folder, "hopper", hopper, HOPPER)]
        skimage.io.imsave(DOCS / "constrained.png", np.concatenate(rows))
        # Latents that a search from W has found are moved more easily than those near an encoder's guess.
        options = ["--image", "photo.png", "--mask", "astronaut_mouth.png", "--landmarks", FACE]
        options += ["--output", "out/searched"]
        options += ["--method", "latent_search", "--starts", "4", "--config.search.noise=none"]
        command(folder, "restore", *options)
        edit = ["--restored", "out/searched", "--direction", "attribute:teeth_visible", "--output", "out/edit"]
        command(folder, "edit", *edit)
        shutil.copy(folder / "out/edit/edit_sheet.png", DOCS / "edited.png")
        kinds = ("mouth", "rectangles:0.1-0.4", "strokes:0.2-0.3", "brush:hard", "square", "noise:0.8")
        for kind in kinds:
            command(folder, "mask", "--kind", kind, "--size", "128", "--output", f"masks/{kinds.index(kind)}")
        files = [next((folder / f"masks/{i}").iterdir()) for i in range(len(kinds))]
        row = [np.pad(skimage.io.imread(file), 4, constant_values=128) for file in files]
        skimage.io.imsave(DOCS / "masks.png", np.concatenate(row, 1), check_contrast=False)
        rows = [learned(folder, hole) for hole in ("lower_half", "mouth", "right_half")]
        skimage.io.imsave(DOCS / "learned.png", np.concatenate(rows))


if __name__ == "__main__":
    main()
