# SPDX-License-Identifier: Apache-2.0
"""All figures of a restoration for which the truth is known. They are taken after the selection, and never enter it."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from inpaint import metrics
from inpaint.experiments.records import Records
from inpaint.metrics.judge import LoadedJudge

MEASURED_BY = "metric_networks"  # where a row's settings hold the hashes of the networks that measured it, if any did


class Restored(NamedTuple):
    """A batch of results: the selected renders `[n, h, w, c]` (unclipped) and their composites, all starts' renders
    `[n, starts, h, w, c]`, the truths `[n, h, w, c]`, masks `[n, h, w]` and kept composites `[n, keep, h, w, c]`."""

    raw: np.ndarray
    composites: np.ndarray
    starts: np.ndarray
    truths: np.ndarray
    known: np.ndarray
    kept: np.ndarray | None = None


def _of_one(raw: Array, composite: Array, truth: Array, known: Array) -> dict[str, Array]:
    hole = 1 - known
    return {
        "hole_psnr": metrics.psnr(raw, truth, hole),
        "composite_hole_psnr": metrics.psnr(composite, truth, hole),
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


def _by_networks(restored: Restored, networks: Mapping[str, nnx.Module]) -> dict[str, np.ndarray]:
    figures = {}
    if "lpips" in networks:
        compared = restored.composites, restored.truths
        found = metrics.perceptual_distances(networks["lpips"], *compared, holes=1 - restored.known)
        figures["lpips"], figures["lpips_hole"] = found
    if "identity" in networks:
        figures["identity"] = metrics.identity_similarity(networks["identity"], restored.composites, restored.truths)
    return figures


def _pairwise(kept: np.ndarray, judge: LoadedJudge, networks: Mapping[str, nnx.Module]) -> dict[str, np.ndarray]:
    """Returns the mean distance between two kept composites of every image, `[n]`, by who measures it."""
    first, second = np.triu_indices(kept.shape[1], 1)
    shape, images = (len(kept), len(first)), [kept[:, index].reshape(-1, *kept.shape[2:]) for index in (first, second)]
    figures = {"kept_distance": judge.compare(*images)[0].reshape(shape).mean(1)}
    if "lpips" in networks:
        found = metrics.perceptual_distances(networks["lpips"], *images).whole
        figures["kept_lpips"] = np.asarray(found).reshape(shape).mean(1)
    return figures


def measure(
    restored: Restored, judge: LoadedJudge, *, networks: Mapping[str, nnx.Module] | None = None
) -> list[dict[str, float | list[float] | None]]:
    """Returns the figures of every image of a batch, by name; None where a figure does not exist (NaN).

    `hole_psnr` (clipped render, hole pixels x channels, range 2) and `known_psnr` are of the raw render;
    `composite_hole_psnr` is the former of the composite, and what describes whole images is of the composite too;
    `best_of_k_hole_psnr` chooses among the starts by the truth, so it is a bound and no result; `embedding` and
    `true_embedding` are the judge's. `networks` adds figures of the composites: `lpips` (an Lpips) its distance in the
    whole image and the hole, `identity` (an ArcFace) the likeness of the faces. `kept_distance` and `kept_lpips` are
    means over pairs of kept composites.
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
    figures |= _by_networks(restored, networks or {})
    if restored.kept is not None and restored.kept.shape[1] > 1:
        figures |= _pairwise(restored.kept, judge, networks or {})
    rows = []
    for i in range(len(restored.raw)):
        row = {name: _rounded(float(values[i])) for name, values in figures.items()}
        row["embedding"] = [_rounded(float(x)) for x in embedding[i]]
        row["true_embedding"] = [_rounded(float(x)) for x in true_embedding[i]]
        rows.append(row)
    return rows


def check_measured(records: Records, cells: Collection[tuple[str, str]], hashes: Mapping[str, str]) -> None:
    """Checks that finished rows have been measured by the networks that new ones would be.

    Args:
        records: finished rows and their settings.
        cells: methods and masks, by name, whose rows count.
        hashes: content hashes of the networks for `measure`, by name; empty for none.

    Raises:
        ValueError: where a row was measured by others, or by none.
    """
    for row in records.rows.values():
        theirs = records.settings.get(row["fingerprint"], {}).get(MEASURED_BY, {})
        if (row["method"], row["mask"]) in cells and theirs != hashes:
            named = [", ".join(f"{k} {v[:12]}" for k, v in sorted(x.items())) or "none" for x in (theirs, hashes)]
            raise ValueError(
                f"{records.folder} holds rows of {row['method']} on {row['mask']} measured by other networks (--lpips, "
                f"--identity_metric): theirs {named[0]}, yours {named[1]}; give the same ones, or name another --output"
            )


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None
