# SPDX-License-Identifier: Apache-2.0
"""Hostile, damaged and unsupported files: one line with file and reason, nothing run, nothing written, little used."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import convert

ROOT = pathlib.Path(convert.__file__).parents[1]
BAD = pathlib.Path(__file__).parents[1] / "golden" / "bad"

# What the line must say, for the whole command.
REFUSED = {
    "G_ema_none.pkl": r"G_ema is None; the file holds G, D; --network=G takes that generator",
    "billion_laughs.pkl": r"holds a list without networks",
    "empty.pkl": r"the file is empty",
    "huge_storage_claim.pkl": r"claims 2500000000 elements of 4 bytes, but 64 bytes are there",
    "huge_storage_claim_zip.pt": r"claims 2500000000 elements of 4 bytes, but 64 bytes are there",
    "inner_blob_os_system.pkl": r"asks for 'posix.system'",
    "long_string_claim.pkl": r"10000000000 bytes expected at byte 11, only 4 are there",
    "memo_put_huge.pkl": r"memo index 2147483647 in 9 bytes",
    "missing_tensor.pkl": r"G_ema: synthesis.b8.conv1.bias is missing",
    "nan.pkl": r"G_ema: synthesis.b8.conv0.weight holds 1 NaN or infinite values of 144",
    "negative_size.pkl": r"a tensor has size \(-2, -2\)",
    "no_G_ema.pkl": r"G_ema is not there; the file holds G, D; --network=G takes that generator",
    "numpy_huge_shape.pkl": r"claims shape \(50000, 50000\) of 4-byte elements, but 60 bytes are there",
    "numpy_reconstruct_huge.pkl": r"made with shape \(2500000000,\)",
    "os_system.pkl": r"asks for 'posix.system'",
    "os_system_proto2.pkl": r"asks for 'posix.system'",
    "shape_conv.pkl": r"G_ema: synthesis.b8.conv0.weight has shape \(4, 3, 3, 3\), expected \(4, 4, 3, 3\)",
    "tf_config_d_torgb_lod.pkl": r"G_ema: not supported: synthesis/ToRGB_lod0/bias belongs to the StyleGAN2",
    "tf_unknown_kwarg.pkl": r"G_ema: was built with the unknown argument 'style_wobble'",
    "tf_version3.pkl": r"G_ema: a StyleGAN2 network whose state has version 3",
    "truncated.pkl": r"ends too early",
    "truncated_legacy.pt": r"claims 16 elements of 4 bytes, but 36 bytes are there",
    "truncated_zip.pt": r"a zip archive without its table of contents",
    "wrong_magic.pkl": r"not a checkpoint: this is a PNG picture",
    "wrong_magic_legacy.pt": r"8787 bytes follow the end of the pickle",
    "zip_big_endian.pt": r"its byte order is 'big', expected 'little'",
    "zip_bomb.pt": r"record 'archive/data.pkl' is compressed",
    "zip_missing_record.pt": r"storage '0' has no record in the archive",
    "zip_os_system.pt": r"asks for 'posix.system'",
}
CONVERTED = ("ok_tiny.pkl", "half_weights.pkl", "module_src_exec.pkl")  # the first one in test_convert_command.py
MOST_SECONDS, MOST_MEGABYTES = 5, 600

# A process takes over the peak memory of the one that starts it, so a small one stands between it and this one.
MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
scale = 2**20 if sys.platform == "darwin" else 2**10
print(json.dumps([done.returncode, done.stdout, done.stderr, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale]))
"""


def test_every_bad_file_has_an_expectation():
    described = json.loads((BAD / "EXPECT.json").read_text())
    assert set(described) == {*REFUSED, *CONVERTED} == {p.name for p in BAD.iterdir()} - {"EXPECT.json"}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_file_is_refused(name, tmp_path):
    command = [sys.executable, "-m", "convert", str(BAD / name), "out"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    status, out, err, seconds, megabytes = json.loads(done.stdout)
    assert status == 1 and out == ""
    assert err.startswith(f"stylegan-convert: {BAD / name}: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert seconds < MOST_SECONDS and megabytes < MOST_MEGABYTES
    assert re.search(REFUSED[name], err)


def test_refusal_comes_before_jax_is_imported():
    code = """
import sys, convert
try:
    convert.convert(sys.argv[1], "out")
except convert.ConversionError:
    pass
print("jax" in sys.modules, "stylegan_jax" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(BAD / "nan.pkl")], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("name", CONVERTED[1:])
def test_sound_file_converts_and_runs_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = convert.convert(BAD / name, "out")
    assert model.generator.resolution == 8
    assert os.listdir() == ["out"]


def test_nonfinite_weights_are_taken_on_request(tmp_path):
    model = convert.convert(BAD / "nan.pkl", tmp_path / "out", allow_nonfinite=True)
    assert model.generator.synthesis.b8.conv0.weight[...].dtype == "float32"


def test_raw_generator_is_taken_on_request(tmp_path):
    model = convert.convert(BAD / "no_G_ema.pkl", tmp_path / "out", network="G", discriminator=False)
    assert model.provenance["networks"] == ["G"] and model.discriminator is None
