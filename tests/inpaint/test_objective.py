# SPDX-License-Identifier: Apache-2.0
"""Objectives that ask networks: every term in a search, semantic constraints, and what is missing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import methods, terms
from inpaint.config import RestoreConfig, SearchConfig
from inpaint.named_methods import build_method
from stylegan_jax import classifiers, dcgan
from stylegan_jax.encoders import MaskedEncoder, MaskedEncoderConfig

SIZE = 8
KEY = jax.random.key(1)
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[2:6, 3:7] = 0
IMAGE = np.random.default_rng(0).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)


def problem(seed=0):
    image = np.random.default_rng(seed).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)
    return inpaint.Problem.observe(image, inpaint.operators.Mask.checked(KNOWN))


@functools.cache
def model():
    """Returns a tiny random generator with discriminator and encoder."""
    generator = sg.Generator(sg.GeneratorConfig(widths=(6, 4), z_dim=6, w_dim=6, mapping_layers=2), rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=300)
    encoder = MaskedEncoder(MaskedEncoderConfig(widths=(6, 4), num_ws=4, w_dim=6, features=8), rngs=nnx.Rngs(2))
    encoder.mean[...] = statistics.mean
    encoder.out.weight[...] = jax.random.normal(KEY, encoder.out.weight[...].shape)
    discriminator = sg.Discriminator(sg.DiscriminatorConfig(widths=(6, 4)), rngs=nnx.Rngs(1))
    return sg.Model(generator, discriminator, statistics, encoder=encoder, encoder_hash="of it")


class Squares:
    """Stands for LPIPS: a distance over whole images."""

    def distance(self, images0, images1):
        return jnp.square(images0 - images1).mean((1, 2, 3))


class Blue:
    """Stands for ArcFace."""

    config = type("Config", (), {"resolution": 4})

    def __call__(self, faces):
        pixels = faces.reshape(len(faces), -1) + 2
        return pixels / jnp.linalg.norm(pixels, axis=1, keepdims=True)


def brightness(images):
    """Returns logits `[n]`: how bright the hole is."""
    return 8 * images[:, 2:6, 3:7].mean((1, 2, 3))


@functools.cache
def classifier():
    return classifiers.FunctionClassifier(
        brightness, classifiers.FunctionConfig(attributes=("bright_hole",), resolution=SIZE)
    )


class Wrapped(nnx.Module):
    """Makes a plain object a network without weights."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def config(self):
        return self.inner.config

    def distance(self, *images):
        return self.inner.distance(*images)

    def __call__(self, faces):
        return self.inner(faces)


NETWORKS = {"perceptual": Wrapped(Squares()), "identity": Wrapped(Blue()), "classifier": classifier()}


@functools.cache
def shares():
    """Returns, for the end of a search with every term at weight 1, the shares of each start and the result."""
    # The method has the first four anyway, and searches no noise maps.
    own = ("l2", "mahalanobis", "guess_distance", "expected_l2", "noise_regularizer")
    others = tuple(terms.term(name) for name in terms.TERMS if name not in own)
    constraint = terms.attribute_term("bright_hole", 1.0)
    method = methods.encoder_search(steps=2, guess_distance=1.0, mahalanobis=1.0, others=(*others, constraint))
    return inpaint.solve(model(), problem(), method, starts=2, key=KEY, networks=NETWORKS)


def test_every_term_takes_part():
    """All terms are finite and of their sign in one search, and the score is their sum."""
    found = shares()
    assert set(found.terms) == {*terms.TERMS, "attribute:bright_hole"} - {"noise_regularizer"}
    for name, share in found.terms.items():
        sign = -1 if name == "saturating_adversarial" else 1
        assert np.isfinite(share).all() and (sign * share > 0).all(), name
    np.testing.assert_allclose(sum(found.terms.values()), found.scores, rtol=1e-5)


def test_shares_against_numpy():
    """What networks were asked about: the pair of a masked comparison, the composite, the latents again."""
    found = shares()
    hole = KNOWN[..., None] == 0
    for i in range(2):
        filled = np.where(hole, found.raw[i], np.asarray(problem().measurement))
        assert found.terms["lpips"][i] == pytest.approx(np.square(filled - found.raw[i]).mean(), rel=1e-4)
        odds = float(brightness(np.clip(filled, -1, 1)[None])[0])
        assert found.attributes["bright_hole"][i] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-4)
        logit = float(model().discriminator(found.raw[i : i + 1])[0])
        assert found.terms["adversarial"][i] == pytest.approx(np.logaddexp(0, -logit), rel=1e-4)
        again = model().encoder(found.raw[i : i + 1], jnp.ones((1, SIZE, SIZE)))[0]
        difference = (found.ws[i] - np.asarray(again)) @ np.asarray(model().w_statistics.whitening())
        assert found.terms["encoder_consistency"][i] == pytest.approx(np.square(difference).mean(), rel=1e-3)


