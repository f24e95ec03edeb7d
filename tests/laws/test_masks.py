# SPDX-License-Identifier: Apache-2.0
"""Laws of the mask generators, driven through one table of their texts."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest

from inpaint import masks
from inpaint.masks import conditions, drawings, irregular, raster, regions
from stylegan_jax import image_io

DRAWINGS = pathlib.Path(__file__).parents[1] / "golden" / "quickdraw_tiny.ndjson"

# Text, band of the hole share (for an exact share: its value twice), smallest size where every mask can meet it.
FIXED = {
    "centre": (0.25, 0.25),
    "centre:0.1": (0.1, 0.1),
    "upper_half": (0.5, 0.5),
    "lower_half": (0.5, 0.5),
    "left_half": (0.5, 0.5),
    "right_half": (0.5, 0.5),
    "mouth": (0.149, 0.149),
    "eyes": (0.12, 0.12),
}
RANDOM = {
    "rectangles": (0.1, 0.4),
    "rectangles:0.5-0.6": (0.5, 0.6),
    "noise": (0.8, 0.8),
    "noise:0.05": (0.05, 0.05),
    "square": ((85 / 256) ** 2,) * 2,
    "strokes": (0, 1),
    "strokes:0.2-0.3": (0.2, 0.3),
    "strokes:0.5-0.6": (0.5, 0.6),
    "strokes_and_square": (0.1, 1),
    "strokes_and_square:0.3-0.4": (0.3, 0.4),
    "brush": (0, 1),
    "brush:easy": (0, 0.4),
    "brush:hard": (0.4, 1),
    "brush:h2": (0.4, 0.6),
    "brush:h4": (0.8, 1),
    f"quickdraw:{DRAWINGS}": (0, 1),
    f"quickdraw:{DRAWINGS}@0.08-0.15": (0.08, 0.15),
}
BANDS = FIXED | RANDOM
every = pytest.mark.parametrize("spec", BANDS, ids=lambda spec: spec.replace(str(DRAWINGS), "FILE"))
every_random = pytest.mark.parametrize("spec", RANDOM, ids=lambda spec: spec.replace(str(DRAWINGS), "FILE"))


@functools.cache
def key(seed):
    return jax.random.key(seed)


def shares(generator, size, count):
    return np.array([1 - generator(key(seed), size).mean() for seed in range(count)])


@every
@pytest.mark.parametrize("size", [16, 33, 64, 256])
def test_mask(spec, size):
    """A mask is [size, size] float32, exactly 0 or 1, has holes and known pixels, and its share is in the band."""
    low, high = BANDS[spec]
    # Of an exact share every edge may be off by half a pixel.
    slack = 2 / size if low == high and not spec.startswith("noise") else 0.5 / size**2
    for seed in range(3):
        known = masks.parse(spec)(key(seed), size)
        assert known.shape == (size, size) and known.dtype == np.float32
        assert set(np.unique(known)) == {0.0, 1.0}
        assert low - slack <= 1 - known.mean(dtype=np.float64) <= high + slack


@every
def test_key_and_nothing_else_decides(spec):
    """Equal keys (typed or raw) give equal masks whatever was drawn before; NumPy's global state is left alone."""
    generator = masks.parse(spec)
    np.random.seed(1)
    state = np.random.get_state()
    expected = generator(key(3), 32)
    assert str(np.random.get_state()) == str(state) and np.random.get_state()[2] == state[2]
    np.random.seed(2)
    generator(key(4), 32)
    np.testing.assert_array_equal(generator(key(3), 32), expected)
    np.testing.assert_array_equal(generator(jax.random.PRNGKey(3), 32), expected)


@every_random
def test_other_keys_give_other_masks(spec):
    """Eight keys give at least seven different masks (squares and few drawings may coincide)."""
    generator = masks.parse(spec)
    assert len({generator(key(seed), 64).tobytes() for seed in range(8)}) >= 7


@pytest.mark.parametrize("spec", FIXED)
def test_fixed_regions(spec):
    """Regions ignore the key, and their share at 32 and at 256 pixels differs by rounding of the outline only."""
    generator = masks.parse(spec)
    np.testing.assert_array_equal(generator(key(0), 32), generator(key(1), 32))
    small, large = (1 - generator(key(0), size).mean(dtype=np.float64) for size in (32, 256))
    # The outline is at most 2 sides long, and is moved by at most half a pixel.
    assert abs(small - large) <= 2 * 0.5 / 32


@pytest.mark.parametrize("spec", ["strokes", "brush", "square"])
def test_one_key_is_one_shape(spec):
    """The mask at 64 pixels is that at 256, seen coarsely."""
    generator = masks.parse(spec)
    for seed in range(4):
        coarse = image_io.resize_mask(generator(key(seed), 256), 64)
        assert np.abs(coarse - generator(key(seed), 64)).mean() < 0.05


