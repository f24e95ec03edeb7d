# SPDX-License-Identifier: Apache-2.0
"""The recover command run for real on a tiny generator: measurements from files and simulated ones, and bad input."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import inpaint
import stylegan_jax as sg
from inpaint import measurement, operators
from stylegan_jax import dcgan, image_io

SIZE = 16
TINY = ["--generator", "generator"]
# One phase, so that there is one step to compile.
QUICK = ["--steps", "3", "--starts", "2", "--keep", "2", "--config.search.init=random", "--config.search.space=w"]

# What is wrong: (flags of recover, what the line must say).
BAD = {
    "no degradation": (["--image", "small.png"], "--degradation is needed, such as downsample:4; known: downsample"),
    "unknown degradation": (
        ["--image", "small.png", "--degradation", "pixelate:4"],
        "unknown degradation 'pixelate:4'",
    ),
    "wrong size": (
        ["--image", "image.png", "--degradation", "downsample:4"],
        "image.png is 16x16, and downsample:4 leaves 4x4 of the generator's 16x16; --simulate degrades a whole picture",
    ),
    "no picture": (
        ["--image", "image.png", "--degradation", "circulant:0.1"],
        "a measurement of circulant:0.1 is no picture, but numbers [77], and image.png cannot be one; --simulate",
    ),
    "colours in a grey measurement": (
        ["--image", "image.png", "--degradation", "grayscale"],
        "image.png has colours, and a measurement of grayscale is grey",
    ),
    "transparent pixels": (["--image", "clear.png", "--degradation", "blur:1"], "clear.png has transparent pixels"),
    "missing image": (["--image", "none.png", "--degradation", "blur:1"], "none.png does not exist"),
    "no image": (["--image", "mask.txt", "--degradation", "blur:1"], "mask.txt is not an image"),
    "method with an encoder": (
        ["--method", "encoder_search", "--degradation", "blur:1"],
        "the method encoder_search as it is set asks an encoder, which reads images with holes; those that recover are "
        "latent_search, brief",
    ),
    "start with an encoder": (["--config.search.init=encoder", "--degradation", "blur:1"], "asks an encoder"),
    "method that fills": (
        ["--method", "biharmonic", "--degradation", "blur:1"],
        "the method biharmonic fills holes without a search; those that recover are latent_search, brief",
    ),
    "method that needs known pixels": (
        ["--method", "dcgan_completion", "--degradation", "blur:1", "--generator", "plain"],
        "the method dcgan_completion compares known pixels (its term summed_l1), and this measurement shows none; take",
    ),
    "method that is fitted": (["--method", "ridge", "--degradation", "blur:1"], "fills holes without a search"),
    "no generator": (["--generator", "none", "--degradation", "blur:1"], "none does not exist"),
    "output holds other files": (["--degradation", "blur:1", "--output", "notes"], "holds other files"),
    "stray argument": (["--degradation", "blur:1", "small.png"], "unexpected argument 'small.png'"),
}
WRONG_FLAGS = {
    "unknown method": (["--method", "magic", "--degradation", "blur:1"], "--method"),
    "unknown flag": (["--degradation", "blur:1", "--mask", "mask.png"], "mask"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_generator, save_pictures):
    """A folder with generators, whole pictures, measurements, and what is none."""
    folder = tmp_path_factory.mktemp("recover")
    save_generator(folder / "generator")
    # One of another family, whose programs are compiled sooner.
    plain = dcgan.Generator(dcgan.GeneratorConfig(widths=(4, 4), z_dim=6), rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), plain, samples=100)
    sg.save(folder / "plain", sg.Model(plain, w_statistics=statistics))
    save_pictures(folder)
    image_io.write_image(folder / "small.png", np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8))
    Image.fromarray(np.zeros((SIZE, SIZE, 4), np.uint8)).save(folder / "clear.png")
    for name in ("notes", "masked"):
        (folder / name).mkdir()
    for name in ("scores.json", "config.json", "left_behind.png"):
        (folder / "masked" / name).write_text("{}")
    for path in (folder / "notes" / "notes.txt", folder / "mask.txt"):
        path.write_text("keep me")
    return folder


@pytest.fixture(scope="module")
def outcomes(folder, run_commands):
    """(exit code, stdout, stderr) of every call."""
    masked = [*TINY, *QUICK, "--image", "image.png", "--degradation", "mask:file:mask.png+quantise"]
    masked += ["--output", "masked"]
    numbers = ["--generator", "plain", *QUICK, "--image", "wide_image.png", "--simulate", "--quiet"]
    good = {
        "masked": [*masked, "--overwrite"],  # what some other call left
        "again": masked,
        "other": [*masked, "--seed", "1"],
        "numbers": [*numbers, "--degradation", "circulant:0.1", "--output", "numbers"],
    }
    bad = {name: [*TINY, "--output", "bad", *case] for name, (case, _) in (BAD | WRONG_FLAGS).items()}
    edit = ["edit", "--restored", "masked", "--direction", "sefa:0"]
    cases = [["recover", *case] for case in [*good.values(), *bad.values()]] + [edit]
    return dict(zip([*good, *bad, "edit"], run_commands("inpaint", cases, folder), strict=True))


def pixels(path):
    """Returns a PNG's levels."""
    return image_io.to_uint8(image_io.read_image(path)[0])


