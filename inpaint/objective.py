# SPDX-License-Identifier: Apache-2.0
"""The objective of one start: a weighted sum of named terms.

`minimise over v: sum_d w_d d(A(G(tau(v))), y) + sum_i w_i R_i(tau(v))`
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

import stylegan_jax as sg
from inpaint import losses
from inpaint.problem import Problem
from stylegan_jax import encoders
from stylegan_jax.features import arcface

ATTRIBUTE = "attribute:"  # before the attribute, in the names of semantic terms

# What a term may need beside generator and statistics of W, and how one comes by it.
ROLES = {
    "encoder": "train one with `python -m inpaint train`, or name one by --encoder",
    "discriminator": "take a generator's checkpoint that holds one",
    "classifier": "name one by --classifier, in Python as networks={'classifier': ...}",
    "perceptual": "name LPIPS' checkpoint by --perceptual, in Python as networks={'perceptual': ...}",
    "identity": "name ArcFace's checkpoint by --identity, in Python as networks={'identity': ...}",
    "guess": "let the problem have a mask and the generator an encoder (--encoder)",
    "p_space": "take a style-based generator",
}


class Context(NamedTuple):
    """What terms may need beside the candidate; a pytree, passed to jitted functions as an argument.

    `networks` holds networks by role (see `ROLES`); of them, a search passes on those that its terms need.
    """

    generator: sg.Generator
    w_mean: Array  # [w_dim]
    w_whitening: Array  # [w_dim, w_dim]
    guess: Array | None = None  # [num_ws, w_dim], what the encoder says of the problem at hand
    networks: Mapping[str, Any] = {}
    p_space: tuple[Array, Array] | None = None  # mean and whitening of LeakyReLU_5(w), [w_dim] and [w_dim, w_dim]


class Candidate(NamedTuple):
    """One start's present state: latents `[num_ws, w_dim]` and render `[h, w, c]`, unclipped."""

    ws: Array
    image: Array


@dataclasses.dataclass(frozen=True)
class Term:
    """A named term of the objective: `weight * function(candidate, problem, context)`.

    `needs` are the roles of what the function looks for in the context.
    """

    name: str
    weight: float
    function: Callable[[Candidate, Problem, Context], Array]
    needs: tuple[str, ...] = ()


