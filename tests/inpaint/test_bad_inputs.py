# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind to `restore`, and stored latents to `render`: one clear line each, and nothing written."""

import json
import os
import pathlib
import zlib

import numpy as np
import pytest
from PIL import Image

from stylegan_jax import image_io

ROOT = pathlib.Path(__file__).parents[2]
EYES = [[5, 5], [11, 5], [8, 11]]


def write_files(folder):
    """Writes broken and unsuitable files of every kind."""
    noise = (folder / "large_image.png").read_bytes()
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(noise[:400])
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "link.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    header = bytearray(noise[:33])
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(bytes(header) + noise[33:])
    Image.fromarray(np.float32([[0, np.nan]] * 2)).save(folder / "nan.tif")
    Image.fromarray(np.float32([[-3, 700]] * 2)).save(folder / "range.tif")
    Image.fromarray(np.zeros((1, 2000), np.uint8)).save(folder / "thread.png")
    Image.fromarray(np.uint8([[255] * 1000 + [0] * 1000])).save(folder / "thread_mask.png")
    image_io.write_image(folder / "black.png", np.zeros((16, 16), np.uint8))
    image_io.write_image(folder / "white.png", np.full((16, 16), 255, np.uint8))
    dot = np.zeros((16, 16), np.uint8)
    dot[15, 0] = 255
    image_io.write_image(folder / "corner.png", dot)


def write_folders(folder):
    """Writes folders of images, masks and landmarks that do not fit each other, and configs."""
    for name in ("notes", "nothing", "images", "masks", "twins", "twin_masks", "points"):
        (folder / name).mkdir()
    (folder / "notes" / "notes.txt").write_text("keep me")
    image, mask = (folder / "image.png").read_bytes(), (folder / "mask.png").read_bytes()
    (folder / "images" / "a.png").write_bytes(image)
    (folder / "masks" / "b.png").write_bytes(mask)
    (folder / "twins" / "a.png").write_bytes(image)
    (folder / "twins" / "a.webp").write_bytes(image)
    (folder / "twin_masks" / "image.png").write_bytes(mask)
    (folder / "twin_masks" / "image.gif").write_bytes(mask)
    (folder / "points" / "image.json").write_text("[[1, 2], [3]]")
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text(json.dumps([EYES]))
    (folder / "other.json").write_text(json.dumps({"somebody": EYES}))
    (folder / "words.json").write_text(json.dumps({"image": "left eye"}))
    (folder / "foreign.py").write_text("def get_config():\n    return 3\n")
    (folder / "broken.py").write_text("def get_config(:\n")
    (folder / "nothing.py").write_text("x = 1\n")
    (folder / "finished").mkdir()
    (folder / "finished" / "scores.json").write_text("[]")
    (folder / "finished" / "config.json").write_text("{}")
    ws = np.zeros((1, 6, 6), np.float32)
    np.savez(folder / "shape.npz", w=ws[:, :2])
    np.savez(folder / "nan.npz", w=ws * np.nan)
    np.savez(folder / "other.npz", w=ws, generator_hash="0123456789abcdef")
    np.savez(folder / "without.npz", z=ws)
    np.savez(folder / "noise.npz", w=ws, noise_mode="random")
    np.savez(folder / "object.npz", w=np.asarray([{}], object))
    np.save(folder / "array.npy", ws)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_generator, save_pictures):
    """A folder with generators, images, masks and whatever is wrong."""
    folder = tmp_path_factory.mktemp("bad")
    save_generator(folder / "generator")
    save_generator(folder / "five", channels=5)
    save_generator(folder / "classes", c_dim=3)
    save_pictures(folder)
    write_files(folder)
    write_folders(folder)
    return folder


TINY = ["--generator", "generator"]
INPUT = ["--image", "image.png", "--mask", "mask.png"]


def image(name, mask="mask.png"):
    return [*TINY, "--image", name, "--mask", mask]


def face(points):
    return [*TINY, *INPUT, "--landmarks", points]


