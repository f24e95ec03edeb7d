# SPDX-License-Identifier: Apache-2.0
"""The restore command run for real on a tiny generator: what it leaves, and how it refuses bad input."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import image_io

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 16

# Imports the libraries once and forks for every command line, since importing JAX costs seconds. No backend is started
# before the fork, and the command's module comes after it, since ml_collections reads sys.argv when it is imported.
DRIVER = """
import importlib, json, os, sys, tempfile
package, cases = json.load(sys.stdin)
main = importlib.import_module(package + ".__main__")
import inpaint.output, ml_collections, stylegan_jax.rendering
results = []
for case in cases:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = [package, *case]
            try:
                main.run()
            except SystemExit as stop:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(stop.code or 0)
            os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        results.append([code, out.read(), err.read()])
json.dump(results, sys.stdout)
"""


def run_commands(package, cases, folder):
    """Returns (exit code, stdout, stderr) of every command line of `python -m package`, run at once."""
    place = str(pathlib.Path(sg.__file__).parents[1])
    environment = os.environ | {
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": place,
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([package, cases]),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def save_generator(path, *, channels=3, c_dim=0):
    """Writes a tiny random generator's checkpoint."""
    config = sg.GeneratorConfig(
        widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2, image_channels=channels, c_dim=c_dim
    )
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    sg.save(path, sg.Model(generator, w_statistics=statistics, provenance={"source": "random"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with generators, an image and masks of every bad kind."""
    folder = tmp_path_factory.mktemp("restore")
    save_generator(folder / "generator")
    save_generator(folder / "grey", channels=1)
    save_generator(folder / "five", channels=5)
    save_generator(folder / "classes", c_dim=3)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    image_io.write_image(folder / "image.png", pixels)
    image_io.write_image(folder / "wide.png", np.concatenate([pixels, pixels], 1))
    image_io.write_image(folder / "large.png", pixels.repeat(3, 0).repeat(3, 1))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 4:10] = 255
    image_io.write_image(folder / "mask.png", mask)
    image_io.write_image(folder / "large_mask.png", mask.repeat(3, 0).repeat(3, 1))
    image_io.write_image(folder / "wide_mask.png", np.concatenate([mask, mask], 1))
    image_io.write_image(folder / "inverted.png", 255 - mask)
    image_io.write_image(folder / "black.png", 0 * mask)
    image_io.write_image(folder / "white.png", 0 * mask + 255)
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "large.png").read_bytes()[:400])
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").write_text("keep me")
    (folder / "foreign.py").write_text("def get_config():\n    return 3\n")
    (folder / "broken.py").write_text("def get_config(:\n")
    (folder / "nothing.py").write_text("x = 1\n")
    return folder


QUICK = ["--steps", "4", "--starts", "3", "--keep", "2", "--config.search.pool=5"]
INPUT = ["--image", "image.png", "--mask", "mask.png"]
TINY = ["--generator", "generator"]


@pytest.fixture(scope="module")
def restored(folder):
    """One restoration, run twice into two folders, and one each with other options."""
    cases = [
        ["restore", *TINY, *INPUT, *QUICK, "--output", "first"],
        ["restore", *TINY, *INPUT, *QUICK, "--output", "second"],
        ["restore", *TINY, *INPUT, *QUICK, "--output", "again"],
        ["restore", *TINY, "--image", "image.png", "--mask", "inverted.png", "--mask_polarity", "black_hole", *QUICK]
        + ["--output", "inverted"],
        ["restore", *TINY, "--image", "large.png", "--mask", "large_mask.png", *QUICK, "--output", "large"],
        ["restore", *TINY, *QUICK, "--output", "sample", "--quiet"],
        ["restore", "--generator", "grey", *INPUT, *QUICK, "--output", "grey_out"],
        ["restore", "--generator", "classes", *INPUT, *QUICK, "--output", "classes_out", "--label", "2"],
        ["restore", *TINY, *INPUT, *QUICK, "--output", "first", "--overwrite", "--seed", "7", "--space", "z"],
        ["restore", *TINY, *INPUT, "--config", f"{ROOT}/configs/restore_brief.py:smoke", "--config.search.lr=0.2"]
        + ["--output", "brief", "--steps", "3"],
    ]
    results = run_commands("inpaint", cases, folder)
    assert [result[0] for result in results] == [0] * len(cases), results
    return {case[case.index("--output") + 1]: result for case, result in zip(cases, results, strict=True)}


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
    again = folder / "again"
    for name in names:
        assert (again / name).read_bytes() == (folder / "second" / name).read_bytes(), name


def test_stored_latents_render_the_same_image(folder, restored):
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


def test_label_of_a_conditional_generator(folder, restored):
    """The class asked for is the class used."""
    with np.load(folder / "classes_out" / "latents.npz") as latents:
        np.testing.assert_array_equal(latents["c"], [[0, 0, 1]] * 2)


BAD = {
    "missing image": ([*TINY, "--image", "none.png", "--mask", "mask.png"], "none.png does not exist"),
    "missing mask": ([*TINY, "--image", "image.png", "--mask", "none.png"], "none.png does not exist"),
    "image without mask": ([*TINY, "--image", "image.png"], "needs --mask"),
    "mask without image": ([*TINY, "--mask", "mask.png"], "needs --image"),
    "text as image": ([*TINY, "--image", "text.png", "--mask", "mask.png"], "text.png is not an image"),
    "empty file": ([*TINY, "--image", "empty.png", "--mask", "mask.png"], "empty.png is not an image"),
    "cut file": ([*TINY, "--image", "cut.png", "--mask", "large_mask.png"], "cut.png"),
    "folder as image": ([*TINY, "--image", "notes", "--mask", "mask.png"], "notes is a folder"),
    "mask of another size": ([*TINY, "--image", "image.png", "--mask", "large_mask.png"], "must have the same size"),
    "not square": ([*TINY, "--image", "wide.png", "--mask", "wide_mask.png"], "must be square"),
    "empty mask": ([*TINY, "--image", "image.png", "--mask", "black.png"], "no hole"),
    "full mask": ([*TINY, "--image", "image.png", "--mask", "white.png"], "hides every pixel"),
    "channels": (["--generator", "five", *INPUT], "5 channels"),
    "no checkpoint": (["--generator", "none", *INPUT], "does not exist"),
    "file as checkpoint": (["--generator", "image.png", *INPUT], "not a checkpoint directory"),
    "other folder as checkpoint": (["--generator", "notes", *INPUT], "not a readable checkpoint"),
    "unknown flag": ([*TINY, *INPUT, "--stepps", "3"], "stepps"),
    "flag of another type": ([*TINY, *INPUT, "--steps", "many"], "steps"),
    "unknown space": ([*TINY, *INPUT, "--space", "q"], "unknown space 'q'; known: z, w, w+"),
    "unknown init": ([*TINY, *INPUT, "--init", "best"], "unknown init"),
    "no steps": ([*TINY, *INPUT, "--steps", "0"], "steps >= 1"),
    "no starts": ([*TINY, *INPUT, "--starts", "0"], "keep must be 1 to starts"),
    "keep too many": ([*TINY, *INPUT, "--starts", "2", "--keep", "3"], "keep must be 1 to starts (2)"),
    "unknown polarity": ([*TINY, *INPUT, "--mask_polarity", "grey_hole"], "mask_polarity"),
    "unknown config field": ([*TINY, *INPUT, "--config.search.stepps=3"], "stepps"),
    "config value of another type": ([*TINY, *INPUT, "--config.search.lr=fast"], "lr"),
    "missing config": ([*TINY, *INPUT, "--config", "none.py"], "none.py"),
    "broken config": ([*TINY, *INPUT, "--config", "broken.py"], "broken.py"),
    "config without get_config": ([*TINY, *INPUT, "--config", "nothing.py"], "get_config"),
    "config of another kind": ([*TINY, *INPUT, "--config", "foreign.py"], "RestoreConfig"),
    "unknown data term": ([*TINY, *INPUT, "--config.search.data=l3"], "unknown data term"),
    "unknown selection": ([*TINY, *INPUT, *QUICK, "--config.search.select=worst"], "unknown selection"),
    "unknown composite": ([*TINY, *INPUT, "--config.composite=glue"], "unknown composite"),
    "negative weight": ([*TINY, *INPUT, "--config.search.mahalanobis=-1"], "at least 0"),
    "label out of range": (["--generator", "classes", *INPUT, "--label", "3"], "0 to 2"),
    "label without classes": ([*TINY, *INPUT, "--label", "0"], "not conditional"),
    "stray argument": ([*TINY, *INPUT, "image.png"], "unexpected argument 'image.png'"),
    "output is a file": ([*TINY, *INPUT, "--output", "image.png"], "is a file"),
    "output holds other files": ([*TINY, *INPUT, "--output", "notes", "--overwrite"], "holds other files"),
    "output holds results": ([*TINY, *INPUT, "--output", "second"], "pass --overwrite"),
    "output below a file": ([*TINY, *INPUT, "--output", "image.png/out"], "cannot be written"),
}


@pytest.fixture(scope="module")
def refusals(folder, restored):
    """The outcome of every bad command line."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    cases = [
        ["restore", *arguments] if "--output" in arguments else ["restore", *arguments, "--output", "bad"]
        for arguments, _ in BAD.values()
    ]
    results = run_commands("inpaint", [*cases, [], ["restroe"]], folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    changed = {path for path in before | after if before.get(path) != after.get(path) and path.is_file()}
    assert not changed, changed
    return dict(zip([*BAD, "no command", "unknown command"], results, strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_clear_line(refusals, name):
    """One line on stderr that names the trouble, a non-zero exit code, no traceback, nothing written."""
    code, _, error = refusals[name]
    assert code in (1, 2), error
    assert BAD[name][1] in error, error
    assert len(error.strip().splitlines()) == 1 and "Traceback" not in error, error
    assert "unexpected" not in error or "unexpected argument" in error, error


def test_commands_are_listed(refusals):
    """Without a command, or with an unknown one, the commands are named."""
    for name in ("no command", "unknown command"):
        code, _, error = refusals[name]
        assert code == 2 and "restore" in error


def test_demo_command_runs(folder):
    """The README's first command, shortened: sample portrait, demo generator, all defaults else."""
    [result] = run_commands("inpaint", [["restore", "--steps", "2", "--starts", "2"]], folder)
    assert result[0] == 0, result
    assert (folder / "out" / "restore" / "contact_sheet.png").is_file()
