# SPDX-License-Identifier: Apache-2.0
"""Laws of latent spaces: shapes, exact lifts, and what cannot be lifted; and the statistics of W."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import latents

every = pytest.mark.parametrize("name", sg.SPACES)
PAIRS = [(a, b) for a, b in itertools.product(sg.SPACES.values(), repeat=2)]


@pytest.fixture(scope="module", params=[0, 3], ids=["unconditional", "conditional"])
def generator(request):
    """Returns a tiny float64 generator."""
    with jax.enable_x64(True):
        config = sg.GeneratorConfig(widths=(4, 3), z_dim=5, w_dim=6, c_dim=request.param, mapping_layers=2)
        return sg.Generator(config, rngs=nnx.Rngs(0))


def label(generator):
    return jax.nn.one_hot(1, 3) if generator.config.c_dim else None


def variable(generator, space, seed=0):
    return jax.random.normal(jax.random.key(seed), space.shape(generator.config))


@every
def test_shapes(name, generator, x64):
    """A variable has the shape told, and gives latents for every layer."""
    space, config = sg.SPACES[name], generator.config
    assert space.shape(config) == {"z": (5,), "w": (6,), "w+": (4, 6)}[name]
    assert space.to_ws(generator, variable(generator, space), label(generator)).shape == (4, 6)
    assert space.name == name


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda space: space.name)
def test_lifts(source, target, generator, x64):
    """A lift to a finer space gives the same latents exactly; one to a coarser space is refused."""
    v, c = variable(generator, source), label(generator)
    if target.rank < source.rank:
        with pytest.raises(ValueError, match=rf"cannot lift from {source.name[0]}.* to the coarser {target.name}"):
            latents.lift(generator, v, source=source, target=target, c=c)
        return
    lifted = latents.lift(generator, v, source=source, target=target, c=c)
    assert lifted.shape == target.shape(generator.config)
    np.testing.assert_array_equal(target.to_ws(generator, lifted, c), source.to_ws(generator, v, c))


def test_lift_chain_is_the_mapping(generator, x64):
    """Z to W to W+ are the latents that the generator itself computes, in float64."""
    z, c = variable(generator, latents.Z), label(generator)
    w = latents.lift(generator, z, source=latents.Z, target=latents.W, c=c)
    ws = latents.lift(generator, w, source=latents.W, target=latents.WPLUS, c=c)
    expected = generator.map(z[None], None if c is None else c[None])[0]
    assert ws.dtype == jnp.float64
    np.testing.assert_array_equal(ws, expected)


def test_w_statistics_are_those_of_the_draws(generator, x64):
    """Mean and covariance are numpy's over the same latents, taken at once instead of by the thousand."""
    key, n = jax.random.key(7), 2300
    found = latents.estimate_w_statistics(key, generator, samples=n)
    z_key, c_key = jax.random.split(key)
    z, c = jax.random.normal(z_key, (n, 5)), latents.random_labels(c_key, generator.config.c_dim, n)
    w = np.asarray(jax.jit(lambda network, z, c: network(z, c))(generator.mapping, z, c))
    np.testing.assert_allclose(found.mean, w.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(w, rowvar=False), rtol=0, atol=1e-12)
    if c is not None:
        assert (np.unique(c.argmax(1)) == [0, 1, 2]).all() and (c.sum(1) == 1).all()


def test_w_statistics_need_samples(generator, x64):
    """One sample has no covariance."""
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        latents.estimate_w_statistics(jax.random.key(0), generator, samples=1)
