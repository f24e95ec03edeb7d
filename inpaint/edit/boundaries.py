# SPDX-License-Identifier: Apache-2.0
"""Directions of W that belong to an attribute: normals of the hyperplane between latents with and without it.

InterFaceGAN (Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face Editing"), with a regularised
logistic boundary, whose Newton steps are exact, in place of its support vector machine.
"""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from stylegan_jax import classifiers, image_io, latents


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A hyperplane of W: `w @ normal + intercept` is positive where the attribute is present.

    Attributes:
        normal: unit vector `[w_dim]`.
        intercept: in units of W.
        accuracy: share of the held-out latents on the right side.
        fitted, held_out: how many latents decided it, and how many it was measured on.
    """

    normal: np.ndarray
    intercept: float
    accuracy: float
    fitted: int
    held_out: int


def _logistic(x: np.ndarray, sign: np.ndarray, decay: float) -> np.ndarray:
    """Returns `[d + 1]`, weights and intercept, that minimise `mean softplus(-sign (x b + c)) + decay |b|^2 / 2`."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    penalty = np.full(x.shape[1], decay)
    penalty[-1] = 0

    def objective(v: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (x @ v)).mean() + (penalty * v * v).sum() / 2)

    v = np.zeros(x.shape[1])
    value = objective(v)
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(sign * (x @ v), -500, 500)))  # of being wrong
        gradient = -(x * (sign * p)[:, None]).mean(0) + penalty * v
        if np.abs(gradient).max() < 1e-9:
            break
        curvature = (x * (p * (1 - p))[:, None]).T @ x / len(x) + np.diag(penalty + 1e-12)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        # The full step overshoots where the logistic is flat; halving it always ends, since the objective is convex.
        while (found := objective(v - size * step)) > value - 1e-4 * size * (gradient @ step) and size > 1e-6:
            size /= 2
        v, value = v - size * step, found
    return v


def fit_direction(
    w: np.ndarray, log_odds: np.ndarray, *, extremes: float = 0.25, held_out: float = 0.3, decay: float = 0.003
) -> Boundary:
    """Returns the boundary between latents with and without an attribute.

    Of the latents the surest at both ends count, as many of each. The boundary is that of a logistic regression on
    `(w - mean) / s`, s being the root of W's mean variance, so that `decay` has no unit: much of it gives the
    difference of the two means, which carries along whatever goes with the attribute; little of it the widest margin.

    Args:
        w: latents `[n, w_dim]`.
        log_odds: what a classifier says of them, `[n]`, positive for present; or labels, bool.
        extremes: share of `n` taken from either end, above 0, at most 0.5; only those whose sign fits their end.
        held_out: share of the taken that the accuracy is measured on, every so-many-th, from 0.05 to 0.5.
        decay: weight of `|b|^2 / 2`, positive.

    Raises:
        ValueError: arrays of other shapes, settings out of range, or too few latents on one side.
    """
    w, log_odds = np.asarray(w, np.float64), np.asarray(log_odds)
    if w.ndim != 2 or log_odds.shape != w.shape[:1]:
        raise ValueError(f"need latents [n, w_dim] and log-odds [n], got {list(w.shape)} and {list(log_odds.shape)}")
    if not 0 < extremes <= 0.5 or not 0.05 <= held_out <= 0.5 or not decay > 0:
        raise ValueError(f"extremes {extremes}, held_out {held_out} or decay {decay} is out of range")
    log_odds = np.where(log_odds, 1.0, -1.0) if log_odds.dtype == bool else log_odds.astype(np.float64)
    if not (np.isfinite(w).all() and np.isfinite(log_odds).all()):
        raise ValueError("latents and log-odds must be finite")
    order, present = np.argsort(log_odds, kind="stable"), int((log_odds > 0).sum())
    count = min(max(round(extremes * len(w)), 1), present, len(w) - present)
    every = round(1 / held_out)
    if count < 2 * every:
        raise ValueError(
            f"a boundary needs {2 * every} latents on either side, and {present} of {len(w)} have the attribute; take "
            "more samples"
        )
    taken = np.concatenate([order[:count], order[-count:]])
    sign = np.repeat([-1.0, 1.0], count)
    own = np.tile(np.arange(count) % every > 0, 2)
    mean, scale = w[taken[own]].mean(0), np.sqrt(w[taken[own]].var(0).mean())
    if not scale > 0:
        raise ValueError("all latents are the same")
    *b, c = _logistic((w[taken[own]] - mean) / scale, sign[own], decay)
    length = np.linalg.norm(b)
    if not length > 0:
        raise ValueError("latents with and without the attribute have the same mean; no direction tells them apart")
    normal = np.asarray(b) / length
    intercept = float(c * scale / length - mean @ normal)
    right = sign[~own] * (w[taken[~own]] @ normal + intercept) > 0
    return Boundary(normal, intercept, float(right.mean()), int(own.sum()), int((~own).sum()))


