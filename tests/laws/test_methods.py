# SPDX-License-Identifier: Apache-2.0
"""Laws of methods: finite, deterministic under their key, every start by itself; and what a source says of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import methods
from inpaint.objective import Candidate
from inpaint.search import schedule, transforms
from inpaint.search.method import Method, Phase
from inpaint.search.solve import make_context
from inpaint.terms import locality, term
from stylegan_jax import latents, parameters, stylegan2
from stylegan_jax.encoders import masked
from stylegan_jax.joint import Joint, Weights

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


def candidate(ws, **inputs):
    """Returns a candidate of latents alone, with no image of its own."""
    return Candidate(ws, jnp.zeros((SIZE, SIZE, 3)), latents.Inputs(ws, **inputs), KEY)


def test_the_prior_of_brgm_points_to_the_mean(x64):
    """It is 0 there, and its gradient points away from it."""
    context, deviation = make_context(model()), term("deviation")

    def prior(ws):
        return deviation.function(candidate(ws), None, context)

    mean = jnp.tile(context.w_mean, (4, 1))
    assert prior(mean) == 0
    ws = mean + jax.random.normal(KEY, mean.shape)
    one, other = (np.asarray(x / jnp.linalg.norm(x)) for x in (jax.grad(prior)(ws), ws - mean))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_huge_prior_ends_at_the_mean(x64):
    """Whatever the pixels say."""
    context, terms = make_context(model()), (term("l2"), term("deviation", 1e6))
    phase = Phase(latents.WPLUS, 300, schedule.adam(0.1, 300), terms)
    method = Method("held", (phase,), inpaint.RandomMapping())
    found = inpaint.solve(model(), problem((0,)), method, starts=2, key=KEY, chunk=2)
    assert np.abs(found.ws - np.asarray(context.w_mean)).max() < 1e-3 * float(context.w_deviation)


def test_the_p_norm_is_one_on_average(x64):
    """Over mapped latents, and less at the mean of W (Zhu et al. 2020)."""
    config = sg.GeneratorConfig(widths=(3,), z_dim=12, w_dim=6, mapping_layers=1)
    generator, p_norm = sg.Generator(config, rngs=nnx.Rngs(0)), term("p_norm")
    context = make_context(generator, needs=("p_space",))
    w = generator.mapping(jax.random.normal(KEY, (20_000, 12)))
    values = jax.vmap(lambda ws: p_norm.function(candidate(ws), None, context))(w[:, None])
    assert float(values.mean()) == pytest.approx(1, abs=0.02)
    assert p_norm.function(candidate(context.w_mean[None]), None, context) < 0.5


def test_locality_begins_at_zero(x64):
    """While the weights are the generator's own, nothing has changed away from the pivot; then it counts."""
    context = make_context(model(), needs=("discriminator",))
    weights = parameters.trainable(model().generator.synthesis)
    near = locality("discriminator_features", 0.1)
    ws = jnp.tile(context.w_mean, (4, 1))
    assert near.function(candidate(ws, weights=weights), None, context) == 0
    moved = jax.tree.map(lambda x: x * 1.1, weights)
    assert near.function(candidate(ws, weights=moved), None, context) > 1e-6


@pytest.mark.slow
def test_pivotal_tuning_fits_what_the_pivot_did_not(x64):
    """The error of known pixels falls to less than a tenth of the pivot's; the generator stays its own."""
    own = parameters.trainable(model().generator.synthesis)
    before = jax.tree.map(np.array, own)
    other = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), own)
    truth = latents.render(model().generator, latents.Inputs(jax.random.normal(KEY, (4, 5)), weights=other))
    operator = problem((0,)).operator
    asked = inpaint.Problem(operator, operator.known[..., None] * truth[None])
    pivot = Phase(latents.W, 100, schedule.adam(0.1, 100), (term("l2"),))
    tuning = transforms.by_part(schedule.still(), {"weights": schedule.constant_adam(0.003)})
    tuned = Phase(Joint(latents.W, (Weights(),)), 400, tuning, (term("l2"),))
    found = inpaint.solve(model(), asked, Method("tuned", (pivot, tuned), inpaint.Mean()), starts=1, key=KEY, chunk=1)
    trace = found.traces[0, 0, 100:]
    assert trace[-1] < 0.1 * trace[0] and (np.diff(trace) < 0).mean() > 0.95
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, own))


@pytest.mark.slow
def test_nothing_is_lost_where_phases_meet(x64):
    """From W to W+ to a latent for every filter: a phase begins with the objective that the one before ended with."""
    terms = (term("l2"),)
    steps = ((latents.W, 0.08), (latents.WPLUS, 0.02), (latents.WPLUSPLUS, 0.005))
    phases = tuple(Phase(space, 5, transforms.normalized_gradient(lr), terms) for space, lr in steps)
    run = functools.partial(inpaint.solve, model(), problem((0, 1)), starts=2, key=KEY, chunk=4)
    whole = run(Method("three", phases, inpaint.Mean(0.5)))
    for count in (1, 2):
        part = run(Method("some", phases[:count], inpaint.Mean(0.5)))
        np.testing.assert_allclose(whole.traces[..., 5 * count], part.scores, rtol=1e-9)
