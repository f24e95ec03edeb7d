# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of features: goldens, known distributions, and brute force."""

import functools
import pathlib

import numpy as np
import pytest

from inpaint import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


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
