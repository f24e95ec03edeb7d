# SPDX-License-Identifier: Apache-2.0
"""Laws of how starts are found and ended: what ends a start never changes one, and budgets say what was done."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import SuccessiveHalving, losses
from inpaint.objective import Term
from inpaint.search import loop
from inpaint.search.method import Method, Phase
from inpaint.search.rescore import rescore
from inpaint.search.schedule import adam
from inpaint.search.scoring import score_starts
from inpaint.search.stopping import Plateau
from inpaint.terms import term
from stylegan_jax import latents

KEY, SIZE, STEPS = jax.random.key(5), 4, 8
ATTEMPT = 2**24


@functools.cache
def model():
    """Returns a tiny float64 generator."""
    with jax.enable_x64(True):
        config = sg.GeneratorConfig(widths=(4,), z_dim=5, w_dim=5, mapping_layers=1)
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        return sg.Model(generator, w_statistics=sg.estimate_w_statistics(jax.random.key(0), generator, samples=200))


def problem(*seeds):
    known = np.ones((SIZE, SIZE), np.float32)
    known[1:3, 2:] = 0
    mask = inpaint.operators.Mask.checked(known)
    images = [np.random.default_rng(seed).uniform(-1, 1, (SIZE, SIZE, 3)) for seed in seeds]
    return inpaint.Problem.stack([inpaint.Problem.observe(image, mask) for image in images])


@functools.cache
def plain():
    """Returns two phases from random starts."""
    terms = (term("l2"), term("mahalanobis", 0.01))
    phases = (Phase(latents.W, STEPS, adam(0.1, STEPS), terms), Phase(latents.WPLUS, STEPS, adam(0.05, STEPS), terms))
    return Method("plain", phases, inpaint.RandomMapping())


def solve(method, *seeds, starts, **options):
    options = dict(chunk=4, image_ids=seeds, key=KEY) | options
    return inpaint.solve(model(), problem(*seeds), method, starts=starts, **options)


@functools.cache
def halved():
    """Returns the search by halving that others are compared with."""
    with jax.enable_x64(True):
        return solve(dataclasses.replace(plain(), halving=SuccessiveHalving(2, 2)), 0, 1, starts=2)


def test_what_survives_is_as_without_cuts(x64):
    """Two cuts, within a phase and between two, leave the starts of lowest objective, each as if none had been made."""
    whole, found = solve(plain(), 0, 1, starts=8), halved()
    assert found.traces.shape == (2, 2, 2 * STEPS)
    for image in (0, 1):
        first = np.sort(np.argsort(whole.traces[image, :, 4])[:4])
        kept = np.sort(first[np.argsort(whole.traces[image, first, 8])[:2]])
        assert found.candidates[image].tolist() == kept.tolist()
        for name in ("ws", "variables", "raw", "scores", "traces", "steps"):
            np.testing.assert_allclose(
                getattr(found, name)[image], getattr(whole, name)[image, kept], rtol=0, atol=1e-9, err_msg=name
            )
    # 8 starts for 4 steps, 4 for 4, 2 for 8; two ends of phases, two cuts, and final renders.
    assert (found.gradients, found.forwards) == (32 + 16 + 16 + 2 * 2, 8 + 4 + 2)
    assert (whole.gradients, whole.forwards) == (8 * (2 * STEPS + 2), 8)
    method = dataclasses.replace(plain(), halving=SuccessiveHalving(2, 2))
    assert method.evaluations(2) == (found.forwards, found.gradients)


@pytest.mark.parametrize(
    "options", [dict(chunk=4), pytest.param(dict(chunk=16, steps_per_call=3), marks=pytest.mark.slow)]
)
def test_cuts_do_not_depend_on_what_runs_together(options, x64):
    """An image alone, another chunk, several steps in a call: the same starts; and equal shapes compile once."""
    method = dataclasses.replace(plain(), halving=SuccessiveHalving(2, 2))
    alone = solve(method, 1, starts=2, **options)
    for name, value in vars_of(halved()).items():
        np.testing.assert_allclose(getattr(alone, name)[0], value[1], rtol=0, atol=1e-9, err_msg=name)
    before = set(map(hash, loop.compiled()))
    solve(method, 4, starts=2, key=jax.random.key(8), **options)
    assert set(map(hash, loop.compiled())) == before


def vars_of(result):
    return {name: getattr(result, name) for name in ("candidates", "ws", "raw", "scores", "traces", "steps")}


def test_halving_needs_steps_for_its_legs(x64):
    """Settings that leave a leg without steps, and watching, are refused."""
    with pytest.raises(ValueError, match="in 5 cuts needs at least 32 steps, got 16; take fewer cuts"):
        dataclasses.replace(plain(), halving=SuccessiveHalving(5, 2))
    with pytest.raises(ValueError, match="at least 1 cut and a factor of 2, got 1 and 1"):
        SuccessiveHalving(1, 1)
    with pytest.raises(ValueError, match="halving cannot be watched"):
        halving = dataclasses.replace(plain(), halving=SuccessiveHalving(1, 2))
        solve(halving, 0, starts=1, watch=lambda watched: None)


def stopping(patience, tolerance, *, steps=24):
    stop = None if patience is None else Plateau(patience, tolerance)
    phase = Phase(latents.W, steps, adam(0.3, steps), (term("l2"),), stop=stop)
    return Method("stopping", (phase,), inpaint.RandomMapping())


def expected_stop(trace, patience, tolerance):
    """Returns the step at which the rule holds on the objectives of a free search, or their number."""
    lowest, since = np.inf, 0
    for step, total in enumerate(trace):
        if np.isinf(lowest) or total < lowest * (1 - tolerance):
            lowest, since = total, 0
        else:
            since += 1
        if since >= patience:
            return step
    return len(trace)


def test_a_plateau_ends_a_start(x64):
    """Each start by itself goes on until its objective has not fallen for so long; alone or beside others."""
    free = solve(stopping(None, 0), 0, starts=4)
    found = solve(stopping(4, 0.05), 0, starts=4)
    ends = [expected_stop(trace, 4, 0.05) for trace in free.traces[0]]
    assert found.steps[0].tolist() == ends and min(ends) < 24 and found.gradients == sum(ends) + 4
    for own, way, end in zip(found.traces[0], free.traces[0], ends, strict=True):
        np.testing.assert_allclose(own[: end + 1], way[: end + 1], rtol=1e-9)
        np.testing.assert_allclose(own[end:], own[min(end, 23)], rtol=1e-12)
    for name, value in vars_of(solve(stopping(4, 0.05), 0, starts=4, chunk=1)).items():
        np.testing.assert_allclose(value, getattr(found, name), rtol=0, atol=1e-9, err_msg=name)
    for patience, tolerance in ((0, 0.1), (3, 1.0)):
        with pytest.raises(ValueError, match="need patience >= 1 and tolerance in"):
            Plateau(patience, tolerance)


def test_a_phase_ends_when_nothing_moves(x64, monkeypatch):
    """Steps that would move nothing are not run; the traces are as long as ever."""
    program, calls = loop._program, []

    def counting(*arguments):
        found = program(*arguments)
        return lambda *options: (calls.append(1), found(*options))[1]

    monkeypatch.setattr(loop, "_program", counting)
    found = solve(stopping(2, 0.99, steps=60), 0, starts=4)
    assert found.traces.shape == (1, 4, 60) and (found.steps < 10).all()
    assert len(calls) == 10 + 1  # it looks after every tenth step


def _too_high(candidate, problem, context):
    """Pushes ws[0, 0] up, and is NaN beyond the first value of the measurement."""
    height = candidate.ws[0, 0]
    return jnp.where(height > problem.measurement[0, 0, 0], jnp.nan, 5.0 - height)


def test_frozen_starts_begin_again(x64):
    """A start that diverged is searched from another candidate of its own; the others are not touched."""
    phase = Phase(latents.W, 4, adam(0.01, 4), (Term("too_high", 1.0, _too_high),))
    method = Method("rise", (phase,), inpaint.RandomMapping())
    free = problem(0, 1)
    heights = inpaint.solve(
        model(), inpaint.Problem(free.operator, free.measurement.at[:, 0, 0, 0].set(jnp.inf)), method, starts=2, key=KEY
    ).ws[:, :, 0, 0]
    # One start of image 0 lies above the limit from the beginning.
    limits = jnp.asarray([heights[0].mean(), jnp.inf])
    asked = inpaint.Problem(free.operator, free.measurement.at[:, 0, 0, 0].set(limits))
    bad = int(np.argmax(heights[0]))
    once = inpaint.solve(model(), asked, method, starts=2, key=KEY, chunk=4)
    assert once.frozen.sum() == 1 and np.isinf(once.scores[0, bad])
    many = inpaint.solve(model(), asked, dataclasses.replace(method, restarts=3), starts=2, key=KEY, chunk=4)
    assert not many.frozen.any() and np.isfinite(many.scores).all()
    attempt, candidate = divmod(int(many.candidates[0, bad]), ATTEMPT)
    assert 1 <= attempt <= 3 and candidate == bad
    own = jax.random.fold_in(jax.random.fold_in(KEY, 0), many.candidates[0, bad])
    z = jax.random.normal(jax.random.split(own)[0], (1, 5))
    assert many.traces[0, bad, 0] == pytest.approx(5 - float(model().generator.mapping(z)[0, 0]), rel=1e-12)
    for name in ("ws", "raw", "scores", "traces"):
        for lane in ((0, 1 - bad), (1, 0), (1, 1)):
            np.testing.assert_array_equal(getattr(many, name)[lane], getattr(once, name)[lane])
    # A start that cannot move takes its evaluation at the beginning and no step.
    assert many.gradients == int(np.ceil(((4 + 1) * 4 + attempt) / 2)) and many.forwards == 2 + int(
        np.ceil(attempt / 2)
    )
    alone = inpaint.solve(
        model(),
        jax.tree.map(lambda x: x[0], asked),
        dataclasses.replace(method, restarts=3),
        starts=2,
        key=KEY,
        chunk=4,
    )
    np.testing.assert_allclose(alone.ws, many.ws[0], rtol=0, atol=1e-9)


def test_a_pool_is_scored_by_what_the_initialisation_names(x64):
    """Terms of the initialisation choose among the pool, here by edges, in place of the objective."""
    pool, asked = 9, problem(0, 1)
    phase = Phase(latents.W, 1, adam(0.1, 1), (term("l2"),))
    method = Method("edges", (phase,), inpaint.Prescreened(pool, by=(term("gradient"),)))
    found = inpaint.solve(model(), asked, method, starts=2, key=KEY, chunk=4)
    for image in (0, 1):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, image), i) for i in range(pool)]
        z = jnp.stack([jax.random.normal(jax.random.split(key)[0], (5,)) for key in keys])
        renders = model().generator(z)
        edges = [losses.gradient_l1(x, asked.measurement[image], asked.operator.known[image]) for x in renders]
        pixels = [losses.l2(x, asked.measurement[image], asked.operator.weight[image]) for x in renders]
        assert found.candidates[image].tolist() == np.argsort(edges)[:2].tolist()
        assert np.argsort(edges)[:2].tolist() != np.argsort(pixels)[:2].tolist()
    assert method.masked == "gradient" and found.forwards == pool + 2


def test_terms_are_taken_again_at_what_was_found(x64):
    """The terms of the objective are those of the result; other scores rank the starts in its place."""
    found = halved()
    again = rescore(model(), found, plain(), (term("l2"), term("mahalanobis", 0.01), term("l1")))
    for name, share in found.terms.items():
        np.testing.assert_allclose(again[name], share, rtol=1e-9)
    one = jax.tree.map(lambda x: x[1], again)
    alone = dataclasses.replace(
        found,
        problem=jax.tree.map(lambda x: x[1], found.problem),
        **{name: getattr(found, name)[1] for name in ("variables", "raw", "scores")},
    )
    found_alone = rescore(model(), alone, plain(), (term("l1"),))
    np.testing.assert_allclose(found_alone["l1"], one["l1"], rtol=1e-9)
    scores = score_starts(model(), found, plain(), "l1")
    assert inpaint.select(found, scores=scores).starts[:, 0].tolist() == np.argmin(again["l1"], 1).tolist()
    assert score_starts(model(), found, plain(), "objective") is found.scores
    with pytest.raises(ValueError, match=r"scores must be \[2, 2\], got \[2\]"):
        inpaint.select(found, scores=scores[0])
