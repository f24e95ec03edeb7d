# SPDX-License-Identifier: Apache-2.0
"""The linear encoder: its closed form, what it recovers, its fit, and what is refused."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from inpaint.learned import linear_encoder
from stylegan_jax import checkpoint, encoders, image_io
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig

CONFIG = LinearEncoderConfig(resolution=8, seen=4, num_ws=2, w_dim=5, components=3, noise=0.2)


def make_encoder(config=CONFIG, seed=0):
    """Returns an encoder with random arrays."""
    rng, values = np.random.default_rng(seed), config.seen**2 * config.image_channels
    shapes = {
        "mean": (values,),
        "loadings": (values, config.components),
        "latent_mean": (config.num_ws, config.w_dim),
        "latent_loadings": (config.num_ws * config.w_dim, config.components),
    }
    return LinearEncoder.from_arrays(config, {name: rng.normal(size=shape) for name, shape in shapes.items()})


def blocks(x):
    return x.reshape(4, 2, 4, 2, -1).mean((1, 3))


def test_is_the_conditional_mean(x64):
    """Hard and soft masks and an empty one: the mean of latents given block means, as dense normal algebra has it."""
    encoder, rng = make_encoder(), np.random.default_rng(1)
    images = rng.uniform(-1, 1, (3, 8, 8, 3))
    known = np.stack([(rng.random((8, 8)) > 0.4).astype(float), rng.random((8, 8)), np.zeros((8, 8))])
    found = encoder(jnp.asarray(images), jnp.asarray(known))
    pixels = encoder.expected(jnp.asarray(images), jnp.asarray(known))
    loadings, mean = np.asarray(encoder.loadings[...]), np.asarray(encoder.mean[...])
    for image, k, ws, seen_pixels in zip(images, known, found, pixels, strict=True):
        share = np.repeat(blocks(k[..., None]), 3, -1).reshape(-1)
        seen = share > 0
        y = (blocks(image * k[..., None]).reshape(-1)[seen]) / share[seen] - mean[seen]
        covariance = loadings[seen] @ loadings[seen].T + np.diag(0.2 / 4 / share[seen])
        z = loadings[seen].T @ np.linalg.solve(covariance, y)
        expected = np.asarray(encoder.latent_mean[...]) + (np.asarray(encoder.latent_loadings[...]) @ z).reshape(2, 5)
        np.testing.assert_allclose(ws, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(seen_pixels, (mean + loadings @ z).reshape(4, 4, 3), rtol=0, atol=1e-9)


def test_hidden_pixels_do_not_matter(x64):
    """NaN in the hole changes nothing, and images of a batch do not touch each other."""
    encoder = make_encoder()
    images = np.random.default_rng(1).uniform(-1, 1, (2, 8, 8, 3))
    known = np.ones((2, 8, 8))
    known[:, 2:6, 3:7] = 0
    plain = encoders.encode(encoder, jnp.asarray(images), known=jnp.asarray(known))
    images[0, 2:6, 3:7], images[1] = np.nan, 0
    again = encoders.encode(encoder, jnp.asarray(images), known=jnp.asarray(known))
    np.testing.assert_allclose(again[0], plain[0], rtol=0, atol=1e-12)
    assert np.isfinite(again).all()


def test_fit_recovers_a_linear_world(x64):
    """Of images and latents that a few normal numbers make, the rest is found from half of the pixels."""
    rng = np.random.default_rng(0)
    z, to_x, to_w = rng.normal(size=(200, 3)), rng.normal(size=(3, 48)), rng.normal(size=(3, 10))
    images, ws = (z @ to_x).reshape(200, 4, 4, 3) + 0.3, (z @ to_w).reshape(200, 2, 5) - 1
    arrays = linear_encoder.decompose(images, ws, components=3)
    config = LinearEncoderConfig(resolution=4, seen=4, num_ws=2, w_dim=5, components=3, noise=1e-9)
    encoder = LinearEncoder.from_arrays(config, arrays)
    known = np.ones((200, 4, 4))
    known[:, :, 2:] = 0
    found = encoder(jnp.asarray(images), jnp.asarray(known))
    np.testing.assert_allclose(found, ws, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="48 components need more .* got 40 of 48; give more images, or"):
        linear_encoder.decompose(images[:40], ws[:40], components=48)


def model():
    """Returns a tiny model that a checkpoint knows."""
    config = sg.GeneratorConfig(widths=(4, 4), z_dim=5, w_dim=6, mapping_layers=2)
    return sg.Model(sg.Generator(config, rngs=nnx.Rngs(0)), content_hash="abc")


def test_training_is_resumed_and_stored(tmp_path):
    """A fit that was cut off goes on with what it had; the stored encoder is loaded in half precision and gives the
    latents that it gave; other settings are refused."""
    settings = linear_encoder.LinearEncoderTrainConfig(components=3, seen=4, inversion_steps=4, batch=4)
    generator = model()
    z = jax.random.normal(jax.random.key(0), (6, 5))
    images = image_io.to_uint8(np.clip(np.asarray(generator.generator(z)), -1, 1))
    told = []

    def make(**options):
        own = dataclasses.replace(settings, **options)
        return linear_encoder.LinearEncoderTrainer(own, generator, images, tmp_path / "run")

    def stop(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().run(provenance={}, report=stop)
    run = make()
    assert np.isfinite(run.errors).sum() == told[-1]["inverted"] == 8
    run.run(provenance={"source": "made"}, report=told.append)
    assert [line["inverted"] for line in told] == [4, 8, 12] and np.isfinite(run.ws).all()
    stored, _ = checkpoint.load_network(tmp_path / "run" / "model", LinearEncoder)
    assert stored.loadings.dtype == jnp.float16
    shown, known = jnp.asarray(image_io.from_uint8(images)), jnp.ones((6, 8, 8))
    np.testing.assert_allclose(stored(shown, known), run.encoder()(shown, known), rtol=0, atol=1e-5)
    found = checkpoint.with_encoder(generator, tmp_path / "run" / "model")
    assert isinstance(found.encoder, LinearEncoder)
    with pytest.raises(ValueError, match="holds a fit with other settings or images; choose another --output"):
        make(lr=0.1)


REFUSED = {
    "size": (dict(seen=3), "a size seen that divides the resolution, got 3, 0.2, and 3 of 8"),
    "noise": (dict(noise=0.0), "noise above 0"),
    "components": (dict(components=0), "needs components"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings(name):
    """Settings that make no sense are told."""
    options, text = REFUSED[name]
    own = dict(resolution=8, seen=4, num_ws=2, w_dim=5, components=3, noise=0.2)
    with pytest.raises(ValueError, match=text):
        LinearEncoderConfig(**(own | options))


def test_other_images_are_refused():
    """Images of another size are named with both."""
    with pytest.raises(ValueError, match=r"images must be \[n, 8, 8, 3\].* got \[1, 4, 4, 3\]"):
        make_encoder()(jnp.zeros((1, 4, 4, 3)), jnp.ones((1, 4, 4)))


SIMULTANEOUS = """
import jax, jax.numpy as jnp
from flax import nnx
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig
from stylegan_jax.ops.convolution import conv2d

config = LinearEncoderConfig(resolution=16, seen=16, num_ws=2, w_dim=5, components=256)
graph, state = nnx.split(LinearEncoder(config, rngs=nnx.Rngs(0)))
weight = jax.random.normal(jax.random.key(0), (3, 3, 32, 24)) / 17

@jax.jit
def twice(state, maps):
    encoder = nnx.merge(graph, state)
    # Convolutions end when they end, so that both encoders begin at any time.
    images = [conv2d(x, weight, 1).reshape(8, 16, 2, 16, 2, 24).mean((2, 4))[..., :3] for x in (maps, maps + 1)]
    return [encoder(x, jnp.abs(x[..., 0]) > 0.1) for x in images]

maps = jax.random.normal(jax.random.key(1), (8, 32, 32, 32))
for _ in range(40):
    jax.block_until_ready(twice(state, maps))
"""


def test_two_at_the_same_time_do_not_wait_for_each_other():
    """In a process of its own: batched solves on a CPU of few cores did, within some hundred calls, forever."""
    subprocess.run([sys.executable, "-c", SIMULTANEOUS], check=True, timeout=120)
