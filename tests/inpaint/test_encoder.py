# SPDX-License-Identifier: Apache-2.0
"""The masked encoder: what it sees, its training, the search that begins with it, and its command."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import methods
from inpaint.learned import masked_encoder
from inpaint.learned.masked_encoder import EncoderTrainConfig, EncoderTrainer
from stylegan_jax import checkpoint, encoders, image_io, parameters
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig, MaskedEncoder, MaskedEncoderConfig

SIZE = 8
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[2:6, 3:7] = 0
CONFIG = EncoderTrainConfig(
    widths=(6, 4), features=8, images=12, batch=4, generated=1, masks=("centre", "lower_half"), mask_pool=10
)


def random_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


@functools.cache
def make_model():
    """Returns a tiny random generator with discriminator and statistics."""
    config = sg.GeneratorConfig(widths=(6, 4), z_dim=6, w_dim=6, mapping_layers=2)
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    discriminator = sg.Discriminator(sg.DiscriminatorConfig(widths=(6, 4)), rngs=nnx.Rngs(1))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    return sg.Model(generator, discriminator, statistics, content_hash="of this generator")


def make_encoder(*, seed=0):
    """Returns an encoder of that generator whose guesses differ from image to image."""
    config = MaskedEncoderConfig(widths=(6, 4), num_ws=4, w_dim=6, features=8)
    encoder = MaskedEncoder(config, rngs=nnx.Rngs(seed))
    encoder.out.weight[...] = jax.random.normal(jax.random.key(seed), encoder.out.weight[...].shape)
    return encoder


def encode(encoder, image, known):
    return encoder(jnp.asarray(image)[None], jnp.asarray(known)[None])[0]


def test_what_is_hidden_is_not_seen():
    """Hidden pixels change nothing, known ones and the mask itself do; a new encoder says the mean of W."""
    encoder = make_encoder()
    image = np.asarray(random_images(1)[0] / 127.5 - 1, np.float32)
    found = encode(encoder, image, KNOWN)
    for hidden in (0.3, np.nan):
        other = np.where(KNOWN[..., None] > 0, image, np.float32(hidden))
        np.testing.assert_array_equal(found, encode(encoder, other, KNOWN))
    for different in (encode(encoder, -image, KNOWN), encode(encoder, image, np.ones_like(KNOWN))):
        assert float(jnp.abs(found - different).max()) > 1e-3
    new = MaskedEncoder(encoder.config, rngs=nnx.Rngs(0))
    new.mean[...] = jnp.arange(6.0)
    np.testing.assert_array_equal(encode(new, image, KNOWN), jnp.tile(jnp.arange(6.0), (4, 1)))


def test_wrong_shapes_are_told():
    """An image of another size, and a mask with channels."""
    encoder = make_encoder()
    for images, known in (((1, 4, 4, 3), (1, 4, 4)), ((1, 8, 8, 3), (1, 8, 8, 1))):
        with pytest.raises(ValueError, match=r"must be \[n, 8, 8, 3\]"):
            encoder(jnp.zeros(images), jnp.zeros(known))


def test_an_encoder_belongs_to_its_generator(tmp_path):
    """It is found in the generator's folder, and that of another generator is refused with both names."""
    path = sg.save(tmp_path / "generator", make_model())
    assert sg.load(path).encoder is None and not checkpoint.has_encoder(path)
    own, encoder = sg.load(path).content_hash, make_encoder()
    checkpoint.save_network(path / "encoder", encoder, provenance={"generator": own})
    found = sg.load(path)
    assert checkpoint.has_encoder(path) and found.content_hash == own and len(found.encoder_hash) == 64
    image = random_images(1)[0] / np.float32(127.5) - 1
    np.testing.assert_array_equal(encode(found.encoder, image, KNOWN), encode(encoder, image, KNOWN))
    checkpoint.save_network(path / "encoder", encoder, provenance={"generator": "0123456789abcdef"}, overwrite=True)
    with pytest.raises(sg.CheckpointError, match=f"0123456789ab, not of {own[:12]}"):
        sg.load(path)


def test_masks_have_holes_and_repeat():
    """Every mask of the pool is a mask; those of a step depend on seed and step alone; some images are shown whole."""
    config = dataclasses.replace(CONFIG, masks=("noise:0.5", "lower_half", "strokes:0.2-0.4"), mask_pool=40, batch=200)
    pool = masked_encoder.draw_masks(config, 16)
    assert pool.shape == (40, 16, 16) and set(np.unique(pool)) == {0, 1}
    assert ((pool.mean((1, 2)) > 0.2) & (pool.mean((1, 2)) < 1)).all()
    one, two = (masked_encoder.masks_at(pool, step, config) for step in (0, 1))
    np.testing.assert_array_equal(one, masked_encoder.masks_at(pool, 0, config))
    assert one.dtype == np.float32 and (one != two).any()
    assert 0 < (one.min((1, 2)) == 1).mean() < 0.3
    with_shift = masked_encoder.draw_masks(dataclasses.replace(config, masks=("centre",)), 16)
    assert len(np.unique(with_shift, axis=0)) > 3


