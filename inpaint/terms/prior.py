# SPDX-License-Identifier: Apache-2.0
"""Terms about latents `[num_ws, w_dim]` and noise maps `[r, r]` of a candidate. Each returns a scalar."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint import losses
from inpaint.objective import Candidate, Context, Term, checked_weight
from inpaint.problem import Problem
from stylegan_jax import encoders


def _ws(candidate: Candidate, owner: str) -> Array:
    if candidate.ws is None:
        raise ValueError(f"the term {owner} is about latents of layers (w, w+), and this space has none")
    return candidate.ws


def mean_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mean_distance` to the mean of W."""
    return losses.mean_distance(_ws(candidate, "mean_distance"), context.w_mean)


def deviation(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mean_distance` to the mean of W in units of W's total variance (Marinescu et al. 2020)."""
    return losses.mean_distance(_ws(candidate, "deviation"), context.w_mean) / context.w_deviation**2


def mahalanobis(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mahalanobis` to the mean of W."""
    return losses.mahalanobis(_ws(candidate, "mahalanobis"), context.w_mean, context.w_whitening)


def p_norm(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mahalanobis` after `losses.p_space` (Zhu et al. 2020, "Improved StyleGAN Embedding")."""
    return losses.mahalanobis(losses.p_space(_ws(candidate, "p_norm")), *context.p_space[:2])


def guess_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mahalanobis` to the encoder's guess."""
    return losses.mahalanobis(_ws(candidate, "guess_distance"), context.guess, context.w_whitening)


def style_spread(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.style_spread`."""
    return losses.style_spread(_ws(candidate, "style_spread"))


def cosine_spread(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.cosine_spread`."""
    return losses.cosine_spread(_ws(candidate, "cosine_spread"))


def geocross(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.geocross`."""
    return losses.geocross(_ws(candidate, "geocross"))


def encoder_consistency(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.mahalanobis` between latents and what the encoder says of their render (Zhu et al. 2020,
    "In-domain GAN inversion")."""
    ws = _ws(candidate, "encoder_consistency")
    again = encoders.encode(context.networks["encoder"], candidate.image[None], generator=context.generator)[0]
    return losses.mahalanobis(ws, again, context.w_whitening)


def noise_regularizer(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.noise_regularizer` of the noise maps that are searched."""
    if not candidate.inputs.noise:
        raise ValueError("the term noise_regularizer is about noise maps that are searched, and this space has none")
    return losses.noise_regularizer(candidate.inputs.noise)


@dataclasses.dataclass(frozen=True)
class _Held:
    """The squared way from the guess along a direction; numbers, so that equal terms are one compiled program."""

    direction: tuple[float, ...]

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        ws = _ws(candidate, "hold")
        direction = jnp.asarray(self.direction, ws.dtype)
        if direction.shape != ws.shape[-1:]:
            raise ValueError(f"the direction held must be [{ws.shape[-1]}], got {list(direction.shape)}")
        return losses.displacement(ws, context.guess, direction)


def hold_term(direction: Sequence[float], weight: float = 1.0) -> Term:
    """Returns what keeps an edit during a search that begins with it: `weight * mean_l <direction, w_l - guess_l>^2`.

    The search (`inpaint.Given`, guess = the edited latents) may then move every layer across the direction, but hardly
    along it.

    Args:
        direction: `[w_dim]`; where its length is 1 / (standard deviation of W along it), the distance counts in those.
        weight: at least 0.

    Raises:
        ValueError: a negative weight, or a direction that is no vector.
    """
    weight, found = checked_weight("hold", weight), np.asarray(direction, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"the direction held must be finite and [w_dim], got {list(found.shape)}")
    return Term("hold", weight, _Held(tuple(found.tolist())), ("guess",))
