# SPDX-License-Identifier: Apache-2.0
"""Images and masks in files: exact levels, orientation, all pixel formats, polarity, alignment, errors."""

import os

import numpy as np
import pytest
from PIL import Image

from stylegan_jax import image_io


def random_pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_levels_round_trip():
    """All 256 levels survive, 0 and 255 are the ends of the range, values outside are clipped."""
    levels = np.arange(256, dtype=np.uint8)
    values = image_io.from_uint8(levels)
    assert values.dtype == np.float32 and values[0] == -1 and values[255] == 1 and (np.diff(values) > 0).all()
    np.testing.assert_array_equal(image_io.to_uint8(values), levels)
    assert image_io.to_uint8(np.asarray([-7.0, 7.0, 0.001])).tolist() == [0, 255, 128]


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_files_round_trip(tmp_path, channels):
    """A written image reads back bit for bit; grey becomes three equal channels."""
    pixels = random_pixels(5, 7, *([channels] if channels else []))
    image_io.write_image(tmp_path / "new" / "a.png", image_io.from_uint8(pixels))
    image, known = image_io.read_image(tmp_path / "new" / "a.png")
    wanted = np.broadcast_to(pixels.reshape(5, 7, -1), (5, 7, 3))
    assert image.shape == (5, 7, 3) and image.dtype == np.float32 and (known == 1).all()
    np.testing.assert_array_equal(image_io.to_uint8(image), wanted)
    image_io.write_image(tmp_path / "b.png", pixels)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "new" / "a.png").read_bytes()