def test_sides_and_centre():
    """The named half is missing; the centre is centred at even and odd sizes; the square moves everywhere."""
    for side, index in {"upper": np.s_[:8], "lower": np.s_[8:], "left": np.s_[:, :8], "right": np.s_[:, 8:]}.items():
        known = masks.halves(key(0), 16, side=side)
        assert known[index].max() == 0 and known.sum() == 128
    for size in (15, 16, 33):
        known = masks.centre(key(0), size, share=0.3)
        np.testing.assert_array_equal(known, known[::-1, ::-1])
    corners = [np.argwhere(masks.squares(key(seed), 12) == 0).min(0) for seed in range(100)]
    assert np.min(corners) == 0 and np.max(corners) == 12 - 4


def test_regions_cover_the_features():
    """The regions hold the features of the two portraits whose landmarks are published, and not each other's."""
    portraits = [
        [[203.9, 101.6], [247.4, 103.8], [223.9, 140.8]],
        [[219.1, 192.6], [308.4, 187.9], [268.2, 275.5]],
    ]
    mouth, eyes = masks.mouth(key(0), 256), masks.eyes(key(0), 256)
    for left, right, mouth_at in np.array(portraits):
        drop = np.hypot(*(mouth_at - (left + right) / 2)) / np.hypot(*(right - left))
        left, right, lips = (256 * regions.landmarks(drop=drop)).astype(int)
        assert np.abs(regions.landmarks(drop=drop) - regions.landmarks()).max() < 0.05
        for x, y in (left, right):
            assert (eyes[y - 12 : y + 13, x - 25 : x + 26] == 0).all() and mouth[y, x] == 1
        assert (mouth[lips[1] - 20 : lips[1] + 30, lips[0] - 40 : lips[0] + 41] == 0).all() and eyes[lips[1], 128] == 1


def test_published_distributions():
    """Small masks of each kind, 40 to 200, have the measurable properties of their sources."""
    square = shares(masks.parse("rectangles"), 64, 200)
    assert square.min() < 0.12 and square.max() > 0.33
    stroke = shares(masks.parse("strokes"), 64, 100)
    # Four lines of about one side's length and 12 of 512 pixels' width: some 10 %, seldom more than a third.
    assert 0.06 < stroke.mean() < 0.16 and stroke.max() < 0.45
    band = shares(masks.parse("strokes:0.2-0.3"), 64, 40)
    assert band.min() < 0.22 and band.max() > 0.26
    brush = shares(masks.parse("brush"), 64, 40)
    assert 0.5 < brush.mean() < 0.75 and brush.min() < 0.4 and brush.max() > 0.85


def test_number_and_width_of_strokes():
    """Counts follow max(1, round(N(4, 2))), and a straight stroke is 5 to 15 pixels wide at 512, times 1 to 1.5."""
    calls = []

    def horizontal(rng):
        calls.append(0)
        return np.array([[0.4, 0.2 + 0.04 * len(calls)], [0.6, 0.2 + 0.04 * len(calls)]])

    counts = []
    for seed in range(300):
        calls.clear()
        irregular.hole_of_strokes(np.random.default_rng(seed), 64, horizontal, low=0, high=1)
        counts.append(len(calls))
    # Three standard errors around the mean of that distribution, 4.1.
    assert abs(np.mean(counts) - 4.1) < 0.35 and min(counts) == 1 and 8 <= max(counts) <= 12
    widths = []
    for seed in range(100):
        hole = irregular.hole_of_strokes(
            np.random.default_rng(seed), 512, lambda rng: np.array([[0.2, 0.5], [0.8, 0.5]]), low=0, high=1
        )
        widths.append(hole[:, 256].sum())
    assert min(widths) >= 5 and 17 <= max(widths) <= 23


def test_brush_widths_scale_unless_told_otherwise():
    """Widths of 12 to 48 pixels are meant at 512: kept at 64 pixels, they cover far more."""
    scaled, absolute = (
        np.mean([masks.brushes(key(seed), 64, scaled_widths=flag).mean() for seed in range(20)])
        for flag in (True, False)
    )
    assert absolute < scaled - 0.05
    np.testing.assert_array_equal(masks.brushes(key(0), 512), masks.brushes(key(0), 512, scaled_widths=False))


