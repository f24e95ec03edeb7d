# SPDX-License-Identifier: Apache-2.0
"""DCGAN: both layouts against sums written out in numpy, batch normalisation, and the library's ways to use it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stylegan_jax as sg
from inpaint import Problem, methods, operators, solve
from stylegan_jax import dcgan, latents, parameters

EPSILON = 1e-5
# PyTorch's layout and TensorFlow's, narrow.
LAYOUTS = {"torch": dict(kernel=4, bias=False), "tensorflow": dict(kernel=5, bias=True)}
GENERATORS = {n: dcgan.GeneratorConfig(widths=(4, 3), z_dim=5, image_channels=2, **o) for n, o in LAYOUTS.items()}
DISCRIMINATORS = {n: dcgan.DiscriminatorConfig(widths=(4, 3), image_channels=2, **o) for n, o in LAYOUTS.items()}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def random_arrays(kind, config, seed):
    """Returns float64 weights, biases and moments that are all different from what a fresh network holds."""
    rng = np.random.default_rng(seed)
    arrays = {n: rng.normal(size=s.shape) for n, s in parameters.abstract(kind, config).items()}
    return {n: np.abs(a) + 0.5 if n.endswith("variance") else a for n, a in arrays.items()}


def networks(layout, dtype):
    """Returns (generator, its arrays, discriminator, its arrays)."""
    found = []
    for kind, config in ((dcgan.Generator, GENERATORS[layout]), (dcgan.Discriminator, DISCRIMINATORS[layout])):
        arrays = random_arrays(kind, config, len(found))
        found += [kind.from_arrays(config, {n: np.asarray(a, dtype) for n, a in arrays.items()}), arrays]
    return found


# The reference: float64 loops over every input pixel and tap. The margins are those that the frameworks document:
# ConvTranspose2d(4, 2, padding=1) and conv2d_transpose(5, 2, "SAME") both cut one row and column off at the beginning.


def up(x, weight):
    n, h, w, _ = x.shape
    k = len(weight)
    full = np.zeros((n, 2 * h + k, 2 * w + k, weight.shape[3]))
    for i, j, a, b in itertools.product(range(h), range(w), range(k), range(k)):
        full[:, 2 * i + a, 2 * j + b] += x[:, i, j] @ weight[a, b]
    return full[:, 1 : 2 * h + 1, 1 : 2 * w + 1]


def down(x, weight):
    n, h, w, _ = x.shape
    k = len(weight)
    padded = np.pad(x, ((0, 0), (1, k - 3), (1, k - 3), (0, 0)))
    y = np.zeros((n, h // 2, w // 2, weight.shape[3]))
    for i, j, a, b in itertools.product(range(h // 2), range(w // 2), range(k), range(k)):
        y[:, i, j] += padded[:, 2 * i + a, 2 * j + b] @ weight[a, b]
    return y


def norm(x, arrays, block, *, batch):
    mean, variance = arrays[f"{block}/norm/mean"], arrays[f"{block}/norm/variance"]
    if batch:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    x = (x - mean) / np.sqrt(variance + EPSILON)
    return x * arrays[f"{block}/norm/scale"] + arrays[f"{block}/norm/bias"]


def reference_generator(z, arrays, *, batch=False):
    arrays = {n.removeprefix("synthesis/"): a for n, a in arrays.items()}
    x = np.tensordot(z, arrays["b4/weight"], 1) + arrays.get("b4/bias", 0)
    for name in ("b8", "b16"):
        x = np.maximum(norm(x, arrays, f"b{x.shape[1]}", batch=batch), 0)
        x = up(x, arrays[f"{name}/weight"]) + arrays.get(f"{name}/bias", 0)
    return np.tanh(x)


def reference_discriminator(x, arrays, *, batch=False):
    for name in ("b16", "b8"):
        x = down(x, arrays[f"{name}/weight"]) + arrays.get(f"{name}/bias", 0)
        x = norm(x, arrays, name, batch=batch) if name != "b16" else x
        x = np.where(x > 0, x, 0.2 * x)
    return np.einsum("nhwc,hwc->n", x, arrays["b4/weight"]) + arrays.get("b4/bias", 0)


WAYS = {"stored": lambda network, x: network(x), "batch": lambda network, x: network.forward_batch(x)[0]}


@jax.jit
def outputs(generator, discriminator, z, images):
    """Returns images and logits, by stored moments and by the batch's."""
    return {name: (call(generator, z), call(discriminator, images)) for name, call in WAYS.items()}


@jax.jit
def gradients(generator, discriminator, z, images, weight):
    """Returns the gradients of `sum(image * weight)` by `z` and of the sum of logits by `images`, both ways."""
    found = {}
    for name, call in WAYS.items():
        by_z = jax.grad(lambda z, call=call: jnp.sum(call(generator, z) * weight))(z)
        by_x = jax.grad(lambda x, call=call: jnp.sum(call(discriminator, x)))(images)
        found[name] = by_z, by_x
    return found


