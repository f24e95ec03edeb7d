# SPDX-License-Identifier: Apache-2.0
"""Pictures for a person: how samples come about, and what one direction does."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint import contact_sheet
from inpaint.learned.difai.inpainter import Difai
from stylegan_jax import image_io

_TILE = 128


@functools.partial(jax.jit, static_argnames=("graph", "samples"))
def _stages(key: Array, state: Any, images: Array, known: Array, *, graph: Any, samples: int) -> tuple[Array, ...]:
    """Returns coarse images `[n, h, w, c]`, then for the unperturbed result and samples style images and results
    `[n, 1 + samples, h, w, c]`."""
    difai, generator = nnx.merge(graph, state)
    n, count = len(images), 1 + samples
    distances = difai.draw_distances(key, n * count).reshape(n, count, -1).at[:, 0].set(0.0)
    ws = jnp.repeat(difai.encode(generator, images, known), count, axis=0)
    styles = difai.styles(generator, difai.moved(ws, distances.reshape(n * count, -1)))
    found = difai.decoder(jnp.repeat(images, count, axis=0), styles, jnp.repeat(known, count, axis=0))
    shape = (n, count, *images.shape[1:])
    return difai.complete(images, known), styles.reshape(shape), found.reshape(shape)


def samples_sheet(
    key: Array, difai: Difai, generator: sg.Generator, images: Array, known: Array, *, samples: int = 4
) -> np.ndarray:
    """Returns a row for every image: input, coarse and style image, unperturbed result, samples, truth.

    Results are shown as the decoder makes them, known pixels too.

    Args:
        key: of the samples.
        difai: with an encoder.
        generator: that it was trained for.
        images: whole, `[n, h, w, c]`.
        known: `[n, h, w]`.
        samples: of each image.

    Returns:
        uint8 `[n * tile, (samples + 5) * tile, 3]`.
    """
    images, known = jnp.asarray(images), jnp.asarray(known)
    masked = images * known[..., None]
    graph, state = nnx.split((difai, generator))
    coarse, styles, found = _stages(key, state, masked, known, graph=graph, samples=samples)
    rows = zip(masked, coarse, styles[:, 0], *jnp.moveaxis(found, 1, 0), images, strict=True)
    tiles = [image_io.enlarge(np.asarray(tile), _TILE) for row in rows for tile in row]
    return np.concatenate([np.concatenate(row, 1) for row in np.reshape(tiles, (len(images), -1, *tiles[0].shape))])


@functools.partial(jax.jit, static_argnames=("graph", "direction"))
def _along(state: Any, image: Array, known: Array, distances: Array, *, graph: Any, direction: int):
    difai, generator = nnx.merge(graph, state)
    return difai.along(generator, image, known, direction=direction, distances=distances)


def along_sheet(
    difai: Difai,
    generator: sg.Generator,
    image: np.ndarray,
    known: np.ndarray,
    *,
    direction: int,
    reach: float,
    composite: Callable[[np.ndarray], np.ndarray],
    count: int = 7,
) -> np.ndarray:
    """Returns the input and results along one direction, their style images below them (the paper's figure 4).

    Args:
        difai: with an encoder.
        generator: that it was trained for.
        image: `[h, w, c]`; known: `[h, w]`.
        direction: its number, from 0.
        reach: the farthest distance to both sides, in standard deviations of W.
        composite: puts the known pixels into results `[n, h, w, c]`.
        count: results, the middle one unperturbed where it is odd.

    Returns:
        uint8 `[2 * (tile + 20), (count + 1) * tile, 3]`.
    """
    shown, distances = known > 0.5, np.linspace(-reach, reach, count)
    graph, state = nnx.split((difai, generator))
    masked = np.where(shown[..., None], image, 0).astype(np.float32)
    found, styles = _along(
        state, masked, shown.astype(np.float32), distances.astype(np.float32), graph=graph, direction=direction
    )
    titles = [[f"direction {direction}: {distance:+.2g}" for distance in distances]]
    return contact_sheet.edit_sheet(
        image, known, composite(np.asarray(found))[None], np.asarray(styles)[None], titles=titles
    )
