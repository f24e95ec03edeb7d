# SPDX-License-Identifier: Apache-2.0
"""Quality of restored images, measured.

| question | measures | sees the truth |
|---|---|---|
| How near is it to the truth? | `psnr`, `ssim`, `ms_ssim`, `mean_absolute_error`, `mean_squared_error` | yes |
| The same, as Filipovski reports it | `relative_luminance_error`, `luminance_psnr`, `luminance_ssim` | yes |
| Does the set look like real images? | `FeatureStatistics`, `frechet_distance`, `precision_recall` | a set of its own |
| Do the results of one problem differ? | `mean_pairwise_distance`, `pixel_diversity`, `pixel_deviation` | no |
| Is the hole blurred? | `laplacian_variance_ratio`, `high_band_ratio` | no |
| Is it noisy, is its border visible? | `noise_level` (in the hole and in its `ring`), `seam_contrast` | no |

Images are one `[h, w, c]` in [-1, 1], masks `[h, w]` in [0, 1]. What sets of features need is NumPy; all else is JAX.
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
from inpaint.metrics.hole_quality import (
    high_band_ratio,
    laplacian_variance_ratio,
    noise_level,
    ring,
    seam_contrast,
)

__all__ = [
    "FeatureStatistics",
    "PrecisionRecall",
    "frechet_distance",
    "high_band_ratio",
    "laplacian_variance_ratio",
    "luminance",
    "luminance_psnr",
    "luminance_ssim",
    "mean_absolute_error",
    "mean_pairwise_distance",
    "mean_squared_error",
    "ms_ssim",
    "nearest_neighbours",
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