def _l2(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.l2(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def _l1(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.l1(problem.operator(candidate.image), problem.measurement, problem.operator.weight)


def _mean_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mean_distance(candidate.ws, context.w_mean)


def _mahalanobis(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mahalanobis(candidate.ws, context.w_mean, context.w_whitening)


def _p_norm(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mahalanobis(losses.p_space(candidate.ws), *context.p_space)


def _guess_distance(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.mahalanobis(candidate.ws, context.guess, context.w_whitening)


def _style_spread(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.style_spread(candidate.ws)


def _encoder_consistency(candidate: Candidate, problem: Problem, context: Context) -> Array:
    encoder = context.networks["encoder"]
    again = encoders.encode(encoder, candidate.image[None], generator=context.generator)[0]
    return losses.mahalanobis(candidate.ws, again, context.w_whitening)


def _adversarial(candidate: Candidate, problem: Problem, context: Context) -> Array:
    return losses.adversarial(context.networks["discriminator"], candidate.image)


def _known(problem: Problem, owner: str) -> Array:
    if problem.operator.known is None:
        raise ValueError(f"the term {owner} compares pixels, and this problem's measurement shows none as they are")
    return problem.operator.known


def composite(image: Array, problem: Problem) -> Array:
    """Returns `image` `[h, w, c]` with the known pixels of the measurement in their place, blended where they are soft.

    A problem that shows no pixel as it is leaves the image alone.
    """
    known = problem.operator.known
    if known is None:
        return image
    weight = known[..., None].astype(image.dtype)
    return weight * problem.measurement + (1 - weight) * image


@dataclasses.dataclass(frozen=True)
class _Compared:
    """A distance of render and measurement as a network sees them; `practice` says what stands in the hole."""

    name: str
    practice: str

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        known = _known(problem, self.name)
        pair = losses.masked_pair(candidate.image, problem.measurement, known, practice=self.practice)
        return getattr(self, f"_{self.name}")(context.networks, *pair)

    def _lpips(self, networks: Mapping[str, Any], image: Array, target: Array) -> Array:
        return networks["perceptual"].distance(image[None], target[None])[0]

    def _discriminator_features(self, networks: Mapping[str, Any], image: Array, target: Array) -> Array:
        discriminator = networks["discriminator"]
        if not hasattr(discriminator, "forward"):
            raise ValueError("discriminator_features needs the discriminator of a StyleGAN2 or DCGAN")
        return losses.discriminator_distance(lambda x: discriminator.forward(x)[1], image, target)

    def _identity(self, networks: Mapping[str, Any], image: Array, target: Array) -> Array:
        network = networks["identity"]
        faces = arcface.face_crop(jnp.stack([image, target]), size=network.config.resolution)
        found = network(faces)
        return arcface.identity_distance(found[:1], found[1:])[0]


@dataclasses.dataclass(frozen=True)
class _Attribute:
    """The cross entropy of an attribute's probability to a target, on the composite or on the render."""

    attribute: str
    target: float
    on: str
    robust: bool

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        image = composite(candidate.image, problem) if self.on == "composite" else candidate.image
        classifier = context.networks["classifier"]
        return losses.attribute_loss(
            classifier, image, attribute=self.attribute, target=self.target, robust=self.robust
        )


@dataclasses.dataclass(frozen=True)
class _Held:
    """The squared way from the guess along a direction; numbers, so that equal terms are one compiled program."""

    direction: tuple[float, ...]

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        direction = jnp.asarray(self.direction, candidate.ws.dtype)
        if direction.shape != candidate.ws.shape[-1:]:
            raise ValueError(f"the direction held must be [{candidate.ws.shape[-1]}], got {list(direction.shape)}")
        return losses.displacement(candidate.ws, context.guess, direction)


_PLAIN = {
    "l2": (_l2, ()),
    "l1": (_l1, ()),
    "mean_distance": (_mean_distance, ()),
    "mahalanobis": (_mahalanobis, ()),
    "p_norm": (_p_norm, ("p_space",)),
    "guess_distance": (_guess_distance, ("guess",)),
    "style_spread": (_style_spread, ()),
    "encoder_consistency": (_encoder_consistency, ("encoder",)),
    "adversarial": (_adversarial, ("discriminator",)),
}
_COMPARED = {"lpips": "perceptual", "discriminator_features": "discriminator", "identity": "identity"}
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
    _check_weight(name, weight)
    if name in _COMPARED:
        return Term(name, float(weight), _Compared(name, practice), (_COMPARED[name],))
    return Term(name, float(weight), *_PLAIN[name])


def _check_weight(name: str, weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"the weight of {name} must be at least 0, got {weight}")


def attribute_term(
    attribute: str, target: float, weight: float = 1.0, *, on: str = "composite", robust: bool = True
) -> Term:
    """Returns a semantic constraint: `weight` times the cross entropy of a classifier's probability to `target`.

    Args:
        attribute: its name, as the classifier knows it.
        target: probability wanted, 1 for present, 0 for absent.
        weight: at least 0.
        on: "composite" (what will be shown) or "render" (the generator's whole image, whose gradient is stronger).
        robust: ask it of several views of the image, see `inpaint.losses.views`.

    Raises:
        ValueError: a target outside [0, 1], another `on`, or a negative weight.
    """
    if not 0 <= target <= 1:
        raise ValueError(f"the target of {attribute} must be from 0 (absent) to 1 (present), got {target}")
    if on not in ("composite", "render"):
        raise ValueError(f'an attribute is asked of "composite" or "render", got {on!r}')
    _check_weight(attribute, weight)
    return Term(f"{ATTRIBUTE}{attribute}", float(weight), _Attribute(attribute, target, on, robust), ("classifier",))


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
    _check_weight("hold", weight)
    found = np.asarray(direction, np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"the direction held must be finite and [w_dim], got {list(found.shape)}")
    return Term("hold", float(weight), _Held(tuple(found.tolist())), ("guess",))


def evaluate(
    terms: tuple[Term, ...], candidate: Candidate, problem: Problem, context: Context
) -> tuple[Array, dict[str, Array]]:
    """Returns the weighted total (a scalar) and every term's weighted share of it, by name."""
    shares = {t.name: t.weight * t.function(candidate, problem, context) for t in terms}
    total = sum(shares.values(), jnp.zeros((), candidate.image.dtype))
    return total, shares
