# SPDX-License-Identifier: Apache-2.0
"""Blur, noise and seam of a hole without the truth: known cases, and textures that should look untouched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from inpaint import metrics

FIELD = 96
SHARPNESS = {"laplacian": metrics.laplacian_variance_ratio, "high_band": metrics.high_band_ratio}
RATIOS = {**SHARPNESS, "seam": metrics.seam_contrast}


def known_around(shape):
    """Returns `known` `[FIELD, FIELD]` with a hole of some shape."""
    y, x = np.mgrid[:FIELD, :FIELD] - FIELD / 2
    hole = {
        "square": (abs(x) < 20) & (abs(y) < 20),
        "disc": np.hypot(x, y) < 22,
        "strokes": (abs(x + y) < 7) | (abs(x - y / 2) < 5),
        "edge": x > 16,
    }[shape]
    return (~hole).astype(np.float32)


def fields(count, exponent=None, blur=0.0, sigma=0.1, seed=6):
    """Returns gray images `[count, FIELD, FIELD, 3]`: white noise, blurred, or with amplitudes f^exponent."""
    x = np.random.default_rng(seed).standard_normal((count, FIELD, FIELD))
    if exponent is not None:
        f = np.hypot(np.fft.fftfreq(FIELD)[:, None], np.fft.fftfreq(FIELD))
        f[0, 0] = np.inf
        x = np.fft.ifft2(np.fft.fft2(x) * f**exponent).real
    if blur:
        x = scipy.ndimage.gaussian_filter(x, (0, blur, blur), mode="wrap")
    x = sigma * x / x.std()
    return np.repeat(x[..., None], 3, -1).astype(np.float32)


@functools.cache
def textures():
    """Returns 64 fields each that are white, blurred and like a natural image's spectrum, `[192, FIELD, FIELD, 1]`."""
    return np.concatenate([fields(64)[..., :1], fields(64, blur=1.0)[..., :1], fields(64, exponent=-1.0)[..., :1]])


@functools.cache
def many(function):
    return jax.jit(jax.vmap(function, in_axes=(0, None)))


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.parametrize("shape", ["square", "disc", "strokes", "edge"])
def test_untouched_image_has_ratio_one(name, shape):
    """Stationary textures have the same power in hole and ring, whatever the hole's shape; the seam is unseen."""
    ratios = many(RATIOS[name])(textures(), known_around(shape))
    # Single ratios scatter by up to 12 % (rings of about 1500 pixels, correlated); means of 400 are within 1.1 % of 1.
    np.testing.assert_allclose(np.exp(np.log(ratios).reshape(3, -1).mean(1)), 1, atol=0.04)


@pytest.mark.parametrize("name", SHARPNESS)
def test_blur_in_the_hole_lowers_sharpness(name):
    """The more the hole alone is blurred, the lower the ratio; extra noise raises it."""
    known, images = known_around("disc")[..., None], fields(4, exponent=-1.0, sigma=0.2)
    damaged = [scipy.ndimage.gaussian_filter(images, (0, s, s, 0)) for s in (0, 0.5, 1, 2, 4)]
    damaged.insert(0, images + fields(4, sigma=0.05, seed=7))
    values = [many(SHARPNESS[name])(np.where(known > 0, images, x), known[..., 0]) for x in damaged]
    assert (np.diff(values, axis=0) < 0).all() and (values[-1] < 0.05).all()


def test_noise_level_is_the_sigma():
    """White noise on a plane is measured within 5 %, in hole and ring, and the other region does not enter."""
    known = known_around("strokes")
    plane = np.linspace(-0.5, 0.5, FIELD, dtype=np.float32)
    plane = (plane[:, None] * 0.6 + plane[None] * 0.8)[..., None]
    for region in (1 - known, metrics.ring(1 - known)):
        region = np.asarray(region)
        for sigma in (0.01, 0.05):
            images = plane + fields(8, sigma=sigma)
            images = np.where(region[..., None] > 0, images, np.float32(0.7))
            np.testing.assert_allclose(many(metrics.noise_level)(images, region), sigma, rtol=0.05)
        flat = np.broadcast_to(plane, (8, FIELD, FIELD, 3))
        assert (many(metrics.noise_level)(flat, region) < 1e-6).all()