def test_drawing_by_distance():
    """Polylines, discs, rectangles and ellipses cover the pixels whose centres lie within them."""
    y, x = np.mgrid[:40, :40] + 0.5
    canvas = np.zeros((40, 40), bool)
    raster.draw_polyline(canvas, np.array([[-5.0, 3.0], [20.3, 30.7], [44.0, 30.7]]), 5.0)
    along = np.clip(((x + 5) * 25.3 + (y - 3) * 27.7) / (25.3**2 + 27.7**2), 0, 1)
    first = np.hypot(x + 5 - 25.3 * along, y - 3 - 27.7 * along)
    second = np.hypot(x - np.clip(x, 20.3, 44), y - 30.7)
    np.testing.assert_array_equal(canvas, np.minimum(first, second) <= 2.5)
    for draw, expected in (
        (lambda c: raster.draw_polyline(c, np.array([[9.5, 12.0]]), 8.0), np.hypot(x - 9.5, y - 12) <= 4),
        (lambda c: raster.draw_rectangle(c, np.array([-3, 5.2]), np.array([10, 4])), (x < 7) & (y > 5.2) & (y < 9.2)),
        (lambda c: raster.draw_polyline(c, np.array([[90.0, 90.0], [99.0, 99.0]]), 8.0), np.zeros_like(x, bool)),
        (
            lambda c: raster.draw_ellipse(c, np.array([20, 30]), np.array([8, 15])),
            ((x - 20) / 8) ** 2 + ((y - 30) / 15) ** 2 <= 1,
        ),
    ):
        canvas = np.zeros((40, 40), bool)
        draw(canvas)
        np.testing.assert_array_equal(canvas, expected)


CANONICAL = {
    "centre": "centre:0.25",
    "centre:.250": "centre:0.25",
    "mouth": "mouth",
    "rectangles": "rectangles:0.1-0.4",
    "noise": "noise:0.8",
    "noise:0.00001": "noise:0.00001",
    "strokes": "strokes:0-1",
    "strokes:0.20-.3": "strokes:0.2-0.3",
    "strokes_and_square": "strokes_and_square:0-1",
    "brush": "brush:0-1",
    "brush:easy": "brush:0-0.4",
    "brush:hard": "brush:0.4-1",
    "brush:all": "brush:0-1",
    "file:holes": "file:holes",
    "file:C:a@b.png@white_hole": "file:C:a@b.png",
    "file:a.png@black_hole": "file:a.png@black_hole",
    "file:a@black_hole@white_hole": "file:a@black_hole@white_hole",
    "quickdraw:a@b": "quickdraw:a@b@0-1",
    "quickdraw:a:b@0.1-0.20": "quickdraw:a:b@0.1-0.2",
}


@pytest.mark.parametrize("spec", [*BANDS, *CANONICAL], ids=lambda spec: spec.replace(str(DRAWINGS), "FILE"))
def test_canonical_names(spec):
    """A canonical name reads back as the same generator; equal texts have equal names."""
    generator = masks.parse(spec)
    assert generator.name == CANONICAL.get(spec, generator.name)
    assert masks.parse(generator.name) == generator and masks.parse(generator.name).name == generator.name
    assert generator.name.partition(":")[0] in masks.KNOWN


def test_every_known_name_is_read():
    """KNOWN and the grammar agree."""
    assert {spec.partition(":")[0] for spec in [*BANDS, *CANONICAL]} == set(masks.KNOWN)


@pytest.mark.parametrize(
    ("spec", "message"),
    {
        "": "unknown mask '';.*centre.*quickdraw",
        "center": "unknown mask 'center'.*centre",
        "centre:": "nothing after its colon",
        "centre:1": "strictly between 0 and 1",
        "centre:x": "no share such as 0.25",
        "noise:nan": "no share",
        "noise:-1": "no share",
        "noise:0": "strictly between",
        "mouth:0.2": "takes no argument",
        "square:0.2": "takes no argument",
        "strokes:0.3": "no band LOW-HIGH",
        "strokes:0.3-0.2": "0 <= low < high <= 1",
        "strokes:0.2-0.2": "0 <= low < high <= 1",
        "rectangles:0.5-1.5": "0 <= low < high <= 1",
        "brush:medium": "no band.*easy, hard",
        "quickdraw": "needs a path",
        "quickdraw:a@0.5-0.1": "0 <= low < high",
        "quickdraw:@0.1-0.5": "needs a path",
        "file:@black_hole": "needs a path",
    }.items(),
)
def test_refused_texts(spec, message):
    """What is no mask is refused with what was expected."""
    with pytest.raises(ValueError, match=message):
        masks.parse(spec)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.centre(key(0), 7), "at least 8"),
        (lambda: masks.noise(key(0), 32.5), "whole number"),
        (lambda: masks.noise(3, 32), "jax.random.key"),
        (lambda: masks.noise(jax.random.split(key(0)), 32), "one key"),
        (lambda: masks.squares(key(0), 32, side=1.2), "between 0 and 1"),
        (lambda: masks.halves(key(0), 32, side="top"), "unknown side"),
        (lambda: masks.rectangles(key(0), 32, low=0.97, high=0.99), "largest possible.*widen"),
        (lambda: masks.strokes(key(0), 16, low=0.5001, high=0.5002), "widen the band"),
        (lambda: masks.brushes(key(0), 16, low=0.001, high=0.002), "widen the band"),
        (lambda: conditions.check_band(float("nan"), 0.5), "needs 0 <= low"),
    ],
)
def test_refused_calls(call, message):
    """Sizes, keys, options and bands that cannot be met are refused."""
    with pytest.raises(ValueError, match=message):
        call()