def difference(function, x, step=1e-5):
    """Returns the derivative of a scalar function in a direction of ones, by central differences."""
    return (function(x + step) - function(x - step)) / (2 * step)


def random_inputs():
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, 5)), rng.normal(size=(3, 16, 16, 2)), rng.normal(size=(3, 16, 16, 2))


@every_layout
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_networks_are_the_reference(layout, precision):
    """Images and logits equal the loops, with stored moments and with the batch's."""
    z, images, _ = random_inputs()
    with jax.enable_x64(precision == "f64"):
        dtype = np.float64 if precision == "f64" else np.float32
        generator, g_arrays, discriminator, d_arrays = networks(layout, dtype)
        found = jax.tree.map(np.asarray, outputs(generator, discriminator, z.astype(dtype), images.astype(dtype)))
    limit = 1e-9 if precision == "f64" else 2e-5
    for way, batch in (("stored", False), ("batch", True)):
        expected = (
            reference_generator(z, g_arrays, batch=batch),
            reference_discriminator(images, d_arrays, batch=batch),
        )
        for value, own in zip(expected, found[way], strict=True):
            assert own.dtype == dtype and own.shape == value.shape
            assert np.abs(own - value).max() < limit * np.abs(value).max(), way


@every_layout
def test_gradients_are_the_reference(layout, x64):
    """They are finite, and in the direction of ones the differences of the reference."""
    z, images, weight = random_inputs()
    generator, g_arrays, discriminator, d_arrays = networks(layout, np.float64)
    found = gradients(generator, discriminator, z, images, weight)
    for way, batch in (("stored", False), ("batch", True)):
        by_z = difference(lambda x, batch=batch: np.sum(reference_generator(x, g_arrays, batch=batch) * weight), z)
        by_x = difference(lambda x, batch=batch: np.sum(reference_discriminator(x, d_arrays, batch=batch)), images)
        for own, value in zip(found[way], (by_z, by_x), strict=True):
            assert np.isfinite(own).all() and np.abs(own).max() > 1e-3
            # A difference over 2e-5 cancels ten digits and steps over kinks now and then.
            np.testing.assert_allclose(own.sum(), value, rtol=1e-4, atol=1e-4)


@functools.cache
def small(layout="torch"):
    generator, _, discriminator, _ = networks(layout, np.float32)
    return generator, discriminator


@jax.jit
def render(generator, z):
    return generator(z)


def test_results_do_not_depend_on_the_batch(x64):
    """An image alone is the one among others, and so is its logit, which is not so where the batch normalises."""
    generator, _, discriminator, _ = networks("torch", np.float64)
    z = jax.random.normal(jax.random.key(0), (4, 5))
    images = render(generator, z)
    np.testing.assert_allclose(images[1:2], render(generator, z[1:2]), rtol=0, atol=1e-9)
    judge = jax.jit(lambda discriminator, images: discriminator(images))
    np.testing.assert_allclose(judge(discriminator, images)[1:2], judge(discriminator, images[1:2]), rtol=1e-9)
    apart = jax.jit(lambda generator, z: generator.forward_batch(z)[0])
    assert jnp.abs(apart(generator, z)[1:2] - apart(generator, z[1:2])).max() > 1e-2


def test_stored_moments_follow_batches():
    """A share of 1 stores the batch's moments, which then give the batch's images; a smaller one moves towards them."""
    generator, _ = small()
    z = jax.random.normal(jax.random.key(0), (4, 5))
    images, moments = jax.jit(lambda generator, z: generator.forward_batch(z))(generator, z)
    assert set(moments) == set(generator.norms()) == {"b4", "b8"}
    before = parameters.to_arrays(generator)
    np.testing.assert_allclose(render(dcgan.with_moments(generator, moments), z), images, atol=2e-5)
    moved = parameters.to_arrays(dcgan.with_moments(generator, moments, share=0.25))
    for name, array in before.items():
        np.testing.assert_array_equal(parameters.to_arrays(generator)[name], array, err_msg=name)
        part = name.split("/")[-1]
        if part not in ("mean", "variance"):
            np.testing.assert_array_equal(moved[name], array, err_msg=name)
            continue
        seen = getattr(moments[name.split("/")[1]], part)
        np.testing.assert_allclose(moved[name], 0.75 * array + 0.25 * seen, rtol=1e-5, err_msg=name)


def test_moments_of_several_batches():
    """Those of the union, from those of each."""
    x = np.random.default_rng(0).normal(size=(3, 6, 2)) * 2 + 1
    parts = [{"b4": dcgan.Moments(jnp.asarray(p.mean(0)), jnp.asarray(p.var(0)))} for p in x]
    found = dcgan.joined(parts)["b4"]
    np.testing.assert_allclose(found.mean, x.reshape(-1, 2).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.variance, x.reshape(-1, 2).var(0), rtol=1e-5)