@pytest.mark.parametrize(("orientation", "undo"), [(3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1))])
def test_orientation(tmp_path, orientation, undo):
    """The EXIF orientation is applied."""
    pixels = random_pixels(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(image_io.to_uint8(image_io.read_image(tmp_path / "a.png")[0]), undo(pixels))


def test_pixel_formats(tmp_path):
    """Palette, 16-bit, bilevel, grey with alpha and CMYK files become 8-bit RGB."""
    grey = random_pixels(4, 4)
    colours = np.asarray([[255, 0, 0], [0, 128, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    palette = Image.fromarray(grey % 4)
    palette = palette.convert("P")
    palette.putpalette(colours.reshape(-1).tolist())
    pictures = {
        "palette": (palette, None),
        "16 bit": (Image.fromarray(grey.astype(np.uint16) * 257), grey),
        "bilevel": (Image.fromarray(grey > 100), np.where(grey > 100, 255, 0)),
        "grey": (Image.fromarray(grey), grey),
    }
    for name, (picture, wanted) in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        image, known = image_io.read_image(tmp_path / f"{name}.png")
        wanted = np.asarray(picture.convert("RGB")) if wanted is None else np.repeat(wanted[..., None], 3, -1)
        np.testing.assert_array_equal(image_io.to_uint8(image), wanted, err_msg=name)
        assert (known == 1).all()
    assert set(
        map(tuple, image_io.to_uint8(image_io.read_image(tmp_path / "palette.png")[0]).reshape(-1, 3).tolist())
    ) <= {tuple(c) for c in colours.tolist()}


def test_transparency_is_hole(tmp_path):
    """Pixels more transparent than half are unknown, in images and in masks of either polarity."""
    pixels = random_pixels(2, 4, 4)
    pixels[..., 3] = [[0, 127, 128, 255], [255, 255, 0, 0]]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, known = image_io.read_image(tmp_path / "a.png")
    opaque = np.asarray([[0, 0, 1, 1], [1, 1, 0, 0]])
    assert known.dtype == np.float32 and known.tolist() == opaque.tolist()
    for polarity, level in (("white_hole", 0), ("black_hole", 255)):
        pixels[..., :3] = level
        Image.fromarray(pixels).save(tmp_path / "m.png")
        assert image_io.read_mask(tmp_path / "m.png", polarity=polarity).tolist() == opaque.tolist()


def test_mask_polarity(tmp_path):
    """White is hole, or black is; grey levels stay soft; the ends are exact."""
    levels = np.asarray([[0, 255], [51, 128]], np.uint8)
    for mode in ("L", "RGB"):
        Image.fromarray(levels).convert(mode).save(tmp_path / "m.png")
        known = image_io.read_mask(tmp_path / "m.png")
        assert known[0].tolist() == [1, 0] and known[1] == pytest.approx([0.8, 1 - 128 / 255], abs=1e-6)
        other = image_io.read_mask(tmp_path / "m.png", polarity="black_hole")
        assert other[0].tolist() == [0, 1] and other + known == pytest.approx(np.ones((2, 2)), abs=1e-6)
    with pytest.raises(ValueError, match="unknown mask polarity 'grey'; known: white_hole, black_hole"):
        image_io.read_mask(tmp_path / "m.png", polarity="grey")


def test_unreadable_files(tmp_path):
    """Missing files, folders, other contents and broken images are named."""
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(random_pixels(64, 64, 3)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name, text in (
        ("none.png", "none.png does not exist"),
        ("", "is a folder; an image file is needed"),
        ("text.png", "text.png is not an image that Pillow can read"),
        ("half.png", "half.png cannot be read"),
    ):
        for read in (image_io.read_image, image_io.read_mask):
            with pytest.raises(image_io.ImageError, match=text):
                read(tmp_path / name)


def test_writing_is_whole_or_not_at_all(tmp_path):
    """A failed write leaves the old file and no partial one; a place that cannot be written is named."""
    target = tmp_path / "a.png"
    image_io.write_image(target, random_pixels(2, 2, 3))
    old = target.read_bytes()

    def fail(partial):
        with open(partial, "w") as file:
            file.write("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(image_io.ImageError, match=r"cannot write .*a.png: No space left on device"):
        image_io.write_atomically(target, fail)
    assert target.read_bytes() == old and os.listdir(tmp_path) == ["a.png"]
    with pytest.raises(image_io.ImageError, match="cannot write .*b.png"):
        image_io.write_image(target / "b.png", random_pixels(2, 2, 3))


def test_resizing():
    """A constant stays constant, size and range are right, and detail that does not fit averages out."""
    image = np.full((16, 16, 2), 0.25, np.float32)
    np.testing.assert_allclose(image_io.resize(image, 8), np.full((8, 8, 2), 0.25), atol=1e-6)
    stripes = np.tile(np.asarray([-1.0, 1.0], np.float32), (32, 16))[..., None]
    assert np.abs(image_io.resize(stripes, 8)[2:-2, 2:-2]).max() < 0.05
    assert np.abs(image_io.resize(np.sign(random_pixels(9, 9, 3) - 128.0), 20)).max() <= 1


def test_resizing_masks():
    """A smaller mask counts what is known of each pixel, a larger one repeats; whole holes stay holes."""
    known = np.ones((8, 8), np.float32)
    known[:4, :4], known[7, 7] = 0, 0
    small = image_io.resize_mask(known, 4)
    assert small[:2, :2].max() == 0 and small[3, 3] == pytest.approx(0.75) and small[0, 3] == 1
    np.testing.assert_array_equal(image_io.resize_mask(known, 16), np.repeat(np.repeat(known, 2, 0), 2, 1))


@pytest.mark.parametrize("angle", [0.0, 30.0, -80.0])
def test_alignment(angle):
    """A picture whose value is known at every point is cropped to where the landmarks say, rotation included."""
    turn = np.deg2rad(angle)
    rotation = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    origin, scale = np.asarray([120.0, 115.0]), 20.0
    # In face coordinates the eyes are at (-1, 0) and (1, 0), the mouth at (0, 2).
    landmarks = np.asarray([[-1, 0], [1, 0], [0, 2]]) @ rotation.T * scale + origin
    y, x = np.mgrid[:240, :240] + 0.5  # Pillow's pixel centres
    face = (np.stack([x, y], -1) - origin) @ rotation / scale
    image = np.stack([face[..., 0] / 5, face[..., 1] / 5], -1).astype(np.float32)
    size = 8
    crop = image_io.crop_aligned(image, landmarks, size)
    # u = (2, 0), v = (0, 2): half side 0.8 * max(2 * 2, 1.8 * 2) = 3.2 around (0, 0.5).
    centres = (np.arange(size) + 0.5) / size * 6.4 - 3.2
    np.testing.assert_allclose(crop[..., 0], np.tile(centres[None, :] / 5, (size, 1)), atol=1e-3)
    np.testing.assert_allclose(crop[..., 1], np.tile((centres[:, None] + 0.5) / 5, (1, size)), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_round_trip(channels):
    """A JPEG file keeps shape and range, little at quality 1 and nearly everything of a slope at 100."""
    slope = np.broadcast_to(np.linspace(-1.2, 1.2, 13, dtype=np.float32)[:, None, None], (13, 10, channels))
    fine, coarse = (image_io.jpeg_round_trip(slope, quality=quality) for quality in (100, 1))
    assert fine.shape == coarse.shape == slope.shape and fine.dtype == np.float32
    np.testing.assert_allclose(fine, np.clip(slope, -1, 1), atol=3 / 127.5)
    assert np.abs(coarse - np.clip(slope, -1, 1)).max() > 20 / 127.5 and np.abs(coarse).max() <= 1
