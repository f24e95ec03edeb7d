# SPDX-License-Identifier: Apache-2.0
"""Training: data, losses and augmentation against their definitions; steps; a run resumed is a run never stopped."""

import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import checkpoint, dcgan, image_io
from stylegan_jax.encoders import MaskedEncoder
from stylegan_jax.ops import resample
from stylegan_jax.training import augment, data, losses, steps, trainer, warm_start
from stylegan_jax.training.config import TrainConfig
from stylegan_jax.training.dcgan import DcganTrainConfig, DcganTrainer

# The smoke settings of configs/train_faces64.py but longer, so that their programs are compiled once for both tests:
# two steps of decoding, then three of the game, the first with R1.
CONFIG = TrainConfig(
    resolution=8,
    channel_base=64,
    z_dim=8,
    w_dim=8,
    batch=4,
    images=12,
    warm_start_images=8,
    decoding_weight=1.0,
    decoding_features=1.0,
    encoder_widths=(6, 4),
)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


def leaves(tree):
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


def test_resumed_run_equals_uninterrupted(tmp_path, shared_compilations):
    """Stopping in the warm start and in the game and resuming from the folder changes no bit; steps change networks."""
    lines = []
    whole = trainer.Trainer(CONFIG, IMAGES, tmp_path / "whole")
    start = leaves(whole.state)
    whole.run(provenance={"source": "random"}, report=lines.append)
    end = leaves(whole.state)
    assert set(start) == set(end) and all(np.isfinite(value).all() for value in end.values())
    for part in (".generator", ".discriminator", ".average", ".encoder"):
        moved = [name for name in end if name.startswith(f"{part}[") and not np.array_equal(start[name], end[name])]
        assert len(moved) > 10, part
    assert end[".images"] == 12 and end[".warm_images"] == 8
    told = set().union(*lines)  # a slow run writes several lines
    assert {"d_loss", "g_loss", "r1", "decoding_loss", "decoding_features", "augment_p"} <= told and lines[-1][
        "images"
    ] == 12
    assert json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1]) == lines[-1]

    for count in (1, 2, None):  # stops after the first decoding step and after the first step of the game
        part = trainer.Trainer(CONFIG, IMAGES, tmp_path / "parts")
        if count is None:
            part.run(provenance={"source": "random"}, report=lines.append)
            break
        for _ in range(count):
            part._step()
        checkpoint.save_state(tmp_path / "parts" / "state", part.state, metadata={"config": dataclasses.asdict(CONFIG)})
    resumed = leaves(part.state)
    for name in end:
        np.testing.assert_array_equal(resumed[name], end[name], err_msg=name)

    models = [sg.load(tmp_path / run / "model") for run in ("whole", "parts")]
    assert models[0].content_hash == models[1].content_hash
    assert models[0].provenance["images"] == 12 and models[0].provenance["source"] == "random"
    np.testing.assert_array_equal(models[0].generator.mapping.w_avg[...], models[0].w_statistics.mean)
    sheet, _ = image_io.read_image(tmp_path / "whole" / "sheets" / "00000008-00000012.png")
    assert sheet.shape == (8 * 8 * 2, 8 * 8 * 2, 3)

    encoder, _ = checkpoint.load_network(tmp_path / "whole" / "encoder", MaskedEncoder)
    np.testing.assert_array_equal(encoder.out.weight[...], whole.networks.encode(whole.state.encoder).out.weight[...])

    other = dataclasses.replace(CONFIG, seed=4)
    with pytest.raises(sg.CheckpointError, match="other settings.*seed"):
        trainer.Trainer(other, IMAGES, tmp_path / "whole")


