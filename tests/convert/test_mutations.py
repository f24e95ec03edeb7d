# SPDX-License-Identifier: Apache-2.0
"""Mutated checkpoint files of every format, many for each bounded process: read as they say, or refused."""

import pathlib
import re
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).parent / "mutation.py"


def run(rounds, seed):
    """Returns how many files were read and refused."""
    command = [sys.executable, str(PROGRAM), f"--rounds={rounds}", f"--seed={seed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + rounds)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(number) for name, number in re.findall(r"'(\w+)': (\d+)", done.stdout)}
    assert sum(counts.values()) == rounds
    return counts


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_three_hundred_files(seed):
    counts = run(300, seed)
    assert counts["refused"] > 150 and counts["read"] > 15 and counts["corrupted"] > 15


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_two_thousand_files(seed):
    counts = run(2000, seed)
    assert counts["refused"] > 1000 and counts["read"] > 100 and counts["corrupted"] > 100
