# SPDX-License-Identifier: Apache-2.0
"""One pass of a StyleGAN2 generator of published size."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import resource, time
import jax, numpy as np
from flax import nnx
import stylegan_jax as sg
started = time.perf_counter()
generator = sg.Generator(sg.GeneratorConfig(widths=sg.channel_widths(1024)), rngs=nnx.Rngs(0))
image = jax.jit(lambda g, z: g(z))(generator, jax.random.normal(jax.random.key(0), (1, 512)))
assert image.shape == (1, 1024, 1024, 3) and np.isfinite(np.asarray(image)).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.perf_counter() - started)
"""


@pytest.mark.slow
def test_one_pass_at_1024_pixels():
    """A whole pass at 1024 pixels and full width stays below 6 GiB (measured on two CPU cores: see the print)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stderr
    gibibytes, seconds = map(float, done.stdout.split())
    print(f"peak {gibibytes:.2f} GiB, {seconds:.0f} s")
    assert 0.1 < gibibytes < 6
