# SPDX-License-Identifier: Apache-2.0
"""Training of DiFaI: what a step moves, resuming, ablations, features of a VGG, and the commands."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from inpaint.learned.difai import features, losses
from inpaint.learned.difai.inpainter import Difai
from inpaint.learned.difai.train import DifaiTrainer
from stylegan_jax import checkpoint, image_io, stylegan2
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig
from stylegan_jax.features import Vgg
from stylegan_jax.features.vgg import VggConfig

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "learned"


def settings(variant, name="difai64"):
    specification = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config(variant)


def make_model(resolution=16):
    """Returns a random generator with a discriminator, statistics of W and an encoder."""
    widths = (8,) * (resolution.bit_length() - 2)
    generator = sg.Generator(sg.GeneratorConfig(widths=widths, z_dim=4, w_dim=6, mapping_layers=2), rngs=nnx.Rngs(0))
    judge = stylegan2.Discriminator(stylegan2.DiscriminatorConfig(widths=widths), rngs=nnx.Rngs(1))
    config = LinearEncoderConfig(resolution=resolution, seen=8, num_ws=2 * len(widths), w_dim=6, components=4)
    encoder = LinearEncoder(config, rngs=nnx.Rngs(2))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    return sg.Model(
        generator,
        discriminator=judge,
        w_statistics=statistics,
        encoder=encoder,
        encoder_hash="e" * 64,
        content_hash="a" * 64,
    )


def random_images(n, size=16):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


def leaves(tree):
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_step_moves_decoder_completer_and_critic(tmp_path):
    """All parameters and singular vectors move and stay finite, generator, encoder and steps do not; the average is
    stored, with a sheet."""
    model, images = make_model(), random_images(6)
    frozen = (model.generator, model.encoder, model.discriminator)
    before, lines = leaves(nnx.state(frozen)), []
    run = DifaiTrainer(settings("smoke"), model, images, tmp_path)
    start = leaves(run.state)
    run.run(provenance={"source": "random"}, report=lines.append)
    end = leaves(run.state)
    moving = [name for name in start if name.startswith((".parameters", ".critic", ".average", ".buffers"))]
    still = [name for name in moving if np.array_equal(start[name], end[name])]
    # Of one channel the singular vector is the number 1 or -1, which stays.
    assert sorted(still) == [".buffers['steps'].value", ".critic_buffers['conv2']['u'].value"]
    assert all(np.isfinite(value).all() for value in end.values())
    for name, value in leaves(nnx.state(frozen)).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    parts = {"adversarial", "ssim", "style", "hole", "valid", "perceptual", "coarse", "critic", "penalty"}
    assert parts <= set(lines[-1]) and lines[-1]["images"] == 2
    stored, _ = checkpoint.load_network(tmp_path / "model", Difai)
    np.testing.assert_array_equal(stored.decoder.head.weight[...], run.state.average["decoder"]["head"]["weight"][...])
    provenance = checkpoint.info(tmp_path / "model")["provenance"]
    assert provenance["images"] == 2 and provenance["encoder"] == "e" * 64 and provenance["generator"] == "a" * 64
    sheet, _ = image_io.read_image(tmp_path / "sheets" / "00000002.png")
    assert sheet.shape == (4 * 128, 9 * 128, 3)


@pytest.mark.slow
def test_a_run_resumes_and_is_shared_by_devices(tmp_path, shared_compilations):
    """A kill between snapshots changes no bit, another generator or network is refused, how far samples go may change;
    devices that share a batch come to the same parameters."""
    model, images, lines = make_model(), random_images(6), []
    config = dataclasses.replace(settings("smoke"), images=6, snapshot_images=2)
    whole = DifaiTrainer(config, model, images, tmp_path / "whole")
    whole.run(provenance={}, report=lines.append)

    def stop(line):
        if line["images"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DifaiTrainer(config, model, images, tmp_path / "part").run(provenance={}, report=stop)
    again = DifaiTrainer(config, model, images, tmp_path / "part")
    assert int(again.state.images) == 2
    again.run(provenance={}, report=lines.append)
    for name, value in leaves(again.state).items():
        np.testing.assert_array_equal(value, leaves(whole.state)[name], err_msg=name)
    with pytest.raises(ValueError, match="another generator"):
        DifaiTrainer(config, dataclasses.replace(model, content_hash="b" * 64), images, tmp_path / "part")
    with pytest.raises(ValueError, match=r"other settings \(norm\)"):
        DifaiTrainer(dataclasses.replace(config, norm="image"), model, images, tmp_path / "part")
    moved = DifaiTrainer(dataclasses.replace(config, first_layer=2), model, images, tmp_path / "part")
    assert not np.array_equal(moved.state.buffers["steps"][...], whole.state.buffers["steps"][...])
    if len(jax.local_devices()) > 1:
        shared = DifaiTrainer(config, model, images, tmp_path / "shared", devices=jax.local_devices()[:2])
        shared.run(provenance={}, report=lines.append)
        for name, value in leaves(shared.state.parameters).items():
            # Sums in another order, in float32, through Adam's quotient; three steps of 1e-4.
            np.testing.assert_allclose(value, leaves(whole.state.parameters)[name], atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        dict(norm="image", affine="none"),
        dict(norm="image", affine="masked"),
        dict(affine="unmasked", batch_statistics=True),
        dict(affine="none", resize="nearest", reconstructs="all", bfloat16=True),
        dict(perturbed=0, sees="masked", directions=1),
        dict(perturbed=2, first_layer=2, last_layer=3),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_form_trains(tmp_path, changes):
    """Ablations and options build and step."""
    config = dataclasses.replace(settings("smoke"), **changes)
    run, lines = DifaiTrainer(config, make_model(), random_images(2), tmp_path), []
    run.run(provenance={}, report=lines.append)
    assert lines and all(np.isfinite(value) for value in lines[0].values())


def test_ablations_differ_in_the_norm_only():
    """The paper's table 3: the three configs share everything else, and their networks differ in learned vectors."""
    full, spade, without = (dataclasses.asdict(settings(name)) for name in ("", "spade", "no_region_norm"))
    for other, norm, affine in ((spade, "image", "none"), (without, "image", "masked")):
        assert {name for name in full if full[name] != other[name]} <= {"norm", "affine"}
        assert (other["norm"], other["affine"]) == (norm, affine)
    with pytest.raises(ValueError, match="there are spade, no_region_norm and smoke"):
        settings("none")


