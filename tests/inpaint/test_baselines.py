# SPDX-License-Identifier: Apache-2.0
"""Baselines through the interface of the search, against references of their own."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import baselines, config, named_methods

SIZE = 16
RNG = np.random.default_rng(0)
# Smooth images of low rank, so that regression has something to find.
DIRECTIONS = RNG.normal(size=(5, SIZE, SIZE, 3)) * 0.1
TRAINING = np.clip(0.2 + np.einsum("nk,khwc->nhwc", RNG.normal(size=(40, 5)), DIRECTIONS), -1, 1).astype(np.float32)
IMAGES = np.clip(0.2 + np.einsum("nk,khwc->nhwc", RNG.normal(size=(2, 5)), DIRECTIONS), -1, 1).astype(np.float32)
KNOWN = np.ones((SIZE, SIZE), np.float32)
KNOWN[4:12, 5:13] = 0


@pytest.fixture(scope="module")
def generator():
    return sg.Generator(sg.GeneratorConfig(widths=(4, 4, 4), z_dim=4, w_dim=4, mapping_layers=1), rngs=nnx.Rngs(0))


def problem(image, known=KNOWN):
    return inpaint.Problem.observe(jnp.asarray(image), inpaint.operators.Mask.checked(known))


FILLS = {
    "mean_face": lambda: baselines.mean_face(TRAINING),
    "biharmonic": baselines.biharmonic,
    "ridge": lambda: baselines.ridge(TRAINING),
}


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_is_a_method_like_any_other(name, generator):
    """It is solved, selected and composited; a batch gives what single images give; the hole is never looked at."""
    fill = FILLS[name]()
    problems = [problem(image) for image in IMAGES]
    key = jax.random.key(0)
    batch = inpaint.solve(generator, inpaint.Problem.stack(problems), fill, starts=3, key=key)
    assert batch.raw.shape == (2, 1, SIZE, SIZE, 3) and batch.ws is None and batch.forwards == batch.gradients == 0
    single = inpaint.solve(generator, problems[1], fill, key=key)
    np.testing.assert_array_equal(single.raw, batch.raw[1])
    chosen = inpaint.select(single, keep=1)
    assert chosen.images.shape == (1, SIZE, SIZE, 3) and chosen.ws is None
    other = np.where(KNOWN[..., None] > 0, IMAGES[1], -IMAGES[1])
    np.testing.assert_array_equal(inpaint.solve(generator, problem(other), fill, key=key).raw, single.raw)
    restored = np.asarray(inpaint.hard(chosen.images, IMAGES[1], KNOWN))[0]
    np.testing.assert_array_equal(restored[KNOWN > 0], IMAGES[1][KNOWN > 0])


def test_mean_face_is_the_mean():
    """Everywhere, known or not."""
    np.testing.assert_allclose(baselines.mean_face(TRAINING).function(problem(IMAGES[0])), TRAINING.mean(0), atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_ridge_is_the_conditional_mean(mirrored, inverted):
    """The dual form equals `m_h + S_hk (S_kk + noise I)^-1 (x_k - m_k)`, for small and for large holes."""
    known = 1 - KNOWN if inverted else KNOWN
    data = np.concatenate([TRAINING, TRAINING[:, :, ::-1]]) if mirrored else TRAINING
    flat = data.reshape(len(data), -1).astype(np.float64)
    mean, image = flat.mean(0), IMAGES[0].reshape(-1).astype(np.float64)
    covariance = (flat - mean).T @ (flat - mean) / len(flat)
    k = np.repeat(known.reshape(-1) > 0, 3)
    inner = covariance[np.ix_(k, k)] + 0.03 * np.eye(k.sum())
    expected = image.copy()
    expected[~k] = mean[~k] + covariance[np.ix_(~k, k)] @ np.linalg.solve(inner, image[k] - mean[k])
    found = baselines.ridge(TRAINING, noise=0.03, mirrored=mirrored).function(problem(IMAGES[0], known))
    # Products of images are summed in float32.
    np.testing.assert_allclose(found.reshape(-1), expected, atol=2e-5)


def test_biharmonic_continues_a_plane():
    """A linear ramp is its own smoothest continuation."""
    ramp = np.broadcast_to(np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)[:, None, None], (SIZE, SIZE, 3))
    np.testing.assert_allclose(baselines.biharmonic().function(problem(ramp)), ramp, atol=1e-4)


@pytest.mark.parametrize("name", ["mean_face", "ridge"])
def test_other_sizes_are_refused(name):
    """Training images of another size than the problem's."""
    fill = {"mean_face": baselines.mean_face, "ridge": baselines.ridge}[name](TRAINING[:, :8, :8])
    with pytest.raises(ValueError, match="training images are"):
        fill.function(problem(IMAGES[0]))


@pytest.mark.parametrize("name", named_methods.METHODS)
def test_named_methods_are_built(name):
    """Every name gives a method of that name from its own defaults."""
    network = types.SimpleNamespace(noise="none") if named_methods.METHODS[name].needs_network else None
    built = named_methods.build_method(named_methods.named(name), images=TRAINING, inpainter=network)
    assert built.name == name
    if network is not None:
        with pytest.raises(ValueError, match=f"{name} is a trained network, which must be loaded first"):
            named_methods.build_method(named_methods.named(name))


BAD = {
    "unknown method": (lambda: named_methods.named("magic"), "unknown method 'magic'"),
    "unknown in config": (lambda: named_methods.build_method(config.RestoreConfig(method="x")), "unknown method 'x'"),
    "not fitted": (lambda: named_methods.build_method(named_methods.named("ridge")), "--fit_data"),
    "composite": (lambda: named_methods.build_method(config.RestoreConfig(composite="x")), "unknown composite"),
    "reach": (lambda: named_methods.build_method(config.RestoreConfig(reach=0.0)), "config.reach must be above 0"),
    "band": (
        lambda: named_methods.build_method(config.RestoreConfig(composite="harmonised", band=0)),
        "config.band must be above 0",
    ),
    "noise": (lambda: baselines.ridge(TRAINING, noise=0.0), "noise must be above 0"),
    "setting": (lambda: config.apply_overrides(config.RestoreConfig(), {"search.x": 1}), "unknown setting 'search.x'"),
    "deep setting": (lambda: config.apply_overrides(config.RestoreConfig(), {"a.b.c": 1}), "unknown setting 'a.b.c'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused(name):
    """With what came and what is known."""
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()
