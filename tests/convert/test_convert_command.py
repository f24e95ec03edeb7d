# SPDX-License-Identifier: Apache-2.0
"""The command line, run for real."""

import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import convert
import stylegan_jax

ROOT = pathlib.Path(convert.__file__).parents[1]
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def run(*arguments: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "convert", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_convert_writes_a_checkpoint_that_loads(tmp_path):
    done = run(GOLDEN / "bad" / "ok_tiny.pkl", "models/tiny", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"models/tiny: G_ema and D of {GOLDEN / 'bad' / 'ok_tiny.pkl'}, 8 px\n"
    assert stylegan_jax.load(tmp_path / "models" / "tiny").generator.resolution == 8
    assert os.listdir(tmp_path / "models") == ["tiny"]
    again = run(GOLDEN / "bad" / "ok_tiny.pkl", "models/tiny", folder=tmp_path)
    assert again.returncode == 1
    assert again.stderr.startswith("stylegan-convert: ") and "exists already" in again.stderr


def test_inspect_prints_what_is_there(tmp_path):
    done = run("inspect", GOLDEN / "sg2_odd.pkl", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    for part in ("G_ema: StyleGAN2 generator, 32 px, 3 labels", "widths=(16, 16, 16, 12)", "max_size=64", "licence:"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_is_one_line(tmp_path):
    done = run("only_one", folder=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("usage:") and done.stderr.count("\n") == 1


def test_traceback_only_on_request(tmp_path):
    assert "Traceback" not in run("missing.pkl", "out", folder=tmp_path).stderr
    assert "Traceback" in run("missing.pkl", "out", "--debug", folder=tmp_path).stderr


def test_a_rosinality_file_becomes_a_checkpoint(tmp_path):
    """StyleGAN1 at a given step: what is written loads, renders, and says where it came from."""
    source = GOLDEN / "ros1_train_step6.model"
    described = run("inspect", source, "--step=2", folder=tmp_path)
    assert "G_ema: StyleGAN1 generator, 16 px, no labels" in described.stdout and "estimated" in described.stdout
    done = run(source, "model", "--step=2", folder=tmp_path)
    assert done.returncode == 0 and done.stdout == f"model: G_ema and D of {source}, 16 px\n", done.stderr
    model = stylegan_jax.load(tmp_path / "model")
    np.testing.assert_array_equal(model.generator.mapping.w_avg[...], model.w_statistics.mean)
    images = model.generator(jnp.ones((1, model.generator.config.z_dim)))
    assert images.shape == (1, 16, 16, 3) and bool(jnp.isfinite(images).all())
    assert model.discriminator(images).shape == (1,)
    assert {"noise_const", "w_avg"} <= set(model.provenance) and "rosinality" in model.provenance["format"]
    with pytest.raises(stylegan_jax.CheckpointError, match="float32 only"):
        stylegan_jax.load(tmp_path / "model", bfloat16_from=8)
    other = run(GOLDEN / "ros2_train_zip.pt", "other", "--step=2", folder=tmp_path)
    assert other.returncode == 1 and "step belongs to StyleGAN1" in other.stderr
