# SPDX-License-Identifier: Apache-2.0
"""DCGAN training: a run resumed is a run never stopped; what a step changes; what is refused."""

import dataclasses
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stylegan_jax as sg
from stylegan_jax import dcgan as networks
from stylegan_jax import image_io, parameters
from stylegan_jax.training import augment, dcgan
from stylegan_jax.training.dcgan import DcganTrainConfig

CONFIG = DcganTrainConfig(
    resolution=8,
    generator_widths=(6,),
    discriminator_widths=(5,),
    z_dim=8,
    batch=4,
    images=12,
    ema_images=8.0,
    snapshot_images=8,
)
CONFIG_FILE = pathlib.Path(__file__).parents[2] / "configs" / "train_dcgan64.py"
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


def leaves(tree):
    return {jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture
def fewer_latents(monkeypatch):
    """Calibrates with a few latents, which is as exact here and faster."""
    monkeypatch.setattr(dcgan, "CALIBRATION", (2, 8))


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted(tmp_path, shared_compilations, fewer_latents):
    """Interrupting after a step and resuming from the folder changes no bit; a step changes every weight and moment."""
    lines, provenance = [], {"source": "random"}
    whole = dcgan.DcganTrainer(CONFIG, IMAGES, tmp_path / "whole")
    start = leaves(whole.state)
    whole.run(provenance=provenance, report=lines.append)
    end = leaves(whole.state)
    assert set(start) == set(end) and all(np.isfinite(value).all() for value in end.values())
    kept = {name for name in end if np.array_equal(start[name], end[name])}
    assert kept == set() and end[".images"] == 12
    assert [line["images"] for line in lines] == [8, 12]
    assert {"d_loss", "g_loss", "d_real", "d_fake"} <= set(lines[-1])
    assert json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1]) == lines[-1]

    first = dcgan.DcganTrainer(CONFIG, IMAGES, tmp_path / "parts")
    advance = first._advance

    def interrupted(number):
        if number == 1:
            raise KeyboardInterrupt
        return advance(number)

    first._advance = interrupted
    with pytest.raises(KeyboardInterrupt):
        first.run(provenance=provenance, report=lines.append)
    assert sg.info(tmp_path / "parts" / "model")["provenance"]["images"] == 4
    second = dcgan.DcganTrainer(CONFIG, IMAGES, tmp_path / "parts")
    assert int(second.state.images) == 4
    second.run(provenance=provenance, report=lines.append)
    for name, value in leaves(second.state).items():
        np.testing.assert_array_equal(value, end[name], err_msg=name)

    models = [sg.load(tmp_path / folder / "model") for folder in ("whole", "parts")]
    assert models[0].content_hash == models[1].content_hash
    assert models[0].provenance["images"] == 12 and models[0].provenance["source"] == "random"
    np.testing.assert_array_equal(models[0].w_statistics.covariance, np.eye(8))
    sheet, _ = image_io.read_image(tmp_path / "whole" / "sheets" / "00000012.png")
    assert sheet.shape == (8 * 8 * 2, 8 * 8 * 2, 3)
    with pytest.raises(sg.CheckpointError, match="other settings.*seed"):
        dcgan.DcganTrainer(dataclasses.replace(CONFIG, seed=4), IMAGES, tmp_path / "whole")


