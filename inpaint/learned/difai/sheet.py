# SPDX-License-Identifier: Apache-2.0
"""Pictures for a person: how samples come about, and what one direction does."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint.learned.difai.inpainter import Difai
from stylegan_jax import image_io

_TILE = 128


@functools.partial(jax.jit, static_argnames=("graph", "samples"))
def _stages(key: Array, state: Any, images: Array, known: Array, *, graph: Any, samples: int) -> tuple[Array, ...]:
    """Returns coarse and style images `[n, h, w, c]`, the unperturbed result, and samples `[n, samples, h, w, c]`."""
    difai, generator = nnx.merge(graph, state)
    n = len(images)
    ws = difai.encode(generator, images, known)
    plain = difai.decoded(generator, images, known, ws)
    many = jnp.repeat(ws, samples, axis=0)
    many = difai.moved(many, difai.draw_distances(key, n * samples))
    found = difai.decoded(generator, jnp.repeat(images, samples, axis=0), jnp.repeat(known, samples, axis=0), many)
    return (
        difai.complete(images, known),
        difai.styles(generator, ws),
        plain,
        found.reshape(n, samples, *images.shape[1:]),
    )


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
    coarse, styles, plain, found = _stages(key, state, masked, known, graph=graph, samples=samples)
    rows = zip(masked, coarse, styles, plain, *jnp.moveaxis(found, 1, 0), images, strict=True)
    tiles = [image_io.enlarge(np.asarray(tile), _TILE) for row in rows for tile in row]
    return np.concatenate([np.concatenate(row, 1) for row in np.reshape(tiles, (len(images), -1, *tiles[0].shape))])