def leaves(tree):
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted(tmp_path, shared_compilations):
    """A kill between snapshots changes no bit; the encoder changes, the generator does not; another one is refused."""
    model, images, lines = make_model(), random_images(6), []
    before = leaves(nnx.state(model.generator))
    whole = EncoderTrainer(CONFIG, model, images, tmp_path / "whole")
    start = leaves(whole.state)
    whole.run(provenance={"source": "random"}, report=lines.append)
    end = leaves(whole.state)
    moved = [name for name in end if ".parameters" in name and not np.array_equal(start[name], end[name])]
    assert len(moved) > 5 and end[".images"] == 12
    assert {"pixel", "features", "latent", "prior"} <= set(lines[-1])
    for name, value in leaves(nnx.state(model.generator)).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    # A snapshot after every step; killed in the second one, before its snapshot.
    config = dataclasses.replace(CONFIG, snapshot_images=4)

    def stop(line):
        if line["images"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EncoderTrainer(config, model, images, tmp_path / "part").run(provenance={}, report=stop)
    again = EncoderTrainer(config, model, images, tmp_path / "part")
    assert int(again.state.images) == 4
    again.run(provenance={"source": "random"}, report=lines.append)
    for name, value in leaves(again.state).items():
        np.testing.assert_array_equal(value, end[name], err_msg=name)
    stored, _ = checkpoint.load_network(tmp_path / "whole" / "model", MaskedEncoder)
    np.testing.assert_array_equal(stored.out.weight[...], whole.encoder().out.weight[...])
    with pytest.raises(ValueError, match="another generator"):
        EncoderTrainer(CONFIG, dataclasses.replace(model, content_hash="other"), images, tmp_path / "part")


def make_linear(**changes):
    """Returns a random linear encoder of that generator in half precision."""
    config = LinearEncoderConfig(**{"resolution": SIZE, "seen": 4, "num_ws": 4, "w_dim": 6, "components": 3} | changes)
    rng, like = np.random.default_rng(0), parameters.abstract(LinearEncoder, config)
    return LinearEncoder.from_arrays(config, {k: rng.normal(size=v.shape).astype(np.float16) for k, v in like.items()})


def test_a_linear_encoder_is_trained_on(tmp_path):
    """What it says of latents changes, what it says of images does not, and it is stored as it was."""
    initial, config = make_linear(), dataclasses.replace(CONFIG, images=4, generated=0, features_weight=0.0, lr=0.1)
    run = EncoderTrainer(config, make_model(), random_images(6), tmp_path / "run", initial=initial)
    run.run(provenance={"source": "random"}, report=lambda line: None)
    found, _ = checkpoint.load_network(tmp_path / "run" / "model", LinearEncoder)
    assert found.config == initial.config
    for name, array in parameters.to_arrays(found).items():
        before = parameters.to_arrays(initial)[name]
        assert array.dtype == np.float16, name
        assert np.array_equal(array, before) == (name in ("mean", "loadings")), name
    again = EncoderTrainer(config, make_model(), random_images(6), tmp_path / "run", initial=initial)
    assert int(again.state.images) == 4
    with pytest.raises(ValueError, match=r"of another generator: .* \(8, 3, 5, 6\), here \(8, 3, 4, 6\)"):
        EncoderTrainer(config, make_model(), random_images(6), tmp_path / "run", initial=make_linear(num_ws=5))


@pytest.mark.parametrize(
    ("changes", "images", "message"),
    [
        ({"generated": 5}, 6, r"generated must be 0 to batch \(4\)"),
        ({}, None, "all of it without images"),
        ({"widths": (6, 4, 4)}, 6, "3 widths read images of 16 px, the generator makes 8"),
    ],
)
def test_unsuitable_settings_are_told(tmp_path, changes, images, message):
    """Before anything is trained or written."""
    images = images and random_images(images)
    with pytest.raises(ValueError, match=message):
        EncoderTrainer(dataclasses.replace(CONFIG, **changes), make_model(), images, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def make_problems(n):
    mask = inpaint.operators.Mask.checked(KNOWN)
    images = np.asarray(random_images(n) / 127.5 - 1, np.float32)
    return [inpaint.Problem.observe(image, mask) for image in images]


@functools.cache
def make_search(**changes):
    return methods.encoder_search(**({"steps": 5} | changes))


def test_the_search_begins_at_the_guess_and_is_held_there():
    """Without jitter every start begins at the encoder's latents; the stronger the pull, the nearer it stays."""
    model = dataclasses.replace(make_model(), encoder=make_encoder())
    (problem,), seen = make_problems(1), []
    guess = encode(model.encoder, problem.measurement, KNOWN)
    distances = []
    for pull in (0.0, 1.0, 100.0):
        method = make_search(guess_distance=pull, jitter=0.0)
        result = inpaint.solve(model, problem, method, starts=2, key=jax.random.key(0), watch=seen.append)
        distances.append(float(np.abs(result.ws[0] - guess).mean()))
    for watched in (w for w in seen if w.step == 0):
        np.testing.assert_allclose(watched.ws, np.stack([guess] * 2), atol=1e-6)
    assert distances[0] > distances[1] > distances[2] > 0
    assert set(result.terms) == {"l2", "guess_distance", "expected_l2"}


def test_the_hole_is_held_near_what_is_expected():
    """A linear encoder's own pixels, in the search's problem only; given ones are taken instead; the pull is felt."""
    model = dataclasses.replace(make_model(), encoder=make_linear())
    (problem,) = make_problems(1)
    image, known = problem.measurement[None], jnp.asarray(KNOWN)[None]
    expected = encoders.expected(model.encoder, image, known=known, generator=model.generator)[0]
    assert expected.shape == (4, 4, 3)
    found = {}
    for pull in (1e-6, 100.0):
        method = make_search(guess_distance=0.0, expected=pull, jitter=0.0)
        result = inpaint.solve(model, problem, method, starts=1, key=jax.random.key(0))
        found[pull] = float(result.terms["expected_l2"][0]) / pull
        blocks = np.asarray(result.raw[0]).reshape(4, 2, 4, 2, 3).mean((1, 3))
        share = 1 - KNOWN.reshape(4, 2, 4, 2).mean((1, 3))
        error = (share[..., None] * np.square(blocks - np.asarray(expected))).sum() / (3 * share.sum())
        assert found[pull] == pytest.approx(error, rel=1e-4)
        assert result.problem.expected is None
    assert found[100.0] < 0.9 * found[1e-6]
    own = dataclasses.replace(problem, expected=jnp.full((2, 2, 3), 0.25))
    result = inpaint.solve(model, own, make_search(expected=1.0, jitter=0.0), starts=1, key=jax.random.key(0))
    assert result.problem.expected.shape == (2, 2, 3) and result.terms["expected_l2"][0] > 0


@pytest.mark.slow
def test_a_start_about_the_guess_does_not_depend_on_its_neighbours():
    """Neither on other images nor on the number of starts; starts differ."""
    model = dataclasses.replace(make_model(), encoder=make_encoder())
    problems, key, method = make_problems(3), jax.random.key(1), make_search()
    together = inpaint.solve(model, inpaint.Problem.stack(problems), method, starts=2, key=key)
    assert np.abs(together.ws[1, 0] - together.ws[1, 1]).max() > 1e-3
    alone = inpaint.solve(model, problems[1], method, starts=3, key=key, image_ids=[1])
    # 1e-5 of the largest value after five float32 steps.
    np.testing.assert_allclose(alone.ws[:2], together.ws[1], atol=1e-5 * np.abs(together.ws).max())
    np.testing.assert_allclose(alone.traces[:2, 0], together.traces[1, :, 0], rtol=1e-5)


def test_a_search_that_cannot_begin_is_told():
    """No encoder, and a space that holds no guess."""
    (problem,) = make_problems(1)
    with pytest.raises(ValueError, match="the generator has none"):
        inpaint.solve(make_model(), problem, make_search(), key=jax.random.key(0))
    model = dataclasses.replace(make_model(), encoder=make_encoder())
    method = methods.latent_search(space="z", steps=1, initialisation=inpaint.Encoded())
    with pytest.raises(ValueError, match="a search in z cannot begin there"):
        inpaint.solve(model, problem, method, key=jax.random.key(0))


def test_commands_train_and_use_an_encoder(tmp_path, save_generator, save_pictures, run_commands):
    """An encoder trained on samples alone is used where it is named or lies in the generator's folder."""
    save_generator(tmp_path / "generator")
    save_pictures(tmp_path)
    config = pathlib.Path(__file__).parents[2] / "configs" / "encoder_faces32.py"
    train = ["train", "--generator=generator", "--output=run", f"--config={config}:smoke"]
    restore = ["restore", "--image=image.png", "--mask=mask.png", "--generator=generator", "--starts=2", "--steps=2"]
    cases = [train, [*restore, "--encoder=run/model", "--output=a"]]
    trained, named = run_commands("inpaint", cases, tmp_path)
    assert trained[0] == 0 and "its own samples at 16 px" in trained[1], trained[2]
    assert named[0] == 0 and "method     encoder_search, 2 starts" in named[1], named[2]
    (tmp_path / "run" / "model").rename(tmp_path / "generator" / checkpoint.ENCODER)
    cases = [[*restore, "--output=b"], [*restore, "--method=latent_search", "--output=c"]]
    cases[1] += ["--config.search.coarse_share=0"]
    for code, _, errors in run_commands("inpaint", cases, tmp_path):
        assert code == 0, errors
    stored = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in "abc"]
    assert [settings["method"] for settings in stored] == ["encoder_search", "encoder_search", "latent_search"]
    encoders = [settings["options"]["encoder"] for settings in stored]
    assert encoders[0] == encoders[1] is not None and encoders[2] is None
    first, second = (image_io.read_image(tmp_path / folder / "restored_1.png")[0] for folder in "ab")
    np.testing.assert_array_equal(first, second)