def test_original_sizes():
    """Both originals at 64 pixels: numbers of weights by hand from the layers that they list."""
    shapes = parameters.abstract(dcgan.Generator, dcgan.GeneratorConfig(widths=(512, 256, 128, 64)))
    kernels = 16 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert sum(np.prod(s.shape, dtype=int) for s in shapes.values()) == kernels + 4 * (512 + 256 + 128 + 64)
    config = dcgan.DiscriminatorConfig(widths=(512, 256, 128, 64), kernel=5, bias=True)
    shapes = parameters.abstract(dcgan.Discriminator, config)
    kernels = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 8192 + 1
    assert config.resolution == 64
    assert sum(np.prod(s.shape, dtype=int) for s in shapes.values()) == kernels + 64 + 5 * (128 + 256 + 512)
    config = dcgan.GeneratorConfig(widths=(512, 512, 256, 128), kernel=5, bias=True)
    assert config.activations == 512 * 16 + 512 * 64 + 256 * 256 + 128 * 1024 + 3 * 4096
    assert parameters.abstract(dcgan.Generator, config)["synthesis/b4/bias"].shape == (4, 4, 512)


def test_latent_spaces_of_the_library():
    """w is z: all spaces give the same latents, statistics are exact, truncation goes towards 0."""
    generator, _ = small()
    z = jax.random.normal(jax.random.key(1), (1, 5))
    ws = generator.map(z)
    assert ws.shape == (1, generator.config.num_ws, generator.config.w_dim) == (1, 1, 5)
    np.testing.assert_array_equal(
        latents.lift(latents.Host(generator), z[0], source=latents.Z, target=latents.WPLUS), ws[0]
    )
    statistics = latents.estimate_w_statistics(jax.random.key(0), generator)
    np.testing.assert_array_equal(statistics.mean, np.zeros(5))
    np.testing.assert_array_equal(statistics.covariance, np.eye(5))
    np.testing.assert_allclose(generator.map(z, truncation_psi=0.5), 0.5 * ws, rtol=1e-6)
    np.testing.assert_array_equal(generator.map(z, truncation_psi=0.5, truncation_cutoff=0), ws)


def test_checkpoint_round_trip(tmp_path):
    """Both networks come back with their moments, and the noise that callers name changes nothing."""
    generator, discriminator = small("tensorflow")
    sg.save(tmp_path / "model", sg.Model(generator, discriminator=discriminator))
    loaded = sg.load(tmp_path / "model")
    for before, after in ((generator, loaded.generator), (discriminator, loaded.discriminator)):
        assert type(before) is type(after) and before.config == after.config
        for name, array in parameters.to_arrays(before).items():
            np.testing.assert_array_equal(parameters.to_arrays(after)[name], array, err_msg=name)
    ws = jnp.ones((1, 1, 5))
    assert generator.synthesis.noise_shapes() == {}
    ways = [generator.synthesis(ws, noise=noise) for noise in ("const", "none", {}, jax.random.key(0))]
    for way in ways[1:]:
        np.testing.assert_array_equal(way, ways[0])


def test_search():
    """The search in Z finds latents that explain a render of the generator better than where it began."""
    generator, _ = small()
    target = np.asarray(render(generator, jax.random.normal(jax.random.key(5), (1, 5))))[0]
    problem = Problem.observe(target, operators.Mask(jnp.ones((16, 16)).at[4:12, 4:12].set(0)))
    method = methods.latent_search(space="z", steps=8, mahalanobis=1e-3)
    found = solve(generator, problem, method, starts=2, key=jax.random.key(0))
    assert found.ws.shape == (2, 1, 5) and found.raw.shape == (2, 16, 16, 2)
    assert np.isfinite(found.scores).all() and (found.scores < found.traces[:, 0]).all()


def test_wrong_arguments_are_refused():
    """Wrong shapes, names and settings are named."""
    generator, discriminator = small()
    ws = jnp.zeros((1, 1, 5))
    for wrong, reason in (
        (lambda: generator.synthesis(ws[0]), r"ws must be \[n, 1, 5\], got \[1, 5\]"),
        (lambda: generator.synthesis(ws, noise={"b8": ws}), "no noise input at b8; a DCGAN has none"),
        (lambda: generator.synthesis(ws, noise="fixed"), "noise must be"),
        (lambda: generator.map(ws[0, :, :3]), r"z must be \[n, 5\], got \[1, 3\]"),
        (lambda: generator.map(ws[0], ws[0]), "unconditional"),
        (lambda: discriminator(jnp.zeros((1, 8, 8, 2))), r"images must be \[n, 16, 16, 2\], got \[1, 8, 8, 2\]"),
        (lambda: discriminator(jnp.zeros((1, 16, 16, 2)), ws[0]), "unconditional"),
        (lambda: dcgan.GeneratorConfig(widths=()), "widths must hold"),
        (lambda: dcgan.GeneratorConfig(widths=(4,), kernel=3), r"kernel must be 4 .* or 5 .*, got 3"),
        (lambda: dcgan.Generator.from_arrays(generator.config, {}), "missing"),
    ):
        with pytest.raises(ValueError, match=reason):
            wrong()
