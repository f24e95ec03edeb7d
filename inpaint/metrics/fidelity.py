# SPDX-License-Identifier: Apache-2.0
"""How near a restored image is to the truth: errors, PSNR, SSIM and its multi-scale form.

Images are one `[h, w, c]` in [-1, 1] (batches by `jax.vmap`); `image` is clipped to that range first, `truth` is taken
as it is. `weight` `[h, w]` in [0, 1] says how much each pixel counts, None: all alike. Where the weights sum to 0 there
is nothing to measure and the value is NaN. Results are scalars of the inputs' dtype.
"""

from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from inpaint.metrics.colour import luminance

ERROR_FLOOR = 1e-10  # of mean square errors in PSNR, which is therefore at most 106.02 dB (range 2) or 100 dB (range 1)
WINDOW = 11  # SSIM
SIGMA = 1.5
STABILITY = (0.01, 0.03)  # K1 and K2 of SSIM
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest first


def _compared(image: Array, truth: Array) -> tuple[Array, Array]:
    image, truth = jnp.asarray(image), jnp.asarray(truth)
    if image.ndim != 3 or image.shape != truth.shape:
        raise ValueError(
            f"image and truth must be [h, w, c] of one shape, got {list(image.shape)} and {list(truth.shape)}; "
            "map over batches with jax.vmap"
        )
    if not (jnp.issubdtype(image.dtype, jnp.floating) and jnp.issubdtype(truth.dtype, jnp.floating)):
        raise ValueError(
            f"image and truth must be floats in [-1, 1], got {image.dtype} and {truth.dtype}; divide by 127.5, take 1"
        )
    return jnp.clip(image, -1, 1), truth


def _weighted_mean(values: Array, weight: Array | None) -> Array:
    """Returns the mean of `values` `[h, w, c]` weighted by `weight` `[h, w]`."""
    if weight is None:
        return jnp.mean(values)
    weight = jnp.asarray(weight)
    if weight.shape != values.shape[:2]:
        raise ValueError(f"weight must be {list(values.shape[:2])} as the image, got {list(weight.shape)}")
    weight = weight.astype(values.dtype)[..., None]
    # A pixel that does not count may hold anything, NaN too.
    total = jnp.sum(jnp.where(weight > 0, values * weight, 0))
    return total / (jnp.sum(weight) * values.shape[-1])


def _decibel(mean_square: Array, data_range: float) -> Array:
    return 10 * jnp.log10(data_range**2 / jnp.maximum(mean_square, ERROR_FLOOR))


def mean_absolute_error(image: Array, truth: Array, weight: Array | None = None) -> Array:
    """Returns `sum w |image - truth| / (c sum w)`.

    Args:
        image, truth: `[h, w, c]`.
        weight: `[h, w]`.

    Returns:
        Scalar in [0, 2]; 0 is perfect.
    """
    image, truth = _compared(image, truth)
    return _weighted_mean(jnp.abs(image - truth), weight)


def mean_squared_error(image: Array, truth: Array, weight: Array | None = None) -> Array:
    """Returns `sum w (image - truth)^2 / (c sum w)`.

    Args:
        image, truth: `[h, w, c]`.
        weight: `[h, w]`.

    Returns:
        Scalar in [0, 4]; 0 is perfect.
    """
    image, truth = _compared(image, truth)
    return _weighted_mean(jnp.square(image - truth), weight)


def psnr(image: Array, truth: Array, weight: Array | None = None) -> Array:
    """Returns the peak signal-to-noise ratio `10 log10(2^2 / mean squared error)`.

    With `weight` = hole this is the project's hole PSNR: of the clipped render, over hole pixels and channels, range 2,
    one value per image; over a set of images its median is reported.

    Args:
        image, truth: `[h, w, c]`.
        weight: `[h, w]`.

    Returns:
        Scalar in dB; the error is floored at 1e-10, so that identical images have 106.02 dB.
    """
    return _decibel(mean_squared_error(image, truth, weight), 2.0)