@pytest.mark.parametrize("encoder_widths", [(), (6, 4)])
def test_what_is_decoded(encoder_widths):
    """Without an encoder the components decide the render, with one the image does; the parts are told by name."""
    config = dataclasses.replace(CONFIG, encoder_widths=encoder_widths, decoding_features=0.0, encoder_prior=0.0)
    networks, state = steps.create(config, channels=3)
    if encoder_widths:
        weight = state.encoder["out"]["weight"]
        weight[...] = jax.random.normal(jax.random.key(0), weight[...].shape)
    real = jnp.asarray(image_io.from_uint8(IMAGES[:2]))
    components = jnp.stack([jnp.zeros(8), jnp.ones(8)])

    def decoded(components, real):
        parameters = (state.generator, state.encoder)
        found, parts = steps.decoding(jax.random.key(0), networks, state, parameters, (components, real), config=config)
        assert set(parts) == {"decoding_loss"} | ({"prior"} if encoder_widths else set())
        assert found == pytest.approx(float(parts["decoding_loss"]), rel=1e-6)
        return float(found)

    same = decoded(components, real) == decoded(components[::-1], real)
    assert same == bool(encoder_widths)


def test_path_length_regularisation_keeps_the_state():
    """With path lengths a generator's step returns a state of the same structure, and tells the length."""
    networks, state = steps.create(CONFIG, channels=3)
    config = dataclasses.replace(CONFIG, path_weight=2.0)
    after, statistics = jax.eval_shape(
        lambda key, state: steps.generator_step(key, networks, state, None, config=config, penalise=True),
        jax.random.key(0),
        state,
    )
    assert set(statistics) == {"g_loss", "path_length"}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_trainer_refuses(tmp_path):
    """Images of another size and unknown augmentations are named."""
    with pytest.raises(ValueError, match="images are 8 px, the config says 16"):
        trainer.Trainer(dataclasses.replace(CONFIG, resolution=16), IMAGES, tmp_path)
    with pytest.raises(ValueError, match="augment must be .* got 'flip'"):
        trainer.Trainer(dataclasses.replace(CONFIG, augment="flip"), IMAGES, tmp_path)


def test_average_follows_by_half_lives():
    """The average halves its distance over `ema_images` images, faster while few images were seen."""
    config = dataclasses.replace(CONFIG, ema_images=40.0, ema_rampup=0.1, batch=4)
    for seen, half_life in ((1000, 40.0), (200, 20.0), (0, 1.0)):
        average = steps.averaged(config, jnp.ones(3), jnp.zeros(3), jnp.asarray(seen))
        np.testing.assert_allclose(average, 0.5 ** (4 / half_life), rtol=1e-5)


def test_logistic_losses():
    """Both losses are log 2 per term where D knows nothing, and fall in the right direction."""
    zero, high, low = jnp.zeros(4), jnp.full(4, 9.0), jnp.full(4, -9.0)
    assert losses.generator_logistic(zero) == pytest.approx(np.log(2), rel=1e-6)
    assert losses.discriminator_logistic(zero, zero) == pytest.approx(2 * np.log(2), rel=1e-6)
    assert losses.generator_logistic(high) < 1e-3 < losses.generator_logistic(low)
    assert losses.discriminator_logistic(high, low) < 1e-3 < losses.discriminator_logistic(low, high)


def test_r1_is_the_gradient_norm(x64):
    """For a linear D it is |a|^2 / 2; for a curved one, differences give the same mean of squared norms."""
    rng = np.random.default_rng(0)
    a, x = jnp.asarray(rng.normal(size=(2, 2, 3))), jnp.asarray(rng.normal(size=(3, 2, 2, 3)))
    linear = losses.r1_penalty(lambda x: jnp.einsum("nhwc,hwc->n", x, a), x)
    assert linear == pytest.approx(float(jnp.sum(a**2)) / 2, rel=1e-12)

    def curved(x):
        return jnp.sum(jnp.sin(x) * a[None], axis=(1, 2, 3))

    norms = []
    for image in np.asarray(x):
        gradient = []
        for i in range(12):
            step = np.zeros(12)
            step[i] = 1e-5
            sides = [float(curved(jnp.asarray(image + s * step.reshape(2, 2, 3))[None])[0]) for s in (1, -1)]
            gradient.append((sides[0] - sides[1]) / 2e-5)
        norms.append(np.square(gradient).sum())
    assert losses.r1_penalty(curved, x) == pytest.approx(np.mean(norms) / 2, rel=1e-8)


