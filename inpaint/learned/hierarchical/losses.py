# SPDX-License-Identifier: Apache-2.0
"""The objective of hierarchical encoding (Dündar 2024, section 3.2) over batches of images `[n, h, w, c]`."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

Maps = Callable[[Array], Mapping[str, Array]]  # images to feature maps by name
DISTANCES = ("squared", "norm")


def distance(a: Array, b: Array, *, kind: str) -> Array:
    """Returns the mean over images of the mean squared error ("squared"), or of its root ("norm").

    The paper prints `|a - b|_2`. Squared errors are what its group's published code takes for "L2"; the norm weighs
    images alike, whatever their error.
    """
    each = jnp.mean(jnp.square(a - b), axis=tuple(range(1, a.ndim)))
    return jnp.mean(each if kind == "squared" else jnp.sqrt(each + 1e-12))


def feature_distance(maps: Maps, found: Array, wanted: Array, *, kind: str) -> Array:
    """Returns the mean over maps j of `d(phi_j(a), phi_j(b)) / s_j`, with the mean square of phi_j(b) as s_j, or its
    root for norms.

    The paper names neither layers nor weights; divided by the size of its features each layer counts alike, whatever
    network they come from.

    Args:
        maps: of a network whose weights are held fixed.
        found, wanted: images `[n, h, w, c]`.
        kind: one of `DISTANCES`.
    """
    ours, theirs = maps(found), jax.lax.stop_gradient(maps(wanted))
    total = jnp.zeros((), jnp.float32)
    for name, x in theirs.items():
        x = x.astype(jnp.float32)
        scale = jnp.mean(jnp.square(x)) + 1e-8
        scale = scale if kind == "squared" else jnp.sqrt(scale)
        total = total + distance(ours[name].astype(jnp.float32), x, kind=kind) / scale
    return total / len(theirs)


def discriminator_loss(real: Array, same: Array, other: Array) -> Array:
    """Returns `2 mean softplus(-D(real)) + mean softplus(D(same)) + mean softplus(D(other))` of logits `[n]`.

    What the paper's `L_adv` is for a discriminator that gives logits, `log D = -softplus(-logit)`.
    """
    of_same, of_other = (jnp.mean(jax.nn.softplus(x)) for x in (same, other))
    return 2 * jnp.mean(jax.nn.softplus(-real)) + of_same + of_other


def inpainter_loss(same: Array, other: Array) -> Array:
    """Returns `mean softplus(-D(same)) + mean softplus(-D(other))` of logits `[n]`: the same game, not saturating."""
    return jnp.mean(jax.nn.softplus(-same)) + jnp.mean(jax.nn.softplus(-other))


def composite(made: Array, images: Array, known: Array) -> Array:
    """Returns `I_f = M I + (1 - M) I_o` `[n, h, w, c]`: what is known is the input's, bit for bit.

    Args:
        made, images: `[n, h, w, c]`.
        known: `[n, h, w]`, 1 = keep, 0 = hole.
    """
    return jnp.where(known[..., None] > 0.5, images.astype(made.dtype), made)