@pytest.mark.parametrize("on", ["composite", "render"])
def test_a_constraint_is_obeyed(on):
    """The same search with opposite targets ends with opposite answers, and keeps the known pixels nearly as well."""
    found = {}
    for target in (0.0, 1.0):
        constraint = terms.attribute_term("bright_hole", target, 0.5, on=on, robust=False)
        method = methods.latent_search(
            steps=40, coarse_share=0, lr=0.1, mahalanobis=0.001, initialisation=inpaint.Mean(0.5), others=(constraint,)
        )
        found[target] = inpaint.solve(model(), problem(), method, starts=2, key=KEY, networks=NETWORKS)
    p = {target: result.attributes["bright_hole"] for target, result in found.items()}
    assert (p[0.0] < 0.4).all() and (p[1.0] > 0.6).all(), p


def test_discriminators_of_a_dcgan_have_features():
    """Its logits are those of a plain call, and its features shrink from block to block."""
    discriminator = dcgan.Discriminator(dcgan.DiscriminatorConfig(widths=(4,)), rngs=nnx.Rngs(0))
    logits, features = discriminator.forward(jnp.asarray(IMAGE)[None])
    np.testing.assert_array_equal(logits, discriminator(jnp.asarray(IMAGE)[None]))
    assert {name: x.shape for name, x in features.items()} == {"b8": (1, 4, 4, 4)}


@pytest.mark.parametrize(
    ("search", "networks", "reason"),
    [
        (dict(terms=("lpips=1",)), {}, "needs the role 'perceptual', which nothing fills: name LPIPS' checkpoint"),
        (dict(attributes=("bright_hole=1",)), {}, "needs the role 'classifier'"),
        (dict(attributes=("bright_whole=1",)), NETWORKS, "no attribute 'bright_whole'; perhaps bright_hole"),
        (dict(), {"judge": classifier()}, "no network has the role 'judge'; roles are encoder"),
    ],
)
def test_what_is_missing_is_told(search, networks, reason):
    settings = dict(steps=2, coarse_share=0.0, init="random", starts=1, keep=1) | search
    method = build_method(RestoreConfig(search=SearchConfig(**settings)))
    with pytest.raises(ValueError, match=reason):
        inpaint.solve(model(), problem(), method, starts=1, key=KEY, networks=networks)


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        (dict(terms=("lpips",)), "a term is given as name=weight, got 'lpips'"),
        (dict(terms=("lpips=much",)), "the weight of lpips must be a number, got 'much'"),
        (dict(terms=("lpips=-1",)), "the weight of lpips must be at least 0"),
        (dict(terms=("beauty=1",)), "unknown term 'beauty'; known: l2, l1"),
        (dict(terms=("lpips=1",), mask_practice="blank"), "unknown practice 'blank'"),
        (dict(attributes=("Smiling",)), "an attribute is given as name=target"),
        (dict(attributes=("Smiling=2",)), "the target of Smiling must be from 0 .absent. to 1"),
        (dict(attributes=("Smiling=1:x",)), "the weight of Smiling must be a number"),
        (dict(attributes=("Smiling=1",), attribute_on="canvas"), 'asked of "composite" or "render"'),
        (dict(attributes=("a=1", "a=0")), "terms of a phase must have different names"),
    ],
)
def test_wrong_settings_are_told(search, reason):
    with pytest.raises(ValueError, match=reason):
        build_method(RestoreConfig(search=SearchConfig(**search)))


def test_attributes_are_read_from_settings():
    """Target, own weight and common weight."""
    search = SearchConfig(attributes=("Smiling=1", "Young=0:0.3"), attribute_weight=0.07, terms=("adversarial=0.01",))
    terms = {t.name: t for t in build_method(RestoreConfig(search=search)).phases[-1].terms}
    assert terms["attribute:Smiling"].weight == 0.07 and terms["attribute:Smiling"].function.target == 1
    assert terms["attribute:Young"].weight == 0.3 and terms["attribute:Young"].function.target == 0
    assert terms["adversarial"].needs == ("discriminator",)
