# SPDX-License-Identifier: Apache-2.0
"""Sets of features: Fréchet distance, and precision and recall of nearest-neighbour manifolds.

Features are `[n, d]`, one row per image, of any network and range. Everything is float64 NumPy on the host, in blocks,
so that sets of any size fit.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

BLOCK_VALUES = 2**24  # numbers in the largest temporary array


def _as_features(features: ArrayLike, name: str = "features") -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"{name} must be [n, d], one row per image, got {list(features.shape)}")
    if not np.isfinite(features).all():
        raise ValueError(
            f"{name} hold NaN or infinity in {np.sum(~np.isfinite(features).all(1))} of {len(features)} rows"
        )
    return features


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and covariance of features that arrive in batches; a value: `update` and `merge` return a new one.

    Attributes:
        count: n, the rows seen.
        mean: `[d]`.
        scatter: `[d, d]`, the sum of `(x - mean)(x - mean)^T` over all rows.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Self:
        """Returns the statistics of no features of `size` values: count 0, `mean` `[d]` and `scatter` `[d, d]` of 0."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, features: ArrayLike) -> Self:
        """Returns the statistics of one batch of `features` `[n, d]`.

        Raises:
            ValueError: for another shape, or values that are not finite.
        """
        features = _as_features(features)
        if not len(features):
            return cls.empty(features.shape[1])
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merge(self, other: Self) -> Self:
        """Returns the statistics of both sets together.

        `S = S_a + S_b + (n_a n_b / n) (m_b - m_a)(m_b - m_a)^T`, which never subtracts large sums (Chan, Golub and
        LeVeque 1983), so the result depends on the order and size of batches by rounding only.

        Raises:
            ValueError: where the numbers of features differ.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"statistics of {len(self.mean)} and of {len(other.mean)} features cannot be merged")
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        between = np.outer(step, step) * (self.count * other.count / count)
        return type(self)(count, self.mean + step * (other.count / count), self.scatter + other.scatter + between)

    def update(self, features: ArrayLike) -> Self:
        """Returns the statistics with `features` `[n, d]` added.

        Raises:
            ValueError: for another shape, or values that are not finite.
        """
        return self.merge(self.of(features))

    def covariance(self, *, ddof: int = 1) -> np.ndarray:
        """Returns `scatter / (count - ddof)` `[d, d]`.

        Args:
            ddof: 1 for the unbiased estimate (pytorch-fid), 0 for the divisor n (NVlabs).

        Raises:
            ValueError: with `ddof` rows or fewer.
        """
        if self.count <= ddof:
            raise ValueError(f"a covariance with ddof={ddof} needs at least {ddof + 1} rows, got {self.count}")
        return self.scatter / (self.count - ddof)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(_significant(values))) @ vectors.T


def _significant(eigenvalues: np.ndarray) -> np.ndarray:
    """Returns eigenvalues `[d]` with those of a singular matrix, which are rounding errors of either sign, set to 0."""
    # Clamping at 0 alone is not enough: the root of 1e-16 is 1e-8, and a rank-deficient matrix has many of them.
    floor = len(eigenvalues) * np.finfo(np.float64).eps * max(eigenvalues.max(initial=0), 0)
    return np.where(eigenvalues > floor, eigenvalues, 0)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics, *, ddof: int = 1) -> float:
    """Returns the Fréchet distance `|m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)` of two Gaussians.

    With Inception features of real and restored images it is the FID (Heusel et al. 2017, eq. 6). The product under
    the root is symmetric, so that its eigenvalues serve; those below rounding are 0. Implementations that take the
    root of `A B` agree except for rank-deficient covariances (fewer images than features), where they lose half of
    the digits.

    Args:
        a, b: statistics with as many features.
        ddof: 1 divides covariances by n - 1 (pytorch-fid), 0 by n (NVlabs).

    Returns:
        The squared distance, not below 0; 0 up to rounding for equal statistics.

    Raises:
        ValueError: where the numbers of features differ, or rows are too few.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of both sets must be of one network, got {len(a.mean)} and {len(b.mean)} values")
    cov_a, cov_b = a.covariance(ddof=ddof), b.covariance(ddof=ddof)
    root = _root(cov_a)
    product = root @ cov_b @ root
    cross = np.sqrt(_significant(np.linalg.eigvalsh((product + product.T) / 2))).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return max(float(distance), 0.0)


