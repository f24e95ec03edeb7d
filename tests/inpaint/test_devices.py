# SPDX-License-Identifier: Apache-2.0
"""Starts are dealt out to devices, which changes no result: eight virtual CPU devices in a process of their own."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import inpaint
import stylegan_jax as sg
from inpaint.search import loop
from inpaint.search import solve as solving
from stylegan_jax import latents

# The number of devices must be set before JAX starts.
SCRIPT = """
import json, sys
import jax
import numpy as np
from flax import nnx
import inpaint, stylegan_jax as sg
from inpaint.search import loop, solve as solving
from inpaint.search.schedule import adam
from inpaint.search.method import Method, Phase
from inpaint.terms import term
from stylegan_jax import latents

steps = int(sys.argv[1])
generator = sg.Generator(sg.GeneratorConfig(widths=(6, 4), z_dim=6, w_dim=6, mapping_layers=2), rngs=nnx.Rngs(0))
model = sg.Model(generator, w_statistics=sg.estimate_w_statistics(jax.random.key(0), generator, samples=500))
known = np.ones((8, 8))
known[2:6, 3:7] = 0
mask = inpaint.operators.Mask.checked(known)
dtype = generator.mapping.w_avg[...].dtype

def problem(seed):
    images = np.random.default_rng(seed).uniform(-1, 1, (3, 8, 8, 3)).astype(dtype)
    return inpaint.Problem.stack([inpaint.Problem.observe(x, mask) for x in images])

terms = (term("l2"), term("mahalanobis", 0.01))
phases = (Phase(latents.W, steps, adam(0.1, steps), terms), Phase(latents.WPLUS, steps, adam(0.05, steps), terms))
method = Method("test", phases if steps > 5 else phases[1:], inpaint.Prescreened(pool=7))

def search(seed, devices, **options):
    return inpaint.solve(model, problem(seed), method, starts=2, key=jax.random.key(5), devices=devices, **options)

def difference(one, other):
    return {n: float(np.abs(getattr(one, n) - getattr(other, n)).max()) for n in ("ws", "raw", "scores", "traces")}

devices = jax.devices()
first = search(0, devices[:1])
found = {"dtype": str(dtype), "devices": len(devices), "chunks": [], "differences": {}}
# The scan further down has four.
for n in (2, 8):
    result = search(0, devices[:n])
    found["differences"][n] = difference(result, first)
    found["chunks"].append(result.chunk)
found["differences"]["scan"] = difference(search(0, devices[:4], chunk=4, steps_per_call=3), first)
found["differences"]["another"] = difference(search(0, devices[3:4]), first)
found["default"] = search(0, None).chunk
before = loop.compiled()
for number in (8, 2, 2, 2):
    search(1, devices[:number])
found["compiled_again"] = sorted(map(hash, loop.compiled())) != sorted(map(hash, before))

context = loop.split_context(solving.make_context(model, needs=method.needs), devices=devices[:4])
v = context.place(jax.numpy.zeros((4, generator.config.num_ws, 6), dtype))
one = jax.tree.map(lambda x: jax.numpy.repeat(x[:1], 4, axis=0), problem(0))
starts = loop.begin_phase(v, jax.numpy.zeros(4, bool), context, phases[1])
lowered = loop._advance.lower(
    *context.place((starts, loop.Lanes(one, None, jax.numpy.zeros((4, 2), jax.numpy.uint32)))),
    context.arrays, graph=context.graph, mesh=context.mesh, phase=phases[1], steps=1,
)
text = lowered.compile().as_text()
names = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
found["collectives"] = [name for name in names if name in text]
print(json.dumps(found))
"""


def search(*, steps, double):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_ENABLE_X64": str(int(double))}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(steps)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("steps", "double", "tolerance"),
    [(10, True, 1e-9), pytest.param(5, False, 1e-5, marks=pytest.mark.slow)],
)
def test_the_number_of_devices_changes_nothing(steps, double, tolerance):
    """Six lanes on 1, 2, 4 and 8 devices, in one chunk or several, step by step or scanned, padded where need be; a
    step has no collectives, and equal shapes compile once."""
    found = search(steps=steps, double=double)
    assert found["devices"] == 8 and found["dtype"] == ("float64" if double else "float32")
    for case, differences in found["differences"].items():
        assert max(differences.values()) < tolerance, (case, differences)
    assert found["chunks"] == [6, 8] and found["default"] == 8
    assert not found["compiled_again"] and found["collectives"] == []


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_default_search_lowers_for_accelerators(platform):
    """Its steps, one by one and scanned, the last evaluation and the lift between its spaces."""
    config = sg.GeneratorConfig(widths=(6, 4, 4), z_dim=6, w_dim=6, mapping_layers=2)
    model = sg.Model(sg.Generator(config, rngs=nnx.Rngs(0)))
    method = inpaint.methods.latent_search(steps=4)
    context = loop.split_context(solving.make_context(model, needs=method.needs))
    mask = inpaint.operators.Mask.checked(np.pad(np.zeros((8, 8)), 4, constant_values=1))
    problem = inpaint.Problem.stack([inpaint.Problem.observe(np.zeros((16, 16, 3), np.float32), mask)] * 2)
    lanes = loop.Lanes(problem, None, jnp.zeros((2, 2), jnp.uint32))
    for phase in method.phases:
        shape = (2, 6) if phase.space is latents.W else (2, config.num_ws, 6)
        starts = loop.begin_phase(jnp.zeros(shape), jnp.zeros(2, bool), context, phase)
        for steps in (1, 25):

            def step(starts, lanes, arrays, phase=phase, steps=steps):
                return loop._advance(starts, lanes, arrays, graph=context.graph, mesh=None, phase=phase, steps=steps)

            exported = export.export(jax.jit(step), platforms=[platform])(starts, lanes, context.arrays)
            assert exported.platforms == (platform,) and "stablehlo.convolution" in exported.mlir_module()

        def look(v, lanes, arrays, phase=phase):
            return loop._evaluate(v, lanes, arrays, graph=context.graph, mesh=None, phase=phase)

        assert export.export(jax.jit(look), platforms=[platform])(starts.v, lanes, context.arrays).nr_devices == 1

    def lift(v, arrays):
        coarse, fine = method.phases
        return loop._lift(v, lanes, arrays, graph=context.graph, mesh=None, source=coarse, target=fine)

    exported = export.export(jax.jit(lift), platforms=[platform])(jnp.zeros((2, 6)), context.arrays)
    assert exported.out_avals[0].shape == (2, config.num_ws, 6)
