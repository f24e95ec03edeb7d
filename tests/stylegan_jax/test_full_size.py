# SPDX-License-Identifier: Apache-2.0
"""The published sizes of StyleGAN2: names and shapes of every array, and one pass at 1024 pixels."""

import json
import pathlib
import subprocess
import sys

import pytest

import stylegan_jax as sg
from stylegan_jax import parameters

ROOT = pathlib.Path(__file__).parents[2]
# Names and shapes that the reference implementation gives, in our names and layouts.
PUBLISHED = json.loads((ROOT / "tests" / "golden" / "stylegan2_full_size.json").read_text())
# channel_base of each: the "paper" configurations of ADA halve it.
SIZES = {
    "sg2_1024_config_f": (1024, 32768),
    "sg2_256_config_f": (256, 32768),
    "sg2_256_paper256": (256, 16384),
    "sg2_512_paper512": (512, 32768),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes(name):
    """The default configs at published widths hold exactly the published arrays."""
    resolution, base = SIZES[name]
    widths, published = sg.channel_widths(resolution, channel_base=base), PUBLISHED[name]
    config = sg.GeneratorConfig(widths=widths)
    assert config.num_ws == published["num_ws"] and config.resolution == resolution
    for kind, settings, held in (
        (sg.Generator, config, published["G"]),
        (sg.Discriminator, sg.DiscriminatorConfig(widths=widths), published["D"]),
    ):
        found = {k: list(v.shape) for k, v in parameters.abstract(kind, settings).items()}
        assert found == held


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