def test_path_lengths_of_a_linear_generator(x64):
    """For images `A w` the length is `|A^T y|` over the number of pixels' root, per sample, averaged over layers."""
    rng = np.random.default_rng(0)
    matrix, ws = jnp.asarray(rng.normal(size=(4 * 4 * 3, 6))), jnp.asarray(rng.normal(size=(2, 5, 6)))
    key = jax.random.key(1)
    lengths = losses.path_lengths(key, lambda ws: (ws.sum(1) @ matrix.T).reshape(2, 4, 4, 3), ws)
    noise = np.asarray(jax.random.normal(key, (2, 4, 4, 3), jnp.float64)).reshape(2, -1)
    np.testing.assert_allclose(lengths, np.linalg.norm(noise @ np.asarray(matrix), axis=1) / 4, rtol=1e-10)


def test_augmentation():
    """p 0 is the identity, p 1 changes every image, images are independent, and the key decides."""
    images = jnp.asarray(image_io.from_uint8(IMAGES[:4]))
    run = jax.jit(augment.augment)
    np.testing.assert_array_equal(run(jax.random.key(0), images, 0.0), images)
    one, again, other = (run(jax.random.key(i), images, 1.0) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert one.shape == images.shape and jnp.isfinite(one).all()
    assert (np.abs(one - images).max((1, 2, 3)) > 0.01).all() and np.abs(one - other).max() > 0.01
    changed = run(jax.random.key(0), images.at[0].multiply(-1), 1.0)
    np.testing.assert_array_equal(changed[1:], one[1:])
    half = [np.abs(run(jax.random.key(i), images, 0.1) - images).max((1, 2, 3)) == 0 for i in range(50)]
    assert np.mean(half) == pytest.approx(0.9**5, abs=0.12)


def test_batches_depend_on_seed_and_step_only():
    """The same step gives the same batch, every pass holds each image once, flips are mirrors, ranges right."""
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    images[:, :, 1] += 100
    batch = lambda step, **k: data.batch_at(images, step, **({"batch": 4, "seed": 0, "x_flip": False} | k))  # noqa: E731
    np.testing.assert_array_equal(batch(7), batch(7))
    assert not np.array_equal(batch(7), batch(7, seed=1)) and not np.array_equal(batch(0), batch(1))
    drawn = image_io.to_uint8(np.concatenate([batch(step) for step in range(5)]))[:, 0, 0, 0]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10)) and list(drawn[:10]) != list(drawn[10:])
    flipped = np.concatenate([batch(step, x_flip=True) for step in range(25)])
    plain = np.concatenate([batch(step) for step in range(25)])
    mirrored = (flipped == plain[:, :, ::-1]).all((1, 2, 3))
    assert ((flipped == plain).all((1, 2, 3)) ^ mirrored).all() and 30 < mirrored.sum() < 70
    assert batch(0).dtype == np.float32 and np.abs(batch(0)).max() <= 1


def test_load_images(tmp_path):
    """An npz is halved by averaging and split; a folder is cropped to squares and resized."""
    np.savez(tmp_path / "a.npz", images=IMAGES, split=np.asarray(["train"] * 7 + ["test"] * 3))
    np.testing.assert_array_equal(data.load_images(tmp_path / "a.npz", resolution=8), IMAGES)
    np.testing.assert_array_equal(data.load_images(tmp_path / "a.npz", resolution=8, split="test"), IMAGES[7:])
    small = data.load_images(tmp_path / "a.npz", resolution=4)
    expected = np.rint(IMAGES.reshape(10, 4, 2, 4, 2, 3).astype(float).mean((2, 4)))
    assert small.dtype == np.uint8 and np.abs(small - expected).max() == 0
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    image_io.write_image(tmp_path / "folder" / "b.png", IMAGES[1])
    image_io.write_image(tmp_path / "folder" / "deep" / "c.PNG", np.pad(IMAGES[2], ((0, 0), (4, 4), (0, 0))))
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(data.load_images(tmp_path / "folder", resolution=8), IMAGES[1:3])