def load_settings(variant):
    """Returns the settings of the shipped config file, which is in no package."""
    specification = importlib.util.spec_from_file_location("settings", CONFIG_FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config(variant)


def test_shipped_networks_are_small():
    """Generator and discriminator of the shipped settings fit into 2.5 MB and their resolution."""
    config, size = load_settings(""), 0
    for module, widths in (("Generator", config.generator_widths), ("Discriminator", config.discriminator_widths)):
        found = getattr(networks, f"{module}Config")(widths=widths)
        assert found.resolution == config.resolution == 64
        size += sum(4 * np.prod(s.shape) for s in parameters.abstract(getattr(networks, module), found).values())
    assert size < 2.5e6


def test_all_that_the_discriminator_sees_is_augmented(monkeypatch):
    """Likewise: real images, generated ones, those of every step of the generator; the state keeps its structure."""
    config, strengths = dataclasses.replace(load_settings("smoke"), generator_steps=2), []
    monkeypatch.setattr(augment, "augment", lambda key, images, p: strengths.append(p) or images)
    static, state = dcgan.create(config, channels=3)
    real = jnp.zeros((config.batch, config.resolution, config.resolution, 3))
    run = functools.partial(dcgan.step, networks=static, config=config)
    after, statistics = jax.eval_shape(lambda key, state: run(key, state=state, real=real), jax.random.key(0), state)
    assert set(statistics) == {"d_loss", "d_real", "d_fake", "g_loss"}
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert strengths == [config.augment_p] * 4 and config.augment_p > 0


def test_stored_generator_normalises_as_in_training(fewer_latents):
    """The calibrated moments are those of many latents: a large batch of its own gives nearly the same images."""
    static, state = dcgan.create(CONFIG, channels=3)
    generator = dcgan.calibrated(jax.random.key(3), static.generate(state.average))
    before = parameters.to_arrays(static.generate(state.average))
    z = jax.random.normal(jax.random.key(3), (2, 8, 8))
    features = np.tensordot(z, before["synthesis/b4/weight"], 1)
    within = [part.var((0, 1, 2)) for part in features]
    means = [part.mean((0, 1, 2)) for part in features]
    np.testing.assert_allclose(generator.norms()["b4"].mean[...], np.mean(means, 0), atol=1e-6)
    np.testing.assert_allclose(generator.norms()["b4"].variance[...], np.mean(within, 0) + np.var(means, 0), rtol=1e-4)


def test_average_follows_by_half_lives():
    """It halves its distance over `ema_images` images, faster while few were seen, and is none where that is 0."""
    for seen, ema, keep in ((1000, 40.0, 0.5 ** (4 / 40)), (200, 40.0, 0.5 ** (4 / 10)), (1000, 0.0, 0.0)):
        config = dataclasses.replace(CONFIG, ema_images=ema)
        state = dcgan.State(*[None] * 7)._replace(
            average=jnp.ones(3), generator=jnp.zeros(3), images=jnp.asarray(seen, jnp.int32)
        )
        np.testing.assert_allclose(dcgan._averaged(config, state), keep, rtol=1e-5, atol=1e-30)


def test_unsuitable_settings_are_refused(tmp_path):
    """Images of another size, widths of another size, batches that cannot be normalised, impossible probabilities."""
    for changes, reason in (
        (dict(resolution=16), "images are 8x8 px, the config says 16"),
        (dict(generator_widths=(4, 4)), "2 generator_widths are for 16 px, not 8"),
        (dict(discriminator_widths=(4, 4)), "2 discriminator_widths are for 16 px, not 8"),
        (dict(batch=1), "batch >= 2"),
        (dict(augment_p=1.5), "augment_p in"),
    ):
        with pytest.raises(ValueError, match=reason):
            dcgan.DcganTrainer(dataclasses.replace(CONFIG, **changes), IMAGES, tmp_path)


@pytest.mark.slow
def test_command_chooses_the_trainer(tmp_path, run_commands):
    """The type of the settings decides what is trained; --initial belongs to the other kind, and a discriminator to
    settings of its own."""
    np.savez(tmp_path / "images.npz", images=IMAGES)
    (tmp_path / "settings.py").write_text(
        "from stylegan_jax.training.dcgan import DcganTrainConfig\n"
        "def get_config():\n"
        "    widths = dict(generator_widths=(6,), discriminator_widths=(5,))\n"
        "    return DcganTrainConfig(resolution=8, z_dim=8, batch=4, snapshot_images=8, **widths)\n"
    )
    shared = ["train", "--data=images.npz", "--output=run", "--config=settings.py", "--config.images=4"]
    (tmp_path / "other.py").write_text(
        "from stylegan_jax.training.config import TrainConfig\n"
        "def get_config():\n"
        "    return TrainConfig(resolution=8)\n"
    )
    other = ["train", "--data=images.npz", "--output=no", "--config=other.py", "--initial=run/model"]
    cases = [shared, [*shared, "--initial=run/model"], [*other, "--initial_discriminator=run/model"]]
    done, refused, unfit = run_commands("stylegan_jax", cases, tmp_path)
    assert done[0] == 0 and "done: run/model" in done[1], done[2]
    assert sg.info(tmp_path / "run" / "model")["networks"]["generator"]["kind"] == "dcgan.Generator"
    assert refused[0] == 1 and "--initial is for style-based generators" in refused[2]
    assert unfit[0] == 1 and "run/model is of the kind dcgan, the config asks for stylegan2" in unfit[2]
