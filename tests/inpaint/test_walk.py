# SPDX-License-Identifier: Apache-2.0
"""Searches over heads: several images on one line through W+, what lies between results, and other draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import losses, methods, operators
from inpaint.edit import interpolate, redraw, walk
from stylegan_jax import joint, latents
from stylegan_jax.heads import ContentHead, StyleHead
from stylegan_jax.joint import Joint, Walk

SIZE, KEY, VIEWS = 4, jax.random.key(0), 3
SMALL = dict(encoder=(6, 4), decoder=(5,), feature_weight=0.0, noise_maps=False)


@functools.cache
def generator():
    """Returns a tiny float64 generator."""
    with jax.enable_x64(True):
        return sg.Generator(sg.GeneratorConfig(widths=(4,), z_dim=5, w_dim=6, mapping_layers=1), rngs=nnx.Rngs(0))


@functools.cache
def targets():
    """Returns images of the generator that lie on a line, `[views, h, w, c]`, and the distances between them."""
    ws, direction = jax.random.normal(KEY, (2, 2, 6))
    unit = direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    return jnp.stack([generator().synthesis((ws + a * unit)[None], noise="const")[0] for a in (0.0, 3.0, 6.0)])


@functools.cache
def searched():
    """Returns the method and what it finds, from two starts."""
    with jax.enable_x64(True):
        method = methods.attribute_walk(views=VIEWS, steps=400, lr=0.03, **SMALL)
        problem = inpaint.Problem(operators.Copies(VIEWS), targets())
        return method, inpaint.solve(generator(), problem, method, starts=2, key=KEY)


def variable(result, start):
    return jax.tree.map(lambda x: jnp.asarray(x[start]), result.variables)


@pytest.mark.slow
def test_a_walk_shows_its_views_in_their_order(x64):
    """It explains all views far better than at first, at distances that rise; its images go through the views."""
    method, result = searched()
    assert (result.terms["walk_fit"] < 0.25 * result.traces[:, 0]).all() and result.variables["walk"][
        "distances"
    ].shape == (2, 2)
    best = int(np.argmin(result.scores))
    v, space = variable(result, best), method.phases[-1].space
    images, distances = walk(KEY, generator(), space, v, between=2)
    assert images.shape == (5, SIZE, SIZE, 3) and distances[0] == 0 and (np.diff(distances) > 0.5).all()
    np.testing.assert_allclose(distances[2::2], v["walk"]["distances"], rtol=1e-12)
    np.testing.assert_allclose(distances[1::2], (distances[:-1:2] + distances[2::2]) / 2, rtol=1e-12)
    errors = jnp.square(images[::2] - targets()).mean((1, 2, 3))
    others = jnp.square(images[::2] - targets()[::-1]).mean((1, 2, 3))
    assert errors[0] < others[0] and errors[2] < others[2]


def test_walks_refuse(x64):
    """Too few views, a measurement of other views, spaces without a walk."""
    with pytest.raises(ValueError, match="a walk has at least two views, got 1"):
        Walk(1)
    problem = inpaint.Problem(operators.Copies(2), targets()[:2])
    with pytest.raises(ValueError, match="a walk of 3 views needs as many targets, got"):
        inpaint.solve(generator(), problem, searched()[0], starts=1, key=KEY)
    with pytest.raises(ValueError, match="the space w. has no walk"):
        walk(KEY, generator(), latents.WPLUS, jnp.zeros((2, 6)))
    with pytest.raises(ValueError, match="these inputs have no walk"):
        joint.walked(latents.Inputs(jnp.zeros((2, 6))), jnp.zeros(1))


def test_distances_should_rise(x64):
    """0 where each is far enough beyond the one before; else what is missing, the first counting from 0."""
    for distances, expected in (
        ([2.0, 4.0, 6.0], 0.0),
        ([1.0, 4.0, 5.0], 2.0),
        ([0.0, 0.0], 4.0),
        ([0.5], 1.5),
        ([2.0, 3.0], 1.0),
        ([3.0, 2.0, 9.0], 3.0),
    ):
        assert losses.rising(jnp.asarray(distances), gap=2.0) == pytest.approx(expected), distances


def test_results_are_interpolated(x64):
    """Shares 0 and 1 are the results of one draw, a half lies between; draws give as many images."""
    space = Joint(StyleHead((6, 4), (5,)), (ContentHead(3, (4,)),))
    one, other = (space.draw(latents.Host(generator(), key=jax.random.key(k))) for k in (1, 2))
    images = interpolate(KEY, generator(), space, one, other, jnp.asarray([0.0, 0.5, 1.0]))
    host = latents.Host(generator(), key=KEY)
    ends = [latents.render(generator(), space.to_inputs(host, v)) for v in (one, other)]
    np.testing.assert_allclose(images[jnp.asarray([0, 2])], jnp.stack(ends), rtol=0, atol=1e-12)
    assert np.abs(images[1] - images[0]).max() > 1e-3 and np.abs(images[1] - images[2]).max() > 1e-3
    drawn = redraw(KEY, generator(), space, one, count=3)
    assert drawn.shape == (3, SIZE, SIZE, 3) and np.abs(drawn[0] - drawn[1]).max() > 1e-6
    alike = redraw(KEY, generator(), latents.WPLUS, jnp.zeros((2, 6)), count=2)
    np.testing.assert_array_equal(alike[0], alike[1])
