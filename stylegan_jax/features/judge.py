# SPDX-License-Identifier: Apache-2.0
"""A small network that judges restorations, and takes part in nothing else.

It was trained to tell portraits apart under harmless changes and to find blurred, noisy, swapped and flattened regions
(`stylegan_jax.training.judge`). Only metrics may use it: a judge that an objective or a selection has seen is none.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """What determines a judge beside its weights: input size, channels of its stages (each halves the size but the
    last), width of the embedding, and the kinds of damage it was taught to find."""

    resolution: int = 64
    widths: tuple[int, ...] = (16, 32, 64, 128)
    embedding: int = 64
    damages: tuple[str, ...] = ()


class Judgement(NamedTuple):
    """What the judge sees: feature maps of every stage `[n, h_i, w_i, c_i]`, the embedding `[n, embedding]`, and for
    every position of the last stage the logits of "clean" and of each kind of damage `[n, h, w, 1 + damages]`."""

    stages: tuple[Array, ...]
    embedding: Array
    damage: Array


class Stage(nnx.Module):
    """Two 3x3 convolutions with leaky ReLU, `[n, h, w, in] -> [n, h, w, out]`."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.conv0 = layers.Conv(in_channels, out_channels, 3, activation="lrelu", rngs=rngs)
        self.conv1 = layers.Conv(out_channels, out_channels, 3, activation="lrelu", rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.conv1(self.conv0(x))


def _halved(x: Array) -> Array:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


class Judge(nnx.Module):
    """Maps images `[n, h, w, 3]` in [-1, 1] to a `Judgement`; other sizes than its own are resampled first."""

    def __init__(self, config: JudgeConfig, *, rngs: nnx.Rngs):
        self.config = config
        before = 3
        for i, width in enumerate(config.widths):
            setattr(self, self._stage(i), Stage(before, width, rngs=rngs))
            before = width
        self.embed = layers.Dense(config.widths[-1], config.embedding, rngs=rngs)
        self.locate = layers.Conv(config.widths[-1], 1 + len(config.damages), 1, rngs=rngs)

    def _stage(self, i: int) -> str:
        return f"b{self.config.resolution >> i}"

    def __call__(self, images: Array) -> Judgement:
        size = self.config.resolution
        if images.shape[1:3] != (size, size):
            shape = (images.shape[0], size, size, images.shape[3])
            images = jax.image.resize(images, shape, "cubic")
        x, stages = images, []
        for i in range(len(self.config.widths)):
            x = getattr(self, self._stage(i))(_halved(x) if i else x)
            stages.append(x)
        return Judgement(tuple(stages), self.embed(x.mean((1, 2))), self.locate(x))


def feature_distance(a: Judgement, b: Judgement) -> Array:
    """Returns the distance between judgements of `n` pairs of images, `[n]`; 0 for equal images.

    `mean_i mean_yx |a_i / |a_i| - b_i / |b_i||^2` over stages i and positions: the form of LPIPS (Zhang et al. 2018)
    without its learned weights.
    """

    def unit(x: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-10)

    per_stage = [jnp.square(unit(x) - unit(y)).sum(-1).mean((1, 2)) for x, y in zip(a.stages, b.stages, strict=True)]
    return jnp.stack(per_stage).mean(0)