def test_features(tmp_path):
    """The discriminator's maps have mean magnitude 1 on real images; a VGG's are plain; others are refused."""
    # Six images are no whole number of the groups that the discriminator's last layer looks at.
    model, images = make_model(), random_images(6)
    found = features.Features.load("discriminator", model, (), images)
    assert found.taps == ("b16", "b8")
    for x in found(jnp.asarray(image_io.from_uint8(images))).values():
        np.testing.assert_allclose(np.abs(x).mean(), 1, rtol=1e-4)
    vgg = Vgg(VggConfig(widths=(4, 4), depths=(2, 2)), rngs=nnx.Rngs(0))
    checkpoint.save_network(tmp_path / "vgg", vgg, provenance={})
    plain = features.Features.load(tmp_path / "vgg", model, ("relu2_1",), images)
    assert {name: x.shape for name, x in plain(jnp.zeros((1, 16, 16, 3))).items()} == {"relu2_1": (1, 8, 8, 4)}
    for name, taps, message in (
        ("discriminator", ("b4",), "no map b4; there are b16, b8"),
        (tmp_path / "vgg", (), "no feature relu3_1"),
        ("nothing", (), 'must be "discriminator" or the checkpoint of a VGG'),
    ):
        with pytest.raises(ValueError, match=message):
            features.Features.load(name, model, taps, images)
    with pytest.raises(ValueError, match="has no discriminator"):
        features.Features.load("discriminator", dataclasses.replace(model, discriminator=None), (), images)