def _squared_distances(query: np.ndarray, reference: np.ndarray, width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields rows of `query` `[n, d]` with their squared distances `[rows, m]` to `reference` `[m, d]`, up to rounding.

    `width` is how many numbers the caller needs per row besides.
    """
    norms = np.square(reference).sum(1)
    rows = max(1, BLOCK_VALUES // max(len(reference), width))
    for start in range(0, len(query), rows):
        part = query[start : start + rows]
        squared = part @ reference.T
        squared *= -2
        squared += np.square(part).sum(1)[:, None]
        squared += norms
        yield slice(start, start + rows), squared


def _centred(query: ArrayLike, reference: ArrayLike, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    query, reference = _as_features(query, names[0]), _as_features(reference, names[1])
    if query.shape[1] != reference.shape[1]:
        raise ValueError(f"{names[0]} have {query.shape[1]} values per row, {names[1]} {reference.shape[1]}")
    # Distances are differences of squared norms below, which are smallest around the mean.
    centre = reference.mean(0) if len(reference) else 0
    return query - centre, reference - centre


def nearest_neighbours(query: ArrayLike, reference: ArrayLike, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest rows of `reference` for every row of `query` in Euclidean distance, nearest first.

    Args:
        query: `[n, d]`.
        reference: `[m, d]`.
        count: how many, 1 to m. A query that is itself in the reference finds itself first.

    Returns:
        Indices `[n, count]` and distances `[n, count]`; which of several equally distant rows are taken is left open.

    Raises:
        ValueError: for shapes that do not fit, or more neighbours than there are.
    """
    query, reference = _centred(query, reference, ("query", "reference"))
    if not 1 <= count <= len(reference):
        raise ValueError(f"count must be 1 to {len(reference)}, the rows of the reference, got {count}")
    indices = np.empty((len(query), count), np.int64)
    distances = np.empty((len(query), count))
    for rows, squared in _squared_distances(query, reference, count * query.shape[1]):
        nearest = np.sort(np.argpartition(squared, count - 1, axis=1)[:, :count], axis=1)
        # Of those few the distances are computed again, free of cancellation: twins are at 0 exactly.
        exact = np.sqrt(np.square(query[rows][:, None] - reference[nearest]).sum(-1))
        order = np.argsort(exact, axis=1, kind="stable")
        indices[rows] = np.take_along_axis(nearest, order, 1)
        distances[rows] = np.take_along_axis(exact, order, 1)
    return indices, distances


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: `precision` of the fakes that look real, `recall` of the reals that the fakes reach."""

    precision: float
    recall: float


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Returns the share of `points` `[n, d]` in at least one ball around `centres` `[m, d]` of `radii` `[m]`."""
    # Slack for the rounding of squared distances, so that a point on the sphere (a twin, radius 0) counts as inside.
    scale = np.square(points).sum(1).max() + np.square(centres).sum(1).max()
    limits = np.square(radii) + points.shape[1] * np.finfo(np.float64).eps * scale
    inside = sum((squared <= limits).any(1).sum() for _, squared in _squared_distances(points, centres, 0))
    return float(inside / len(points))


def precision_recall(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> PrecisionRecall:
    """Returns precision and recall of generated images (Kynkäänniemi et al. 2019, eq. 1 and 2).

    The manifold of a set is the union of balls around its members, each reaching to the member's k-th nearest other
    member. Precision is the share of fakes on the manifold of the reals, recall the share of reals on that of the
    fakes. Both grow with k and with the number of images: compare at equal numbers only.

    Args:
        real: features `[n, d]`.
        fake: features `[m, d]`.
        k: neighbours.

    Returns:
        Precision and recall.

    Raises:
        ValueError: for shapes that do not fit, or k that is not below both n and m.
    """
    real, fake = _centred(real, fake, ("real features", "fake features"))
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k must be at least 1 and below the {min(len(real), len(fake))} rows of each set, got {k}")
    # The first of k + 1 neighbours is the point itself.
    radii = [nearest_neighbours(rows, rows, k + 1)[1][:, k] for rows in (real, fake)]
    return PrecisionRecall(_covered(fake, real, radii[0]), _covered(real, fake, radii[1]))
