# SPDX-License-Identifier: Apache-2.0
"""The fixed judging network: features for distances, which no objective and no selection ever sees.

Images are `[n, h, w, 3]` in [-1, 1] (one channel is repeated), clipped to that range.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from stylegan_jax import checkpoint
from stylegan_jax.features.judge import Judge, feature_distance

SHIPPED = checkpoint.PRETRAINED / "judge64"


@functools.partial(jax.jit, static_argnames="graph")
def _judge_pairs(images: Array, truths: Array, state, *, graph) -> tuple[Array, Array, Array]:
    judge = nnx.merge(graph, state)
    a, b = (judge(jnp.broadcast_to(jnp.clip(x, -1, 1), (*x.shape[:3], 3))) for x in (images, truths))
    return feature_distance(a, b), a.embedding, b.embedding


@functools.partial(jax.jit, static_argnames="graph")
def _embed(images: Array, state, *, graph) -> Array:
    return nnx.merge(graph, state)(jnp.broadcast_to(jnp.clip(images, -1, 1), (*images.shape[:3], 3))).embedding


class LoadedJudge:
    """The judge at `path` (None: the one that comes with the package), with `content_hash` to name it in results."""

    def __init__(self, path: str | os.PathLike | None = None):
        network, self.content_hash = checkpoint.load_network(SHIPPED if path is None else path, Judge)
        self._graph, self._state = nnx.split(network)

    def compare(self, images: Array, truths: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns feature distances `[n]`, and the embeddings `[n, d]` of `images` and of `truths` `[n, h, w, c]`."""
        found = _judge_pairs(jnp.asarray(images), jnp.asarray(truths), self._state, graph=self._graph)
        return tuple(np.asarray(x) for x in found)

    def embed(self, images: Array) -> np.ndarray:
        """Returns the embeddings `[n, d]` of `images` `[n, h, w, c]`."""
        return np.asarray(_embed(jnp.asarray(images), self._state, graph=self._graph))
