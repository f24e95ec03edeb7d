# SPDX-License-Identifier: Apache-2.0
"""Low-pass filters by the Kaiser window method, one-dimensional and radially symmetric, as float64 numpy arrays.

Frequencies are in cycles per unit of length, `rate` is the number of samples per unit; taps sum to 1.
"""

import numpy as np

_QUADRATURE_POINTS = 256  # the trapezoidal rule for J1 is exact to rounding up to arguments of about this size


def kaiser_beta(taps: int, *, width: float, rate: float) -> float:
    """Returns the shape of the Kaiser window for a transition band of the given width.

    `a = 2.285 (taps - 1) pi width / (rate / 2) + 7.95` is the attenuation in dB (Kaiser 1974; Oppenheim and Schafer,
    "Discrete-Time Signal Processing", section 7.6).

    Args:
        taps: length of the filter.
        width: of the whole transition band, in the unit of `rate`.
        rate: samples per unit of length.
    """
    attenuation = 2.285 * (taps - 1) * np.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def _check(taps: int, cutoff: float, width: float, rate: float) -> None:
    if taps < 2 or not 0 < cutoff < rate / 2 or not width > 0:
        raise ValueError(
            f"a filter needs at least 2 taps, a cutoff between 0 and rate / 2 and a width above 0; got taps {taps}, "
            f"cutoff {cutoff}, width {width}, rate {rate}"
        )


def design_lowpass(taps: int, *, cutoff: float, width: float, rate: float) -> np.ndarray:
    """Returns the windowed sinc `sinc(2 cutoff t) * kaiser(t)` at `taps` centred positions, scaled to sum 1.

    Args:
        taps: length of the filter, at least 2.
        cutoff: middle of the transition band, above 0 and below `rate / 2`.
        width: of the whole transition band, above 0.
        rate: samples per unit of length.

    Returns:
        `[taps]`.

    Raises:
        ValueError: for arguments out of range.
    """
    _check(taps, cutoff, width, rate)
    positions = (np.arange(taps) - (taps - 1) / 2) / rate
    kernel = np.sinc(2 * cutoff * positions) * np.kaiser(taps, kaiser_beta(taps, width=width, rate=rate))
    return kernel / kernel.sum()


def bessel_j1(x: np.ndarray) -> np.ndarray:
    """Returns the Bessel function `J1(x) = 1/pi int_0^pi cos(a - x sin a) da` of `x` `[...]`, magnitudes below 100."""
    angles = (np.arange(_QUADRATURE_POINTS) + 0.5) * (np.pi / _QUADRATURE_POINTS)
    return np.cos(angles - np.asarray(x)[..., None] * np.sin(angles)).mean(axis=-1)


def design_radial_lowpass(taps: int, *, cutoff: float, width: float, rate: float) -> np.ndarray:
    """Returns the two-dimensional low-pass filter whose pass band is a disc (Karras et al. 2021, section 3.2).

    `J1(2 pi cutoff r) / (pi r) * kaiser(x) kaiser(y)` at centred positions, r their distance from the centre, scaled
    to sum 1. Arguments and errors are those of `design_lowpass`; `taps` must be even, so that no r is 0.

    Returns:
        `[taps, taps]`.
    """
    _check(taps, cutoff, width, rate)
    if taps % 2:
        raise ValueError(f"a radial filter needs an even number of taps, got {taps}")
    positions = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(positions[:, None], positions[None, :])
    window = np.kaiser(taps, kaiser_beta(taps, width=width, rate=rate))
    kernel = bessel_j1(2 * np.pi * cutoff * radius) / (np.pi * radius) * np.outer(window, window)
    return kernel / kernel.sum()
