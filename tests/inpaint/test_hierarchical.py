# SPDX-License-Identifier: Apache-2.0
"""Hierarchical encoding: shapes, causality, what the skip path leaves alone, frozen networks, training, commands."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import named_methods
from inpaint.learned import inpainters
from inpaint.learned.hierarchical import losses, training
from inpaint.learned.hierarchical.config import HierarchicalConfig
from inpaint.learned.hierarchical.mixing import Mixing
from inpaint.learned.hierarchical.network import HierarchicalInpainter
from inpaint.learned.hierarchical.trainer import HierarchicalTrainer
from inpaint.learned.hierarchical.training import HierarchicalTrainConfig
from inpaint.learned.training_masks import TrainingMasks
from stylegan_jax import image_io, parameters, stylegan2

SMALL = dict(
    backbone="residual",
    heads="dense",
    widths=(8, 8, 8, 8, 8),
    head_width=8,
    code_dim=4,
    hidden=8,
    skip_widths=(8, 8, 8),
    second_widths=(8, 8, 8),
    noise="none",
)


@functools.cache
def model(resolution=16, w_dim=6):
    """Returns a random generator with a discriminator."""
    widths = (8,) * (resolution.bit_length() - 2)
    generator = sg.Generator(
        sg.GeneratorConfig(widths=widths, z_dim=4, w_dim=w_dim, mapping_layers=2), rngs=nnx.Rngs(0)
    )
    judge = stylegan2.Discriminator(stylegan2.DiscriminatorConfig(widths=widths), rngs=nnx.Rngs(1))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    return sg.Model(generator, discriminator=judge, w_statistics=statistics, content_hash="a" * 64)


def network(*, shaken=True, **options):
    """Returns a small network for the generator of 16 px; `shaken` moves the weights that begin at 0."""
    config = HierarchicalConfig.for_generator(model().generator.config, SMALL | options)
    found = HierarchicalInpainter(config, rngs=nnx.Rngs(0))
    if not shaken:
        return found
    arrays = parameters.to_arrays(found)
    moved = {
        name: 0.3 * jax.random.normal(jax.random.key(i), x.shape)
        for i, (name, x) in enumerate(arrays.items())
        if name.endswith(("out/weight", "leave/weight"))
    }
    return parameters.replaced(found, moved)


@pytest.fixture(scope="module")
def hole():
    """Returns a batch of two images `[2, 16, 16, 3]` and masks `[2, 16, 16]`."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    known = np.ones((2, 16, 16), np.float32)
    known[:, 4:12, 4:12] = 0
    return jnp.asarray(images), jnp.asarray(known)


def rand(n=2, seed=0):
    return model().generator.map(jax.random.normal(jax.random.key(seed), (n, 4)))


SIZES = {64: (10, 16, "latents"), 256: (14, 64, "single"), 1024: (18, 64, "two")}