def test_load_images_refuses(tmp_path):
    """What is missing, of another kind or size is named."""
    np.savez(tmp_path / "a.npz", images=IMAGES)
    np.savez(tmp_path / "float.npz", images=IMAGES.astype(np.float32))
    np.savez(tmp_path / "none.npz", pictures=IMAGES)
    np.savez(tmp_path / "object.npz", images=np.asarray([None, {}], object))
    (tmp_path / "text.npz").write_text("x")
    (tmp_path / "empty").mkdir()
    cases = [
        ("nothing", {}, "nothing does not exist"),
        ("empty", {}, "no images in .*empty"),
        ("empty", dict(split="train"), "split 'train' needs an npz file"),
        ("text.npz", {}, "text.npz is not a readable npz file"),
        ("object.npz", {}, "object.npz is not a readable npz file"),
        ("none.npz", {}, "has no array 'images'; it has pictures"),
        ("float.npz", {}, r"must be uint8 \[n, h, w, 1 or 3\], got float32 \[10, 8, 8, 3\]"),
        ("a.npz", dict(split="train"), "has no array 'split'"),
        ("a.npz", dict(resolution=3), "images are 8x8; they must be square and a multiple of 3"),
        ("a.npz", dict(resolution=16), "multiple of 16"),
    ]
    for name, options, text in cases:
        with pytest.raises(data.DataError, match=text):
            data.load_images(tmp_path / name, **({"resolution": 8} | options))