def relative_luminance_error(image: Array, truth: Array) -> Array:
    """Returns `sum |a - b| / sum (a + b)` of the luminances a, b in [0, 1] of two whole images.

    Filipovski's "l1". Unlike the mean absolute error it is relative to the brightness of both images (the same error
    counts more in a dark picture), blind to hue, and has no mask. As a percentage it is what their table 1 lists.

    Args:
        image, truth: `[h, w, c]` with c of 1 or 3.

    Returns:
        Scalar in [0, 1]; 0 is perfect, and also the value of two black images.
    """
    a, b = _unit_luminance(image, truth)
    total = jnp.sum(a + b)
    return jnp.sum(jnp.abs(a - b)) / jnp.where(total > 0, total, 1)


def luminance_psnr(image: Array, truth: Array) -> Array:
    """Returns the PSNR of the luminances in [0, 1] (range 1) of two whole images, as Filipovski measures it.

    Args:
        image, truth: `[h, w, c]` with c of 1 or 3.

    Returns:
        Scalar in dB, at most 100 (the error is floored at 1e-10).
    """
    a, b = _unit_luminance(image, truth)
    return _decibel(jnp.mean(jnp.square(a - b)), 1.0)


def luminance_ssim(image: Array, truth: Array) -> Array:
    """Returns the SSIM of the luminances in [0, 1] with an 11 x 11 uniform window, as Filipovski measures it.

    Whole windows and sample covariances (divisor 120), the defaults of scikit-image.

    Args:
        image, truth: `[h, w, c]` with c of 1 or 3, h and w at least 11.

    Returns:
        Scalar in [-1, 1]; 1 is perfect.
    """
    a, b = _unit_luminance(image, truth)
    taps = np.full(WINDOW, 1 / WINDOW)
    # Sample covariances are 121/120 times the others; in the quotient that is the same as a smaller second constant.
    k2 = STABILITY[1] * np.sqrt(1 - WINDOW**-2)
    return jnp.mean(_ssim_map(a[..., None], b[..., None], taps, data_range=1.0, k2=float(k2)))


def _unit_luminance(image: Array, truth: Array) -> tuple[Array, Array]:
    image, truth = _compared(image, truth)
    return (luminance(image) + 1) / 2, (luminance(truth) + 1) / 2


def _gaussian() -> np.ndarray:
    taps = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    return taps / taps.sum()


def _bands(taps: np.ndarray, length: int) -> np.ndarray:
    """Returns the matrix `[length - t + 1, length]` whose row i holds the `taps` `[t]` from column i on."""
    positions = length - len(taps) + 1
    return sum(tap * np.eye(positions, length, offset) for offset, tap in enumerate(taps))


def _window_means(taps: np.ndarray) -> Callable[[Array], Array]:
    """Returns the function giving the means of `[h, w, c]` in all whole windows, weighted by `taps` along both axes."""

    def means(x: Array) -> Array:
        # As two products with banded matrices: a depthwise convolution takes three times as long on a CPU.
        rows, columns = (jnp.asarray(_bands(taps, length), x.dtype) for length in x.shape[:2])
        x = jnp.einsum("ih,hwc->iwc", rows, x, precision=lax.Precision.HIGHEST)
        return jnp.einsum("jw,iwc->ijc", columns, x, precision=lax.Precision.HIGHEST)

    return means


def _ssim_map(a: Array, b: Array, taps: np.ndarray, *, data_range: float, k2: float = STABILITY[1]) -> Array:
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, got {a.shape[0]} x {a.shape[1]}")
    # The windows are ours, because dm_pix takes the default float type for its own whatever the images are; its
    # constants have a type of their own too, hence the promotion.
    with jax.numpy_dtype_promotion("standard"):
        values = dm_pix.ssim(
            a, b, max_val=data_range, k1=STABILITY[0], k2=k2, return_map=True, filter_fn=_window_means(taps)
        )
    return values.astype(a.dtype)