def read(path):
    """Returns a JSON file."""
    return json.loads(path.read_text())


def test_measurement_file(folder, outcomes):
    """A file is the measurement; what it shows stays bit for bit, nothing of its hole is looked at, and the folder
    agrees with itself."""
    code, text, error = outcomes["masked"]
    assert code == 0, error
    assert "is a measurement of mask:file:mask.png+quantise" in text and "measurement met at" in text
    found = {path.name for path in (folder / "masked").iterdir()}
    pictures = {f"{kind}_{i}.png" for kind in ("recovered", "raw") for i in (1, 2)}
    assert found == pictures | {"contact_sheet.png", "measurement.png", "latents.npz", "scores.json", "config.json"}
    given, hole = pixels(folder / "image.png"), pixels(folder / "mask.png")[..., 0] == 255
    measured = pixels(folder / "masked" / "measurement.png")
    np.testing.assert_array_equal(measured[~hole], given[~hole])
    assert (measured[hole] == 128).all()
    for i in (1, 2):
        result, render = (pixels(folder / "masked" / f"{kind}_{i}.png") for kind in ("recovered", "raw"))
        np.testing.assert_array_equal(result[~hole], given[~hole])
        assert (result[hole] != given[hole]).any() and (render[~hole] != given[~hole]).any()
    assert image_io.read_image(folder / "masked" / "contact_sheet.png")[0].shape == (2 * 212, 3 * 192, 3)
    scores, settings = read(folder / "masked" / "scores.json"), read(folder / "masked" / "config.json")
    for row in scores:
        assert sum(row["terms"].values()) == pytest.approx(row["total"], rel=1e-5) and "truth_psnr" not in row
    render = image_io.read_image(folder / "masked" / "raw_1.png")[0]
    error = np.square(render - image_io.from_uint8(given))[~hole].mean()
    assert scores[0]["measured_psnr"] == pytest.approx(10 * np.log10(4 / error), abs=0.02)
    assert settings["options"]["degradation"] == "mask:file:mask.png+quantise" and not settings["options"]["simulate"]
    assert len(settings["inputs"]["image_sha256"]) == 64 and settings["versions"]["jax"] == jax.__version__


def test_skip_and_overwrite(folder, outcomes):
    """What is there is replaced when that is asked for; equal settings are skipped, others refused in one line."""
    assert not (folder / "masked" / "left_behind.png").exists()
    code, text, _ = outcomes["again"]
    assert code == 0 and text == "skipped    masked holds this restoration already; --overwrite makes it anew\n"
    code, _, error = outcomes["other"]
    assert code == 1 and error.count("\n") == 1
    assert "(config.search.seed differ); name another folder or pass --overwrite" in error
    assert read(folder / "masked" / "config.json")["config"]["search"]["seed"] == 0
    assert not [path for path in folder.iterdir() if path.name.startswith(".masked")]


