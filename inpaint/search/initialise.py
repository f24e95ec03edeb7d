# SPDX-License-Identifier: Apache-2.0
"""Where starts begin.

An initialisation has `candidates(starts)`, how many latents to draw for one image, and `draw(key, context, space, c)`,
the variable of one of them. Where it draws more than there are starts, the search keeps those that the last phase's
objective scores lowest.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.objective import Context
from stylegan_jax import latents


class Initialisation(Protocol):
    """What the search asks of an initialisation."""

    def candidates(self, starts: int) -> int:
        """Returns how many variables are drawn for one image."""

    def draw(self, key: Array, context: Context, space: latents.Space, c: Array | None) -> Array:
        """Returns one variable of `space` for the label `c` `[c_dim]` (or None)."""


@dataclasses.dataclass(frozen=True)
class Mean:
    """Every start begins at the mean of W (in Z: at 0); `jitter` adds that much of W's own normal spread."""

    jitter: float = 0.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, key: Array, context: Context, space: latents.Space, c: Array | None) -> Array:
        config, mean = context.generator.config, context.w_mean
        if space is latents.Z:
            return self.jitter * jax.random.normal(key, (config.z_dim,), mean.dtype)
        spread = jnp.linalg.pinv(context.w_whitening) if self.jitter else jnp.zeros_like(context.w_whitening)
        w = mean + self.jitter * (jax.random.normal(key, mean.shape, mean.dtype) @ spread)
        return latents.lift(context.generator, w, source=latents.W, target=space)


@dataclasses.dataclass(frozen=True)
class RandomMapping:
    """Every start begins at `mapping(z)` of its own normal `z`, pulled to the mean of W by `truncation_psi`."""

    truncation_psi: float = 1.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, key: Array, context: Context, space: latents.Space, c: Array | None) -> Array:
        generator, mean = context.generator, context.w_mean
        z = jax.random.normal(key, (generator.config.z_dim,), mean.dtype)
        if space is latents.Z:
            return z
        w = latents.lift(generator, z, source=latents.Z, target=latents.W, c=c)
        return latents.lift(generator, mean + self.truncation_psi * (w - mean), source=latents.W, target=space)


@dataclasses.dataclass(frozen=True)
class Prescreened:
    """Draws a pool of `RandomMapping` latents, scores them in one forward sweep and keeps the best as starts."""

    pool: int = 256
    truncation_psi: float = 1.0

    def candidates(self, starts: int) -> int:
        return max(self.pool, starts)

    def draw(self, key: Array, context: Context, space: latents.Space, c: Array | None) -> Array:
        return RandomMapping(self.truncation_psi).draw(key, context, space, c)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Starts begin about the encoder's guess: one offset in W for all layers, of W's own spread times a factor that is
    drawn from 0 to `jitter`, so that some starts stay near and others look farther."""

    jitter: float = 1.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, key: Array, context: Context, space: latents.Space, c: Array | None) -> Array:
        if context.guess is None:
            raise ValueError("the generator has no encoder to begin with; train one with `python -m inpaint train`")
        if space is latents.Z:
            raise ValueError(
                "what an encoder or a file gives lies in W+, and a search in Z cannot begin there; choose another "
                "initialisation (prescreen, random, mean)"
            )
        offset_key, size_key = jax.random.split(key)
        mean = context.w_mean
        offset = jax.random.normal(offset_key, mean.shape, mean.dtype) @ jnp.linalg.pinv(context.w_whitening)
        size = self.jitter * jax.random.uniform(size_key, dtype=mean.dtype)
        ws = context.guess + size * offset[None, :]
        return ws.mean(0) if space is latents.W else ws


@dataclasses.dataclass(frozen=True)
class Given(Encoded):
    """Starts begin about latents that the caller gives, spread as `Encoded` spreads them about an encoder's guess."""
