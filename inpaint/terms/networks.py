# SPDX-License-Identifier: Apache-2.0
"""Terms that ask a network about a render `[h, w, c]`: distances of features, a critic, a classifier.

Each returns a scalar.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inpaint import losses
from inpaint.objective import ATTRIBUTE, Candidate, Context, Term, checked_weight, composite
from inpaint.problem import Problem
from stylegan_jax import latents
from stylegan_jax.features import arcface

# Who compares the features of two images, and whom that needs.
FEATURES = {"lpips": "perceptual", "discriminator_features": "discriminator"}


def adversarial(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.adversarial` of the render."""
    return losses.adversarial(context.networks["discriminator"], candidate.image)


def saturating_adversarial(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.saturating_adversarial` of the render."""
    return losses.saturating_adversarial(context.networks["discriminator"], candidate.image)


def critic(candidate: Candidate, problem: Problem, context: Context) -> Array:
    """Returns `losses.adversarial` of the composite, so that the critic sees the hole beside what is known."""
    return losses.adversarial(context.networks["discriminator"], composite(candidate.image, problem))


def seen(candidate: Candidate, problem: Problem, owner: str, *, practice: str) -> tuple[Array, Array]:
    """Returns the two images that a network compares: with a mask, render and measurement (`losses.masked_pair`), else
    the measurement of the render and the measurement.

    Raises:
        ValueError: where the measurement is no image.
    """
    if problem.operator.known is not None:
        return losses.masked_pair(candidate.image, problem.measurement, problem.operator.known, practice=practice)
    measured = problem.operator(candidate.image)
    if measured.ndim != 3:
        raise ValueError(f"the term {owner} compares images, and this problem's measurement {measured.shape} is none")
    return measured, problem.measurement


def lpips(networks: Mapping[str, Any], image: Array, target: Array) -> Array:
    """Returns the distance of LPIPS between two images `[h, w, c]`."""
    return networks["perceptual"].distance(image[None], target[None])[0]


def discriminator_features(networks: Mapping[str, Any], image: Array, target: Array) -> Array:
    """Returns `losses.discriminator_distance` of two images `[h, w, c]`; smaller ones are enlarged to what the
    discriminator takes."""
    discriminator = networks["discriminator"]
    if not hasattr(discriminator, "forward"):
        raise ValueError("discriminator_features needs the discriminator of a StyleGAN2 or DCGAN")
    size, factor = discriminator.resolution, discriminator.resolution // image.shape[0]
    if image.shape[:2] != (size // factor, size // factor):
        raise ValueError(f"the discriminator takes images of {size} pixels, got {list(image.shape)}")
    image, target = (x.repeat(factor, 0).repeat(factor, 1) for x in (image, target))
    return losses.discriminator_distance(lambda x: discriminator.forward(x)[1], image, target)


def identity(networks: Mapping[str, Any], image: Array, target: Array) -> Array:
    """Returns the distance of two faces `[h, w, c]` as ArcFace sees them."""
    network = networks["identity"]
    faces = arcface.face_crop(jnp.stack([image, target]), size=network.config.resolution)
    found = network(faces)
    return arcface.identity_distance(found[:1], found[1:])[0]


DISTANCES = {"lpips": lpips, "discriminator_features": discriminator_features, "identity": identity}


@dataclasses.dataclass(frozen=True)
class Compared:
    """A distance of render and measurement as a network sees them; `practice` says what stands in the hole."""

    name: str
    practice: str

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        pair = seen(candidate, problem, self.name, practice=self.practice)
        return DISTANCES[self.name](context.networks, *pair)


@dataclasses.dataclass(frozen=True)
class _Multiscale:
    features: str
    smallest: int
    l1: float

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        image, target = seen(candidate, problem, "multiscale", practice="fill")
        known = problem.operator.known
        weight = jnp.ones(image.shape[:2]) if known is None else known
        keys, total, weight = jax.random.split(candidate.key, 8), 0.0, weight[..., None].astype(image.dtype)
        for key in keys:
            if image.shape[0] <= self.smallest:
                break
            # The same noise in the hole of both, about black as published: (normal + 1/2) / 2 of images in [0, 1].
            filling = jax.random.normal(key, image.shape, image.dtype) - 0.5
            pair = (weight * x + (1 - weight) * filling for x in (image, target))
            total = total + DISTANCES[self.features](context.networks, *pair)
            image, target, weight = (losses.halved(x) for x in (image, target, weight))
        # Images in [0, 1], as published.
        return total + self.l1 * losses.l1(image / 2, target / 2, weight)


def multiscale(features: str, weight: float = 1.0, *, smallest: int = 16, l1: float = 0.1) -> Term:
    """Returns a distance of features summed over a pyramid, and of pixels at its end.

    `sum_k d(x_k, y_k) + l1 * |x_K - y_K|`, image k being half the size of the one before, down to `smallest` pixels; in
    the hole stands the same noise in both, drawn anew at every step (Poirier-Ginter and Lalonde 2023, "Robust
    Unsupervised StyleGAN Image Restoration", and their published code).

    Args:
        features: who compares: "lpips" as published, or "discriminator_features".
        weight: at least 0.
        smallest: size of the last image, in pixels, which only `l1` sees.
        l1: weight of the absolute difference there, of images in [0, 1].

    Raises:
        ValueError: for unknown features or a negative weight.
    """
    check_features(features)
    needs = (FEATURES[features],)
    return Term("multiscale", checked_weight("multiscale", weight), _Multiscale(features, smallest, l1), needs)


def check_features(features: str) -> None:
    """Raises ValueError where `features` names nobody who compares images."""
    if features not in FEATURES:
        raise ValueError(f"unknown features {features!r}; known: {', '.join(FEATURES)}")


@dataclasses.dataclass(frozen=True)
class _Locality:
    features: str
    distance: float

    def __call__(self, candidate: Candidate, problem: Problem, context: Context) -> Array:
        if candidate.inputs.weights is None:
            raise ValueError("the term locality is about a generator whose weights are searched")
        host = latents.Host(context.generator, key=candidate.key)
        direction = latents.W.draw(host)
        mean = context.w_mean
        direction = mean + 0.5 * (direction - mean) - candidate.ws[0]
        direction = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-8)
        ws = candidate.ws + (self.distance * direction)[None, :]
        one, other = (
            latents.render(context.generator, latents.Inputs(ws, weights=weights))
            for weights in (candidate.inputs.weights, None)
        )
        return jnp.mean(jnp.square(one - other)) + DISTANCES[self.features](context.networks, one, other)


def locality(features: str, weight: float = 0.1, *, distance: float = 30.0) -> Term:
    """Returns the locality regularisation of fine-tuned weights (Roich et al. 2022, "Pivotal Tuning").

    What the generator makes of latents `distance` away from the pivot, towards a random one of psi 0.5, should stay as
    it was: `|x - x0|^2 + d(x, x0)`.

    Args:
        features: who compares: "lpips" as published, or "discriminator_features".
        weight: at least 0.
        distance: in W.

    Raises:
        ValueError: for unknown features or a negative weight.
    """
    check_features(features)
    return Term("locality", checked_weight("locality", weight), _Locality(features, distance), (FEATURES[features],))


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
    weight = checked_weight(attribute, weight)
    return Term(f"{ATTRIBUTE}{attribute}", weight, _Attribute(attribute, target, on, robust), ("classifier",))
