# SPDX-License-Identifier: Apache-2.0
"""The restore command run for real on a tiny generator: what it leaves for one image, a folder, and a face."""

import json
import pathlib

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

import stylegan_jax as sg
from inpaint import sample
from stylegan_jax import image_io

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_generator, save_pictures):
    """A folder with generators, single images, and a folder of three images of which one is broken."""
    folder = tmp_path_factory.mktemp("restore")
    save_generator(folder / "generator")
    save_generator(folder / "grey", channels=1)
    save_generator(folder / "classes", c_dim=3)
    pixels, mask = save_pictures(folder)
    for name in ("photos", "masks"):
        (folder / name).mkdir()
    # The image is also one of the folder: its result must be that of the image alone.
    (folder / "photos" / "image.png").write_bytes((folder / "image.png").read_bytes())
    (folder / "masks" / "image_mask.png").write_bytes((folder / "mask.png").read_bytes())
    clear = np.concatenate([pixels, pixels], 1)
    clear = np.concatenate([clear, np.full((16, 32, 1), 255, np.uint8)], -1)
    clear[3:9, 10:20, 3] = 0
    Image.fromarray(clear).save(folder / "photos" / "clear.png")
    (folder / "photos" / "cut.png").write_bytes((folder / "large_image.png").read_bytes()[:400])
    astronaut = skimage.data.astronaut()
    image_io.write_image(folder / "astronaut.png", astronaut)
    mouth = np.zeros(astronaut.shape[:2], np.uint8)
    mouth[125:155, 205:245] = 255
    image_io.write_image(folder / "mouth.png", mouth)
    (folder / "faces.json").write_text(json.dumps({"astronaut": sample.LANDMARKS.tolist()}))
    return folder


QUICK = ["--steps", "4", "--starts", "3", "--keep", "2", "--config.search.pool=5"]
# One phase, so that there is one step to compile; the two of the default are run by other tests.
QUICK += ["--config.search.coarse_share=0"]
INPUT = ["--image", "image.png", "--mask", "mask.png"]
TINY = ["--generator", "generator"]
FACE = ["--image", "astronaut.png", "--mask", "mouth.png", "--landmarks", "faces.json"]


@pytest.fixture(scope="module")
def restored(folder, run_commands):
    """One restoration, run twice into two folders, and one each with other options."""
    cases = [
        ["restore", *TINY, *INPUT, *QUICK, "--output", "first"],
        ["restore", *TINY, *INPUT, *QUICK, "--output", "second"],
        ["restore", *TINY, *INPUT, *QUICK, "--film", "--output", "again"],
        ["restore", *TINY, "--image", "image.png", "--mask", "inverted.png", "--mask_polarity", "black_hole", *QUICK]
        + ["--output", "inverted"],
        ["restore", *TINY, "--image", "large_image.png", "--mask", "large_mask.png", *QUICK, "--output", "large"]
        + ["--config.search.halving=1", "--config.search.patience=4", "--config.search.restarts=1"]
        + ["--config.search.select=clustered"],
        ["restore", *TINY, *QUICK, "--output", "sample", "--quiet", "--bfloat16_from", "8"],
        ["restore", "--generator", "grey", *INPUT, *QUICK, "--output", "grey_out"],
        ["restore", "--generator", "classes", *INPUT, *QUICK, "--output", "classes_out", "--label", "2"],
        ["restore", *TINY, *INPUT, *QUICK, "--output", "first", "--overwrite", "--seed", "7", "--space", "z"],
        ["restore", *TINY, *INPUT, "--config", f"{ROOT}/configs/restore_brief.py:smoke", "--config.search.lr=0.2"]
        + ["--output", "brief", "--steps", "3"],
        ["restore", *TINY, "--image", "photos", "--mask", "masks", *QUICK, "--output", "many"],
        ["restore", *TINY, "--image", "photos", "--mask", "masks", *QUICK, "--output", "many", "--quiet"],
        ["restore", *TINY, *FACE, *QUICK, "--mask_band", "1", "--mask_dilate", "1", "--output", "face"],
        ["restore", *TINY, *INPUT, *QUICK, "--film", "--output", "again"],
    ]
    results = run_commands("inpaint", cases, folder)
    assert [result[0] for result in results] == [0] * 10 + [3, 3, 0, 0], results
    outcomes = dict(zip((case[case.index("--output") + 1] for case in cases[:10]), results, strict=False))
    return outcomes | dict(zip(("many", "many again", "face", "skipped"), results[10:], strict=True))


def pixels(path):
    """Returns a PNG's levels."""
    return image_io.to_uint8(image_io.read_image(path)[0])


def test_known_pixels_are_the_input_bit_for_bit(folder, restored):
    """The composite differs from the input only inside the hole, and does differ there."""
    hole = pixels(folder / "mask.png")[..., 0] == 255
    given = pixels(folder / "image.png")
    for i in (1, 2):
        result = pixels(folder / "second" / f"restored_{i}.png")
        np.testing.assert_array_equal(result[~hole], given[~hole])
        assert (result[hole] != given[hole]).any()


