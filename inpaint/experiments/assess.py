# SPDX-License-Identifier: Apache-2.0
"""How good a generator is, and whether it remembers: figures in the judging network's space, and pictures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import stylegan_jax as sg
from inpaint import metrics
from inpaint.metrics.judge import LoadedJudge
from inpaint.operators import Mask
from inpaint.problem import Problem
from inpaint.search.method import Method
from inpaint.search.selection import select
from inpaint.search.solve import solve
from stylegan_jax import image_io, latents

AT_ONCE = 50


class Embedded(NamedTuple):
    """Images `[n, h, w, c]` in [-1, 1] and their embeddings `[n, d]`."""

    images: np.ndarray
    embeddings: np.ndarray


def embed(judge: LoadedJudge, images: np.ndarray) -> Embedded:
    """Returns `images` `[n, h, w, c]` in [-1, 1] with the judge's embeddings, computed a fixed number at a time."""
    found = []
    for first in range(0, len(images), AT_ONCE):
        part = images[first : first + AT_ONCE]
        padded = np.concatenate([part, np.zeros((AT_ONCE - len(part), *part.shape[1:]), part.dtype)])
        found.append(judge.embed(padded)[: len(part)])
    return Embedded(images, np.concatenate(found))


def draw_samples(key: Array, generator: sg.Generator, count: int, *, truncation_psi: float = 1.0) -> np.ndarray:
    """Returns `count` samples `[count, h, w, c]`, clipped to [-1, 1]; sample i depends on the key and i alone.

    Args:
        key: of the latents (and of labels, for a conditional generator).
        generator: with its stored noise.
        count: of samples.
        truncation_psi: 1 for none.
    """
    config = generator.config

    @jax.jit
    def render(generator: sg.Generator, ids: Array) -> Array:
        def one(i: Array) -> tuple[Array, Array | None]:
            z_key, c_key = jax.random.split(jax.random.fold_in(key, i))
            c = latents.random_labels(c_key, config.c_dim, 1)
            return jax.random.normal(z_key, (config.z_dim,)), None if c is None else c[0]

        z, c = jax.vmap(one)(ids)
        return jnp.clip(generator.synthesis(generator.map(z, c, truncation_psi=truncation_psi)), -1, 1)

    ids = jnp.arange(-(-count // AT_ONCE) * AT_ONCE).reshape(-1, AT_ONCE)
    return np.concatenate([np.asarray(render(generator, part)) for part in ids])[:count]


def interpolate(key: Array, generator: sg.Generator, *, rows: int = 4, steps: int = 8) -> np.ndarray:
    """Returns images `[rows, steps, h, w, c]` along straight lines in W between two random latents each."""
    z = jax.random.normal(key, (2, rows, generator.config.z_dim))
    c = latents.random_labels(jax.random.fold_in(key, 1), generator.config.c_dim, rows)
    begin, end = (generator.map(part, c) for part in z)
    share = jnp.linspace(0.0, 1.0, steps)[None, :, None, None]
    ws = (begin[:, None] * (1 - share) + end[:, None] * share).reshape(rows * steps, *begin.shape[1:])
    images = jnp.clip(generator.synthesis(ws), -1, 1)
    return np.asarray(images).reshape(rows, steps, *images.shape[1:])


def nearest_ratio(images: Embedded, train: Embedded, held_back: Embedded) -> float:
    """Returns the median distance from `images` to their nearest training images, over that of held-back images.

    It is 1 where the images are as new as those held back, and far below 1 where they are remembered.
    """
    nearest = [metrics.nearest_neighbours(x.embeddings, train.embeddings, 1)[1] for x in (images, held_back)]
    return float(np.median(nearest[0]) / np.median(nearest[1]))


def distances(samples: Embedded, train: Embedded, held_back: Embedded) -> dict[str, float]:
    """Returns how samples lie to real images, by name.

    `frechet` is the Frechet distance from samples to held-back images and `frechet_floor` that from training images;
    `precision` and `recall` compare with as many training images as there are samples (k = 3); `nearest` is
    `nearest_ratio` of the samples.
    """
    statistics = [metrics.FeatureStatistics.of(x.embeddings) for x in (samples, train, held_back)]
    found = metrics.precision_recall(train.embeddings[: len(samples.embeddings)], samples.embeddings)
    return {
        "frechet": metrics.frechet_distance(statistics[0], statistics[2]),
        "frechet_floor": metrics.frechet_distance(statistics[1], statistics[2]),
        "precision": float(found.precision),
        "recall": float(found.recall),
        "nearest": nearest_ratio(samples, train, held_back),
    }


def neighbours_sheet(images: Embedded, train: Embedded, *, count: int = 8, nearest: int = 3) -> np.ndarray:
    """Returns `count` images in a row, and below each its nearest training images in the judge's space, `[h, w, c]`."""
    index = metrics.nearest_neighbours(images.embeddings[:count], train.embeddings, nearest)[0]
    rows = [images.images[:count], *[train.images[index[:, k]] for k in range(nearest)]]
    return image_io.grid(np.concatenate(rows), columns=count)


def invert(
    key: Array, model: sg.Model, truths: np.ndarray, method: Method, *, starts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the generator can show of whole images, `[n, h, w, c]`, and its PSNR in dB, `[n]`.

    Args:
        key: of the search.
        model: the generator.
        truths: `[n, h, w, c]` in [-1, 1]; nothing of them is hidden.
        method: of the search.
        starts: for every image.
    """
    everything = Mask(jnp.ones(truths.shape[1:3]))
    problem = Problem.stack([Problem.observe(jnp.asarray(truth), everything) for truth in truths])
    raw = select(solve(model, problem, method, starts=starts, key=key)).images[:, 0]
    return np.clip(raw, -1, 1), np.asarray(jax.jit(jax.vmap(metrics.psnr))(jnp.asarray(raw), jnp.asarray(truths)))