@pytest.mark.parametrize(
    ("changes", "without", "message"),
    [
        (dict(widths=(4, 4), encoder_widths=(4,)), {}, "2 widths decode images of 8 px, the generator makes 16"),
        (dict(reconstructs="none"), {}, "reconstructs must be one of unperturbed, all"),
        (dict(perturbed=-1), {}, "perturbed must be at least 0"),
        (dict(directions=0), {}, "directions must be 1 to w_dim"),
        (dict(discriminator_widths=(4, 4, 4, 4)), {}, "needs images of 24 px, got 16"),
        (dict(masks=("stripes",)), {}, "unknown mask 'stripes'"),
        ({}, {"encoder": None}, "takes its latents from an encoder, and the generator has none"),
    ],
)
def test_unsuitable_settings_are_told(tmp_path, changes, without, message):
    """Before anything is trained or written."""
    config = dataclasses.replace(settings("smoke"), **changes)
    with pytest.raises(ValueError, match=message):
        DifaiTrainer(config, dataclasses.replace(make_model(), **without), random_images(2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_image_is_learned(tmp_path):
    """32 px, one image, one mask: L_valid below 0.02 within 300 steps."""
    rows, columns = np.mgrid[:32, :32] / 31
    image = np.stack([rows, columns, 0.5 + 0.4 * np.sin(9 * rows * columns)], -1)
    images = np.round(255 * image).astype(np.uint8)[None]
    config = dataclasses.replace(
        settings("smoke"),
        encoder_widths=(16, 24, 32),
        widths=(32, 32, 24, 16),
        hidden=16,
        discriminator_widths=(8, 8),
        masks=("centre",),
        weights=losses.LossWeights(adversarial=0.05, style=0.0, perceptual=0.0, valid=3.0),
        perturbed=0,
        images=300,
        batch=1,
        x_flip=False,
        lr=3e-3,
        discriminator_lr=1e-3,
        beta1=0.5,
        beta2=0.99,
        snapshot_images=10,
    )
    run, lines = DifaiTrainer(config, make_model(32), images, tmp_path), []
    run.run(provenance={}, report=lines.append)
    assert lines[-1]["valid"] < 0.02 < lines[0]["valid"]


def save_model(path):
    """Writes a small generator with discriminator and encoder; returns it as loaded."""
    found = make_model()
    sg.save(path, dataclasses.replace(found, encoder=None, encoder_hash=None, content_hash=None))
    own = {"generator": sg.load(path).content_hash}
    checkpoint.save_network(path / checkpoint.ENCODER, found.encoder, provenance=own)
    return sg.load(path)


@pytest.mark.slow
def test_commands(tmp_path, run_commands, save_pictures):
    """`train` and `restore` for real: samples, one without steps, a refined one, one direction, and wrong input."""
    save_pictures(tmp_path)
    save_model(tmp_path / "generator")
    sg.save(tmp_path / "bare", dataclasses.replace(make_model(), encoder=None, content_hash=None))
    np.savez(tmp_path / "faces.npz", images=random_images(4), split=np.asarray(["train"] * 4))
    train = ["train", "--config", f"{CONFIGS}/difai64.py:smoke", "--data", "faces.npz", "--split", "train"]
    own = ["--generator", "generator", "--output"]
    restore = ["restore", "--method", "difai", "--image", "image.png", "--mask", "mask.png", "--samples", "2", *own]
    named, options = ["--config.network=run/model"], "--config.search.options=({},)".format
    cases = [
        [*train, *own, "run"],
        [*restore, "out", *named],
        [*restore, "still", *named, options("'distance=0'"), "--refine", "2"],
        [*restore, "along", *named, options("'along=1','reach=1.5'")],
        ["edit", "--restored", "out", "--generator", "generator", "--direction", "sefa:0", "--output", "edited"],
        [*train[:3], *own, "x"],
        [*train, "--generator", "bare", "--output", "x"],
        [*train, "--check", "tune", *own, "x"],
        [*restore, "missing"],
        [*restore, "x", *named, options("'step=1'")],
        [*restore, "x", *named, options("'distance=far'")],
        [*restore, "x", *named, options("'along=3'")],
        [*restore, "x", *named, options("'reach=3'")],
    ]
    results = run_commands("inpaint", cases, tmp_path)
    for (code, _, error), case in zip(results[:5], cases, strict=False):
        assert code == 0, (case, error)
    assert "4 images at 16 px" in results[0][1] and "done: run/model" in results[0][1]
    rows = {name: json.loads((tmp_path / name / "scores.json").read_text()) for name in ("out", "still", "along")}
    assert all(len(found) == 2 for found in rows.values())
    first, second = (image_io.read_image(tmp_path / "out" / f"restored_{i}.png")[0] for i in (1, 2))
    assert np.abs(first - second).max() > 0
    assert rows["still"][0]["total"] == pytest.approx(rows["still"][1]["total"], rel=1e-4)
    sheet, _ = image_io.read_image(tmp_path / "along" / "along.png")
    assert sheet.shape[1] == 8 * 192 and not (tmp_path / "out" / "along.png").exists()
    messages = [
        "DiFaI learns from images: name them by --data",
        "takes its latents from an encoder, and the generator has none",
        "--check is of no use for DiFaI",
        "has no difai network in its folder",
        "'step=1' is no option of the method difai; it has distance=NUMBER, along=DIRECTION, reach",
        "distance must be a number, got 'far'",
        "direction must be 0 to 2, got 3",
        "the option reach says how far along goes",
    ]
    for (code, _, error), message in zip(results[5:], messages, strict=True):
        assert code == 1 and message in error and len(error.strip().splitlines()) == 1, (error, message)
