# SPDX-License-Identifier: Apache-2.0
"""What phases can do beside a plain descent: the best step, an early stop, shaken latents, fresh noise, joint spaces
that are stored and go on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint.methods import Shake
from inpaint.search import schedule, transforms
from inpaint.search.method import Method, Phase
from inpaint.search.solve import make_context
from inpaint.search.stopping import Below
from inpaint.terms import term
from stylegan_jax import latents
from stylegan_jax.joint import Features, Joint, Noise

KEY = jax.random.key(5)
SIZE = 8


@functools.cache
def model():
    """Returns a tiny float64 generator whose noise is felt."""
    with jax.enable_x64(True):
        config = sg.GeneratorConfig(widths=(4, 3), z_dim=5, w_dim=6, mapping_layers=2)
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        for layer in (generator.synthesis.b4.conv1, generator.synthesis.b8.conv0, generator.synthesis.b8.conv1):
            layer.noise_strength[...] = jnp.asarray(0.5)
        return sg.Model(generator, w_statistics=sg.estimate_w_statistics(KEY, generator, samples=300))


def problem():
    known = np.ones((SIZE, SIZE), np.float32)
    known[2:6, 3:7] = 0
    image = np.random.default_rng(0).uniform(-1, 1, (SIZE, SIZE, 3))
    return inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))


def solve(*phases, **options):
    method = Method("phases", phases, inpaint.RandomMapping())
    return inpaint.solve(model(), problem(), method, starts=3, key=KEY, chunk=3, **options)


def test_the_best_step_is_kept(x64):
    """With a rate that throws the variable about, the best step met is the result, not the last."""
    phase = functools.partial(Phase, latents.W, 12, schedule.constant_adam(3.0), (term("l2"),))
    last, best = solve(phase()), solve(phase(keep="best"))
    np.testing.assert_array_equal(best.traces, last.traces)
    met = np.concatenate([last.traces, last.scores[:, None]], 1).min(1)
    np.testing.assert_allclose(best.scores, met, rtol=1e-9)
    assert (best.scores < last.scores).any()


def test_a_start_stops_where_it_is_good_enough(x64):
    """Each start by itself stays where the share of the term first is at most the threshold."""
    phase = functools.partial(Phase, latents.W, 12, schedule.adam(0.3, 12), (term("l2", 2.0),))
    free = solve(phase())
    threshold = float(np.median(free.traces[:, 6]))
    stopped = solve(phase(stop=Below("l2", threshold)))
    for own, way in zip(stopped.traces, free.traces, strict=True):
        reached = np.flatnonzero(way <= threshold)
        first = reached[0] if len(reached) else len(way)
        np.testing.assert_allclose(own[: first + 1], way[: first + 1], rtol=1e-9)
        np.testing.assert_allclose(own[first:], way[first] if first < len(way) else own[first:], rtol=1e-9)
    assert not stopped.frozen.any() and (stopped.scores <= threshold).any()
    with pytest.raises(ValueError, match="the phase stops by lpips, which is no term of it: l2"):
        phase(stop=Below("lpips", 0.1))


def test_latents_are_shaken_less_and_less(x64):
    """Steps see latents shaken by their own key, the final evaluation sees them still; by the projector's rule."""
    phase = functools.partial(Phase, latents.W, 8, schedule.adam(0.1, 8), (term("l2"),))
    still, shaken, again = solve(phase()), solve(phase(shake=Shake(0.5))), solve(phase(shake=Shake(0.5)))
    np.testing.assert_array_equal(shaken.traces, again.traces)
    assert (np.abs(shaken.traces[:, 0] / still.traces[:, 0] - 1) > 1e-3).all()
    images = model().generator.synthesis(jnp.asarray(shaken.ws))
    np.testing.assert_allclose(images, shaken.raw, rtol=0, atol=1e-10)
    context, ws = make_context(model()), jnp.zeros((4, 6))
    sizes = [
        float(jnp.std(jax.vmap(lambda k, t=t: Shake()(k, ws, context, t))(jax.random.split(KEY, 3000))))
        for t in (0.0, 0.375, 0.75, 1.0)
    ]
    np.testing.assert_allclose(sizes, 0.05 * context.w_deviation * np.asarray([1, 0.25, 0, 0]), rtol=0.03)


def test_fresh_noise_is_drawn_for_every_step(x64):
    """A variable that stays has another objective at every step; equal keys give equal draws, starts have their own."""
    phase = functools.partial(Phase, latents.W, 6, schedule.still(), (term("l2"),))
    fresh, again, stored = solve(phase(noise="fresh")), solve(phase(noise="fresh")), solve(phase())
    np.testing.assert_array_equal(fresh.traces, again.traces)
    assert (np.ptp(stored.traces, axis=1) == 0).all()
    assert all(len(set(np.round(row, 12))) == 6 for row in fresh.traces)
    assert Method("fresh", (phase(noise="fresh"),), inpaint.Mean()).rendered_with is None


@functools.cache
def joint_phases():
    """Returns two phases, the second over a joint space with an optimiser for each of its parts."""
    rate = schedule.adam(0.05, 5)
    each = transforms.by_part(rate, {"noise": schedule.chained(rate, transforms.standardized_maps())})
    terms = (term("l2"), term("mahalanobis", 0.01))
    space = Joint(latents.WPLUS, (Noise(), Features("b8")))
    fine = Phase(space, 5, each, (*terms, term("noise_regularizer", 0.1)), keep="best")
    return Phase(latents.W, 5, schedule.adam(0.1, 5), terms), fine


def test_joint_spaces_are_searched(x64):
    """The second phase begins where the first ended, every part moves, noise stays standard, and it fits better."""
    result = solve(*joint_phases())
    assert set(result.variables) == {"latents", "noise", "features:b8"}
    for noise in result.variables["noise"].values():
        np.testing.assert_allclose(np.square(noise).mean((1, 2)), 1, rtol=1e-9)
    assert (result.terms["l2"] < result.traces[:, 0]).all() and result.ws.shape == (3, 4, 6)


def test_joint_spaces_go_on_after_an_interruption(x64, tmp_path):
    """A search over a joint space, cut off in its second phase, ends as if it had not been."""
    whole = solve(*joint_phases())

    class Cut(Exception):
        pass

    calls = []

    def watch(watched):
        calls.append(watched.step)
        if watched.step == 8:
            raise Cut

    with pytest.raises(Cut):
        solve(*joint_phases(), state=inpaint.SavedSearch(tmp_path / "state", every=0), watch=watch)
    resumed = solve(*joint_phases(), state=inpaint.SavedSearch(tmp_path / "state", every=0))
    assert calls[-1] == 8
    for name in ("raw", "scores", "traces"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), rtol=0, atol=1e-12, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), resumed.variables, whole.variables)
