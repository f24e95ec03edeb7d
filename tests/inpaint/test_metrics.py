# SPDX-License-Identifier: Apache-2.0
"""Laws of quality measures, driven through tables, and their agreement with other implementations."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.color
import skimage.metrics

from inpaint import metrics
from inpaint.metrics.fidelity import SCALE_WEIGHTS, scale_count

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SIZE = 24
# The value of a perfect image, and +1 where more is better.
FIDELITY = {
    "psnr": (metrics.psnr, 10 * np.log10(4e10), 1),
    "mean_absolute_error": (metrics.mean_absolute_error, 0, -1),
    "mean_squared_error": (metrics.mean_squared_error, 0, -1),
    "ssim": (metrics.ssim, 1, 1),
    "ms_ssim": (metrics.ms_ssim, 1, 1),
    "relative_luminance_error": (metrics.relative_luminance_error, 0, -1),
    "luminance_psnr": (metrics.luminance_psnr, 100, 1),
    "luminance_ssim": (metrics.luminance_ssim, 1, 1),
}
WEIGHTED = ("psnr", "mean_absolute_error", "mean_squared_error", "ssim")
every = pytest.mark.parametrize("name", FIDELITY)
weighted = pytest.mark.parametrize("name", WEIGHTED)


@functools.cache
def compiled(function):
    """Returns the function jitted, once per session, with its results as NumPy has them."""
    program = jax.jit(function)
    return lambda *arguments: np.asarray(program(*arguments))[()]


def smooth_image(seed, size=SIZE):
    """Returns an image `[size, size, 3]` with structure at several scales, within (-0.9, 0.9)."""
    noise = np.random.default_rng(seed).standard_normal((size, size, 3))
    image = sum(s * scipy.ndimage.gaussian_filter(noise, (s, s, 0), mode="wrap") for s in (0.5, 1, 2, 4))
    return (0.9 * image / np.abs(image).max()).astype(np.float32)


def noisy(image, sigma, seed=9):
    return (image + sigma * np.random.default_rng(seed).standard_normal(image.shape)).astype(np.float32)


BLOCK = np.zeros((SIZE, SIZE), np.float32)
BLOCK[8:16, 6:14] = 1
BLOCK[8, 6:14] = 0.25


# --- fidelity


@every
def test_perfect_image_has_the_best_value(name):
    """An image is at the documented optimum against itself and worse against another; both orders agree."""
    function, best, sign = FIDELITY[name]
    function = compiled(function)
    a, b = smooth_image(0), smooth_image(1)
    assert function(a, a) == pytest.approx(best, abs=1e-6, rel=1e-6)
    assert sign * function(a, b) < sign * best - 1e-3
    assert function(a, b) == pytest.approx(function(b, a), rel=1e-5)


@every
@pytest.mark.parametrize("damage", ["blur", "noise"])
def test_more_damage_is_worse(name, damage):
    """Values fall or rise strictly with the width of a blur and with the level of noise."""
    function, _, sign = FIDELITY[name]
    truth = smooth_image(0)
    if damage == "blur":
        damaged = [scipy.ndimage.gaussian_filter(truth, (s, s, 0)) for s in (0.5, 1, 2, 4)]
    else:
        damaged = [noisy(truth, sigma) for sigma in (0.02, 0.05, 0.1, 0.3)]
    values = [float(compiled(function)(image, truth)) * sign for image in damaged]
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)


@every
def test_only_the_clipped_image_counts(name):
    """What a render holds beyond [-1, 1] does not matter."""
    function, truth = compiled(FIDELITY[name][0]), smooth_image(0)
    wild = 4 * smooth_image(1)
    assert np.abs(wild).max() > 1
    assert function(wild, truth) == function(np.clip(wild, -1, 1), truth)


@weighted
def test_what_has_no_weight_does_not_count(name):
    """The weighted value is the same, bit for bit, whatever stands outside; NaN too."""
    function, truth, image = compiled(FIDELITY[name][0]), smooth_image(0), smooth_image(1)
    reach = 5 if name == "ssim" else 0  # windows look beyond their centre
    touched = scipy.ndimage.maximum_filter(BLOCK, 2 * reach + 1) > 0
    assert 0 < touched.sum() < touched.size
    value = function(image, truth, BLOCK)
    assert np.isfinite(value) and value != function(image, truth)
    for outside in (0.3, -1.0) if name == "ssim" else (0.3, np.nan):
        changed = np.where(touched[..., None], image, np.float32(outside))
        assert function(changed, truth, BLOCK) == value
    inside = image + BLOCK[..., None] * np.float32(0.1)
    assert function(inside, truth, BLOCK) != value


@weighted
def test_weights_are_relative(name):
    """Weights of 1 everywhere are the unweighted value, a common factor cancels, none at all leave NaN."""
    function, truth, image = compiled(FIDELITY[name][0]), smooth_image(0), smooth_image(1)
    ones = np.ones((SIZE, SIZE), np.float32)
    assert function(image, truth, ones) == pytest.approx(function(image, truth), rel=1e-5)
    assert function(image, truth, 0.3 * BLOCK) == pytest.approx(function(image, truth, BLOCK), rel=1e-5)
    assert np.isnan(function(image, truth, 0 * BLOCK))


def test_ssim_counts_whole_windows_only():
    """Weight on the margin, where no window is centred, is weight on nothing."""
    margin = np.ones((SIZE, SIZE), np.float32)
    margin[5:-5, 5:-5] = 0
    assert np.isnan(compiled(metrics.ssim)(smooth_image(0), smooth_image(1), margin))


@every
def test_a_batch_is_its_images(name):
    """`vmap` gives the values of the images one by one."""
    function = FIDELITY[name][0]
    images, truths = (np.stack([smooth_image(s) for s in seeds]) for seeds in ((0, 1, 2), (3, 4, 5)))
    one_by_one = [compiled(function)(image, truth) for image, truth in zip(images, truths, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(images, truths), one_by_one, rtol=2e-5)


@every
def test_types_follow_the_images(name, x64, strict_types):
    """Both precisions keep their type and agree; no operation promotes."""
    function = compiled(FIDELITY[name][0])
    pair = noisy(smooth_image(0), 0.1), smooth_image(0)
    single = function(*(jnp.asarray(x, jnp.float32) for x in pair))
    double = function(*(jnp.asarray(x, jnp.float64) for x in pair))
    assert single.dtype == jnp.float32 and double.dtype == jnp.float64
    # SSIM subtracts squares of means from means of squares, which costs a digit.
    assert single == pytest.approx(double, rel=2e-4 if "ssim" in name else 2e-5)


def test_psnr_in_numbers():
    """A constant error of 0.2 is 20 dB, in the hole alone if only the hole is asked for."""
    truth = np.zeros((SIZE, SIZE, 3), np.float32)
    image = np.where(BLOCK[..., None] > 0, np.float32(0.2), truth + 1)
    function = compiled(metrics.psnr)
    assert function(image, truth, (BLOCK > 0).astype(np.float32)) == pytest.approx(20, abs=1e-4)
    assert function(np.full_like(truth, 0.2), truth) == pytest.approx(20, abs=1e-4)
    assert function(-np.ones_like(truth), np.ones_like(truth)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_fidelity_goldens(pair, x64):
    """Errors, PSNR and SSIM are scikit-image's; SSIM in [-1, 1] with range 2 as well, and of one channel."""
    golden = np.load(GOLDEN / "metrics_ssim_psnr.npz")
    a, b = (golden[f"{name}{pair}"] / 255.0 for name in "ab")
    close = functools.partial(pytest.approx, rel=1e-9)
    image, truth = 2 * a - 1, 2 * b - 1
    assert compiled(metrics.mean_squared_error)(image, truth) == close(4 * golden[f"mse{pair}"])
    assert compiled(metrics.mean_absolute_error)(image, truth) == close(2 * golden[f"l1_{pair}"])
    assert compiled(metrics.psnr)(image, truth) == close(golden[f"psnr{pair}"])
    assert compiled(metrics.ssim)(image, truth) == close(golden[f"ssim_gauss{pair}"])
    windows = compiled(functools.partial(metrics.ssim_map, data_range=2.0))(image, truth)
    assert windows.mean() == close(golden[f"ssim_gauss_range2_{pair}"])
    if pair == 0:
        gray = compiled(metrics.ssim_map)(a.mean(-1, keepdims=True), b.mean(-1, keepdims=True))
        assert gray.mean() == close(golden["ssim_gauss_gray0"])
    if pair < 2:
        windows = compiled(metrics.ssim_map)(a, b)
        # The map is stored in float32.
        np.testing.assert_allclose(windows, golden[f"ssim_map{pair}"][5:-5, 5:-5], atol=6e-8)


