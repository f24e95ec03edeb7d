# SPDX-License-Identifier: Apache-2.0
"""Terms of a search that explains several images by one line through W+ (SPHInX' attribute walk).

The measurement is `[views, h, w, c]` (`inpaint.operators.Copies`), the space has a `stylegan_jax.joint.Walk`. Each
returns a scalar.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from inpaint import losses
from inpaint.objective import Candidate, Context, Term, checked_weight
from inpaint.problem import Problem
from inpaint.terms.networks import DISTANCES, FEATURES, check_features
from stylegan_jax import joint, latents


@dataclasses.dataclass(frozen=True)
class _WalkFit:
    features: str
    feature_weight: float

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        inputs, targets = candidate.inputs, problem.measurement
        ws = joint.walked(inputs, inputs.walk["distances"])
        if targets.ndim != 4 or len(targets) != len(ws) + 1:
            raise ValueError(f"a walk of {len(ws) + 1} views needs as many targets, got {list(targets.shape)}")

        def render(ws: Array) -> Array:
            return latents.render(context.generator, inputs._replace(ws=ws))

        views = jnp.concatenate([candidate.image[None], jax.vmap(render)(ws)])
        total = losses.l2(views, targets, jnp.ones((), views.dtype))
        if self.feature_weight:
            pairs = [DISTANCES[self.features](context.networks, a, b) for a, b in zip(views, targets, strict=True)]
            total = total + self.feature_weight * jnp.mean(jnp.stack(pairs))
        return total


def walk_fit(*, features: str = "lpips", feature_weight: float = 0.0, weight: float = 1.0) -> Term:
    """Returns `weight * mean_k (|G(w_k) - y_k|^2 + feature_weight * d(G(w_k), y_k))` over the views of a walk.

    Args:
        features: who compares: "lpips" as published, or "discriminator_features".
        feature_weight: of that.
        weight: at least 0.

    Raises:
        ValueError: for unknown features or a negative weight.
    """
    check_features(features)
    needs = (FEATURES[features],) if feature_weight else ()
    return Term("walk_fit", checked_weight("walk_fit", weight), _WalkFit(features, feature_weight), needs)


@dataclasses.dataclass(frozen=True)
class _WalkOrder:
    gap: float

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        return losses.rising(candidate.inputs.walk["distances"], gap=self.gap)


def walk_order(weight: float = 0.5, *, gap: float = 2.0) -> Term:
    """Returns what makes the views of a walk lie in their order, `gap` apart at least (`inpaint.losses.rising`).

    Args:
        weight: at least 0; published 0.5.
        gap: in W; published 2.

    Raises:
        ValueError: for a negative weight.
    """
    return Term("walk_order", checked_weight("walk_order", weight), _WalkOrder(gap))