def test_folder_is_complete(folder, restored):
    """Sheet, pictures, latents, scores and settings are there, and agree with each other."""
    second = folder / "second"
    scores = json.loads((second / "scores.json").read_text())
    assert [row["rank"] for row in scores] == [1, 2, 3]
    assert [row["total"] for row in scores] == sorted(row["total"] for row in scores)
    for row in scores:
        assert sum(row["terms"].values()) == pytest.approx(row["total"], rel=1e-5)
    settings = json.loads((second / "config.json").read_text())
    assert settings["config"]["search"]["steps"] == 4
    assert settings["generator"]["content_hash"] == sg.load(folder / "generator").content_hash
    assert settings["versions"]["jax"] == jax.__version__
    with np.load(second / "latents.npz") as latents:
        assert latents["w"].shape == (2, 6, 6)
        assert latents["starts"].tolist() == [row["start"] for row in scores[:2]]
    sheet = image_io.read_image(second / "contact_sheet.png")[0]
    assert sheet.shape == (2 * 212, 4 * 192, 3)


def test_same_seed_same_bytes(folder, restored):
    """Two runs of one command leave the same pictures."""
    names = [path.name for path in (folder / "second").glob("*.png")]
    assert len(names) == 7
    scores = json.loads((folder / "first" / "config.json").read_text())
    assert scores["config"]["search"]["seed"] == 7  # overwritten by the later command
    # The other one was filmed, which must not change it.
    again = folder / "again"
    with Image.open(again / "film.webp") as picture:
        assert picture.size == (512, 256) and picture.n_frames >= 3
    for name in names:
        assert (again / name).read_bytes() == (folder / "second" / name).read_bytes(), name


def test_methods_by_name(folder, run_commands):
    """Baselines leave the same folder without latents; a rerun is skipped; a method's defaults give way to flags."""
    np.savez(folder / "train.npz", images=np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3), np.uint8))
    cases = [
        ["--method", "biharmonic", "--output", "smooth"],
        ["--method", "biharmonic", "--output", "smooth"],
        ["--method", "ridge", "--fit_data", "train.npz", "--output", "ridge"],
        ["--method", "brief", "--output", "named", "--steps", "2", "--starts", "2", "--config.search.lr=0.05"],
    ]
    results = run_commands("inpaint", [["restore", *TINY, *INPUT, *case] for case in cases], folder)
    assert [code for code, _, _ in results] == [0, 0, 0, 0], results
    assert "skipped" in results[1][1]
    hole, given = pixels(folder / "mask.png")[..., 0] == 255, pixels(folder / "image.png")
    for name in ("smooth", "ridge"):
        found = {path.name for path in (folder / name).iterdir()}
        assert {"contact_sheet.png", "restored_1.png", "scores.json"} <= found and "latents.npz" not in found
        restored = pixels(folder / name / "restored_1.png")
        np.testing.assert_array_equal(restored[~hole], given[~hole])
        assert (restored[hole] != given[hole]).any()
        assert (
            json.loads((folder / name / "config.json").read_text())["method"]
            == {"smooth": "biharmonic", "ridge": "ridge"}[name]
        )
    search = json.loads((folder / "named" / "config.json").read_text())["config"]["search"]
    assert (search["space"], search["init"], search["lr"], search["steps"]) == ("w", "random", 0.05, 2)


def test_stored_latents_render_the_same_image(folder, restored, run_commands):
    """`stylegan_jax render` turns latents.npz into the raw pictures, byte for byte; another generator is refused."""
    cases = [
        ["render", *TINY, "--latents", "second/latents.npz", "--output", "rendered"],
        ["render", "--generator", "grey", "--latents", "second/latents.npz", "--output", "wrong"],
        ["render", *TINY, "--count", "5", "--output", "samples"],
    ]
    good, wrong, samples = run_commands("stylegan_jax", cases, folder)
    assert good[0] == 0 and samples[0] == 0
    for i in (1, 2):
        assert (folder / "rendered" / f"raw_{i}.png").read_bytes() == (folder / "second" / f"raw_{i}.png").read_bytes()
    assert wrong[0] == 1 and "another generator" in wrong[2]
    assert image_io.read_image(folder / "samples" / "sheet.png")[0].shape == (2 * SIZE, 3 * SIZE, 3)


def test_report_says_what_matters(folder, restored):
    """Device, share and meaning of the hole, speed and places are printed; `--quiet` keeps only the end."""
    text = restored["second"][1]
    for part in ("cpu", "hole 18.8 %", "white in the mask is restored", "start-steps/s", "second/contact_sheet.png"):
        assert part in text, part
    assert "black in the mask is restored" in restored["inverted"][1]
    assert len(restored["sample"][1].splitlines()) <= 3


def test_polarity_and_size(folder, restored):
    """An inverted mask with the other polarity means the same, and a larger photograph is brought to size."""
    same = (folder / "inverted" / "restored_1.png").read_bytes() == (folder / "second" / "restored_1.png").read_bytes()
    assert same
    np.testing.assert_array_equal(pixels(folder / "large" / "mask.png"), pixels(folder / "second" / "mask.png"))


