# SPDX-License-Identifier: Apache-2.0
"""Photographs of any size and format: cutting the generator's square, pasting back, masks, and which files belong."""

import json

import numpy as np
import pytest
from PIL import Image

import inpaint
from inpaint import film, framing, holes, inputs
from inpaint.commands import report
from inpaint.photograph import Photograph, prepare, read_photograph
from stylegan_jax import image_io

FACE = np.asarray([[60.0, 50.0], [96.0, 56.0], [74.0, 90.0]])


def smooth_levels(height, width):
    """Returns a picture whose levels change slowly, `[height, width, 3]` uint8."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x + 1) + y, np.cos(4 * y) - x, np.sin(3 * (x + y))]
    return image_io.to_uint8(np.stack(waves, -1).clip(-1.5, 1.5) / 1.6)


def with_hole(height, width, rows, columns):
    """Returns `known` `[height, width]` with one rectangular hole."""
    known = np.ones((height, width), np.float32)
    known[rows, columns] = 0
    return known


# name: (height, width, generator's size, landmarks, hole rows, hole columns, largest error in levels)
FRAMES = {
    "wide": (60, 120, 32, None, slice(20, 40), slice(40, 70), 3),
    "tall, odd": (131, 77, 32, None, slice(20, 60), slice(20, 50), 3),
    "square, larger": (96, 96, 32, None, slice(30, 60), slice(30, 60), 3),
    "smaller than the generator": (20, 31, 64, None, slice(6, 12), slice(9, 20), 3),
    "hole at the border": (80, 60, 32, None, slice(0, 30), slice(0, 60), 6),  # seen from below only
    "face": (150, 160, 64, FACE, slice(70, 100), slice(60, 90), 3),
    "face, coarse": (150, 160, 16, FACE, slice(75, 95), slice(62, 88), 6),  # 8 pixels become one
    "face at the border": (
        100,
        110,
        64,
        FACE,
        slice(60, 98),
        slice(60, 90),
        8,
    ),  # a third lies outside, the hole meets its border
}


@pytest.mark.parametrize("name", FRAMES)
def test_cut_and_pasted_unchanged(name):
    """A crop put back as it is gives the photograph: exactly where it is known, nearly in the hole."""
    height, width, size, landmarks, rows, columns, tolerance = FRAMES[name]
    levels, known = smooth_levels(height, width), with_hole(height, width, rows, columns)
    prepared = prepare(Photograph(levels, known), size, landmarks=landmarks)
    assert prepared.image.shape == (size, size, 3) and prepared.known.shape == (size, size)
    # The same frame on the photograph without its hole: what a perfect restoration would be.
    whole, _ = prepared.frame.cut(image_io.from_uint8(levels), np.ones_like(known))
    for sigma in (0, 1.5):
        pasted = framing.paste(levels, known, whole, prepared.frame, sigma=sigma)
        assert pasted.dtype == np.uint8 and pasted.shape == levels.shape
        np.testing.assert_array_equal(pasted[known == 1], levels[known == 1])
        error = np.abs(pasted.astype(int) - levels)[known == 0]
        assert error.max() <= tolerance + (3 if sigma == 0 else 0), (sigma, error.max())


@pytest.mark.parametrize("name", FRAMES)
def test_what_lies_in_the_hole_changes_nothing(name):
    """Neither the square nor the pasted photograph depends on the pixels that are to be restored."""
    height, width, size, landmarks, rows, columns, _ = FRAMES[name]
    levels, known = smooth_levels(height, width), with_hole(height, width, rows, columns)
    painted = np.where(known[..., None] > 0, levels, np.uint8([255, 0, 255]))
    one, two = (prepare(Photograph(x, known), size, landmarks=landmarks) for x in (levels, painted))
    np.testing.assert_array_equal(one.image, two.image)
    results = [framing.paste(p.photograph.levels, known, one.image, p.frame, sigma=1.5) for p in (one, two)]
    np.testing.assert_array_equal(*results)


def test_letterbox():
    """A wide picture lies in the middle, the padding is hole, and cutting the padding off gives its shape."""
    prepared = prepare(Photograph(smooth_levels(50, 100), with_hole(50, 100, slice(20, 30), slice(40, 60))), 32)
    assert prepared.frame.rectangle == (8, 0, 16, 32) and not prepared.frame.whole
    assert prepared.frame.shown(prepared.image).shape == (16, 32, 3)
    assert prepared.known[:8].max() == 0 and prepared.known[24:].max() == 0
    assert prepared.known[8:24].min() == 0 and prepared.known[8:24].mean() == pytest.approx(0.96, abs=0.01)
    assert prepared.hole_share == pytest.approx(0.04)  # padding does not count
    with pytest.raises(ValueError, match="too elongated"):
        framing.letterboxed(4, 4000, 32)


def test_same_size_stays_as_it_is():
    """A square picture of the generator's size passes through bit for bit."""
    levels, known = smooth_levels(32, 32), with_hole(32, 32, slice(4, 9), slice(5, 30))
    prepared = prepare(Photograph(levels, known), 32)
    assert prepared.frame.whole
    np.testing.assert_array_equal(image_io.to_uint8(prepared.image), levels)
    np.testing.assert_array_equal(prepared.known, known)


