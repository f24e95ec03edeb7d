# SPDX-License-Identifier: Apache-2.0
"""StyleGAN1 against the reference outputs of its fixture: float64 at 1e-9, float32 at 2e-5, of the largest value.

The network of the fixture has blocks up to 1024 pixels; those up to 128 are compared. Each step is compiled once for a
precision and called with different arguments.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import rosinality
from convert.torch_legacy import read_torch_file
from stylegan_jax import latents, stylegan1

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
DTYPE = {"f64": np.float64, "f32": np.float32}
# The reference's own float32 and float64 values of these small differences of large numbers are 4e-5 apart.
LOOSER = {"f32/Dlin_logits_step5": 1e-4}
STEP = 5


@functools.cache
def read_golden():
    """Returns the inputs and outputs of the fixture by their keys."""
    with np.load(GOLDEN / "ros1.npz") as file:
        return dict(file)


@functools.cache
def read(name):
    """Returns the config and the arrays of one network of the fixture, up to 128 pixels."""
    file = read_torch_file(GOLDEN / "ros1_train_step6.model")
    network = rosinality.read_network(rosinality.recognise(file.tree), name, file_size=file.size, step=STEP)
    return network.config, network.arrays()


def generator(dtype):
    config, arrays = read("G_ema")
    arrays = arrays | {"mapping/w_avg": read_golden()["in/mean_style"][0]}
    return stylegan1.Generator.from_arrays(
        stylegan1.GeneratorConfig(**config), {k: np.asarray(v, dtype) for k, v in arrays.items()}
    )


def discriminator(dtype, *, activation):
    config, arrays = read("D")
    return stylegan1.Discriminator.from_arrays(
        stylegan1.DiscriminatorConfig(**config | {"from_rgb_activation": activation}),
        {k: np.asarray(v, dtype) for k, v in arrays.items()},
    )


def to_nhwc(image):
    return np.moveaxis(np.asarray(image), 1, -1)


def to_nchw(image):
    return np.moveaxis(np.asarray(image), -1, 1)


def jit(function):
    """Compiles with optimisation in float64, where unoptimised convolutions run for seconds; `step` is static."""
    optimised, plain = (
        jax.jit(function, static_argnames="step", compiler_options=options)
        for options in ({"xla_backend_optimization_level": 1}, None)
    )
    return lambda *args, step=STEP: (optimised if jax.config.jax_enable_x64 else plain)(*args, step=step)


@jit
def map_and_pull_back(network, z, cotangent, *, step):
    """Returns `ws`, truncated `ws`, and the cotangent of `ws` pulled back to `z`."""
    ws, pull_back = jax.vjp(network.map, z)
    return ws, network.map(z, truncation_psi=0.7), pull_back(cotangent)[0]


@jit
def synthesise(network, ws, noise, weight, alpha, *, step):
    """Returns images, and the gradients of `mean(images * weight)` by `ws` and by every noise map."""

    def loss(ws, noise):
        image = network.synthesis(ws, noise=noise, step=step, alpha=alpha)
        return jnp.mean(image * weight), image

    (_, image), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(ws, noise)
    return image, gradients


@jit
def render(network, ws, noise, *, step):
    """Returns images alone."""
    return network.synthesis(ws, noise=noise, step=step)


@jit
def discriminate(network, images, alpha, *, step):
    """Returns logits, and the gradient of their sum by the images."""

    def loss(images):
        logits = network(images, step=step, alpha=alpha)
        return jnp.sum(logits), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    return logits, gradient


@jit
def logits_of(network, images, alpha, *, step):
    """Returns logits alone."""
    return network(images, step=step, alpha=alpha)


def generator_outputs(inputs, dtype, *, others):
    """Returns what the fixture holds of its generator, by key; `others` asks for steps 0 and 5 too."""
    network, z, weight = generator(dtype), inputs["z"], to_nhwc(inputs["R_step3"])
    one = np.asarray(1, dtype)
    noise = {f"b{4 << i}": inputs[f"noise/{i}"][:, 0] for i in range(6)}
    first = {name: noise[name] for name in ("b4", "b8", "b16", "b32")}
    nothing = np.zeros((2, network.config.num_ws, network.config.w_dim), dtype)
    ws, truncated, _ = map_and_pull_back(network, z, nothing)
    other, _, _ = map_and_pull_back(network, inputs["z2"], nothing)
    mixed = stylegan1.mix_styles(ws, other, first=1, last=2)

    image, (gradient, by_noise) = synthesise(network, ws, first, weight, one, step=3)
    outputs = {"w": ws[:, 0], "img_step3": to_nchw(image), "grad_w_step3": np.sum(gradient, axis=1)}
    outputs |= {f"grad_noise_step3/{i}": np.asarray(by_noise[f"b{4 << i}"])[:, None] for i in range(4)}
    outputs["grad_z_step3"] = map_and_pull_back(network, z, gradient)[2]
    for key, given, alpha in (
        ("img_step3_alpha0.3", ws, 0.3),
        ("img_step3_psi0.7", truncated, 1),
        ("img_step3_mix", mixed, 1),
    ):
        image, _ = synthesise(network, given, first, weight, np.asarray(alpha, dtype), step=3)
        outputs[key] = to_nchw(image)
    if others:
        outputs["img_step0"] = to_nchw(render(network, ws, {"b4": noise["b4"]}, step=0))
        alone = {name: value[:1] for name, value in noise.items()}
        outputs["img_step5_b1"] = to_nchw(render(network, ws[:1], alone, step=5))
    return outputs


def discriminator_outputs(inputs, dtype, *, gradients):
    """Returns what the fixture holds of its discriminator, with and without the activation of its image layers.

    `gradients` names those of the two whose gradients are asked for.
    """
    outputs, one, x = {}, np.asarray(1, dtype), to_nhwc(inputs["imgD_step3"])
    for kind, activation in (("Dact", True), ("Dlin", False)):
        network = discriminator(dtype, activation=activation)
        for key, alpha in ((f"{kind}_logits_step3", one), (f"{kind}_logits_step3_alpha0.3", np.asarray(0.3, dtype))):
            if kind not in gradients:
                outputs[key] = logits_of(network, x, alpha, step=3)[:, None]
                continue
            logits, gradient = discriminate(network, x, alpha, step=3)
            outputs[key] = logits[:, None]
            if alpha == 1:
                outputs[f"{kind}_grad_imgD_step3"] = to_nchw(gradient)
        outputs[f"{kind}_logits_step5"] = logits_of(network, to_nhwc(inputs["imgD_step5"]), one)[:, None]
    return outputs


@pytest.mark.parametrize("precision", ["f64", pytest.param("f32", marks=pytest.mark.slow)])
def test_reference_outputs(precision, strict_types):
    """Every key that the fixture holds is computed and equal."""
    with jax.enable_x64(precision == "f64"):
        golden, dtype = read_golden(), DTYPE[precision]
        inputs = {k[3:]: v.astype(dtype) for k, v in golden.items() if k.startswith("in/")}
        outputs = generator_outputs(inputs, dtype, others=precision == "f32")
        gradients = [kind for kind in ("Dact", "Dlin") if f"{precision}/{kind}_grad_imgD_step3" in golden]
        outputs |= discriminator_outputs(inputs, dtype, gradients=gradients)
        outputs = {k: np.asarray(v) for k, v in outputs.items()}
    held = {k[4:] for k in golden if k.startswith(f"{precision}/")}
    assert held - set(outputs) == set()
    for key in held:
        expected = golden[f"{precision}/{key}"]
        assert outputs[key].shape == expected.shape and outputs[key].dtype == dtype, key
        error = np.abs(outputs[key].astype(np.float64) - expected).max() / np.abs(expected).max()
        limit = LOOSER.get(f"{precision}/{key}", TOLERANCE[precision])
        assert error < limit, f"{key}: {error:.1e}"


SMALL = stylegan1.GeneratorConfig(widths=(4, 3), z_dim=5, mapping_layers=2, quarter_from=8)


@pytest.fixture(scope="module")
def small():
    """Returns a generator of 8 pixels whose noise shows."""
    network = stylegan1.Generator(SMALL, rngs=nnx.Rngs(0))
    for _, block in network.synthesis.blocks():
        block.style0.noise_strength[...] += 1.0
    return network


@functools.partial(jax.jit, static_argnames="name")
def call(network, z, noise=None, *, name=None):
    """Returns images of a whole call with maps or a key as `noise`, or with the `name` of a way to take it."""
    return network(z, noise=name or noise)


def test_ways_to_give_noise(small):
    """The stored maps, none, and random ones are what the same maps given are; each has an effect."""
    z, synthesis = jax.random.normal(jax.random.key(1), (2, 5)), small.synthesis
    assert synthesis.noise_shapes() == {"b4": (4, 4), "b8": (8, 8)}
    zeros = {name: jnp.zeros((2, *shape)) for name, shape in synthesis.noise_shapes().items()}
    const = {k: jnp.repeat(v, 2, axis=0) for k, v in synthesis.noise_maps("const", 2, jnp.float32).items()}
    drawn = synthesis.noise_maps(jax.random.key(2), 2, jnp.float32)
    images = []
    for way, maps in ((call(small, z, name="const"), const), (call(small, z, name="none"), zeros)):
        images.append(call(small, z, maps))
        np.testing.assert_allclose(way, images[-1], atol=1e-5)
    images.append(call(small, z, drawn))
    np.testing.assert_allclose(call(small, z, jax.random.key(2)), images[-1], atol=1e-5)
    assert drawn["b8"].shape == (2, 8, 8) and jnp.abs(drawn["b8"][0] - drawn["b8"][1]).max() > 0.1
    for i in range(3):
        assert jnp.abs(images[i] - images[i - 1]).max() > 0.01
    alone = call(small, z[1:], {name: value[1:] for name, value in drawn.items()})
    np.testing.assert_allclose(alone, images[-1][1:], atol=1e-5)


def test_latent_spaces_of_the_library(small):
    """Statistics, lifts and truncation take this generator as they take that of StyleGAN2."""
    z = jax.random.normal(jax.random.key(1), (1, 5))
    ws = small.map(z)
    assert ws.shape == (1, SMALL.num_ws, SMALL.w_dim) == (1, 4, 5)
    lifted = latents.lift(latents.Host(small), z[0], source=latents.Z, target=latents.WPLUS)
    np.testing.assert_allclose(lifted, ws[0], rtol=1e-6)
    assert latents.estimate_w_statistics(jax.random.key(0), small, samples=50).mean.shape == (5,)
    cut = small.map(z, truncation_psi=0.5, truncation_cutoff=1)
    np.testing.assert_allclose(cut, ws * jnp.asarray([0.5, 1, 1, 1])[None, :, None], rtol=1e-6)  # w_avg is zero


def test_up_convolution_is_that_of_the_doubled_image():
    """A transposed convolution and a 2x2 mean is the flipped kernel over the image doubled by repetition."""
    layer = stylegan1.EqualConv(2, 3, 3, rngs=nnx.Rngs(0))
    layer.bias[...] += 0.5
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    doubled = np.pad(x.repeat(2, axis=1).repeat(2, axis=2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(layer.weight[...])[::-1, ::-1] * np.sqrt(2 / 18)
    windows = np.lib.stride_tricks.sliding_window_view(doubled, (3, 3), axis=(1, 2))
    y = np.pad(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + 0.5, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3), axis=(1, 2))
    blurred = np.einsum("nhwcij,i,j->nhwc", windows, [0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    found = jax.jit(lambda layer, x: layer.up(x, gain=4.0))(layer, x)
    np.testing.assert_allclose(found, blurred, atol=1e-5)


def test_wrong_arguments_are_refused(small):
    """Wrong shapes, names, steps and fades are named."""
    ws, noise = jnp.zeros((1, 4, 5)), {"b8": jnp.zeros((1, 4, 4))}
    critic = stylegan1.Discriminator(stylegan1.DiscriminatorConfig(widths=(4, 3)), rngs=nnx.Rngs(0))
    for wrong, reason in (
        (lambda: small.synthesis(ws[0]), r"ws must be \[n, 4, 5\], got \[4, 5\]"),
        (lambda: small.synthesis(ws, noise=noise), r"noise b8 must be \[n, 8, 8\], got \[1, 4, 4\]"),
        (lambda: small.synthesis(ws, noise={"b16": noise["b8"]}), "no noise input at b16; there is b4, b8"),
        (lambda: small.synthesis(ws, noise="fixed"), "noise must be"),
        (lambda: small.synthesis(ws, step=2), r"step must be from 0 \(4 px\) to 1 \(8 px\), got 2"),
        (lambda: small.synthesis(ws, alpha=1.5), "alpha must be from 0"),
        (lambda: small.map(ws[0, :, :3]), r"z must be \[n, 5\], got \[4, 3\]"),
        (lambda: small.map(ws[0], ws[0]), "unconditional"),
        (lambda: stylegan1.mix_styles(ws, ws[:, :2], first=0, last=0), "alike"),
        (lambda: stylegan1.mix_styles(ws, ws, first=1, last=2), "blocks must be within 0 to 1, got 1 to 2"),
        (lambda: critic(jnp.zeros((1, 4, 4, 3))), r"images must be \[n, 8, 8, 3\], got \[1, 4, 4, 3\]"),
        (lambda: critic(jnp.zeros((1, 8, 8, 3)), ws[0]), "unconditional"),
        (lambda: stylegan1.GeneratorConfig(widths=()), "widths must hold"),
        (lambda: stylegan1.Generator.from_arrays(SMALL, {}), "missing"),
    ):
        with pytest.raises(ValueError, match=reason):
            wrong()