def test_components_are_white():
    """Components have zero mean, unit variance and no correlation; those beyond the data's rank are 0."""
    for images in (IMAGES, np.random.default_rng(1).integers(0, 256, (300, 4, 4, 3), np.uint8)):
        components = warm_start.whitened_components(images, 5)
        assert components.dtype == np.float32
        np.testing.assert_allclose(components.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(components.T @ components / len(images), np.eye(5), atol=1e-3)
    beyond = warm_start.whitened_components(IMAGES, 12)
    assert beyond.shape == (10, 12) and (beyond[:, 9:] == 0).all() and beyond[:, 8].std() > 0.5


def test_the_distances_of_decoded_images():
    """Both are 0 where fake and real agree and grow with the error; a constant error costs its own size in pixels."""
    images = jnp.asarray(image_io.from_uint8(IMAGES[:8]))
    networks, state = steps.create(CONFIG, channels=3)
    features = networks.discriminate(state)
    for distance in (warm_start.pixel_distance, functools.partial(losses.feature_distance, features)):
        found = [float(distance(images + error, images)) for error in (0.0, 0.25, 0.5)]
        assert found[0] == 0 < found[1] < found[2]
    assert warm_start.pixel_distance(images + 0.5, images) == pytest.approx(0.5, rel=1e-5)


def test_blurred_components_keep_their_variance():
    """Components of unit variance keep it, and most of their direction."""
    components = jax.random.normal(jax.random.key(0), (20_000, 4))
    found = warm_start.blurred(jax.random.key(1), components, blur=0.3)
    np.testing.assert_allclose(jnp.var(found, axis=0), 1, rtol=0.05)
    np.testing.assert_allclose(jnp.mean(found * components, axis=0), (1 - 0.3**2) ** 0.5, rtol=0.05)


def test_a_smaller_model_is_a_beginning():
    """The larger generator first makes the enlarged images of the smaller one; what does not fit begins afresh."""
    small = dataclasses.replace(CONFIG, channel_base=0, widths=(8, 6), encoder_widths=())
    networks, state = steps.create(small, channels=3)
    generator, judged = networks.generate(state.generator), networks.discriminate(state)
    # A bias per colour, so that zero weights alone would not do.
    generator.synthesis.b8.torgb.bias[...] = jnp.asarray([0.1, -0.2, 0.3])
    large = dataclasses.replace(small, resolution=16, widths=(8, 6, 6))
    initial = sg.Model(generator, discriminator=judged)
    networks, state = steps.create(large, channels=3, initial=initial)
    z = jax.random.normal(jax.random.key(0), (2, 8))
    taps = generator.synthesis.resample_filter[...]
    expected = resample.upsample2d(generator(z, noise="none"), taps)
    np.testing.assert_allclose(networks.generate(state.generator)(z, noise="none"), expected, atol=1e-5)
    np.testing.assert_allclose(networks.generate(state.average)(z, noise="none"), expected, atol=1e-5)
    begun = networks.discriminate(state)
    np.testing.assert_array_equal(begun.b8.conv0.weight[...], judged.b8.conv0.weight[...])
    assert begun.b16.conv0.weight[...].std() > 0.5


def test_range_and_contrast():
    """What leaves the range costs its square; batches that differ in brightness, contrast or variety are apart."""
    images = jnp.asarray(image_io.from_uint8(IMAGES[:6]))
    assert losses.beyond_range(images) == 0
    np.testing.assert_allclose(losses.beyond_range(jnp.full((1, 2, 2, 3), -1.5)), 0.25, rtol=1e-6)
    assert losses.contrast_distance(images, images[::-1]) == pytest.approx(0, abs=1e-10)
    # Three channels whose means differ by 0.5.
    assert losses.contrast_distance(images + 0.5, images) == pytest.approx(3 * 0.5**2, rel=1e-4)
    flatter = [0.5 * images, jnp.repeat(images[:1], 6, axis=0), jnp.zeros_like(images)]
    for other in flatter:
        gradient = jax.grad(losses.contrast_distance)(other, images)
        assert losses.contrast_distance(other, images) > 1e-4 and np.isfinite(gradient).all()


@pytest.mark.slow
def test_a_discriminator_of_a_dcgan():
    """It begins with the weights given; a step moves its running moments, which the state holds, and R1 is finite."""
    config = dataclasses.replace(
        CONFIG,
        resolution=16,
        discriminator="dcgan",
        discriminator_widths=(4, 4),
        decoding_features=0.0,
        encoder_widths=(),
    )
    first = dcgan.Discriminator(dcgan.DiscriminatorConfig(widths=(4, 4)), rngs=nnx.Rngs(7))
    generator = steps.create(config, channels=3)[0].generate(steps.create(config, channels=3)[1].generator)
    networks, state = steps.create(config, channels=3, initial=sg.Model(generator, discriminator=first))
    begun = networks.discriminate(state)
    np.testing.assert_array_equal(begun.b8.weight[...], first.b8.weight[...])
    real = jnp.asarray(image_io.from_uint8(IMAGES[:4].repeat(2, 1).repeat(2, 2)))
    run = jax.jit(
        lambda state: steps.discriminator_step(jax.random.key(0), networks, state, real, config=config, penalise=True)
    )
    state, statistics = run(state)
    assert float(statistics["r1"]) > 0 and np.isfinite([float(value) for value in statistics.values()]).all()
    after = leaves(state.discriminator_moments)
    assert all(np.isfinite(value).all() for value in after.values())
    assert any(not np.array_equal(value, leaves(nnx.state(first))[name]) for name, value in after.items())


@pytest.mark.slow
def test_a_discriminator_with_stored_moments(tmp_path, shared_compilations):
    """A new one takes moments of real images once and keeps them, and learns alone at first."""
    config = dataclasses.replace(
        CONFIG,
        resolution=16,
        discriminator="dcgan",
        discriminator_widths=(4, 4),
        discriminator_moments="stored",
        discriminator_first=CONFIG.batch,
        decoding_features=0.0,
        encoder_widths=(),
        warm_start_images=0,
    )
    images = IMAGES.repeat(2, 1).repeat(2, 2)
    run = trainer.Trainer(config, images, tmp_path)
    real = jnp.asarray(image_io.from_uint8(images))
    discriminator = dcgan.Discriminator(dcgan.DiscriminatorConfig(widths=(4, 4)), rngs=nnx.Rngs(CONFIG.seed + 1))
    expected = leaves(nnx.state(dcgan.with_moments(discriminator, discriminator.forward_batch(real)[1])))
    begun = leaves(run.state.discriminator_moments)
    assert begun and all(np.allclose(value, expected[name], rtol=1e-5) for name, value in begun.items())
    before = leaves(run.state.generator), leaves(run.state.discriminator)
    run._step()
    assert same(leaves(run.state.generator), before[0]) and not same(leaves(run.state.discriminator), before[1])
    run._step()
    assert not same(leaves(run.state.generator), before[0]) and same(leaves(run.state.discriminator_moments), begun)
    other = sg.Model(run.networks.generate(run.state.generator), discriminator=discriminator)
    state = steps.create(config, channels=3, initial=other, real=real)[1]
    assert same(leaves(state.discriminator_moments), {name: leaves(nnx.state(discriminator))[name] for name in begun})


def same(one, other):
    return all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(discriminator_moments="stored"), "that of StyleGAN2 has none"),
        (dict(discriminator="dcgan", discriminator_moments="own"), 'discriminator_moments must be "batch" or "stored"'),
        (dict(discriminator="patch"), 'discriminator must be "stylegan2" or "dcgan", got \'patch\''),
        (dict(discriminator="dcgan"), "decoding_features needs the discriminator of StyleGAN2"),
        (dict(discriminator="dcgan", decoding_features=0.0, discriminator_widths=(4, 4)), "are for 16 px, not 8"),
    ],
)
def test_discriminators_that_do_not_fit(changes, reason):
    with pytest.raises(ValueError, match=reason):
        steps.create(dataclasses.replace(CONFIG, **changes), channels=3)


