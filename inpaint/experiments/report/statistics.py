# SPDX-License-Identifier: Apache-2.0
"""What the rows of an evaluation tell: means, medians, their intervals, and paired tests between methods.

The unit is the image: figures are averaged over seeds first, and resampling draws images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inpaint.experiments.records import Row
from inpaint.experiments.table import bootstrap_interval, per_image

RESAMPLES = 10_000


class Figure(NamedTuple):
    """A figure of a report: its name in the rows, heading, decimals, and which values are better.

    `better` is +1 where higher, -1 where lower, 0 where neither can be said. `over` names the figure of the untouched
    image that it is divided by, image by image.
    """

    name: str
    heading: str
    decimals: int = 3
    better: int = 0
    over: str | None = None


FIGURES = (
    Figure("feature_distance", "feature distance", 4, -1),
    Figure("composite_hole_psnr", "hole PSNR of the composite, dB", 2, 1),
    Figure("hole_psnr", "hole PSNR of the render, dB", 2, 1),
    Figure("best_of_k_hole_psnr", "hole PSNR, best of K by truth (a bound), dB", 2, 0),
    Figure("hole_ssim", "hole SSIM", 3, 1),
    Figure("ssim", "SSIM", 3, 1),
    Figure("lpips", "LPIPS", 4, -1),
    Figure("lpips_hole", "hole LPIPS", 4, -1),
    Figure("identity", "identity", 3, 1),
    Figure("laplacian_ratio", "detail in the hole, of the truth's", 2, 0, "true_laplacian_ratio"),
    Figure("noise", "noise in the hole, of the truth's", 2, 0, "true_noise"),
    Figure("seam", "seam, of the truth's", 2, 0, "true_seam"),
    Figure("known_psnr", "known PSNR of the render, dB", 2, 0),
    Figure("diversity", "diversity of the starts", 3, 0),
    Figure("kept_distance", "feature distance of kept results", 4, 0),
    Figure("kept_lpips", "LPIPS of kept results", 4, 0),
    # Of the study of robustness: how far a result is from that of the undisturbed input.
    Figure("change_psnr", "unchanged in the common hole, PSNR, dB", 2, 1),
    Figure("change_distance", "change of the result, feature distance", 4, -1),
    Figure("latent_change", "change of w, in its standard deviations", 2, -1),
    Figure("start_deviation", "standard deviation of a pixel over starts", 3, 0),
    # Of the study of semantics.
    Figure("obeyed", "obeyed, by the unseen judge", 2, 1),
    Figure("judged", "probability by the unseen judge", 2, 0),
    Figure("asked", "probability by the classifier that is asked", 2, 0),
    Figure("seconds", "seconds an image", 2, 0),
)


def values(rows: Sequence[Row], figure: Figure) -> dict[str, float]:
    """Returns a figure of every image, averaged over seeds; images without it are left out."""
    if figure.name == "seconds":
        rows = [row | {"metrics": {"seconds": row.get("seconds")}} for row in rows]
    found = per_image(rows, figure.name)
    if figure.over is None:
        return found
    true = per_image(rows, figure.over)
    return {image: value / true[image] for image, value in found.items() if true.get(image)}


def measured(rows: Sequence[Row]) -> list[Figure]:
    """Returns the figures that at least one row has."""
    names = {name for row in rows for name, value in row["metrics"].items() if value is not None}
    return [figure for figure in FIGURES if figure.name in names or figure.name == "seconds"]


class Estimate(NamedTuple):
    """Mean and median of `count` values with their 95 % bootstrap intervals (low, high)."""

    mean: float
    mean_interval: tuple[float, float]
    median: float
    median_interval: tuple[float, float]
    count: int


def estimate(found: Sequence[float], *, seed: int = 0) -> Estimate:
    """Returns mean and median of values `[n]`, n at least 1, with percentile bootstrap intervals.

    Args:
        found: one per image.
        seed: of the resampling.
    """
    x = np.asarray(found, np.float64)
    index = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.quantile(x[index].mean(1), [0.025, 0.975])
    interval = bootstrap_interval(x, resamples=RESAMPLES, seed=seed)
    return Estimate(float(x.mean()), (float(low), float(high)), float(np.median(x)), interval, len(x))


class Paired(NamedTuple):
    """Two methods on the same `count` images: median of the differences, its 95 % bootstrap interval, on how many
    images the first is higher, and the p-value of Wilcoxon's signed-rank test (two-sided; NaN below 6 images)."""

    median: float
    interval: tuple[float, float]
    higher: int
    count: int
    p: float


FEWEST = 6  # images: with fewer, no signed-rank test can reach 0.05


def paired(ours: dict[str, float], theirs: dict[str, float]) -> Paired | None:
    """Returns the comparison of two methods, image by image; None where they share no image."""
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None
    difference = np.asarray([ours[image] - theirs[image] for image in shared])
    p = 1.0 if not difference.any() else float("nan")
    if len(shared) >= FEWEST and difference.any():
        from scipy import stats  # takes half a second, which commands that need none should not wait

        p = float(stats.wilcoxon(difference, zero_method="zsplit", method="auto").pvalue)
    interval = bootstrap_interval(difference, resamples=RESAMPLES)
    return Paired(float(np.median(difference)), interval, int((difference > 0).sum()), len(shared), p)


def holm(ps: Sequence[float]) -> list[float]:
    """Returns p-values corrected for how many there are (Holm 1979); NaN stays NaN and does not count."""
    order = sorted((p, i) for i, p in enumerate(ps) if np.isfinite(p))
    found, largest = list(ps), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        found[i] = largest
    return found


def cells(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Returns rows by mask and method, both in the order in which they first appear."""
    found: dict[str, dict[str, list[Row]]] = {}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for mask in dict.fromkeys(row["mask"] for row in rows):
        here = [row for row in rows if row["mask"] == mask]
        found[mask] = {m: own for m in methods if (own := [row for row in here if row["method"] == m])}
    return found