# What is wrong: (flags of restore, what the line must say).
BAD = {
    "missing image": (image("none.png"), "none.png does not exist"),
    "missing mask": (image("image.png", "none.png"), "none.png does not exist"),
    "image without mask": ([*TINY, "--image", "image.png"], "image.png needs --mask"),
    "mask without image": ([*TINY, "--mask", "mask.png"], "--mask needs --image"),
    "method and config": (
        [*TINY, *INPUT, "--method", "brief", "--config", f"{ROOT}/configs/restore_brief.py"],
        "--method and --config exclude each other",
    ),
    "method not fitted": ([*TINY, *INPUT, "--method", "ridge"], "name them by --fit_data"),
    "nothing to fit on": ([*TINY, *INPUT, "--method", "ridge", "--fit_data", "notes"], "no images in notes"),
    "unknown method": ([*TINY, *INPUT, "--method", "magic"], "--method"),
    "text as image": (image("text.png"), "text.png is not an image that Pillow can read"),
    "text as mask": (image("image.png", "text.png"), "text.png is not an image that Pillow can read"),
    "empty file": (image("empty.png"), "empty.png is empty (0 bytes)"),
    "empty file as mask": (image("image.png", "empty.png"), "empty.png is empty (0 bytes)"),
    "cut file": (image("cut.png", "large_mask.png"), "cut.png cannot be read"),
    "HEIC": (image("phone.heic"), "phone.heic is HEIC, which Pillow cannot read; convert"),
    "SVG": (image("drawing.svg"), "drawing.svg is SVG"),
    "broken link": (image("link.png"), "link.png is a link to a file that does not exist"),
    "pipe": (image("pipe.png"), "pipe.png is not an ordinary file"),
    "too many pixels": (image("bomb.png"), "bomb.png is too large"),
    "values that are not finite": (image("nan.tif"), "nan.tif holds values that are not finite"),
    "values out of range": (image("range.tif"), "range.tif holds values from -3 to 700"),
    "empty folder of images": (image("nothing"), "--image nothing holds no image files"),
    "folder without images": (image("notes"), "--image notes holds no image files"),
    "folder of images without their mask": (
        [*image("images", "masks"), "--output", "bad_folder"],
        "images/a.png failed: images/a.png needs --mask",
    ),
    "two images of one stem": (image("twins"), "a is ambiguous: twins/a.png and twins/a.webp"),
    "two masks of one stem": (image("image.png", "twin_masks"), "mask of image is ambiguous"),
    "empty folder of masks": (image("image.png", "nothing"), "--mask nothing holds no image files"),
    "no mask of that stem": (image("image.png", "masks"), "image.png needs --mask"),
    "too elongated": (image("thread.png", "thread_mask.png"), "too elongated"),
    "mask of another shape": (image("image.png", "wide_mask.png"), "must have the same shape"),
    "mask turned": (image("wide_image.png", "large_mask.png"), "must have the same shape"),
    "mask without hole": (image("image.png", "black.png"), "mask black.png: the mask has no hole"),
    "mask without known pixels": (image("image.png", "white.png"), "mask white.png: the mask hides every pixel"),
    "nothing left by dilation": ([*image("image.png"), "--mask_dilate", "30"], "--mask_dilate=30 is too much"),
    "no hole left by erosion": ([*image("image.png"), "--mask_dilate", "-9"], "--mask_dilate=-9 leaves no hole"),
    "nothing left by the band": ([*image("image.png"), "--mask_band", "30"], "--mask_band=30 leaves no known pixels"),
    "negative band": ([*image("image.png"), "--mask_band", "-1"], "mask_band"),
    "threshold too high": ([*image("image.png"), "--mask_threshold", "256"], "mask_threshold"),
    "threshold that leaves no hole": (
        [*image("image.png", "black.png"), "--mask_threshold", "9"],
        "the mask has no hole",
    ),
    "unknown polarity": ([*image("image.png"), "--mask_polarity", "grey_hole"], "mask_polarity"),
    "landmarks without image": ([*TINY, "--landmarks", "1,2,3,4,5,6"], "--landmarks needs --image"),
    "five numbers": (face("1,2,3,4,5"), "needs six numbers (left eye, right eye, mouth), got 5"),
    "words as landmarks": (face("eyes"), "eyes is neither a file or folder nor six numbers"),
    "landmarks not finite": (face("nan,1,2,3,4,5"), "finite"),
    "landmarks outside": (face("5,5,11,5,8,1100"), "the mouth at (8, 1100) lies outside of the picture of 16x16"),
    "eyes exchanged": (face("11,5,5,5,8,11"), "the left eye is right of the right eye"),
    "mouth above eyes": (face("5,11,11,11,8,5"), "the mouth lies above the eyes"),
    "eyes at one point": (face("5,5,5,5,8,11"), "too close to each other"),
    "hole outside the face": (
        [*image("image.png", "corner.png"), "--landmarks", "9,3,12,3,10.5,5"],
        "outside of the face",
    ),
    "landmarks for a folder": (
        [*image("images"), "--landmarks", "5,5,11,5,8,11"],
        "six numbers fit one image",
    ),
    "landmarks in broken JSON": (face("broken.json"), "broken.json: no valid JSON"),
    "landmarks in a list": (face("list.json"), "list.json must hold an object"),
    "landmarks of somebody else": (face("other.json"), "other.json has no entry 'image'"),
    "landmarks in words": (face("words.json"), "words.json, entry 'image' must hold [[x, y], [x, y], [x, y]]"),
    "landmarks incomplete": (face("points"), "points/image.json must hold [[x, y], [x, y], [x, y]]"),
    "no landmarks file": (face("notes"), "--landmarks notes has no file image.json"),
    "image as landmarks": (face("mask.png"), "--landmarks mask.png: no valid JSON"),
    "channels": (["--generator", "five", *INPUT], "5 channels"),
    "no checkpoint": (["--generator", "none", *INPUT], "none does not exist"),
    "file as checkpoint": (["--generator", "image.png", *INPUT], "not a checkpoint directory"),
    "other folder as checkpoint": (["--generator", "notes", *INPUT], "not a readable checkpoint"),
    "unknown flag": ([*TINY, *INPUT, "--stepps", "3"], "stepps"),
    "flag of another type": ([*TINY, *INPUT, "--steps", "many"], "steps"),
    "unknown space": ([*TINY, *INPUT, "--space", "q"], "unknown space 'q'; known: z, z+, p+, w, w+, w++, s"),
    "unknown init": ([*TINY, *INPUT, "--init", "best"], "unknown init"),
    "no steps": ([*TINY, *INPUT, "--steps", "0"], "steps >= 1"),
    "no starts": ([*TINY, *INPUT, "--starts", "0"], "keep must be 1 to starts"),
    "keep too many": ([*TINY, *INPUT, "--starts", "2", "--keep", "3"], "keep must be 1 to starts (2)"),
    "unknown film": ([*TINY, *INPUT, "--film", "--film_format", "avi"], "film_format"),
    "unknown config field": ([*TINY, *INPUT, "--config.search.stepps=3"], "stepps"),
    "config value of another type": ([*TINY, *INPUT, "--config.search.lr=fast"], "lr"),
    "missing config": ([*TINY, *INPUT, "--config", "none.py"], "none.py"),
    "broken config": ([*TINY, *INPUT, "--config", "broken.py"], "broken.py"),
    "config without get_config": ([*TINY, *INPUT, "--config", "nothing.py"], "get_config"),
    "config of another kind": ([*TINY, *INPUT, "--config", "foreign.py"], "RestoreConfig"),
    "unknown data term": ([*TINY, *INPUT, "--config.search.data=l3"], "unknown data term"),
    "unknown selection": ([*TINY, *INPUT, "--config.search.select=worst"], "unknown selection 'worst'; known: best"),
    "unknown composite": ([*TINY, *INPUT, "--config.composite=glue"], "unknown composite"),
    "feather of no width": ([*TINY, *INPUT, "--config.feather=0.0"], "config.feather must be above 0"),
    "negative weight": ([*TINY, *INPUT, "--config.search.mahalanobis=-1"], "at least 0"),
    "label out of range": (["--generator", "classes", *INPUT, "--label", "3"], "0 to 2"),
    "label without classes": ([*TINY, *INPUT, "--label", "0"], "not conditional"),
    "process without the others": ([*image("images"), "--num_processes", "2"], "add --distributed"),
    "half of a distributed run": (
        [*image("images"), "--distributed", "--process_id", "0"],
        "given is only --process_id",
    ),
    "process beyond the last": (
        [*image("images"), "--distributed", "--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
        "--process_id must be below --num_processes 2",
    ),
    "no cluster": ([*image("images"), "--distributed"], "nothing tells how many processes there are"),
    "log in a folder": ([*image("image.png"), "--json_log", "notes"], "--json_log notes cannot be written"),
    "stray argument": ([*TINY, *INPUT, "image.png"], "unexpected argument 'image.png'"),
    "output is a file": ([*TINY, *INPUT, "--output", "image.png"], "--output image.png is a file"),
    "output holds other files": ([*TINY, *INPUT, "--output", "notes", "--overwrite"], "holds other files"),
    "output of a folder holds other files": ([*image("images"), "--output", "notes"], "holds other files"),
    "output below a file": ([*TINY, *INPUT, "--output", "image.png/out"], "cannot be written"),
    "output holds another restoration": ([*TINY, *INPUT, "--output", "finished"], "pass --overwrite"),
}

# The same for `python -m stylegan_jax render --generator generator --latents FILE`.
LATENTS = {
    "missing.npz": "missing.npz does not exist",
    "notes": "notes is a folder",
    "empty.png": "empty.png is not a readable npz file",
    "text.png": "text.png is not a readable npz file",
    "array.npy": "array.npy is not a readable npz file",
    "object.npz": "object.npz is not a readable npz file",
    "without.npz": "without.npz has no array 'w'",
    "shape.npz": "shape.npz: w must be [n, 6, 6], got [1, 2, 6]",
    "nan.npz": "nan.npz: w must hold finite",
    "other.npz": "other.npz was made with another generator (0123456789ab..)",
    "noise.npz": 'noise.npz: noise_mode must be "const" or "none"',
}


@pytest.fixture(scope="module")
def refusals(folder, run_commands):
    """The outcome of every bad command line; one folder run leaves a summary, and nothing else is written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    cases = [
        ["restore", *arguments] if "--output" in arguments else ["restore", *arguments, "--output", "bad"]
        for arguments, _ in BAD.values()
    ]
    results = run_commands("inpaint", [*cases, [], ["restroe"]], folder)
    latents = [["render", *TINY, "--latents", name, "--output", "rendered"] for name in LATENTS]
    rendered = run_commands("stylegan_jax", latents, folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed == {folder / "bad_folder" / "summary.json"}, changed
    return dict(zip([*BAD, "no command", "unknown command", *LATENTS], results + rendered, strict=True))


@pytest.mark.parametrize("name", [*BAD, *LATENTS])
def test_bad_input_gives_one_clear_line(refusals, name):
    """One line on stderr that names the trouble, a non-zero exit code, no traceback."""
    code, _, error = refusals[name]
    assert code in (1, 2), (code, error)
    assert (LATENTS[name] if name in LATENTS else BAD[name][1]) in error, error
    assert len(error.strip().splitlines()) == 1 and "Traceback" not in error, error
    assert "unexpected" not in error or "unexpected argument" in error, error


def test_commands_are_listed(refusals):
    """Without a command, or with an unknown one, the commands are named."""
    for name in ("no command", "unknown command"):
        code, _, error = refusals[name]
        assert code == 2 and "restore" in error
