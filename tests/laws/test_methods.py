# SPDX-License-Identifier: Apache-2.0
"""Laws of methods: finite, deterministic under their key, every start by itself; and what a source says of its own."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import methods
from stylegan_jax import stylegan2
from stylegan_jax.encoders import masked

KEY = jax.random.key(3)
SIZE = 8
FEATURES = dict(features="discriminator_features")
SMALL = {
    "filipovski": dict(window=3, truncation_psi=0.7),
    "intermediate_layers": FEATURES | dict(blocks=("b8",), radius=5.0),
    "multi_code": FEATURES | dict(codes=2, entering="b8", lr=0.1),
    "pivotal_tuning": FEATURES | dict(stop=1e-6, locality_weight=0.1),
    "sphinx": FEATURES | dict(encoder=(6, 4), decoder=(5,)),
    "pulse": dict(maps=2),
    "robust_unsupervised": FEATURES | dict(smallest=4),
} | {
    name: FEATURES
    for name in (
        "projector",
        "brgm",
        "improved_embedding",
        "in_domain",
        "style_deltas",
        "style_space",
    )
}


@functools.cache
def model():
    """Returns a tiny generator with discriminator and encoder, float64."""
    with jax.enable_x64(True):
        config = sg.GeneratorConfig(widths=(4, 3), z_dim=5, w_dim=5, mapping_layers=2)
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        judge = stylegan2.DiscriminatorConfig(widths=(4, 3), minibatch_channels=0)
        discriminator = stylegan2.Discriminator(judge, rngs=nnx.Rngs(1))
        statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=500)
        encoder_config = masked.MaskedEncoderConfig(num_ws=4, w_dim=5, widths=(4, 4), features=8)
        encoder = masked.MaskedEncoder(encoder_config, rngs=nnx.Rngs(2))
        return sg.Model(generator, discriminator=discriminator, w_statistics=statistics, encoder=encoder)


def problem(seeds):
    known = np.ones((SIZE, SIZE), np.float32)
    known[2:6, 3:7] = 0
    images = [np.random.default_rng(seed).uniform(-1, 1, (SIZE, SIZE, 3)) for seed in seeds]
    mask = inpaint.operators.Mask.checked(known)
    return inpaint.Problem.stack([inpaint.Problem.observe(image, mask) for image in images])


def run(name, seeds, *, starts, ids):
    method = methods.METHODS[name](steps=5, **SMALL.get(name, {}))
    options = dict(starts=starts, key=KEY, chunk=4, image_ids=ids)
    return inpaint.solve(model(), problem(seeds), method, **options)


# Latents of filters, feature maps, and spheres; the others compile for minutes and run with `-m slow`.
QUICK = {"robust_unsupervised", "intermediate_layers", "pulse"}
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in methods.METHODS]


@pytest.mark.parametrize("name", EVERY)
def test_every_method(name, x64):
    """Scores and images are finite, the same key gives the same result, and an image alone with more starts has those
    that it has beside another."""
    both = run(name, (0, 1), starts=2, ids=[0, 1])
    assert np.isfinite(both.scores).all() and np.isfinite(both.raw).all() and not both.frozen.any()
    assert both.traces.shape == (2, 2, 5) and both.raw.shape == (2, 2, SIZE, SIZE, 3)
    np.testing.assert_allclose(sum(both.terms.values()), both.scores, rtol=1e-9)
    alone = run(name, (1,), starts=4, ids=[1])
    for one, other in ((both.raw[1], alone.raw[0, :2]), (both.traces[1], alone.traces[0, :2])):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