@functools.partial(jax.jit, static_argnames=("attribute", "noise"))
def _judged(
    generator: latents.Generator, classifier: classifiers.Classifier, w: Array, *, attribute: str, noise: str
) -> Array:
    ws = jnp.repeat(w[:, None], generator.config.num_ws, axis=1)
    images = jnp.clip(generator.synthesis(ws, noise=noise), -1, 1)
    return classifiers.log_odds(classifier, images, attribute)


def fit_attribute(
    key: Array,
    generator: latents.Generator,
    classifier: classifiers.Classifier,
    *,
    attribute: str,
    samples: int = 2000,
    extremes: float = 0.25,
    decay: float = 0.003,
    noise: str = "const",
    batch: int = 50,
) -> Boundary:
    """Returns the boundary of an attribute in W, from random w `[samples, w_dim]` whose images a classifier judges.

    Args:
        key: of the normal z, and of uniform labels for a conditional generator.
        generator: of colour images.
        classifier: a module; see `stylegan_jax.classifiers`.
        attribute: its name, as the classifier knows it.
        samples: number of latents.
        extremes, decay: see `fit_direction`.
        noise: what the generator's noise inputs get, "const" or "none".
        batch: images made at once.

    Raises:
        ValueError: an unknown attribute, no sample, too few with or without it, or images that are not coloured.
    """
    config = generator.config
    classifiers.attribute_index(classifier, attribute)
    if config.image_channels != 3:
        raise ValueError(
            f"classifiers look at colour images, and this generator's have {config.image_channels} channels"
        )
    if samples < 1 or batch < 1:
        raise ValueError(f"samples and batch must be at least 1, got {samples} and {batch}")
    z_key, c_key = jax.random.split(key)
    z = jax.random.normal(z_key, (samples, config.z_dim))
    c = latents.random_labels(c_key, config.c_dim, samples)
    w = jax.jit(lambda network, z, c: network(z, c))(generator.mapping, z, c)
    # Equal batches, so that one program is compiled; what pads the last one is dropped.
    padded = jnp.concatenate([w, jnp.repeat(w[-1:], -samples % batch, axis=0)])
    judge = functools.partial(_judged, generator, classifier, attribute=attribute, noise=noise)
    found = [np.asarray(judge(padded[i : i + batch])) for i in range(0, samples, batch)]
    return fit_direction(np.asarray(w), np.concatenate(found)[:samples], extremes=extremes, decay=decay)


def orthogonalise(direction: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the unit vector nearest to `direction` that is orthogonal to all others: conditional manipulation.

    `n - sum_k (n q_k) q_k` over an orthonormal basis q of the others, divided by its length (Shen et al. 2020,
    equation 7, for any number of conditions).

    Args:
        direction: `[w_dim]`.
        others: directions `[w_dim]`; none leaves it.

    Raises:
        ValueError: directions of other widths, or one that the others explain wholly.
    """
    n = np.asarray(direction, np.float64)
    rest = [np.asarray(other, np.float64) for other in others]
    if n.ndim != 1 or any(other.shape != n.shape for other in rest):
        raise ValueError(f"directions must be [w_dim] alike, got {[list(one.shape) for one in (n, *rest)]}")
    if rest:
        left, values, _ = np.linalg.svd(np.stack(rest, 1), full_matrices=False)
        basis = left[:, values > 1e-9 * values[0]]
        length = np.linalg.norm(n)
        n = n - basis @ (basis.T @ n)
        if np.linalg.norm(n) < 1e-6 * length:
            raise ValueError("nothing is left of the direction: it is one of those, or a sum of those, that it avoids")
    return n / np.linalg.norm(n)


def read_direction(path: str | os.PathLike, *, w_dim: int) -> np.ndarray:
    """Returns the unit vector `[w_dim]` in a `.npy` file, `[w_dim]` or `[1, w_dim]` as InterFaceGAN publishes them.

    A boundary belongs to the generator that it was fitted on; of that, the file knows only the width.

    Raises:
        ValueError: a missing or unreadable file, Python objects in it, another shape, or no finite direction.
    """
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
            found = array if isinstance(array, np.ndarray) else None
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder; name a .npy file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable .npy file with a direction") from error
    if found is None or found.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds no array of numbers; a direction is [{w_dim}] or [1, {w_dim}]")
    if found.shape not in ((w_dim,), (1, w_dim)):
        raise ValueError(
            f"{path}: a direction of this generator is [{w_dim}] or [1, {w_dim}], got {list(found.shape)}; it belongs "
            "to another one"
        )
    n = found.reshape(-1).astype(np.float64)
    length = np.linalg.norm(n)
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"{path} holds no direction: its length is {length:g}")
    return n / length


def write_direction(path: str | os.PathLike, direction: np.ndarray) -> None:
    """Writes a direction `[w_dim]` as `.npy`, `[1, w_dim]` float32, whole or not at all.

    Raises:
        stylegan_jax.image_io.ImageError: where the file cannot be written.
    """
    array = np.asarray(direction, np.float32)[None]

    def write(partial: str) -> None:
        with open(partial, "wb") as file:
            np.save(file, array, allow_pickle=False)

    image_io.write_atomically(path, write)
