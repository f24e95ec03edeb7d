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


# --- sets of features


def gaussian_features(seed, count, size, *, spread=1.0, offset=0.0):
    return np.random.default_rng(seed).standard_normal((count, size)) * spread + offset


@pytest.mark.parametrize("pair", [0, 1, 2])
def test_frechet_goldens(pair):
    """Both divisors give the references; identical sets are at 0; the rank-deficient pair is exact."""
    golden = np.load(GOLDEN / "metrics_fid.npz")
    sets = [golden[f"feat{k}_{pair}"] for k in (1, 2)]
    a, b = (metrics.FeatureStatistics.of(s) for s in sets)
    np.testing.assert_allclose(a.mean, golden[f"mu1_{pair}"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b.covariance(), golden[f"sigma2_{pair}"], rtol=1e-9, atol=1e-12)
    # The references of the rank-deficient pair keep rounding errors of 1e-16 whose roots are 1e-8.
    close = functools.partial(pytest.approx, rel=1e-9 if pair < 2 else 4e-8)
    assert metrics.frechet_distance(a, b) == close(golden[f"fid_eigh_{pair}"])
    assert metrics.frechet_distance(a, b) == close(golden[f"fid_pytorchfid_{pair}"])
    assert metrics.frechet_distance(a, b, ddof=0) == close(golden[f"fid_nvlabs_{pair}"])
    assert metrics.frechet_distance(b, a) == pytest.approx(metrics.frechet_distance(a, b), rel=1e-12)
    assert abs(metrics.frechet_distance(a, a)) < 1e-11
    # tr (A^1/2 B A^1/2)^1/2 is the sum of the singular values of X Y^T, X and Y being the centred features.
    x, y = ((s - s.mean(0, dtype=np.float64)) / np.sqrt(len(s) - 1) for s in sets)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    exact = np.square(a.mean - b.mean).sum() + np.square(x).sum() + np.square(y).sum() - 2 * root
    assert metrics.frechet_distance(a, b) == pytest.approx(exact, rel=1e-12)


def test_frechet_distance_of_known_gaussians():
    """Shifts count squared; commuting covariances give the squared difference of their roots."""
    shape, size = np.diag([4.0, 9.0, 0.0]), 101
    spin = np.linalg.qr(gaussian_features(0, 3, 3))[0]

    def statistics(mean, roots):
        return metrics.FeatureStatistics(
            size, np.asarray(mean, float), (size - 1) * spin @ np.diag(roots) ** 2 @ spin.T
        )

    a = statistics([0, 0, 0], [2, 3, 0])
    np.testing.assert_allclose(a.covariance(), spin @ shape @ spin.T, atol=1e-12)
    assert metrics.frechet_distance(a, statistics([3, 0, 4], [2, 3, 0])) == pytest.approx(25, rel=1e-12)
    assert metrics.frechet_distance(a, statistics([0, 0, 0], [1, 5, 2])) == pytest.approx(1 + 4 + 4, rel=1e-12)


@pytest.mark.parametrize("cuts", [[], [1], [7, 8, 200], [0, 50, 50], list(range(1, 300))])
def test_batches_do_not_matter(cuts):
    """Any split, order of merging and empty batch leave mean and covariance as NumPy has them, far from 0 too."""
    features = gaussian_features(1, 300, 5, spread=[1, 2, 3, 1, 1], offset=1e4)
    parts = np.split(features, cuts)
    one = metrics.FeatureStatistics.empty(5)
    for part in parts:
        one = one.update(part)
    other = functools.reduce(lambda a, b: b.merge(a), map(metrics.FeatureStatistics.of, parts))
    for statistics in (one, other):
        assert statistics.count == 300
        np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(statistics.covariance(), np.cov(features.T), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(statistics.covariance(ddof=0), np.cov(features.T, ddof=0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [2**24, 64])
def test_nearest_neighbours_by_brute_force(block, monkeypatch):
    """Indices and distances are those of all pairs, whatever the block; a member finds itself at exactly 0."""
    monkeypatch.setattr("inpaint.metrics.frechet.BLOCK_VALUES", block)
    query, reference = gaussian_features(2, 21, 4, offset=100), gaussian_features(3, 33, 4, offset=100)
    distances = np.linalg.norm(query[:, None] - reference, axis=-1)
    indices, found = metrics.nearest_neighbours(query, reference, 5)
    np.testing.assert_array_equal(indices, np.argsort(distances, axis=1)[:, :5])
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :5], rtol=1e-12)
    indices, found = metrics.nearest_neighbours(reference, reference, 33)
    assert (indices[:, 0] == np.arange(33)).all() and (found[:, 0] == 0).all() and (np.diff(found) >= 0).all()


def test_precision_and_recall():
    """1 for equal sets, 0 for distant ones, one-sided where one set is a part of the other, and by definition."""
    real = gaussian_features(4, 120, 6)
    assert metrics.precision_recall(real, real) == (1, 1)
    assert metrics.precision_recall(real, real + 100) == (0, 0)
    twins = np.repeat(real, 4, axis=0)  # of radius 0
    assert metrics.precision_recall(twins, twins) == (1, 1)
    # Two far clusters of which the fakes have one.
    both = np.concatenate([real[:60], real[60:] + 50])
    precision, recall = metrics.precision_recall(both, both[:60])
    assert precision == 1 and recall == 0.5
    assert metrics.precision_recall(both[:60], both) == (0.5, 1)
    fake = gaussian_features(5, 90, 6, spread=1.3)
    pairs = np.linalg.norm(fake[:, None] - real, axis=-1)
    radii = [np.sort(np.linalg.norm(s[:, None] - s, axis=-1), axis=1)[:, 3] for s in (real, fake)]
    expected = (pairs <= radii[0]).any(1).mean(), (pairs.T <= radii[1]).any(1).mean()
    assert 0 < expected[0] < 1 and metrics.precision_recall(real, fake) == pytest.approx(expected)


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


# --- the hole without the truth

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
    assert compiled(metrics.seam_contrast)(image, known) == pytest.approx(expected, rel=1e-4)


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
    function = compiled(RATIOS[name])
    single = function(jnp.asarray(image), jnp.asarray(known))
    double = function(jnp.asarray(image, jnp.float64), jnp.asarray(known, jnp.float64))
    assert single.dtype == jnp.float32 and double.dtype == jnp.float64
    assert single == pytest.approx(double, rel=2e-5)
    assert function(jnp.asarray(image), jnp.asarray(0.4 + 0.3 * known, jnp.float32)) == single
    far = scipy.ndimage.maximum_filter(1 - known, 17)[..., None] == 0
    assert far.any()
    assert function(jnp.asarray(np.where(far, np.float32(np.nan), image)), jnp.asarray(known)) == single