def test_offset_raises_the_seam():
    """A constant added to the hole shows in the seam, more for more, and in nothing else."""
    known, images = known_around("square"), fields(4, exponent=-1.0, sigma=0.15)
    shifted = [images + offset * (1 - known)[..., None] for offset in (0, 0.1, 0.3)]
    seams = np.asarray([many(metrics.seam_contrast)(x, known) for x in shifted])
    assert (np.diff(seams, axis=0) > 0.05).all() and (seams[0] < 1.3).all()
    for function in SHARPNESS.values():
        np.testing.assert_allclose(many(function)(shifted[2], known), many(function)(images, known), rtol=1e-4)


def test_seam_in_numbers():
    """On a ramp with a step of 5 slopes at the hole, the mean jump follows from the border's sides."""
    ramp = np.broadcast_to(np.linspace(-0.5, 0.5, FIELD, dtype=np.float32)[None, :, None], (FIELD, FIELD, 1))
    slope, known = 1 / (FIELD - 1), known_around("square")
    image = ramp + (1 - known)[..., None] * np.float32(5 * slope)
    # Sides along x jump by 6 and 4 slopes, those along y by 5; in the ring half of the pairs, those along x, differ.
    around = np.asarray(metrics.ring(1 - known)) > 0
    along_x, along_y = (around[:, 1:] & around[:, :-1]).sum(), (around[1:] & around[:-1]).sum()
    expected = 5 / (along_x / (along_x + along_y))
    assert jax.jit(metrics.seam_contrast)(image, known) == pytest.approx(expected, rel=1e-4)


def test_ring_is_the_dilation_without_the_hole():
    """Equal to a dilation by a square, at the border too; soft holes count from a half; the type is the hole's."""
    hole = 1 - known_around("edge")
    hole[3, 4] = 1
    for width in (1, 8):
        expected = (scipy.ndimage.maximum_filter(hole, 2 * width + 1) > 0) & (hole == 0)
        np.testing.assert_array_equal(metrics.ring(hole, width=width), expected)
        np.testing.assert_array_equal(metrics.ring(0.6 * hole + 0.2, width=width), expected)
    assert metrics.ring(hole > 0).dtype == bool and metrics.ring(hole).dtype == jnp.float32
    assert not metrics.ring(np.zeros((8, 8), np.float32)).any() and not metrics.ring(np.ones((8, 8), np.float32)).any()


@pytest.mark.parametrize("name", RATIOS)
def test_too_small_to_measure_is_nan(name):
    """No hole, nothing known, a hole of 3 x 3 pixels, or scattered pixels (but for the seam) give NaN, inside jit."""
    image = fields(1)
    pixel = np.ones((FIELD, FIELD), np.float32)
    pixel[40:43, 40:43] = 0
    scattered = (np.random.default_rng(0).random((FIELD, FIELD)) < 0.2).astype(np.float32)
    for known in (np.ones_like(pixel), np.zeros_like(pixel), pixel):
        assert np.isnan(many(RATIOS[name])(image, known)).all()
    assert np.isnan(many(RATIOS[name])(image, scattered)).all() == (name != "seam")
    assert np.isnan(many(metrics.noise_level)(image, 1 - pixel)).all()


@pytest.mark.parametrize("name", RATIOS)
def test_hole_measures_keep_types(name, x64, strict_types):
    """Both precisions keep their type and agree; soft masks are read at a half; the rest of the image is not seen."""
    known = known_around("disc")[24:72, 24:72]
    image = fields(1)[0, 24:72, 24:72]
    function = jax.jit(RATIOS[name])
    single = np.asarray(function(jnp.asarray(image), jnp.asarray(known)))
    double = np.asarray(function(jnp.asarray(image, jnp.float64), jnp.asarray(known, jnp.float64)))
    assert single.dtype == jnp.float32 and double.dtype == jnp.float64
    assert single == pytest.approx(double, rel=2e-5)
    assert function(jnp.asarray(image), jnp.asarray(0.4 + 0.3 * known, jnp.float32)) == single
    far = scipy.ndimage.maximum_filter(1 - known, 17)[..., None] == 0
    assert far.any()
    assert function(jnp.asarray(np.where(far, np.float32(np.nan), image)), jnp.asarray(known)) == single