@pytest.mark.parametrize("pair", [0, 2])
def test_gradient_of_ssim(pair, x64):
    """The gradient of the mean over windows is the exact one."""
    golden = np.load(GOLDEN / "metrics_ssim_psnr.npz")
    a, b = (golden[f"{name}{pair}"] / 255.0 for name in "ab")
    gradient = jax.jit(jax.grad(lambda x: metrics.ssim_map(x, b).mean()))(a)
    expected = golden[f"ssim_valid_grad{pair}"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_filipovski_measures(x64):
    """Luminance, its SSIM and its PSNR are scikit-image's, the relative error is its formula; black has no error."""
    image, truth = (smooth_image(s).astype(np.float64) for s in (0, 1))
    a, b = (skimage.color.rgb2gray((x + 1) / 2) for x in (image, truth))
    np.testing.assert_allclose(metrics.luminance(image), 2 * a - 1, atol=1e-12)
    expected = skimage.metrics.structural_similarity(a, b, win_size=11, data_range=1)
    assert compiled(metrics.luminance_ssim)(image, truth) == pytest.approx(expected, rel=1e-9)
    expected = skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1)
    assert compiled(metrics.luminance_psnr)(image, truth) == pytest.approx(expected, rel=1e-9)
    expected = np.abs(a - b).sum() / (a + b).sum()
    assert compiled(metrics.relative_luminance_error)(image, truth) == pytest.approx(expected, rel=1e-9)
    # The same error weighs more in the dark, which the mean absolute error does not see.
    dark, bright = np.full((11, 11, 3), -0.8), np.full((11, 11, 3), 0.6)
    assert compiled(metrics.relative_luminance_error)(dark, dark + 0.2) > 3 * compiled(
        metrics.relative_luminance_error
    )(bright, bright + 0.2)
    assert compiled(metrics.relative_luminance_error)(0 * image - 1, 0 * image - 1) == 0