def test_face_beyond_the_photograph():
    """What a turned crop shows of the outside is hole, and the pixels beside it are not darkened by it."""
    levels = np.full((100, 110, 3), 255, np.uint8)
    prepared = prepare(Photograph(levels, with_hole(100, 110, slice(60, 70), slice(60, 90))), 64, landmarks=FACE)
    outside = prepared.known == 0
    assert 0.2 < outside.mean() < 0.8
    np.testing.assert_allclose(prepared.image[prepared.known > 0.01], 1, atol=1e-5)


def test_hole_outside_the_face_is_named():
    """A hole that the crop does not show is an error; one that it shows in part stays as it is there."""
    levels = smooth_levels(400, 400)
    with pytest.raises(ValueError, match="outside of the face"):
        prepare(Photograph(levels, with_hole(400, 400, slice(380, 390), slice(380, 390))), 32, landmarks=FACE)
    known = with_hole(400, 400, slice(60, 90), slice(60, 400))
    prepared = prepare(Photograph(levels, known), 32, landmarks=FACE)
    assert any("lies outside of the face and stays" in note for note in prepared.notes)
    pasted = framing.paste(levels, known, -np.ones((32, 32, 3), np.float32), prepared.frame, sigma=0)
    assert (pasted[70, 70] == 0).all() and (pasted[70, 390] == levels[70, 390]).all()


def test_seam():
    """A restoration of another brightness meets the photograph at the border of the hole without a step."""
    levels, known = smooth_levels(90, 90), with_hole(90, 90, slice(30, 60), slice(30, 60))
    prepared = prepare(Photograph(levels, known), 30)
    shifted = prepared.frame.cut(image_io.from_uint8(levels), np.ones_like(known))[0] * 0.8 + 0.2
    error = {
        sigma: framing.paste(levels, known, shifted, prepared.frame, sigma=sigma).astype(int) - levels
        for sigma in (0, 1.5)
    }
    assert np.abs(error[0][45, 30:60]).max() > 25  # a step without it
    assert np.abs(error[1.5][45, [30, 59]]).max() <= 5 and np.abs(error[1.5][[30, 59], 45]).max() <= 5


@pytest.mark.parametrize(("height", "width"), [(9, 7), (1, 5), (16, 16)])
def test_holes_are_filled_from_around(height, width):
    """Filling keeps known pixels, stays within their range, and works at any size."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-0.5, 0.5, (height, width, 3)).astype(np.float32)
    known = (rng.uniform(size=(height, width)) > 0.7).astype(np.float32)
    known[0, 0] = 1
    found = holes.filled(np.where(known[..., None] > 0, image, np.nan), known)
    np.testing.assert_array_equal(found[known > 0], image[known > 0])
    kept = image[known > 0]
    assert (found >= kept.min(0) - 1e-6).all() and (found <= kept.max(0) + 1e-6).all()


def test_growing_shrinking_and_band():
    """Holes grow and shrink by pixels of the generator; the band is left out of the search but kept as it is."""
    levels, known = smooth_levels(64, 64), with_hole(64, 64, slice(24, 40), slice(24, 40))
    plain = prepare(Photograph(levels, known), 32)
    count = {name: (p.known == 0).sum() for name, p in {"plain": plain}.items()}
    assert count["plain"] == 8 * 8 and (plain.weight == plain.known).all()
    grown = prepare(Photograph(levels, known), 32, dilate=2)
    assert (grown.known == 0).sum() == 12 * 12 and (grown.photograph.known == 0).sum() == 24 * 24
    assert (prepare(Photograph(levels, known), 32, dilate=-2).known == 0).sum() == 4 * 4
    banded = prepare(Photograph(levels, known), 32, band=3)
    assert (banded.known == plain.known).all() and (banded.weight == 0).sum() == 14 * 14
    with pytest.raises(ValueError, match="mask_dilate=-4 leaves no hole"):
        prepare(Photograph(levels, known), 32, dilate=-4)
    with pytest.raises(ValueError, match="mask_dilate=40"):
        prepare(Photograph(levels, known), 32, dilate=40)
    with pytest.raises(ValueError, match="mask_band=40 leaves no known pixels"):
        prepare(Photograph(levels, known), 32, band=40)
    with pytest.raises(ValueError, match="hole is too small"):
        prepare(Photograph(levels, with_hole(64, 64, slice(0, 0), 0)), 32)


WRONG_LANDMARKS = {
    "nan": ([[np.nan, 1], [20, 1], [10, 20]], "finite"),
    "two points": ([[1, 1], [20, 1]], "three points"),
    "outside": ([[60, 50], [96, 56], [74, 900]], "mouth at (74, 900) lies outside"),
    "eyes exchanged": ([[96, 56], [60, 50], [74, 90]], "left eye is right of the right eye"),
    "upside down": ([[60, 90], [96, 90], [74, 50]], "mouth lies above the eyes"),
    "one point": ([[60, 50], [60, 50], [74, 90]], "too close"),
    "mouth between eyes": ([[60, 50], [96, 50], [78, 50]], "too close"),
}


@pytest.mark.parametrize("name", WRONG_LANDMARKS)
def test_wrong_landmarks(name):
    """Landmarks that are no face's are refused with the reason."""
    points, text = WRONG_LANDMARKS[name]
    with pytest.raises(ValueError) as error:
        framing.aligned(150, 160, np.asarray(points, float), 32)
    assert text in str(error.value)


