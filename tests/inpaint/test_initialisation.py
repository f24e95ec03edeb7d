# SPDX-License-Identifier: Apache-2.0
"""Where starts begin: latents that are given, and the study that compares initialisations, with its command."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import masks
from inpaint.experiments import initialisation
from inpaint.experiments.grid import Portraits
from inpaint.experiments.parse import parse_method

SIZE, STEPS = 16, (0, 2, 4)


@functools.cache
def make_model():
    """Returns a tiny random generator of 16 px with statistics."""
    config = sg.GeneratorConfig(widths=(6, 4, 4), z_dim=6, w_dim=6, mapping_layers=2)
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    return sg.Model(generator, None, sg.estimate_w_statistics(jax.random.key(0), generator, samples=200))


def make_problems(n):
    known = np.ones((SIZE, SIZE), np.float32)
    known[4:10, 5:12] = 0
    images = np.random.default_rng(0).uniform(-1, 1, (n, SIZE, SIZE, 3)).astype(np.float32)
    return [inpaint.Problem.observe(x, inpaint.operators.Mask.checked(known)) for x in images]


def search_from(guess, problem, *, jitter=0.0, starts=1):
    method = inpaint.methods.latent_search(steps=1, coarse_share=0, lr=1e-9, initialisation=inpaint.Given(jitter))
    return inpaint.solve(make_model(), problem, method, starts=starts, key=jax.random.key(0), guess=guess)


def test_starts_begin_about_given_latents(shared_compilations):
    """Without jitter at them, one for each image of a batch; with jitter every start elsewhere."""
    guess = jax.random.normal(jax.random.key(1), (2, make_model().generator.config.num_ws, 6))
    problems = make_problems(2)
    found = search_from(guess, inpaint.Problem.stack(problems))
    np.testing.assert_allclose(found.ws[:, 0], guess, atol=1e-6)
    spread = search_from(guess[0], problems[0], jitter=1.0, starts=3)
    assert np.abs(spread.ws - np.asarray(guess[0])).max((1, 2)).min() > 1e-3
    assert np.abs(spread.ws[0] - spread.ws[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("guess", "reason"),
    [(None, "none are given; pass guess"), (jnp.zeros((1, 6)), r"guess must be \[6, 6\], got \[1, 6\]")],
)
def test_unsuitable_latents_are_told(guess, reason):
    with pytest.raises(ValueError, match=reason):
        search_from(guess, make_problems(1)[0])


class PixelJudge:
    """Stands for the judge: its distance is the mean absolute difference of pixels."""

    content_hash = "pixels"

    def compare(self, images, truths):
        return np.abs(images - truths).mean((1, 2, 3)), None, None


def make_study(*, starts, names):
    pixels = np.random.default_rng(2).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    config = parse_method("latent_search+search.coarse_share=0", starts=starts, steps=STEPS[-1]).config
    config.search.pool = 4
    return initialisation.study(
        make_model(),
        Portraits(pixels, ("a", "b"), np.asarray([3, 7])),
        masks.parse("centre"),
        config,
        PixelJudge(),
        initialisations=names,
        steps=STEPS,
    )


@pytest.mark.slow
def test_a_study_of_many_starts_tells_what_one_gives(shared_compilations):
    """Its first start is that of a study with one start; before the first step the best of a pool is the first."""
    many, alone = (make_study(starts=n, names=("mean", "random", "prescreen")) for n in (3, 1))
    for name in many:
        for kind, figures in enumerate(many[name].first):
            assert figures.shape == (2, len(STEPS))
            np.testing.assert_allclose(figures, alone[name].first[kind], rtol=1e-4)
            np.testing.assert_array_equal(alone[name].first[kind], alone[name].selected[kind])
    np.testing.assert_array_equal(many["prescreen"].first[0][:, 0], many["prescreen"].selected[0][:, 0])
    assert np.abs(many["random"].first[0] - many["random"].selected[0]).max() > 0


def test_the_start_of_lowest_objective_is_selected():
    """Traces hold the objective before each update, scores the last one; what is not finite is never chosen."""
    traces = np.asarray([[[3.0, 1.0], [2.0, np.nan]]])
    result = search_from(jnp.zeros((make_model().generator.config.num_ws, 6)), make_problems(1)[0])
    result = dataclasses.replace(result, traces=traces, scores=np.asarray([[5.0, 4.0]]))
    assert initialisation.selected_starts(result, (0, 1, 2)).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("steps", [(), (-1, 4), (2, 2), (4, 2), (0, 5)])
def test_unsuitable_steps_are_told(steps):
    with pytest.raises(ValueError, match="must rise from 0 at least to 4 at most"):
        initialisation.check_steps(steps, 4)


@pytest.mark.slow
def test_commands(tmp_path, save_generator, save_pictures, run_commands):
    """A restoration begins where another ended, in a folder too; the study writes its table."""
    save_generator(tmp_path / "generator")
    (tmp_path / "photos").mkdir()
    save_pictures(tmp_path)
    (tmp_path / "photos" / "a.png").write_bytes((tmp_path / "image.png").read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "faces.npz", images=pixels, split=np.asarray(["report"] * 3))
    restore = ["restore", "--generator=generator", "--mask=mask.png", "--starts=2", "--steps=2", "--keep=1"]
    restore += ["--config.search.coarse_share=0"]
    one, many = [*restore, "--image=image.png"], [*restore, "--image=photos"]
    study = ["initialise", "--data=faces.npz", "--generator=generator", "--steps=2", "--starts=2", "--limit=2"]
    cases = [
        [*one, "--output=first/a"],
        [*one, "--output=second", "--latents=first/a/latents.npz", "--config.search.jitter=0"],
        [*many, "--output=again", "--latents=first", "--config.search.jitter=0"],
        [*one, "--output=no", "--init=file"],
        [*one, "--output=no", "--init=mean", "--latents=first/a/latents.npz"],
        [*one, "--output=no", "--latents=first"],
        [*study, "--output=study", "--shown=0,2"],
        [*study, "--output=no", "--shown=0,3"],
        [*study, "--output=no", "--shown=0,a"],
        [*study, "--output=no", "--shown=0", "--initialisations=mean,guess"],
        [*study, "--output=no", "--shown=0", "--initialisations=mean,encoder"],
        [*study, "--output=no", "--shown=0", "--method=biharmonic"],
        [*one, "--output=no", "--method=biharmonic", "--latents=first/a/latents.npz"],
    ]
    done = run_commands("inpaint", cases, tmp_path)
    assert [code for code, _, _ in done] == [0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1], [errors for _, _, errors in done]
    reasons = {
        3: "--init file and --latents belong together; init is file",
        4: "--init file and --latents belong together; init is mean",
        5: "first is no file; an earlier restoration leaves latents.npz",
        7: "must rise from 0 at least to 2 at most, got [0, 3]",
        8: "--shown must be whole numbers, got 0,a",
        9: "unknown initialisation 'guess'; known: mean, random, prescreen, encoder",
        10: "the generator has no encoder to begin with",
        11: "the method biharmonic makes no search",
        12: "--latents says where a search begins, and the method biharmonic makes none",
    }
    for case, reason in reasons.items():
        assert reason in done[case][2] and done[case][2].count("\n") == 1, done[case][2]
    before, after = (json.loads((tmp_path / name / "scores.json").read_text())[0] for name in ("first/a", "second"))
    assert after["total"] < before["total"]
    assert (tmp_path / "again" / "a" / "latents.npz").is_file() and not (tmp_path / "no").exists()
    figures = json.loads((tmp_path / "study" / "figures.json").read_text())
    assert set(figures["medians"]) == {"mean", "random", "prescreen"} and figures["portraits"] == 2
    assert len((tmp_path / "study" / "table.md").read_text().splitlines()) == 2 + 3 * 2