def test_settings_and_their_precedence(folder, restored):
    """A flag beats `--config.x`, which beats the config file."""
    search = json.loads((folder / "brief" / "config.json").read_text())["config"]["search"]
    assert (search["steps"], search["lr"], search["space"], search["init"]) == (3, 0.2, "w", "random")
    for name, low in (("sample", 8), ("second", None)):
        options = json.loads((folder / name / "config.json").read_text())["options"]
        assert options["generator_config"]["bfloat16_from"] == low


def test_starts_that_are_halved(folder, restored):
    """Twice as many begin as end, and the budget is told."""
    assert "3 starts of 6 that begin x 4 steps" in restored["large"][1]
    rows = json.loads((folder / "large" / "scores.json").read_text())
    config = json.loads((folder / "large" / "config.json").read_text())
    assert len(rows) == 3 and all(row["steps"] == 4 for row in rows)
    # Six starts for two steps, three for two and the end of the phase; a look at the cut, and the renders.
    assert config["evaluations"] == {"forwards": 6 + 3, "gradients": 6 * 2 + 3 * (2 + 1)}
    plain = json.loads((folder / "second" / "config.json").read_text())
    assert plain["evaluations"] == {"forwards": 5 + 3, "gradients": 3 * 5}


def test_label_of_a_conditional_generator(folder, restored):
    """The class asked for is the class used."""
    with np.load(folder / "classes_out" / "latents.npz") as latents:
        np.testing.assert_array_equal(latents["c"], [[0, 0, 1]] * 2)


def test_demo_command_runs(folder, run_commands):
    """The README's first command, shortened: sample portrait, demo generator, all defaults else."""
    [result] = run_commands("inpaint", [["restore", "--steps", "2", "--starts", "2"]], folder)
    assert result[0] == 0, result
    assert (folder / "out" / "restore" / "contact_sheet.png").is_file()


def test_folder_of_images(folder, restored):
    """Each image has its folder and its line; the broken one is told at the end and stops nothing."""
    code, text, error = restored["many"]
    assert (
        code == 3 and [line for line in error.splitlines() if "photos/cut.png failed: " in line] == error.splitlines()
    )
    lines = text.splitlines()
    starts = [
        "[1/3] photos/clear.png: hole 11.7 %",
        "[2/3] photos/cut.png: failed",
        "[3/3] photos/image.png: hole 18.8 %",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert lines[-1].startswith("2 done, 0 skipped, 1 failed; many/summary.json")
    # What the image of a call of its own gives, bit for bit.
    for name in ("restored_1.png", "raw_2.png"):
        assert (folder / "many" / "image" / name).read_bytes() == (folder / "second" / name).read_bytes()


def test_transparency_and_letterbox(folder, restored):
    """A wide image without a mask file: its transparent pixels are filled, at both sizes, and no others."""
    place, given = folder / "many" / "clear", pixels(folder / "photos" / "clear.png")
    hole = image_io.read_picture(folder / "photos" / "clear.png").alpha == 0
    for i in (1, 2):
        photo = pixels(place / f"photo_{i}.png")
        np.testing.assert_array_equal(photo[~hole], given[~hole])
        assert (photo[hole] != given[hole]).any()
        assert pixels(place / f"restored_{i}.png").shape == (8, 16, 3)
    assert pixels(place / "raw_1.png").shape == (SIZE, SIZE, 3)


def test_finished_images_are_skipped(folder, restored):
    """A rerun makes only what is missing, and the summary says so; the single image says it in one line."""
    code, text, _ = restored["many again"]
    assert code == 3 and text.splitlines() == ["0 done, 2 skipped, 1 failed; many/summary.json"]
    summary = json.loads((folder / "many" / "summary.json").read_text())
    assert [(row["image"], row["status"]) for row in summary["images"]] == [
        ("photos/clear.png", "skipped"),
        ("photos/cut.png", "failed"),
        ("photos/image.png", "skipped"),
    ]
    assert "cannot be read" in summary["images"][1]["error"] and summary["skipped"] == 2
    assert "skipped    again holds this restoration already" in restored["skipped"][1]


def test_face_in_a_photograph(folder, restored):
    """By its landmarks a face is cut out, restored, and put back into the photograph at its own size."""
    given, hole = pixels(folder / "astronaut.png"), pixels(folder / "mouth.png")[..., 0] == 255
    photo = pixels(folder / "face" / "photo_1.png")
    changed = (photo != given).any(-1)
    # One pixel of the generator is 8.7 of the photograph, by which the hole has grown.
    rows, columns = np.nonzero(changed)
    assert photo.shape == (512, 512, 3) and changed[hole].mean() > 0.9
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (116, 163, 196, 253)
    settings = json.loads((folder / "face" / "config.json").read_text())
    assert settings["options"]["mask_band"] == 1 and settings["inputs"]["landmarks"][0] == [203.9, 101.6]
    assert len(settings["inputs"]["image_sha256"]) == 64


def test_nothing_is_printed_between_when_nobody_watches(restored):
    """Where the output is no terminal there is no progress line."""
    assert "start-steps  " not in restored["second"][1] and "\r" not in restored["second"][1]
