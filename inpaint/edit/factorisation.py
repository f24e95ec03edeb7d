# SPDX-License-Identifier: Apache-2.0
"""Directions of W found in a generator's weights, without samples and without labels."""

from collections.abc import Sequence

import numpy as np

from stylegan_jax import latents


def _own_affines(generator: latents.Generator) -> dict[str, tuple[int, np.ndarray]]:
    """Returns the index of its w and the weight `[w_dim, channels]` of every layer that SeFa looks at.

    A ToRGB that shares its w with a convolution is left out, as in the authors' code: only the last one has its own.
    """
    found = {name: (index, np.asarray(a.weight[...])) for name, (index, a) in generator.synthesis.affines().items()}
    shared = {index for name, (index, _) in found.items() if not name.endswith("/torgb")}
    return {name: one for name, one in found.items() if not (name.endswith("/torgb") and one[0] in shared)}


def style_matrix(generator: latents.Generator, *, layers: tuple[int, int] | Sequence[str] | None = None) -> np.ndarray:
    """Returns the matrix A `[channels, w_dim]` that takes a step in W to the steps of all styles, rows normalised.

    Every row is what one channel's style takes from w, divided by its length; layers with many channels count more.
    Scales of whole layers (equalised learning rate) vanish by the normalisation. Rows that are 0 stay so.

    Args:
        generator: StyleGAN1 (scale and shift of every style), 2 or 3 (whose layer 0 turns and shifts the image).
        layers: first and last latent whose layers count, both included, or names as in `generator.synthesis.affines()`;
            None takes all.

    Raises:
        ValueError: a generator without styles, or layers that do not exist.
    """
    affines = _own_affines(generator)
    if not affines:
        raise ValueError(f"SeFa needs a generator with styles, and a {_family(generator)} has none")
    if layers is None:
        chosen = list(affines)
    elif all(isinstance(name, str) for name in layers):
        unknown = [name for name in layers if name not in affines]
        if unknown or not layers:
            raise ValueError(f"unknown layers {', '.join(unknown) or '(none)'}; known: {', '.join(affines)}")
        chosen = layers
    else:
        (first, last), count = layers, generator.config.num_ws
        if not 0 <= first <= last < count:
            raise ValueError(f"layers must be a range within 0-{count - 1}, got {first}-{last}")
        chosen = [name for name, (index, _) in affines.items() if first <= index <= last]
    rows = np.concatenate([affines[name][1].T for name in chosen]).astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)


def _family(generator: latents.Generator) -> str:
    return type(generator).__module__.rpartition(".")[-1]


def sefa(
    generator: latents.Generator,
    *,
    layers: tuple[int, int] | Sequence[str] | None = None,
    count: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the directions that change the styles most, and by how much: eigenvectors of `A^T A`.

    `argmax over unit n of |A n|^2`, then the same orthogonal to those before (Shen and Zhou 2021, "Closed-Form
    Factorization of Latent Semantics in GANs", equations 4 to 7), with A of `style_matrix`. Their sign means nothing;
    it is chosen so that the entry of largest magnitude is positive.

    Args:
        generator: see `style_matrix`.
        layers: see `style_matrix`; what is found for a range is meant to be moved on that range.
        count: how many, 1 to w_dim; None returns all.

    Returns:
        directions `[count, w_dim]`, orthonormal, and eigenvalues `[count]` from large to small; float64.

    Raises:
        ValueError: as `style_matrix`, or for another count.
    """
    matrix = style_matrix(generator, layers=layers)
    width = matrix.shape[1]
    if count is not None and not 1 <= count <= width:
        raise ValueError(f"count must be from 1 to {width} (w_dim), got {count}")
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    values, directions = values[::-1][:count], vectors.T[::-1][:count]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return directions * np.sign(largest), np.maximum(values, 0)
