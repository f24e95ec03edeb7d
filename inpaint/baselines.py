# SPDX-License-Identifier: Apache-2.0
"""Restoration without a generator: what a search has to beat.

Each function returns a `Fill`. Those that learn are fitted on training images alone.
"""

import functools

import numpy as np

from inpaint.problem import Problem
from inpaint.search.method import Fill


def _known(problem: Problem) -> np.ndarray:
    if problem.operator.known is None:
        raise ValueError("baselines fill holes: they need a problem with a mask")
    # A pixel that is known in part still tells most of what it is.
    return np.asarray(problem.operator.known) > 0.5


def _fitting(images: np.ndarray, problem: Problem) -> None:
    if images.shape[1:] != problem.measurement.shape:
        raise ValueError(
            f"the training images are {list(images.shape[1:])}, the image is {list(problem.measurement.shape)}"
        )


def mean_face(images: np.ndarray) -> Fill:
    """Returns the fill by the mean of the training images `[n, h, w, c]` in [-1, 1]."""
    mean = np.asarray(images, np.float64).mean(0).astype(np.float32)

    def fill(problem: Problem) -> np.ndarray:
        _fitting(mean[None], problem)
        return mean

    return Fill("mean_face", fill)


def biharmonic() -> Fill:
    """Returns the fill by the biharmonic equation (scikit-image): the smoothest continuation of the known pixels."""

    def fill(problem: Problem) -> np.ndarray:
        import skimage.restoration  # slow to import, and only this fill needs it

        image, hole = np.asarray(problem.measurement, np.float64), ~_known(problem)
        return skimage.restoration.inpaint_biharmonic(image, hole, channel_axis=-1).astype(np.float32)

    return Fill("biharmonic", fill)


class _Ridge:
    """The dual form: all that depends on the mask is one `[n, n]` factor."""

    def __init__(self, images: np.ndarray, noise: float, mirrored: bool):
        images = np.concatenate([images, images[:, :, ::-1]]) if mirrored else np.asarray(images)
        self.shape = images.shape[1:]
        flat = images.reshape(len(images), -1).astype(np.float32)
        self.mean = flat.mean(0, dtype=np.float64).astype(np.float32)
        self.flat = flat - self.mean
        self.noise = noise
        self.factor = functools.lru_cache(maxsize=2)(self._factor)

    @functools.cached_property
    def products(self) -> np.ndarray:
        return self.flat @ self.flat.T

    def _factor(self, known: bytes):
        import scipy.linalg

        chosen = np.frombuffer(known, bool)
        part = self.flat[:, chosen]
        # The products over fewer pixels are cheaper; the others are what is left of the whole.
        if chosen.mean() > 0.5:
            rest = self.flat[:, ~chosen]
            gram = self.products - rest @ rest.T
        else:
            gram = part @ part.T
        gram = gram.astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.noise * len(gram)
        return part, scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)

    def __call__(self, problem: Problem) -> np.ndarray:
        import scipy.linalg

        _fitting(np.empty((1, *self.shape), bool), problem)
        known = np.broadcast_to(_known(problem)[..., None], self.shape).reshape(-1)
        measured = np.asarray(problem.measurement).reshape(-1)
        part, factor = self.factor(known.tobytes())
        weights = scipy.linalg.cho_solve(factor, part @ (measured - self.mean)[known], check_finite=False)
        filled = self.mean + weights.astype(np.float32) @ self.flat
        return np.where(known, measured, filled).reshape(self.shape)


def ridge(images: np.ndarray, *, noise: float = 0.03, mirrored: bool = True) -> Fill:
    """Returns the fill by ridge regression from known to hole pixels: the conditional mean of a Gaussian.

    `x_h = m_h + S_hk (S_kk + noise I)^-1 (x_k - m_k)` with the mean m and covariance S of the training images. It is
    hard to beat in PSNR, and blurred by nature.

    Args:
        images: training images `[n, h, w, c]` in [-1, 1].
        noise: variance added to every known pixel, in units of the image range (-1 to 1).
        mirrored: fit on mirrored images too.
    """
    if not noise > 0:
        raise ValueError(f"noise must be above 0, got {noise}")
    return Fill("ridge", _Ridge(images, noise, mirrored))
