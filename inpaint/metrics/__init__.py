# SPDX-License-Identifier: Apache-2.0
"""Quality of restored images, measured.

| question | measures | sees the truth |
|---|---|---|
| How near is it to the truth? | `psnr`, `ssim`, `ms_ssim`, `mean_absolute_error`, `mean_squared_error` | yes |
| The same, as Filipovski reports it | `relative_luminance_error`, `luminance_psnr`, `luminance_ssim` | yes |
| The same, as networks see it | `perceptual_distances` (LPIPS), `identity_similarity` | yes |
| Does the set look like real images? | `FeatureStatistics`, `frechet_distance`, `precision_recall` | a set of its own |
| The same, as it is published (FID) | `inception_statistics`, `inception_distance` | a set of its own |
| Do the results of one problem differ? | `mean_pairwise_distance`, `pixel_diversity`, `pixel_deviation` | no |
| The same, as networks see it | `perceptual_diversity` (LPIPS) | no |
| Is the hole blurred? | `laplacian_variance_ratio`, `high_band_ratio` | no |
| Is it noisy, is its border visible? | `noise_level` (in the hole and in its `ring`), `seam_contrast` | no |

Images are one `[h, w, c]` in [-1, 1], masks `[h, w]` in [0, 1]. What sets of features need is NumPy; all else is JAX.
Those of `perceptual` and `frechet_inception` take batches and sets, and a converted network first; they give NumPy.
"""

from inpaint.metrics.colour import luminance
from inpaint.metrics.diversity import mean_pairwise_distance, pixel_deviation, pixel_diversity
from inpaint.metrics.fidelity import (
    luminance_psnr,
    luminance_ssim,
    mean_absolute_error,
    mean_squared_error,
    ms_ssim,
    psnr,
    relative_luminance_error,
    ssim,
    ssim_map,
)
from inpaint.metrics.frechet import (
    FeatureStatistics,
    PrecisionRecall,
    frechet_distance,
    nearest_neighbours,
    precision_recall,
)
from inpaint.metrics.frechet_inception import (
    InceptionStatistics,
    inception_distance,
    inception_features,
    inception_statistics,
)
from inpaint.metrics.hole_quality import (
    high_band_ratio,
    laplacian_variance_ratio,
    noise_level,
    ring,
    seam_contrast,
)
from inpaint.metrics.perceptual import (
    PerceptualDistances,
    identity_similarity,
    perceptual_distances,
    perceptual_diversity,
)

__all__ = [
    "FeatureStatistics",
    "InceptionStatistics",
    "PerceptualDistances",
    "PrecisionRecall",
    "frechet_distance",
    "high_band_ratio",
    "identity_similarity",
    "inception_distance",
    "inception_features",
    "inception_statistics",
    "laplacian_variance_ratio",
    "luminance",
    "luminance_psnr",
    "luminance_ssim",
    "mean_absolute_error",
    "mean_pairwise_distance",
    "mean_squared_error",
    "ms_ssim",
    "nearest_neighbours",
    "perceptual_distances",
    "perceptual_diversity",
    "noise_level",
    "pixel_deviation",
    "pixel_diversity",
    "precision_recall",
    "psnr",
    "relative_luminance_error",
    "ring",
    "seam_contrast",
    "ssim",
    "ssim_map",
]
