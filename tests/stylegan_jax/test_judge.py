# SPDX-License-Identifier: Apache-2.0
"""The judging network: its distance, its checkpoint, its training, and that the one shipped can judge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from inpaint import sample
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features.judge import Judge, JudgeConfig, feature_distance
from stylegan_jax.training import augment
from stylegan_jax.training import judge as training

CONFIG = JudgeConfig(resolution=16, widths=(4, 6), embedding=3, damages=("blur",))
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def judge():
    return Judge(CONFIG, rngs=nnx.Rngs(0))


def test_judgement_shapes(judge):
    """Feature maps halve from stage to stage; images of other sizes are resampled to the judge's own."""
    seen = judge(jnp.asarray(IMAGES))
    assert [stage.shape for stage in seen.stages] == [(3, 16, 16, 4), (3, 8, 8, 6)]
    assert seen.embedding.shape == (3, 3) and seen.damage.shape == (3, 8, 8, 2)
    larger = judge(jnp.asarray(IMAGES.repeat(2, 1).repeat(2, 2)))
    assert larger.stages[0].shape == (3, 16, 16, 4)


def test_distance_is_one(judge):
    """It is zero for equal images alone, symmetric, and each pair's own."""
    a, b = judge(jnp.asarray(IMAGES)), judge(jnp.asarray(IMAGES[::-1].copy()))
    np.testing.assert_array_equal(feature_distance(a, a), 0)
    found = np.asarray(feature_distance(a, b))
    np.testing.assert_allclose(found, feature_distance(b, a), rtol=1e-6)
    assert (found[[0, 2]] > 1e-3).all() and found[1] == 0
    reference = np.mean(
        [
            np.square(x / np.linalg.norm(x, axis=-1, keepdims=True) - y / np.linalg.norm(y, axis=-1, keepdims=True))
            .sum(-1)
            .mean((1, 2))
            for x, y in zip(*(map(np.asarray, s.stages) for s in (a, b)), strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found, reference, rtol=2e-5, atol=1e-6)


def test_checkpoint_of_a_single_network(judge, tmp_path):
    """It comes back as it was, and is not taken for something else."""
    checkpoint.save_network(tmp_path / "judge", judge, provenance={"source": "random"})
    found, digest = checkpoint.load_network(tmp_path / "judge", Judge)
    assert found.config == CONFIG and digest == checkpoint.info(tmp_path / "judge")["content_hash"]
    np.testing.assert_array_equal(found.b16.conv0.weight[...], judge.b16.conv0.weight[...])
    with pytest.raises(checkpoint.CheckpointError, match="a generator is needed"):
        sg.load(tmp_path / "judge")
    with pytest.raises(checkpoint.CheckpointError, match="a Judge is needed"):
        checkpoint.load_network(checkpoint.DEMO, Judge)
    with pytest.raises(checkpoint.CheckpointError, match="exists already"):
        checkpoint.save_network(tmp_path / "judge", judge, provenance={})


@pytest.mark.slow
def test_training_resumes(tmp_path, shared_compilations):
    """A run stopped half-way and resumed ends with the weights of one that was not."""
    images = RNG.integers(0, 256, (8, 16, 16, 3), np.uint8)

    def run(folder, *lengths):
        for length in lengths:
            # The length belongs to the schedule, so the first part is stopped by its images alone.
            config = training.JudgeTrainConfig(resolution=16, widths=(4, 6), embedding=3, images=16, batch=4)
            trainer = training.JudgeTrainer(config, images, folder)
            trainer.config.images = length
            lines = []
            trainer.run(provenance={"source": "random"}, report=lines.append)
        return checkpoint.load_network(folder / "model", Judge)[0], lines

    whole, lines = run(tmp_path / "whole", 16)
    parts, _ = run(tmp_path / "parts", 8, 16)
    assert np.isfinite([lines[-1]["recognition"], lines[-1]["location"]]).all() and lines[-1]["images"] == 16
    for a, b in zip(jax.tree.leaves(nnx.state(whole)), jax.tree.leaves(nnx.state(parts)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damage_is_where_it_is_said_to_be():
    """Pixels change inside the region and nowhere else, in every kind."""
    image, other = jnp.asarray(IMAGES[0]), jnp.asarray(IMAGES[1])
    damaged = jax.jit(jax.vmap(training._damaged, in_axes=(0, None, None)))
    broken, kinds = damaged(jax.random.split(jax.random.key(0), 64), image, other)
    changed = np.asarray((broken != image[None]).any(-1))
    assert set(np.unique(kinds)) == set(range(len(training.DAMAGES) + 1))
    np.testing.assert_array_equal(changed, np.asarray(kinds) > 0)


@pytest.mark.parametrize("images", [np.zeros((4, 16, 16, 1), np.uint8), np.zeros((4, 8, 8, 3), np.uint8)])
def test_unsuitable_images_are_refused(images, tmp_path):
    """Other sizes and channels."""
    with pytest.raises(ValueError, match="expected"):
        training.JudgeTrainer(training.JudgeTrainConfig(resolution=16, batch=4), images, tmp_path)


def blurred(image, passes):
    return np.asarray(augment.blurred(jnp.asarray(image), passes))


def in_the_hole(change):
    """Returns the portrait with its middle changed."""
    portrait, known = sample.portrait(64), sample.centre_hole(64)[..., None]
    return np.where(known > 0, portrait, change(portrait)).astype(np.float32)


def test_shipped_judge_orders_damage():
    """The more of a damage in the hole, the farther from the truth; all of it in the order a person would say."""
    judge, truth = LoadedJudge(), sample.portrait(64)
    noise = RNG.normal(size=truth.shape)
    series = {
        "blur": [lambda x, n=n: blurred(x, n) for n in (0, 1, 3, 10)],
        "noise": [lambda x, s=s: x + s * noise for s in (0, 0.05, 0.15, 0.4)],
        "shift": [lambda x, s=s: np.roll(x, s, 1) for s in (0, 1, 2, 4)],
        "contrast": [lambda x, s=s: (1 - s) * x + s * x.mean() for s in (0, 0.2, 0.5, 0.9)],
    }
    for name, changes in series.items():
        images = np.stack([in_the_hole(change) for change in changes])
        distances, embeddings, true = judge.compare(images, np.broadcast_to(truth, images.shape))
        assert distances[0] < 1e-8 and (np.diff(distances) > 0).all(), (name, distances)
        away = np.linalg.norm(embeddings - true, axis=1)
        assert away[0] < 1e-5 and away[-1] > away[0], (name, away)
    provenance = checkpoint.info(checkpoint.PRETRAINED / "judge64")["provenance"]
    assert provenance["split"] == "train" and provenance["licence"]
    assert image_io.to_uint8(truth).shape == (64, 64, 3)
