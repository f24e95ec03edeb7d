# SPDX-License-Identifier: Apache-2.0
"""Where starts begin.

An initialisation has `candidates(starts)`, how many latents to draw for one image, and `draw(host, context, space)`,
the variable of one of them, drawn with the key of `host`. Where it draws more than there are starts, the search keeps
those that the last phase's objective scores lowest, or the terms of its `by`, if it has any.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from inpaint.objective import Context, Term
from stylegan_jax import latents
from stylegan_jax.joint import Joint
from stylegan_jax.latents import Host, Space, Variable


class Initialisation(Protocol):
    """What the search asks of an initialisation."""

    def candidates(self, starts: int) -> int:
        """Returns how many variables are drawn for one image."""

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        """Returns one variable of `space`."""


def base(space: Space) -> Space:
    """Returns the space of the latents alone."""
    return space.base if isinstance(space, Joint) else space


def screening(initialisation: Initialisation) -> tuple[Term, ...]:
    """Returns the terms that score a pool of candidates; none where the objective does."""
    return getattr(initialisation, "by", ())


@dataclasses.dataclass(frozen=True)
class Mean:
    """Every start begins at the mean of W (in Z: at 0); `jitter` adds that much of W's own normal spread."""

    jitter: float = 0.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        if space.is_normal:
            return jax.tree.map(lambda x: self.jitter * x, space.draw(host))
        mean = context.w_mean
        spread = jnp.linalg.pinv(context.w_whitening) if self.jitter else jnp.zeros_like(context.w_whitening)
        w = mean + self.jitter * (jax.random.normal(host.key, mean.shape, mean.dtype) @ spread)
        return latents.lift(host, w, source=latents.W, target=space)


@dataclasses.dataclass(frozen=True)
class RandomMapping:
    """Every start begins at `mapping(z)` of its own normal `z`, pulled to the mean of W by `truncation_psi`; in spaces
    of normal latents and of heads, at a draw of the space itself."""

    truncation_psi: float = 1.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        if space.is_normal:
            return space.draw(host)
        mean, z = context.w_mean, latents.Z.draw(host)
        w = latents.lift(host, z, source=latents.Z, target=latents.W)
        return latents.lift(host, mean + self.truncation_psi * (w - mean), source=latents.W, target=space)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Every start begins at a latent drawn uniformly from `[low, high)`, in a space of normal latents (Yeh et al.
    2017)."""

    low: float = -1.0
    high: float = 1.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        if space not in (latents.Z, latents.ZPLUS, latents.PPLUS):
            raise ValueError(f"uniform latents are drawn in z, z+ or p+, not in {space.name}")
        like = space.draw(host)
        return jax.random.uniform(host.key, like.shape, like.dtype, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Prescreened:
    """Draws a pool of `RandomMapping` latents, scores them in one forward sweep and keeps the best as starts.

    `by` are terms that score the pool in place of the last phase's objective: with `inpaint.term("gradient")` starts
    are guided by the edges of the known pixels, whatever their colours.
    """

    pool: int = 256
    truncation_psi: float = 1.0
    by: tuple[Term, ...] = ()

    def candidates(self, starts: int) -> int:
        return max(self.pool, starts)

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        return RandomMapping(self.truncation_psi).draw(host, context, space)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Starts begin about the encoder's guess: one offset in W for all layers, of W's own spread times a factor that is
    drawn from 0 to `jitter`, so that some starts stay near and others look farther."""

    jitter: float = 1.0

    def candidates(self, starts: int) -> int:
        return starts

    def draw(self, host: Host, context: Context, space: Space) -> Variable:
        if context.guess is None:
            raise ValueError("the generator has no encoder to begin with; train one with `python -m inpaint train`")
        if space.is_normal:
            raise ValueError(
                f"what an encoder or a file gives lies in W+, and a search in {space.name} cannot begin there; choose "
                "another initialisation (prescreen, random, mean)"
            )
        offset_key, size_key = jax.random.split(host.key)
        mean = context.w_mean
        offset = jax.random.normal(offset_key, mean.shape, mean.dtype) @ jnp.linalg.pinv(context.w_whitening)
        size = self.jitter * jax.random.uniform(size_key, dtype=mean.dtype)
        ws = context.guess + size * offset[None, :]
        if base(space) == latents.W:
            return latents.lift(host, ws.mean(0), source=latents.W, target=space)
        return latents.lift(host, ws, source=latents.WPLUS, target=space)


@dataclasses.dataclass(frozen=True)
class Given(Encoded):
    """Starts begin about latents that the caller gives, spread as `Encoded` spreads them about an encoder's guess."""
