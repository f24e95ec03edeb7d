# SPDX-License-Identifier: Apache-2.0
"""All figures of a restoration for which the truth is known. They are taken after the selection, and never enter it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint import metrics
from inpaint.metrics.judge import LoadedJudge


class Restored(NamedTuple):
    """A batch of results: the selected renders `[n, h, w, c]` (unclipped) and their composites, all starts' renders
    `[n, starts, h, w, c]`, the truths `[n, h, w, c]` and masks `[n, h, w]`."""

    raw: np.ndarray
    composites: np.ndarray
    starts: np.ndarray
    truths: np.ndarray
    known: np.ndarray


def _of_one(raw: Array, composite: Array, truth: Array, known: Array) -> dict[str, Array]:
    hole = 1 - known
    return {
        "hole_psnr": metrics.psnr(raw, truth, hole),
        "known_psnr": metrics.psnr(raw, truth, known),
        "hole_l1": metrics.mean_absolute_error(jnp.clip(raw, -1, 1), truth, hole),
        "hole_ssim": metrics.ssim(composite, truth, hole),
        "psnr": metrics.psnr(composite, truth),
        "ssim": metrics.ssim(composite, truth),
        "ms_ssim": metrics.ms_ssim(composite, truth),
        "relative_l1": metrics.relative_luminance_error(composite, truth),
        "luminance_psnr": metrics.luminance_psnr(composite, truth),
        "luminance_ssim": metrics.luminance_ssim(composite, truth),
        "laplacian_ratio": metrics.laplacian_variance_ratio(composite, known),
        "high_band_ratio": metrics.high_band_ratio(composite, known),
        "noise": metrics.noise_level(composite, hole),
        "seam": metrics.seam_contrast(composite, known),
        "true_laplacian_ratio": metrics.laplacian_variance_ratio(truth, known),
        "true_high_band_ratio": metrics.high_band_ratio(truth, known),
        "true_noise": metrics.noise_level(truth, hole),
        "true_seam": metrics.seam_contrast(truth, known),
    }


_of_batch = jax.jit(jax.vmap(_of_one))


@jax.jit
def _hole_psnrs(starts: Array, truths: Array, known: Array) -> Array:
    def one(starts: Array, truth: Array, known: Array) -> Array:
        return jax.vmap(lambda raw: metrics.psnr(raw, truth, 1 - known))(starts)

    return jax.vmap(one)(starts, truths, known)


_diversity = jax.jit(jax.vmap(lambda starts, known: metrics.pixel_diversity(jnp.clip(starts, -1, 1), 1 - known)))


def measure(restored: Restored, judge: LoadedJudge) -> list[dict[str, float | list[float] | None]]:
    """Returns the figures of every image of a batch, by name; None where a figure does not exist (NaN).

    `hole_psnr` (clipped render, hole pixels x channels, range 2) and `known_psnr` are of the raw render, what
    describes whole images is of the composite; `best_of_k_hole_psnr` chooses among the starts by the truth, so it is a
    bound and no result; `embedding` and `true_embedding` are the judge's.
    """
    figures = {n: np.asarray(v) for n, v in _of_batch(*restored[:2], restored.truths, restored.known).items()}
    by_start = np.asarray(_hole_psnrs(restored.starts, restored.truths, restored.known))
    figures["best_of_k_hole_psnr"] = by_start.max(1)
    figures["median_start_hole_psnr"] = np.median(by_start, 1)
    # Of one start there are no pairs.
    if restored.starts.shape[1] > 1:
        figures["diversity"] = np.asarray(_diversity(restored.starts, restored.known))
    distance, embedding, true_embedding = judge.compare(restored.composites, restored.truths)
    figures["feature_distance"] = distance
    rows = []
    for i in range(len(restored.raw)):
        row = {name: _rounded(float(values[i])) for name, values in figures.items()}
        row["embedding"] = [_rounded(float(x)) for x in embedding[i]]
        row["true_embedding"] = [_rounded(float(x)) for x in true_embedding[i]]
        rows.append(row)
    return rows


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
