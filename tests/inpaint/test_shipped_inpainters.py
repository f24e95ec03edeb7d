# SPDX-License-Identifier: Apache-2.0
"""The trained inpainters that come with the demo model: they restore faces, differently for every key."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inpaint
import stylegan_jax as sg
from inpaint import blend, masks, metrics
from inpaint.learned import inpainters

SHIPPED = pathlib.Path(sg.__file__).parent / "pretrained"
NAMES = sorted(inpainters.NAMES)


@functools.cache
def setting():
    model = sg.load()
    # A face that the generator makes, so that what to expect of the hole is known well.
    z = jax.random.normal(jax.random.key(3), (1, model.generator.config.z_dim))
    image = jnp.clip(model.generator.synthesis(model.generator.map(z), noise="none")[0], -1, 1)
    known = np.asarray(masks.parse("lower_half")(jax.random.key(0), model.resolution), np.float32)
    return model, np.asarray(image, np.float32), known


@functools.cache
def restored(name, steps):
    model, image, known = setting()
    network, _ = inpainters.load(name, model)
    method = inpaint.methods.learned(network, name=name, steps=steps)
    problem = inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))
    return inpaint.solve(model, problem, method, starts=3, key=jax.random.key(1))


def error(images, known):
    image = setting()[1]
    return np.asarray([float(jnp.mean(jnp.square(x - image)[known > 0])) for x in images])


def test_all_demo_models_together_are_small():
    """Below 25 MB, as README says."""
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 25e6


# How much nearer to the face than the mean colour of the hole the best of three samples is, in dB.
# Steps of the search that samples are made for: those of one that is begun with need not meet what is known.
STEPS = {"difai": 0, "hierarchical": 0, "pathwise": 30}
GAINS = {"difai": 1.0, "hierarchical": 4.0, "pathwise": 4.0}


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_faces_that_differ(name):
    """In the hole they come nearer to the face than its mean colour, and they differ there most."""
    _, image, known = setting()
    images, hole = np.asarray(restored(name, STEPS[name]).raw), 1 - known
    flat = np.broadcast_to(image[hole > 0].mean(0), image.shape)
    best = max(float(metrics.psnr(jnp.asarray(x), image, hole)) for x in images)
    assert best > float(metrics.psnr(jnp.asarray(flat), image, hole)) + GAINS[name]
    spread = images.std(0).mean(-1)
    assert spread[hole > 0].mean() > 1.5 * spread[known > 0].mean() > 0
    composites = [np.asarray(blend.carried(jnp.asarray(x), jnp.asarray(image), jnp.asarray(known))) for x in images]
    assert all(np.array_equal(x[known > 0], image[known > 0]) for x in composites)


@pytest.mark.parametrize("name", NAMES)
def test_a_search_goes_on_from_every_sample(name):
    """Refined, none meets the known pixels worse; those of the generator itself do clearly better."""
    known = setting()[2]
    before, after = (np.asarray(restored(name, steps).raw) for steps in (0, 8))
    assert (error(after, known) <= error(before, known)).all()
    # DiFaI's decoder sees the known pixels and meets them better than eight steps of a search.
    assert name == "difai" or (error(after, known) < 0.9 * error(before, known)).all()
