# SPDX-License-Identifier: Apache-2.0
"""The terms of objectives that come with the library; `term` finds those by name that need no settings."""

from inpaint import losses
from inpaint.objective import Term, checked_weight
from inpaint.terms import data, prior
from inpaint.terms import networks as _networks
from inpaint.terms.data import floored_l2, window_l1
from inpaint.terms.networks import FEATURES, attribute_term, check_features, locality, multiscale
from inpaint.terms.prior import hold_term
from inpaint.terms.walk import walk_fit, walk_order

__all__ = [
    "FEATURES",
    "TERMS",
    "attribute_term",
    "check_features",
    "floored_l2",
    "hold_term",
    "locality",
    "multiscale",
    "term",
    "walk_fit",
    "walk_order",
    "window_l1",
]

_PLAIN = {
    "l2": (data.l2, ()),
    "l1": (data.l1, ()),
    "drawn_l2": (data.drawn_l2, ()),
    "expected_l2": (data.expected_l2, ("expected",)),
    "gradient": (data.gradient, ()),
    "laplacian": (data.laplacian, ()),
    "high_band": (data.high_band, ()),
    "shifted_l2": (data.shifted_l2, ()),
    "mean_distance": (prior.mean_distance, ()),
    "deviation": (prior.deviation, ()),
    "mahalanobis": (prior.mahalanobis, ()),
    "p_norm": (prior.p_norm, ("p_space",)),
    "guess_distance": (prior.guess_distance, ("guess",)),
    "style_spread": (prior.style_spread, ()),
    "cosine_spread": (prior.cosine_spread, ()),
    "geocross": (prior.geocross, ()),
    "encoder_consistency": (prior.encoder_consistency, ("encoder",)),
    "noise_regularizer": (prior.noise_regularizer, ()),
    "adversarial": (_networks.adversarial, ("discriminator",)),
    "saturating_adversarial": (_networks.saturating_adversarial, ("discriminator",)),
    "critic": (_networks.critic, ("discriminator",)),
}
_MASKED = ("expected_l2", "gradient", "laplacian", "high_band", "shifted_l2")
_COMPARED = {**FEATURES, "identity": "identity"}
TERMS = (*_PLAIN, *_COMPARED)


def term(name: str, weight: float = 1.0, *, practice: str = "fill") -> Term:
    """Returns the built-in term `name` with a weight.

    Args:
        name: one of `TERMS`; an attribute has `attribute_term`.
        weight: at least 0.
        practice: what stands in the hole where a network compares images, see `inpaint.losses.masked_pair`.

    Raises:
        ValueError: for an unknown name or practice, or a negative weight.
    """
    if name not in TERMS:
        raise ValueError(f"unknown term {name!r}; known: {', '.join(TERMS)}")
    if practice not in losses.PRACTICES:
        raise ValueError(f"unknown practice {practice!r}; known: {', '.join(losses.PRACTICES)}")
    weight = checked_weight(name, weight)
    if name in _COMPARED:
        return Term(name, weight, _networks.Compared(name, practice), (_COMPARED[name],))
    return Term(name, weight, *_PLAIN[name], masked=name in _MASKED)