def grey(top, dtype):
    """Returns levels 0 to 255 in a 4x4 picture and the same scaled to `top` in another type."""
    levels = np.linspace(0, 255, 16).round().reshape(4, 4)
    return levels, (levels / 255 * top).astype(dtype)


def palette_with_transparency(path):
    picture = Image.fromarray(np.uint8([[0, 1], [2, 0]]), "L").convert("L")
    picture = Image.frombytes("P", (2, 2), picture.tobytes())
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(path, transparency=bytes([255, 0, 255]))


def colour_key(path):
    Image.fromarray(np.uint8([[[1, 2, 3], [9, 9, 9]]])).save(path, transparency=(9, 9, 9))


# name: (file, how to write it, levels of the first channel, alpha), None for not compared
KINDS = {
    "1 bit": ("a.png", lambda p: Image.fromarray(np.array([[True, False]])).save(p), [[255, 0]], [[255, 255]]),
    "grey": ("a.png", lambda p: Image.fromarray(np.uint8([[3, 200]])).save(p), [[3, 200]], [[255, 255]]),
    "grey with alpha": (
        "a.png",
        lambda p: Image.fromarray(np.uint8([[[3, 0], [200, 255]]])).save(p),
        [[3, 200]],
        [[0, 255]],
    ),
    "palette with alpha": ("a.png", palette_with_transparency, [[255, 0], [0, 255]], [[255, 0], [255, 255]]),
    "colour key": ("a.png", colour_key, [[1, 9]], [[255, 0]]),
    "CMYK": ("a.jpg", lambda p: Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(p), np.zeros((8, 8)), None),
    "16 bit grey": ("a.png", lambda p: Image.fromarray(grey(65535, np.uint16)[1]).save(p), grey(1, float)[0], None),
    "dark 16 bit": ("a.png", lambda p: Image.fromarray(np.uint16([[0, 255]])).save(p), [[0, 1]], None),
    "16 bit TIFF": ("a.tif", lambda p: Image.fromarray(grey(65535, np.uint16)[1]).save(p), grey(1, float)[0], None),
    "float to 1": ("a.tif", lambda p: Image.fromarray(grey(1, np.float32)[1]).save(p), grey(1, float)[0], None),
    "float to 255": ("a.tif", lambda p: Image.fromarray(grey(255, np.float32)[1]).save(p), grey(1, float)[0], None),
    "32 bit integers": ("a.tif", lambda p: Image.fromarray(grey(255, np.int32)[1]).save(p), grey(1, float)[0], None),
    "WebP": ("a.webp", lambda p: Image.fromarray(np.uint8([[[9] * 4]])).save(p, lossless=True), None, [[9]]),
    "BMP": ("a.bmp", lambda p: Image.fromarray(np.uint8([[[9, 8, 7]]])).save(p), [[9]], [[255]]),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_files(tmp_path, name):
    """Every kind of pixels becomes the 8-bit levels and the alpha that it stands for."""
    file, write, levels, alpha = KINDS[name]
    write(tmp_path / file)
    picture = image_io.read_picture(tmp_path / file)
    assert picture.levels.dtype == np.uint8 and picture.levels.shape[2] == 3
    if levels is not None:
        # JPEG and rounding to integers before scaling cost a level or two.
        np.testing.assert_allclose(picture.levels[..., 0], levels, atol=2 if name in ("CMYK", "32 bit integers") else 0)
    assert (picture.alpha == (255 if alpha is None else alpha)).all()
    assert bool(picture.notes) == (name.startswith("float") or name.startswith("32"))


def test_sixteen_bit_colour(tmp_path):
    """Sixteen-bit RGB, which Pillow cannot write, is read to its high bytes."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 0x1234, 0xFFFF, 0, 0x8000, 0x00FF, 0xFF00)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    levels = image_io.read_picture(tmp_path / "a.png").levels
    np.testing.assert_allclose(levels, [[[0x12, 0xFF, 0], [0x80, 0, 0xFF]]], atol=1)


def test_frames_and_profile(tmp_path):
    """Of an animation the first frame is used, which is said; a colour profile stays with the photograph."""
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = image_io.read_picture(tmp_path / "a.gif")
    assert (picture.levels == 10).all() and "2 frames" in picture.notes[0]
    frames[0].save(tmp_path / "p.png", icc_profile=b"profile")
    assert image_io.read_picture(tmp_path / "p.png").profile == b"profile"
    image_io.write_image(tmp_path / "q.png", np.asarray(frames[0]), profile=b"profile")
    assert image_io.read_picture(tmp_path / "q.png").profile == b"profile"


@pytest.fixture
def pair(tmp_path):
    """An image of 8x12 and its mask with a grey border, in a folder."""
    image_io.write_image(tmp_path / "a.png", smooth_levels(8, 12))
    mask = np.zeros((8, 12), np.uint8)
    mask[2:6, 2:10], mask[2:6, 2] = 255, 100
    image_io.write_image(tmp_path / "m.png", mask)
    return tmp_path


def test_masks_for_photographs(pair):
    """Thresholds make a soft mask sharp, smaller masks are enlarged, transparency is a mask, smears are noted."""
    soft = read_photograph(pair / "a.png", mask=pair / "m.png").known
    assert soft[3, 2] == pytest.approx(1 - 100 / 255) and soft[3, 3] == 0 and soft[0, 0] == 1
    for threshold, known in ((100, 0), (101, 1)):
        sharp = read_photograph(pair / "a.png", mask=pair / "m.png", threshold=threshold).known
        assert set(np.unique(sharp)) == {0, 1} and sharp[3, 2] == known
        other = read_photograph(pair / "a.png", mask=pair / "m.png", threshold=threshold, polarity="black_hole").known
        np.testing.assert_array_equal(other, 1 - sharp)
    image_io.write_image(pair / "half.png", np.uint8([[0, 0, 255], [0, 0, 0]]))
    found = read_photograph(pair / "a.png", mask=pair / "half.png")
    assert (found.known[:4, 8:] == 0).all() and found.known.sum() == 8 * 12 - 16 and "3x2 is resized" in found.notes[0]
    rgba = np.concatenate([smooth_levels(8, 12), np.full((8, 12, 1), 255, np.uint8)], -1)
    rgba[:3, :3, 3] = 0
    Image.fromarray(rgba).save(pair / "t.png")
    known = read_photograph(pair / "t.png").known
    assert known[:3, :3].max() == 0 and known.sum() == 8 * 12 - 9
    assert read_photograph(pair / "t.png", mask=pair / "m.png").known.sum() < known.sum()  # both count
    image_io.write_image(pair / "smeared.png", np.where(np.arange(96).reshape(8, 12) < 40, 4, 255).astype(np.uint8))
    assert "--mask_threshold=128" in read_photograph(pair / "a.png", mask=pair / "smeared.png").notes[0]
    image, known = inpaint.read(pair / "a.png", mask=pair / "m.png", size=12, threshold=128)
    assert image.shape == (12, 12, 3) and known[:2].max() == 0 and known[2, 0] == 1


def test_files_of_folders(tmp_path):
    """Images find their masks by stem or suffix, also in one folder, and their landmarks by stem."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("images/a.png", "images/b.JPG", "images/c.webp", "images/notes.txt", "images/.d.png"):
        image_io.write_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    for name in ("masks/a.gif", "masks/b_mask.png", "masks/b2.png", "masks/a_mask.png"):
        image_io.write_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    found, notes = inputs.find(str(images), mask=str(masks))
    assert [(s.name, s.mask and s.mask.name) for s in found] == [("a", "a.gif"), ("b", "b_mask.png"), ("c", None)]
    assert "1 files" in notes[0]
    assert {s.mask.name for s in inputs.find(str(images), mask=str(masks / "a.gif"))[0]} == {"a.gif"}
    image_io.write_image(images / "a-mask.png", np.zeros((2, 2), np.uint8))
    found, _ = inputs.find(str(images), mask=str(images))
    assert [(s.name, s.mask and s.mask.name) for s in found] == [("a", "a-mask.png"), ("b", None), ("c", None)]
    (tmp_path / "points.json").write_text(json.dumps({"a": FACE.tolist(), "b.JPG": FACE.reshape(-1).tolist()}))
    found, _ = inputs.find(str(images), mask=str(masks), landmarks=str(tmp_path / "points.json"))
    by_name = {source.name: source for source in found}
    np.testing.assert_array_equal(by_name["a"].landmarks, FACE)
    np.testing.assert_array_equal(by_name["b"].landmarks, FACE)
    assert "no entry 'c'" in by_name["c"].trouble
    (masks / "a.json").write_text(json.dumps({"landmarks": FACE.tolist()}))
    [one], _ = inputs.find(str(images / "a.png"), mask=str(masks), landmarks=str(masks))
    np.testing.assert_array_equal(one.landmarks, FACE)
    assert one.image_id == by_name["a"].image_id != by_name["b"].image_id


def test_long_names_fit_their_tile():
    """A title that is wider than its tile loses its middle, and a shorter one nothing."""
    tile = np.zeros((4, 192, 3), np.uint8)
    long, cut = (image_io.labelled(tile, text) for text in ("w" * 400, "restored 1"))
    assert long.shape == cut.shape == (24, 192, 3)
    assert (long[:20, -2:] == 255).all()


@pytest.mark.parametrize("kind", image_io.ANIMATIONS)
def test_film(tmp_path, kind):
    """A film shows the kept starts side by side, repeats where latents broke, and ends with the result."""
    recorder = film.Recorder()
    for step in (0, 4, 8):
        for starts in ([0, 1], [2]):  # chunks
            ws = np.stack([np.full((2, 3), step / 8 - s / 4, np.float32) for s in starts])
            recorder(inpaint.Watched(step, np.zeros(len(starts), int), np.asarray(starts), ws))
    recorder.steps[4][2][0, 0] = np.nan
    assert recorder.latents(2)[:, 0, 0].tolist() == [-0.5, -0.5, 0.5]
    last = np.ones((2, 4, 4, 3), np.float32)
    path = tmp_path / f"film.{kind}"
    film.write_film(
        path,
        recorder,
        np.asarray([2, 0]),
        show=lambda ws: np.tile(ws[:, :1, :1, None], (1, 4, 4, 3)),
        last=last,
        tile=8,
    )
    with Image.open(path) as picture:
        assert picture.size == (16, 8) and 2 <= picture.n_frames <= 4
        picture.seek(picture.n_frames - 1)
        assert np.asarray(picture.convert("RGB")).min() > 240
    assert [film.interval(steps) for steps in (1, 59, 60, 150, 1000)] == [1, 1, 2, 3, 17]


def test_report(capsys):
    """A suspicious share of hole is told with the other polarity's flag; nobody watching means no progress line."""
    assert report.hole_warning(0.2, "white_hole") is None
    assert "transparent" in report.hole_warning(0.8, "white_hole", masked=False)
    assert "--mask_polarity=black_hole" in report.hole_warning(0.8, "white_hole")
    assert "0.1 % of the picture" in report.hole_warning(0.001, "black_hole")
    display = report.Display(1, quiet=False, log=report.Log(None))
    assert display.search(1, "face") is None  # pytest captures the output
    line = report.ProgressLine()
    for done in (10, 20, 30):
        line(inpaint.Progress(done, 30, 0.5))
    shown = capsys.readouterr().out
    assert shown.startswith("\r  10/30") and "30/30" in shown and shown.endswith("\n")


def test_an_image_is_not_its_own_mask(tmp_path):
    """A mask folder that holds the image itself gives the mask that is named after it, or none."""
    for name in ("a.png", "a_mask.png", "b.png"):
        image_io.write_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    for name, mask in (("a", "a_mask.png"), ("b", None)):
        [source] = inputs.find(str(tmp_path / f"{name}.png"), mask=str(tmp_path))[0]
        assert (source.mask and source.mask.name) == mask
