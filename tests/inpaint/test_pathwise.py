# SPDX-License-Identifier: Apache-2.0
"""Samples by pathwise conditioning: exact where all is normal, the encoder's guess at spread 0, clear refusals."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inpaint
import stylegan_jax as sg
from inpaint import named_methods
from inpaint.commands import networks
from inpaint.learned import inpainters
from inpaint.learned.pathwise import PathwiseConfig, PathwiseSampler
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig

SIZE, NUM_WS, W_DIM, COMPONENTS = 4, 2, 3, 6
VALUES = SIZE * SIZE * 3
# Measurements that are all but exact, as the limit is that the formula below is of.
NOISE = 1e-3


class LinearGenerator:
    """A generator whose latents are normal and whose images are linear in them, so that all is known in closed form."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.mean = rng.normal(0, 0.3, (NUM_WS, W_DIM)).astype(np.float32)
        self.of_latents = rng.normal(0, 1, (NUM_WS * W_DIM, COMPONENTS)).astype(np.float32)
        self.of_pixels = rng.normal(0, 1, (VALUES, COMPONENTS)).astype(np.float32)
        self.config = types.SimpleNamespace(z_dim=COMPONENTS, num_ws=NUM_WS, w_dim=W_DIM)

    def map(self, z, *, truncation_psi=1.0):
        return self.mean[None] + truncation_psi * (z @ self.of_latents.T).reshape(-1, NUM_WS, W_DIM)

    def synthesis(self, ws, *, noise):
        assert noise == "none"
        z = jnp.linalg.solve(self.of_latents, (ws - self.mean[None]).reshape(len(ws), -1).T)
        return (self.of_pixels @ z).T.reshape(-1, SIZE, SIZE, 3)

    def encoder(self):
        settings = LinearEncoderConfig(
            resolution=SIZE, seen=SIZE, num_ws=NUM_WS, w_dim=W_DIM, components=COMPONENTS, noise=NOISE
        )
        arrays = {"mean": jnp.zeros(VALUES), "loadings": self.of_pixels}
        arrays |= {"latent_mean": self.mean, "latent_loadings": self.of_latents}
        return LinearEncoder.from_arrays(settings, arrays)


def draws(spread, *, count, known):
    generator = LinearGenerator()
    sampler = PathwiseSampler(generator.encoder(), PathwiseConfig(spread=spread, truncation_psi=1.0))
    image = generator.synthesis(
        generator.map(jnp.asarray(np.random.default_rng(1).normal(size=(1, COMPONENTS)))), noise="none"
    )[0]
    shown = jnp.where(known[..., None] > 0, image, 0).astype(jnp.float32)
    keys = jax.random.split(jax.random.key(2), count)
    return generator, image, jax.jit(jax.vmap(lambda key: sampler.produce(key, generator, shown, known)))(keys)


def test_samples_of_normal_latents_are_exact():
    """Mean and covariance of the latents are those of the normal distribution given the known pixels."""
    known = jnp.zeros((SIZE, SIZE)).at[1, 2].set(1)
    generator, image, found = draws(1.0, count=20_000, known=known)
    seen = generator.of_pixels.reshape(SIZE, SIZE, 3, COMPONENTS)[1, 2].astype(np.float64)
    gain = seen.T @ np.linalg.inv(seen @ seen.T + NOISE * np.eye(3))
    mean = generator.mean.reshape(-1) + generator.of_latents @ (gain @ np.asarray(image)[1, 2])
    covariance = generator.of_latents @ (np.eye(COMPONENTS) - gain @ seen) @ generator.of_latents.T
    ws = np.asarray(found.ws, np.float64).reshape(len(found.ws), -1)
    # Of 20,000 draws a mean is known to 1/140 of the standard deviation, a covariance to about 1 %: five times that.
    np.testing.assert_allclose(ws.mean(0), mean, atol=5 / 140 * np.sqrt(covariance.diagonal().max()))
    np.testing.assert_allclose(np.cov(ws.T), covariance, atol=0.05 * covariance.diagonal().max())
    # All of them show the known pixel.
    np.testing.assert_allclose(found.image[:, 1, 2], np.broadcast_to(image[1, 2], (len(ws), 3)), atol=0.02)


def test_without_spread_there_is_the_guess_alone():
    """Every key gives what the encoder says; with spread, keys differ."""
    known = jnp.ones((SIZE, SIZE)).at[1:3, 1:3].set(0)
    _, _, guess = draws(0.0, count=3, known=known)
    assert np.ptp(np.asarray(guess.ws), axis=0).max() == 0
    _, _, found = draws(0.5, count=3, known=jnp.zeros((SIZE, SIZE)).at[0, 0].set(1))
    assert np.ptp(np.asarray(found.ws), axis=0).max() > 0.1


@pytest.mark.parametrize("changes", [{"spread": -0.1}, {"spread": float("nan")}, {"truncation_psi": -1.0}])
def test_settings_out_of_range(changes):
    """They are refused with what came."""
    with pytest.raises(ValueError, match="must be at least 0, got"):
        PathwiseSampler(LinearGenerator().encoder()).varied(**changes)


def test_what_cannot_be():
    """No encoder, a network of its own, an unknown option: one line each."""
    with pytest.raises(ValueError, match="takes no network, got runs"):
        inpainters.load("pathwise", sg.load("tiny32"), path="runs/model")
    model = sg.load("faces32")
    bare = sg.Model(model.generator, w_statistics=model.w_statistics)
    with pytest.raises(ValueError, match="generator's encoder, and it has none"):
        inpainters.load("pathwise", bare)
    named = named_methods.named("pathwise")
    named.search.options = ("reach=1",)
    with pytest.raises(ValueError, match="no option of the method pathwise; it has spread=NUMBER"):
        networks.load_inpainter(named, model)
    named.search.options = ("spread=wide",)
    with pytest.raises(ValueError, match="spread must be a number"):
        networks.load_inpainter(named, model)


def test_options_reach_the_samples():
    """By name, as the command line gives them; samples do not depend on how many there are or are made at once."""
    named = named_methods.named("pathwise")
    named.search.options, named.search.steps = ("spread=0.2", "truncation_psi=0.5"), 0
    model = sg.load("faces32")
    sampler, hashes = networks.load_inpainter(named, model)
    assert sampler.config == PathwiseConfig(spread=0.2, truncation_psi=0.5)
    assert hashes == {"pathwise": model.encoder_hash}
    method = named_methods.build_method(named, inpainter=sampler)
    image = np.zeros((32, 32, 3), np.float32)
    known = np.ones((32, 32), np.float32)
    known[8:24, 8:24] = 0
    problem = inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))
    many = inpaint.solve(model, problem, method, starts=5, key=jax.random.key(0), chunk=5)
    few = inpaint.solve(model, problem, method, starts=3, key=jax.random.key(0), chunk=2)
    # The float32 sums of other chunks are made in another order.
    np.testing.assert_allclose(few.ws, many.ws[:3], atol=2e-5)