def reference_ms_ssim(a, b, scales):
    """Multi-scale SSIM in NumPy, by windows and central moments, of images in [0, 1]."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()
    weights = np.array(SCALE_WEIGHTS[:scales]) / np.sum(SCALE_WEIGHTS[:scales])
    result = np.ones(a.shape[-1])
    for scale in range(scales):
        x, y = (np.lib.stride_tricks.sliding_window_view(i, (11, 11), (0, 1)) for i in (a, b))
        mean_x, mean_y = (np.einsum("hwcij,ij->hwc", i, window) for i in (x, y))
        x, y = x - mean_x[..., None, None], y - mean_y[..., None, None]
        xx, yy, xy = (np.einsum("hwcij,hwcij,ij->hwc", p, q, window) for p, q in ((x, x), (y, y), (x, y)))
        value = (2 * xy + 9e-4) / (xx + yy + 9e-4)
        if scale == scales - 1:
            value = value * (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        result *= np.maximum(value.mean((0, 1)), 0) ** weights[scale]
        a, b = (
            (i[0:-1:2, 0:-1:2] + i[1::2, 0:-1:2] + i[0:-1:2, 1::2] + i[1::2, 1::2]) / 4
            for i in (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
        )
    return result.mean()


@pytest.mark.parametrize(
    ("shape", "fitting", "asked"), [((44, 53, 3), 3, None), ((23, 22, 3), 2, 1), ((176, 177, 1), 5, None)]
)
def test_ms_ssim_against_its_definition(shape, fitting, asked, x64):
    """Equal to an independent one in float64, with as many scales as fit and odd sizes."""
    truth = np.random.default_rng(0).random(shape)
    truth = scipy.ndimage.gaussian_filter(truth, (2, 2, 0)) * 1.6 - 0.3
    image = np.clip(truth + 0.1 * np.random.default_rng(1).standard_normal(shape), 0, 1)
    assert scale_count(*shape[:2]) == fitting
    value = compiled(functools.partial(metrics.ms_ssim, scales=asked))(2 * image - 1, 2 * truth - 1)
    assert value == pytest.approx(reference_ms_ssim(image, truth, asked or fitting), rel=1e-9)


def test_ms_ssim_of_a_negative_is_zero():
    """A negative contrast factor has no real power and counts as 0, not NaN."""
    image = noisy(np.zeros((SIZE, SIZE, 3)), 0.3)
    assert compiled(metrics.ms_ssim)(-image, image) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: metrics.psnr(x, x[:-1]), r"\[24, 24, 3\] and \[23, 24, 3\]"),
        (lambda x: metrics.psnr(x[None], x[None]), "vmap"),
        (lambda x: metrics.psnr((x * 255).astype(np.uint8), x), "uint8"),
        (lambda x: metrics.psnr(x, x, BLOCK[:-1]), r"weight must be \[24, 24\]"),
        (lambda x: metrics.ssim(x[:10], x[:10]), "10 x 24"),
        (lambda x: metrics.ms_ssim(x[:10], x[:10]), "enlarge"),
        (lambda x: metrics.ms_ssim(x, x, scales=3), "ask for 1 to 2"),
        (lambda x: metrics.luminance(x[..., :2]), "1 or 3"),
        (lambda x: metrics.luminance((x * 255).astype(np.uint8)), "uint8"),
        (lambda x: metrics.noise_level(x, BLOCK[:-1]), r"mask \[23, 24\]"),
        (lambda x: metrics.noise_level(x[:4], BLOCK[:4]), "5 x 5"),
        (lambda x: metrics.ring(BLOCK, width=0), "at least 1"),
        (lambda x: metrics.mean_pairwise_distance(x[:0], jnp.subtract), r"\[0, 24, 3\]"),
        (lambda x: metrics.FeatureStatistics.of(x), r"\[24, 24, 3\]"),
        (lambda x: metrics.FeatureStatistics.of(x[0] * np.nan), "NaN"),
        (lambda x: metrics.FeatureStatistics.of(x[0]).update(x[:, :, 0]), "3 and of 24"),
        (lambda x: metrics.FeatureStatistics.of(x[0, :1]).covariance(), "at least 2 rows, got 1"),
        (
            lambda x: metrics.frechet_distance(*(metrics.FeatureStatistics.of(y) for y in (x[0], x[..., 0]))),
            "3 and 24",
        ),
        (lambda x: metrics.nearest_neighbours(x[0], x[0], 25), "1 to 24"),
        (lambda x: metrics.nearest_neighbours(x[0], x[..., 0], 2), "24"),
        (lambda x: metrics.precision_recall(x[0], x[0, :3]), "below the 3 rows"),
    ],
)
def test_errors_say_what_came(call, said):
    """Wrong shapes, types and counts are refused with their values."""
    with pytest.raises(ValueError, match=said):
        call(smooth_image(0))


# --- diversity


def test_diversity_of_results():
    """Pairs are averaged in the hole alone; the deviation's square is half the mean squared pair; one result is NaN."""
    images = np.stack([smooth_image(s) for s in range(4)])
    hole = (BLOCK > 0).astype(np.float32)
    pairs = list(itertools.combinations(images, 2))
    squares = [np.square(a - b)[hole > 0].mean() for a, b in pairs]
    diversity = compiled(metrics.pixel_diversity)
    value = diversity(images, hole)
    assert value == pytest.approx(np.mean(np.sqrt(squares)), rel=1e-5)
    outside = images * hole[..., None]
    assert diversity(outside, hole) == pytest.approx(value, rel=1e-6)
    deviation = compiled(metrics.pixel_deviation)(images)
    assert deviation.shape == hole.shape
    assert 2 * np.square(deviation)[hole > 0].mean() == pytest.approx(np.mean(squares), rel=1e-5)
    assert diversity(images[[1, 1, 1, 1]], hole) == 0
    distance = compiled(lambda x: metrics.mean_pairwise_distance(x, lambda a, b: jnp.abs(a - b).max()))(images)
    assert distance == pytest.approx(np.mean([np.abs(a - b).max() for a, b in pairs]), rel=1e-6)
    assert np.isnan(diversity(images[:1], hole)) and np.isnan(diversity(images, 0 * hole))
    assert np.isnan(metrics.pixel_deviation(images[:1])).all()