def test_simulated_numbers(folder, outcomes):
    """Compressed sensing of a whole picture's central square: its numbers are stored, and the truth is known."""
    code, text, error = outcomes["numbers"]
    assert code == 0, error
    assert ", truth at " in text and len(text.splitlines()) <= 2
    given = pixels(folder / "wide_image.png")[:, SIZE // 2 : -SIZE // 2]
    np.testing.assert_array_equal(pixels(folder / "numbers" / "truth.png"), given)
    numbers = np.load(folder / "numbers" / "measurement.npy")
    drawn, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 2**31 - 1))
    operator = operators.parse("circulant:0.1", size=SIZE, key=drawn)
    assert numbers.shape == (77,)
    np.testing.assert_allclose(numbers, operator(jnp.asarray(image_io.from_uint8(given))), atol=1e-4)
    assert not (folder / "numbers" / "measurement.png").exists()
    recovered = np.stack([pixels(folder / "numbers" / f"recovered_{i}.png") for i in (1, 2)])
    errors = np.square(image_io.from_uint8(recovered) - image_io.from_uint8(given)).mean((1, 2, 3))
    found = [row["truth_psnr"] for row in read(folder / "numbers" / "scores.json")]
    np.testing.assert_allclose(found, 10 * np.log10(4 / errors), atol=0.05)


@pytest.mark.parametrize("name", [*BAD, *WRONG_FLAGS])
def test_bad_input_gives_one_clear_line(folder, outcomes, name):
    """One line on stderr that names the trouble, the exit code of its kind, and nothing written."""
    code, _, error = outcomes[name]
    assert code == (2 if name in WRONG_FLAGS else 1) and (BAD | WRONG_FLAGS)[name][1] in error, error
    assert error.count("\n") == 1 and "Traceback" not in error, error
    assert not (folder / "bad").exists() and [path.name for path in (folder / "notes").iterdir()] == ["notes.txt"]


def test_recovery_is_not_edited(outcomes):
    """What `edit` cannot go on from is named."""
    code, _, error = outcomes["edit"]
    assert code == 1 and "masked holds what `recover` found" in error


def test_files_as_measurements():
    """Greys are read as one channel, slight tints too; a square is cut from the middle and brought to size."""
    grey = np.random.default_rng(2).integers(8, 240, (SIZE, SIZE, 1), np.uint8).repeat(3, 2)
    shape = measurement.shape_of(operators.Grayscale(), SIZE, 3)
    tinted = grey + np.uint8([0, 4, 8])
    found = measurement.as_measurement(tinted, shape, name="x", degradation="grayscale", size=SIZE)
    np.testing.assert_allclose(found, image_io.from_uint8(grey[..., :1] + np.uint8(4)), atol=1e-6)
    high = np.concatenate([tinted[:4] // 2, grey, tinted[:5]])
    np.testing.assert_array_equal(
        measurement.central_square(high, size=SIZE, channels=3), image_io.from_uint8(high[4 : 4 + SIZE])
    )
    half = measurement.central_square(high, size=SIZE // 2, channels=1)
    assert half.shape == (SIZE // 2, SIZE // 2, 1)
    np.testing.assert_array_equal(half, image_io.from_uint8(image_io.to_uint8(half)))


def test_figure_of_a_measurement():
    """The PSNR is that of the values that count, by the formula; hidden values are 0 whatever they were."""
    image = np.random.default_rng(3).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)
    known = np.ones((SIZE // 2, SIZE // 2), np.float32)
    known[2:5, 2:5] = 0
    operator = operators.Composition.checked([operators.Downsample(2, "box"), operators.Mask.checked(known)])
    problem = measurement.without_hidden(inpaint.Problem(operator, jnp.full((SIZE // 2, SIZE // 2, 3), 0.5)))
    assert (np.asarray(problem.measurement)[known == 0] == 0).all()
    blocks = image.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    expected = 10 * np.log10(4 / np.square(blocks - 0.5)[known == 1].mean())
    found = measurement.psnr(problem, np.stack([image, 0 * image + 0.5]))
    np.testing.assert_allclose(found, [expected, 106.02], rtol=1e-4)
