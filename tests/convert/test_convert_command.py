# SPDX-License-Identifier: Apache-2.0
"""The command line, run for real."""

import os
import pathlib
import subprocess
import sys

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