def test_states_of_older_versions_resume(tmp_path):
    """A setting that a stored state does not know has its default; another value is another run."""
    state = trainer.Trainer(CONFIG, IMAGES, tmp_path).state
    stored = {k: v for k, v in dataclasses.asdict(CONFIG).items() if k not in ("widths", "decoding_resolution")}
    checkpoint.save_state(tmp_path / "state", state, metadata={"config": stored})
    trainer.Trainer(CONFIG, IMAGES, tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="decoding_resolution"):
        trainer.Trainer(dataclasses.replace(CONFIG, decoding_resolution=4), IMAGES, tmp_path)


def test_widths_must_fit_the_resolution():
    """One for every doubling."""
    with pytest.raises(ValueError, match="3 widths make images of 16 px, not 8"):
        steps.create(dataclasses.replace(CONFIG, widths=(4, 4, 4)), channels=3)


TRAINERS = {TrainConfig: trainer.Trainer, DcganTrainConfig: DcganTrainer}
CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("train_*.py"))
SLOW = ("train_faces32", "train_tiny32", "train_faces64_game", "train_dcgan64")


def load_config(name):
    """Returns the module of a file in configs/, which is no package."""
    specification = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS[0].with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    # What their settings share with the others is tested there.
    [pytest.param(p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in CONFIGS],
)
def test_training_configs_run(name, tmp_path, shared_compilations):
    """The smoke variant of a training config trains a few steps and stores a model that loads."""
    config = load_config(name).get_config("smoke")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * config.batch, config.resolution, config.resolution, 3), np.uint8)
    lines = []
    run = TRAINERS[type(config)](config, images, tmp_path / "run")
    run.run(provenance={"source": "random"}, report=lines.append)
    assert lines[-1]["images"] >= config.images and np.isfinite([lines[-1]["d_loss"], lines[-1]["g_loss"]]).all()
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1]) == lines[-1]
    model = checkpoint.load(tmp_path / "run" / "model")
    assert isinstance(model, sg.Model) and model.resolution == config.resolution
    assert model.provenance["images"] == lines[-1]["images"] and model.provenance["source"] == "random"
    if getattr(config, "noise", "random") == "none":
        ws = model.generator.map(jnp.ones((1, config.z_dim)))
        np.testing.assert_array_equal(*(model.generator.synthesis(ws, noise=noise) for noise in ("const", "none")))


def test_stages_of_a_training():
    """Every stage of the 64 px generator's game makes networks of the same generator; others are told."""
    get_config = load_config("train_faces64_game").get_config
    stages = [get_config(name) for name in ("first", "second", "third", "fourth", "")]
    assert len({stage.widths for stage in stages}) == 1 and len({repr(stage) for stage in stages}) == 5
    assert [stage.noise for stage in stages] == ["random"] * 3 + ["none"] * 2
    assert [stage.discriminator_moments for stage in stages] == ["batch", *["stored"] * 3, "batch"]
    with pytest.raises(ValueError, match="unknown variant 'fifth'"):
        get_config("fifth")