@pytest.mark.parametrize("resolution", SIZES)
def test_shapes_of_full_width(resolution):
    """A generator of any size gives 2 log2(size) - 2 styles, twice as many codes, and the paper's replaced map."""
    styles, tap, stages = SIZES[resolution]
    config = sg.GeneratorConfig(widths=stylegan2.channel_widths(resolution))
    # Depth does not change a shape, and takes long to trace.
    settings = HierarchicalTrainConfig(stages=stages, depths=(1, 1, 1, 1)).network(config)
    assert settings.entering == f"b{tap}/conv1" and settings.feature_channels == 512 and settings.hidden == 512

    def run(images, known):
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        found = HierarchicalInpainter(settings, rngs=nnx.Rngs(0))
        seen = found.see(images, known)
        made = found.render(generator, found.styles(seen, generator.map(jnp.zeros((1, 512)))), seen, images, known)
        return seen.codes, made

    shapes = (1, resolution, resolution, 3), (1, resolution, resolution)
    codes, made = jax.eval_shape(run, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    assert codes.shape == (1, styles, 2, 512) and made.ws.shape == (1, styles, 512)
    assert made.images.shape == shapes[0]
    assert made.features is None if stages == "latents" else made.features.shape == (1, tap, tap, 512)


@pytest.mark.parametrize("context", ["previous", "all", "none"])
def test_mixing_is_causal(context):
    """The codes of style i move W_out_j for j >= i only, and without context for j = i only."""
    mixing = Mixing(num_ws=4, w_dim=3, code_dim=2, hidden=8, context=context, rngs=nnx.Rngs(0))
    arrays = parameters.to_arrays(mixing)
    mixing = parameters.replaced(mixing, {n: jnp.ones_like(x) for n, x in arrays.items() if n.endswith("out/weight")})
    noise, codes = (jax.random.normal(jax.random.key(i), (1, 4, *shape)) for i, shape in enumerate(((3,), (2, 2))))
    for argument in (0, 1):
        slope = jax.jacobian(lambda *x: mixing(*x)[0].sum(-1), argument)(noise, codes)
        moved = np.asarray(jnp.abs(slope).sum(tuple(range(3, slope.ndim)))[:, 0] > 0)
        expected = np.eye(4, dtype=bool) if context == "none" else np.tri(4, dtype=bool)
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("stages", ["single", "two"])
def test_a_new_skip_path_leaves_the_image_alone(hole, stages):
    """With S(E, G) = G the result is plain G(W_out), and features replaced by themselves give the same image."""
    graph, new = nnx.split(network(stages=stages, shaken=False))
    synthesis = model().generator.synthesis

    @jax.jit
    def run(state, noise):
        made = nnx.merge(graph, state)(model().generator, *hole, noise)
        again = synthesis(made.ws, noise="none", features={"b4/conv1": made.features})
        return made.images, synthesis(made.ws, noise="none"), again

    made, plain, again = run(new, rand())
    np.testing.assert_allclose(made, plain, atol=1e-6)
    made, plain, again = run(nnx.split(network(stages=stages))[1], rand())
    np.testing.assert_allclose(made, again, atol=1e-6)
    assert np.abs(made - plain).max() > 1e-3


def test_what_is_hidden_has_no_influence(hole):
    """Pixels of the hole change nothing, even if they are not finite."""
    images, known = hole
    found = network()
    hidden = jnp.where(known[..., None] > 0, images, jnp.nan)
    see = jax.jit(lambda x: found.see(x, known))
    for a, b in zip(see(images), see(hidden), strict=True):
        np.testing.assert_array_equal(a, b)


def test_samples_differ_in_the_hole_only(hole):
    """Two keys give other holes; known pixels of I_f are the input's bit for bit; one key gives one sample."""
    images, known = (x[0] for x in hole)
    run = jax.jit(lambda key: network().produce(key, model().generator, images, known))
    first, second, again = (run(jax.random.key(i)) for i in (0, 1, 0))
    np.testing.assert_array_equal(first.image, again.image)
    composites = [np.asarray(losses.composite(x.image[None], *(y[:1] for y in hole))[0]) for x in (first, second)]
    shown = np.asarray(known) > 0
    for composite in composites:
        np.testing.assert_array_equal(composite[shown], np.asarray(images)[shown])
    assert np.abs(composites[0] - composites[1])[~shown].mean() > 1e-3


def test_gradients_flow_where_they_should(hole):
    """The second pass knows nothing of pixels in the hole; the first one does; latents reach every network."""
    images, known = hole
    settings = HierarchicalTrainConfig(**SMALL, features=0.0, batch=2, generated=2)

    def parts(images, found):
        networks = training.Networks(model().generator, found, lambda x: {})
        return training.passes(networks, images, known, rand(), rand(seed=1), config=settings)[1]

    graph, state, rest = nnx.split(network(), nnx.Param, ...)
    both = jax.jit(jax.jacrev(lambda x, s: parts(x, nnx.merge(graph, s, rest)), (0, 1)))(images, state)
    same, other = (np.asarray(jnp.abs(both[name][0]).sum(-1)) for name in ("same_pixel", "other_pixel"))
    inside = np.asarray(known) == 0
    assert other[inside].max() == 0 and other[~inside].min() > 0 and same[inside].min() > 0
    arrays = parameters.to_arrays(nnx.merge(graph, both["other_pixel"][1], rest))
    for part in ("encoder/trunk", "encoder/heads", "mixing", "skip"):
        assert max(float(jnp.abs(x).max()) for name, x in arrays.items() if name.startswith(part)) > 0, part


def start_run(folder, *, given=None, **options):
    """Returns a run on the small generator."""
    settings = dict(images=16, batch=4, snapshot_images=16, masks=("centre", "rectangles"), r1_gamma=0.0)
    settings = SMALL | settings | options
    config = HierarchicalTrainConfig(**({"generated": settings["batch"]} | settings))
    return HierarchicalTrainer(config, given or model(), None, folder)


def with_encoder():
    """Returns the small model with an encoder that says something."""
    config = sg.encoders.MaskedEncoderConfig(widths=(8, 8, 8), num_ws=6, w_dim=6, features=8)
    encoder = sg.encoders.MaskedEncoder(config, rngs=nnx.Rngs(3))
    encoder.out.weight[...] = jax.random.normal(jax.random.key(0), encoder.out.weight.shape)
    return dataclasses.replace(model(), encoder=encoder, encoder_hash="b" * 64)


@pytest.mark.slow
def test_a_warm_start_learns_latents_alone(tmp_path, shared_compilations):
    """The skip path and the discriminator stay, the latents wanted come nearer, and the game begins afterwards."""
    run = start_run(
        tmp_path, given=with_encoder(), start="encoder", warm_images=400, images=404, lr=0.01, features=0.0, batch=8
    )
    before = jax.tree.map(np.asarray, run.state)
    errors = [{name: float(x) for name, x in run.advance(number).items()} for number in range(50)]
    assert np.mean([e["latent"] for e in errors[-5:]]) < 0.8 * np.mean([e["latent_of_start"] for e in errors[-5:]])
    names = sorted(parameters.trainable(run.network()))
    pairs = zip(*(jax.tree.leaves(s.parameters) for s in (before, run.state)), strict=True)
    stays = [bool((a == np.asarray(b)).all()) for a, b in pairs]
    assert all(s for s, name in zip(stays, names, strict=True) if name.startswith("skip"))
    assert not all(s for s, name in zip(stays, names, strict=True) if name.startswith("mixing"))
    for a, b in zip(*(jax.tree.leaves(s.discriminator) for s in (before, run.state)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_step_moves_only_what_is_trained(tmp_path, shared_compilations):
    """Encoder, mixing, skip path and discriminator move; generator, buffers and guide stay, bit for bit."""
    given = with_encoder()
    run = start_run(tmp_path / "run", given=given, start="encoder", features=0.0)
    before = jax.tree.map(np.asarray, (run._frozen, run.state))
    statistics = run.advance(0)
    assert all(np.isfinite(float(x)) for x in statistics.values())
    assert {"same_pixel", "other_pixel", "game", "d_loss"} <= set(statistics)
    jax.tree.map(np.testing.assert_array_equal, before[0], jax.tree.map(np.asarray, run._frozen))
    for name in ("parameters", "discriminator"):
        pairs = zip(*(jax.tree.leaves(getattr(s, name)) for s in (before[1], run.state)), strict=True)
        assert sum(bool((a != np.asarray(b)).any()) for a, b in pairs) > 5, name
    names = set(parameters.trainable(run.network()))
    assert not any("guide" in name for name in names) and len(names) == len(jax.tree.leaves(run.state.parameters))
    run.snapshot(provenance={})
    loaded, _ = inpainters.load("hierarchical", given, path=tmp_path / "run" / "model")
    images, known = np.zeros((16, 16, 3), np.float32), np.ones((16, 16), np.float32)
    assert np.isfinite(loaded.produce(jax.random.key(0), given.generator, images, known).image).all()
    with pytest.raises(ValueError, match="begins with the generator's encoder bbbbbbbbbbbb, and that of the model is"):
        inpainters.load("hierarchical", model(), path=tmp_path / "run" / "model")


@pytest.mark.slow
def test_a_run_resumes(tmp_path, shared_compilations):
    """A stopped run goes on as if it had not been; other settings and other generators are refused."""
    trainer = functools.partial(start_run, features=0.0, adversarial=0.0)
    straight = trainer(tmp_path / "straight")
    straight.run(provenance={}, report=lambda line: None)
    halves = trainer(tmp_path / "halves")
    for number in (0, 1):
        halves.advance(number)
    halves.snapshot(provenance={})
    again = trainer(tmp_path / "halves")
    again.run(provenance={}, report=lambda line: None)
    for a, b in zip(*(jax.tree.leaves(x.state) for x in (straight, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert image_io.read_image(tmp_path / "halves" / "sheets" / "00000016.png")[0].shape == (96, 96, 3)
    lines = (tmp_path / "straight" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["images"] == 16 and "images_per_second" in json.loads(lines[-1])
    with pytest.raises(ValueError, match=r"other settings \(context\)"):
        trainer(tmp_path / "halves", context="all")
    other = dataclasses.replace(model(), content_hash="c" * 64)
    with pytest.raises(ValueError, match="another generator"):
        trainer(tmp_path / "halves", given=other)


WRONG = {
    "no discriminator": (dict(given=dataclasses.replace(model(), discriminator=None)), "has no discriminator"),
    "no encoder": (dict(start="encoder"), "start is encoder, and the generator has none"),
    "distance": (dict(distance="x"), "distance must be one of squared, norm"),
    "generated": (dict(generated=2), "generated must be 1 to batch"),
    "context": (dict(context="next"), "context must be one of previous, all, none"),
    "widths": (dict(widths=(8, 8)), "widths must be 5 positive numbers"),
    "mask": (dict(masks=("x",)), "unknown mask 'x'"),
    "no masks": (dict(masks=()), "training needs generators of masks"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings(tmp_path, name):
    """Settings that make no sense end in one line before anything is compiled."""
    options, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        start_run(tmp_path, **options)


def test_masks_depend_on_seed_and_step():
    """Masks are the same whenever they are drawn, and lie in their bands."""
    draw = TrainingMasks(("brush:0.2-0.4", "strokes:0.2-0.4"), size=32, batch=6, seed=3)
    first, second = draw.at(0), draw.at(1)
    np.testing.assert_array_equal(second, TrainingMasks(draw_specs(), size=32, batch=6, seed=3).at(1))
    assert (first != second).any() and set(np.unique(first)) == {0.0, 1.0}
    hidden = 1 - np.stack([first, second]).mean((2, 3))
    assert 0.15 < hidden.min() and hidden.max() < 0.45


def draw_specs():
    return ("brush:0.2-0.4", "strokes:0.2-0.4")


def test_feature_distance_weighs_layers_alike():
    """A layer's scale does not count; distances of equal images are 0; both kinds agree with numpy."""
    a, b = (jax.random.normal(jax.random.key(i), (2, 4, 4, 3)) for i in (0, 1))

    def maps(scale):
        return lambda x: {"one": x, "two": scale * jnp.square(x)}

    for kind in losses.DISTANCES:
        found = [float(losses.feature_distance(maps(s), a, b, kind=kind)) for s in (1.0, 30.0)]
        assert found[0] == pytest.approx(found[1], rel=1e-4)
        assert float(losses.feature_distance(maps(1.0), a, a, kind=kind)) == pytest.approx(0, abs=1e-5)
    each = np.square(np.asarray(a - b)).mean((1, 2, 3))
    assert float(losses.distance(a, b, kind="squared")) == pytest.approx(each.mean(), rel=1e-5)
    assert float(losses.distance(a, b, kind="norm")) == pytest.approx(np.sqrt(each).mean(), rel=1e-5)


@pytest.fixture(scope="module")
def problem(hole):
    return inpaint.Problem.observe(hole[0][0], inpaint.operators.Mask.checked(hole[1][0]))


def test_solve_gives_samples_like_any_search(problem, hole):
    """A sample depends on its key alone, not on the chunk or its neighbours; scores are the known pixels' errors."""
    found, generator, key = network(), model().generator, jax.random.key(5)
    method = inpaint.methods.learned(found, name="hierarchical")
    result = inpaint.solve(generator, problem, method, starts=3, key=key, chunk=2)
    assert result.raw.shape == (3, 16, 16, 3) and result.ws.shape == (3, 6, 6) and result.traces.shape == (3, 0)
    own = jax.random.fold_in(jax.random.fold_in(key, 0), 2)
    shown = jnp.where(hole[1][0][..., None] > 0, hole[0][0], 0)
    alone = found.produce(own, generator, shown, hole[1][0])
    np.testing.assert_allclose(result.raw[2], alone.image, atol=2e-5)
    np.testing.assert_allclose(result.variables["features:b4/conv1"][2], alone.features["b4/conv1"], atol=2e-5)
    error = np.square(result.raw - np.asarray(hole[0][0]))[:, np.asarray(hole[1][0]) > 0].mean((1, 2))
    np.testing.assert_allclose(result.scores, error, rtol=1e-5)
    selection = inpaint.select(result, keep=2)
    assert selection.scores[0] <= selection.scores[1] and (result.forwards, result.gradients) == (3, 0)


@pytest.mark.parametrize("stages", ["single", pytest.param("latents", marks=pytest.mark.slow)])
def test_refinement_never_worsens_the_known_region(problem, stages):
    """Steps behind a sample meet the known pixels better, or the sample stays; even steps that make it worse."""
    found, options = network(stages=stages), dict(starts=2, key=jax.random.key(5))
    plain = inpaint.solve(model().generator, problem, inpaint.methods.learned(found), **options)
    better = inpaint.solve(model().generator, problem, inpaint.methods.learned(found, steps=10, lr=0.05), **options)
    assert (better.scores < plain.scores).all() and better.traces.shape == (2, 10)
    np.testing.assert_allclose(better.traces[:, 0], plain.scores, rtol=1e-4)
    method = inpaint.methods.learned(found, steps=1, lr=0.05)
    worse = dataclasses.replace(method.refine, optimizer=_uphill(), keep="last")
    kept = inpaint.solve(model().generator, problem, dataclasses.replace(method, refine=worse), **options)
    np.testing.assert_array_equal(kept.raw, plain.raw)
    np.testing.assert_array_equal(kept.ws, plain.ws)
    np.testing.assert_array_equal(kept.scores, plain.scores)


@functools.cache
def _uphill():
    import optax

    return optax.sgd(-10.0)


def test_solve_refuses_what_does_not_fit(problem):
    """Labels, guesses and other operators are no arguments of a learned inpainter."""
    method, options = inpaint.methods.learned(network()), dict(starts=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="guess has no meaning"):
        inpaint.solve(model().generator, problem, method, guess=np.zeros((6, 6)), **options)
    grey = inpaint.Problem.observe(problem.measurement, inpaint.operators.Grayscale())
    with pytest.raises(ValueError, match="shows no pixels as they are"):
        inpaint.solve(model().generator, grey, method, **options)
    with pytest.raises(ValueError, match="lies in w"):
        phase = dataclasses.replace(inpaint.methods.brief().phases[0], steps=1)
        inpaint.FeedForward("x", network(), phase)


def save_model(path, *, seed=0):
    """Writes a small generator with a discriminator; returns it as loaded."""
    found = model()
    generator = sg.Generator(found.generator.config, rngs=nnx.Rngs(seed))
    sg.save(path, dataclasses.replace(found, generator=generator, content_hash=None))
    return sg.load(path)


@pytest.fixture
def workplace(tmp_path, save_pictures):
    """Returns a folder with an image, its mask, two generators and an npz of images."""
    save_pictures(tmp_path)
    for name, seed in (("generator", 0), ("other", 1)):
        save_model(tmp_path / name, seed=seed)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "faces.npz", images=images, split=np.asarray(["train"] * 4 + ["report"] * 2))
    return tmp_path


SMOKE = f"{pathlib.Path(__file__).parents[2]}/configs/learned/hierarchical64.py:smoke"
TRAIN = ["train", "--config", SMOKE, "--generator", "generator", "--data", "faces.npz", "--split", "train"]
TRAIN += ["--config.generated=4", "--output", "run"]
RESTORE = ["restore", "--method", "hierarchical", "--image", "image.png", "--mask", "mask.png", "--samples", "3"]
OWN = [*RESTORE, "--generator", "generator", "--output"]
NETWORK = "--config.network=run/model"


def checked(results, cases, messages):
    """Checks that commands succeed, but for the last ones, which fail in one line with `messages`."""
    done = len(cases) - len(messages)
    for (code, _, error), case in zip(results[:done], cases, strict=False):
        assert code == 0, (case, error)
    for (code, _, error), message in zip(results[done:], messages, strict=True):
        assert code == 1 and message in error and len(error.strip().splitlines()) == 1, (error, message)


def test_commands(workplace, run_commands):
    """`train` and `restore` for real, and what they say of another generator's network and of none."""
    cases = [
        [*TRAIN, "--config.features=0.0", "--config.adversarial=0.0"],
        [*OWN, "out", NETWORK],
        [*RESTORE, "--generator", "other", "--output", "foreign", NETWORK],
        ["restore", "--refine", "3", "--method", "brief", "--generator", "generator", "--output", "x"],
    ]
    messages = [
        f"not of {sg.load(workplace / 'other').content_hash[:12]}",
        "--refine goes on from a learned inpainter, and brief is none",
    ]
    results = run_commands("inpaint", cases, workplace)
    checked(results, cases, messages)
    assert "method     hierarchical, 3 samples, seed 0" in results[1][1]
    assert len(json.loads((workplace / "out" / "scores.json").read_text())) == 3
    with np.load(workplace / "out" / "variables.npz") as stored:
        assert stored["latents"].shape == (3, 6, 6) and stored["features:b4/conv1"].shape[1:] == (4, 4, 8)


@pytest.mark.slow
def test_all_commands(workplace, run_commands):
    """`train` with everything, `restore` with a search behind, which is never worse, and `evaluate`."""
    evaluate = ["evaluate", "--data", "faces.npz", "--split", "report", "--generator", "generator", "--starts", "2"]
    cases = [
        TRAIN,
        [*OWN, "out", NETWORK],
        [*OWN, "refined", NETWORK, "--refine", "3"],
        [*evaluate, "--methods", "plain=hierarchical+network=run/model,brief", "--steps", "1", "--output", "table"],
        ["edit", "--restored", "out", "--direction", "sefa:0", "--strength=0,2", "--output", "edit"],
    ]
    checked(run_commands("inpaint", cases, workplace), cases, [])
    first, refined = (json.loads((workplace / name / "scores.json").read_text()) for name in ("out", "refined"))
    by_start = {row["start"]: row["total"] for row in first}
    assert all(row["total"] <= by_start[row["start"]] for row in refined)
    assert "plain" in (workplace / "table" / "table.md").read_text()
    # An edit of strength 0 is the restoration again, since its styles go the same way.
    pictures = ("out/raw_1.png", "edit/raw_1_1.png", "edit/raw_1_2.png")
    plain, again, moved = (image_io.read_image(workplace / name)[0] for name in pictures)
    assert np.abs(plain - again).max() < 0.01 and np.abs(plain - moved).max() > 0.02


MISSING = {
    "no network": (
        lambda: inpainters.load("hierarchical", model()),
        "the generator aaaaaaaaaaaa has no hierarchical network in its folder; name one by config.network, or train",
    ),
    "nowhere": (lambda: inpainters.load("hierarchical", model(), path="nowhere"), "nowhere does not exist"),
    "not loaded": (
        lambda: named_methods.build_method(named_methods.named("hierarchical")),
        "which must be loaded first",
    ),
    "noise": (
        lambda: named_methods.build_method(
            _config.apply_overrides(named_methods.named("hierarchical"), {"search.noise": "none"}), inpainter=network()
        ),
        "the method hierarchical is a trained network and has no noise",
    ),
    "network of a search": (
        lambda: named_methods.build_method(_config.apply_overrides(named_methods.named("brief"), {"network": "run"})),
        "config.network is for learned inpainters, and the method brief is none",
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_networks(name):
    """A missing network, and settings that it does not have, end in one clear line."""
    call, message = MISSING[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# The number of devices must be set before JAX starts.
SHARED = """
import sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
import test_hierarchical as tests
found = []
for devices in (jax.devices()[:1], jax.devices()):
    run = tests.HierarchicalTrainer(tests.HierarchicalTrainConfig(**tests.SMALL, features=0.0, adversarial=0.0, batch=4,
        generated=4, lr=1e-3, masks=("centre",)), tests.model(), None, sys.argv[2], devices=devices)
    statistics = [run.advance(number) for number in (0, 1)]
    found.append([float(s["same_pixel"]) for s in statistics])
print(len(jax.devices()), np.abs(np.subtract(*found)).max() / np.abs(found[0]).max())
"""


@pytest.mark.slow
def test_devices_share_a_batch(tmp_path):
    """Two devices, each with half of a batch, learn what one learns from all of it, up to rounding."""
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    here = pathlib.Path(__file__)
    environment["PYTHONPATH"] = str(here.parents[2])
    command = [sys.executable, "-c", SHARED, str(here.parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    devices, difference = done.stdout.split()
    assert devices == "2" and float(difference) < 1e-4


@pytest.mark.slow
def test_overfitting_a_tiny_generator(tmp_path):
    """200 steps on four fixed images of a 32 px generator, replaced at 8x8: L_rg falls more than ten times."""
    found = model(32, 16)
    sizes = dict(widths=(32, 32, 32, 16, 8), head_width=64, code_dim=16, hidden=32, skip_widths=(32, 32, 32))
    options = dict(features=0.0, adversarial=0.0, other=0.0, lr=0.005, images=10**6, beta1=0.5)
    config = HierarchicalTrainConfig(**(SMALL | sizes | options), batch=4, generated=4, masks=("centre",))
    run = HierarchicalTrainer(config, found, None, tmp_path)
    batch, first = run._batch(0), None
    for _ in range(200):
        run.state, statistics = run._step(
            jax.random.key(0), run.state, run._frozen, batch, plays=False, penalises=False
        )
        first = float(statistics["same_pixel"]) if first is None else first
    assert float(statistics["same_pixel"]) < first / 10


def test_every_kind_of_network_is_a_method():
    """What can be loaded as an inpainter can be asked for by name, and nothing else."""
    assert set(inpainters.NAMES) == {name for name, method in named_methods.METHODS.items() if method.needs_network}