BAD_LINES = {
    "not json": ("{", "no JSON object"),
    "no object": ("[1]", 'no strokes under "drawing"'),
    "no strokes": ('{"drawing": []}', "no strokes"),
    "raw": ('{"drawing": [[[1, 2], [3, 4], [0, 9]]]}', "raw format"),
    "uneven": ('{"drawing": [[[1, 2], [3]]]}', "as many x as y"),
    "no points": ('{"drawing": [[[], []]]}', "at least one"),
    "text": ('{"drawing": [[["a"], ["b"]]]}', "as many x as y"),
    "range": ('{"drawing": [[[0, 256], [0, 1]]]}', "0 to 255"),
    "no number": ('{"drawing": [[[0, NaN], [0, 1]]]}', "0 to 255"),
    "long": ('{"word": "' + "x" * (1 << 20) + '"}', "longer than"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_drawings_are_named_by_line(name, tmp_path):
    """An error names the file and the number of the line, also after blank lines."""
    line, message = BAD_LINES[name]
    file = tmp_path / "bad.ndjson"
    file.write_text(f"\n{line}\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"bad\.ndjson, line [24]: .*{re.escape(message)}"):
        masks.quickdraw(key(0), 32, path=file)


def test_drawings_of_files_and_folders(tmp_path):
    """All drawings of all files come up, first and last lines too; empty files are passed over, or refused alone."""
    for name, xs in {"a": (110, 120, 130), "b": (140, 150)}.items():
        lines = [f'{{"drawing": [[[{x}], [128]]]}}' for x in xs]
        (tmp_path / f"{name}.ndjson").write_text("\n".join(lines))
    (tmp_path / "empty.ndjson").touch()
    (tmp_path / "notes.txt").write_text("no drawing")
    rng, files = np.random.default_rng(0), drawings.list_files(tmp_path)
    seen = [drawings.random_drawing(rng, files)[0][0, 0] for _ in range(200)]
    assert set(seen) == {110, 120, 130, 140, 150}
    assert masks.quickdraw(key(0), 32, path=tmp_path).min() == 0
    (tmp_path / "blank.ndjson").write_text("\n \n")
    for path, message in (
        ("nothing", "does not exist"),
        ("empty.ndjson", "empty"),
        ("blank.ndjson", "only blank lines"),
    ):
        with pytest.raises(ValueError, match=message):
            masks.quickdraw(key(0), 32, path=tmp_path / path)


def test_mask_files(tmp_path):
    """Files are read, resized and made binary, soft pixels as hole; a folder gives one of its files by key."""
    known = np.ones((32, 32), np.float32)
    known[3:16, 8:24] = 0
    image_io.write_image(tmp_path / "a.png", 1 - 2 * known)
    image_io.write_image(tmp_path / "b.png", 2 * known - 1)
    np.testing.assert_array_equal(masks.from_files(key(0), 32, path=tmp_path / "a.png"), known)
    np.testing.assert_array_equal(masks.parse(f"file:{tmp_path}/b.png@black_hole")(key(0), 32), known)
    small = masks.parse(f"file:{tmp_path}/a.png")(key(0), 16)
    np.testing.assert_array_equal(small == 0, (known == 0).reshape(16, 2, 16, 2).any((1, 3)))
    folder = masks.parse(f"file:{tmp_path}")
    assert {folder(key(seed), 32)[0, 0] for seed in range(20)} == {0.0, 1.0}
    np.testing.assert_array_equal(folder(key(5), 32), folder(key(5), 32))


def test_refused_mask_files(tmp_path):
    """Missing, empty, oblong and one-sided masks are refused."""
    (tmp_path / "folder").mkdir()
    image_io.write_image(tmp_path / "white.png", np.ones((16, 16)))
    image_io.write_image(tmp_path / "black.png", -np.ones((16, 16)))
    image_io.write_image(tmp_path / "oblong.png", np.ones((16, 20)))
    for name, message in {
        "none.png": "does not exist",
        "folder": "no mask files",
        "white.png": "no known pixels",
        "black.png": "no hole",
        "oblong.png": "20x16; it must be square",
    }.items():
        with pytest.raises(image_io.ImageError, match=message):
            masks.from_files(key(0), 16, path=tmp_path / name)
    with pytest.raises(ValueError, match="polarity"):
        masks.from_files(key(0), 16, path=tmp_path / "white.png", polarity="grey")