def ssim_map(a: Array, b: Array, *, data_range: float = 1.0) -> Array:
    """Returns the structural similarity of every whole window (11 x 11 Gaussian, sigma 1.5) and channel.

    SSIM = (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 + C2)), C1 = (0.01 L)^2, C2 = (0.03 L)^2,
    with population covariances (Wang, Bovik, Sheikh and Simoncelli 2004).

    Args:
        a, b: `[h, w, c]`, compared as they are: neither clipped nor mapped.
        data_range: L. SSIM is not invariant to offsets: published values are of images in [0, L].

    Returns:
        `[h - 10, w - 10, c]`; the window of entry (i, j) is centred on pixel (i + 5, j + 5).

    Raises:
        ValueError: for images with a side below 11.
    """
    return _ssim_map(jnp.asarray(a), jnp.asarray(b), _gaussian(), data_range=data_range)


def ssim(image: Array, truth: Array, weight: Array | None = None) -> Array:
    """Returns the mean structural similarity of the images mapped to [0, 1] (`ssim_map` with data range 1).

    With `weight` it is the mean over windows, each weighted by the weight of its central pixel. Windows reach 5 pixels
    around, so a hole's value also depends on that margin; pixels nearer than 5 to the image's border are no centres.
    A NaN anywhere makes the value NaN.

    Args:
        image, truth: `[h, w, c]`, h and w at least 11.
        weight: `[h, w]`.

    Returns:
        Scalar in [-1, 1], 1 is perfect; NaN where no centre has weight.

    Raises:
        ValueError: for images with a side below 11.
    """
    image, truth = _compared(image, truth)
    values = ssim_map((image + 1) / 2, (truth + 1) / 2)
    margin = WINDOW // 2
    return _weighted_mean(values, None if weight is None else jnp.asarray(weight)[margin:-margin, margin:-margin])


def scale_count(height: int, width: int) -> int:
    """Returns how many of the five scales of `ms_ssim` an image has: those at least 11 pixels high and wide."""
    fitting = [s for s in range(len(SCALE_WEIGHTS)) if min(height, width) >> s >= WINDOW]
    return len(fitting)


def ms_ssim(image: Array, truth: Array, *, scales: int | None = None, floor: float = 0.0) -> Array:
    """Returns the multi-scale structural similarity `SSIM_S^v_S prod_{s<S} CS_s^v_s`, the mean over channels.

    CS is the contrast-structure factor of SSIM, averaged over windows; SSIM_S is the full one at the coarsest scale.
    Between scales the images are averaged over 2 x 2 pixels (an odd last row or column is dropped). Means below `floor`
    are taken as that, because powers of negative ones are no real numbers. The weights v of the scales in use are
    scaled to sum 1, so values with different numbers of scales are not comparable (Wang, Simoncelli and Bovik 2003,
    eq. 7).

    Args:
        image, truth: `[h, w, c]`, h and w at least 11.
        scales: how many, 1 to 5; None: as many as keep the coarsest at least 11 pixels (5 from 176 pixels, 3 at 64).
        floor: at least 0; above 0 the value has a finite gradient everywhere, which a loss needs.

    Returns:
        Scalar in [0, 1]; 1 is perfect.

    Raises:
        ValueError: for images with a side below 11, or more scales than fit.
    """
    image, truth = _compared(image, truth)
    fitting = scale_count(*image.shape[:2])
    scales = fitting if scales is None else scales
    if not 1 <= scales <= fitting:
        raise ValueError(
            f"an image of {image.shape[0]} x {image.shape[1]} pixels has {fitting} scales of at least {WINDOW} pixels, "
            f"got scales={scales}; ask for 1 to {fitting}" + ("" if fitting else ", or enlarge the image")
        )
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    a, b = (image + 1) / 2, (truth + 1) / 2
    means = _window_means(_gaussian())
    result = jnp.ones(image.shape[-1], image.dtype)
    for scale in range(scales):
        values = ssim_map(a, b)
        if scale < scales - 1:
            # Nowhere 0: the images are not negative.
            c1, mean_a, mean_b = STABILITY[0] ** 2, means(a), means(b)
            values /= (2 * mean_a * mean_b + c1) / (jnp.square(mean_a) + jnp.square(mean_b) + c1)
            a, b = _halved(a), _halved(b)
        result *= jnp.maximum(jnp.mean(values, axis=(0, 1)), floor) ** float(weights[scale])
    return jnp.mean(result)


def _halved(x: Array) -> Array:
    height, width = x.shape[0] // 2, x.shape[1] // 2
    return x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).mean(axis=(1, 3))
