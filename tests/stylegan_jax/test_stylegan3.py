# SPDX-License-Identifier: Apache-2.0
"""StyleGAN3: reference outputs of both fixtures (float64 at 1e-9, float32 at 2e-5, of the largest value), the filtered
leaky ReLU against its definition, filters, published sizes, reading from a snapshot, and what is refused.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.special
from flax import nnx

from convert import stylegan3 as reader
from convert.errors import ConversionError
from convert.nvlabs import read_network as read_discriminator
from convert.snapshot import read_snapshot, walk
from stylegan_jax import parameters, stylegan2, stylegan3
from stylegan_jax.ops import filter_design
from stylegan_jax.ops.filtered_lrelu import filtered_lrelu

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FIXTURES = ("sg3_r", "sg3_t")
FULL_SIZE = json.loads((GOLDEN / "sg3_full_size.json").read_text())
COLUMNS = FULL_SIZE.pop("columns")
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
DTYPE = {"f64": np.float64, "f32": np.float32}
SMALL = dict(widths=(6, 6, 6), resolution=16, z_dim=5, w_dim=7, num_critical=1, margin=2, filter_size=4)


def read(name):
    """Returns a fixture's snapshot, its values in the file and its attributes free to be changed."""
    return read_snapshot(GOLDEN / f"{name}.pkl")


@functools.cache
def read_golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def load(name, network, dtype):
    """Returns one generator of a fixture with its weights widened to `dtype`."""
    snapshot = read(name)
    found = reader.read_network(snapshot.networks[network], file_size=snapshot.size)
    arrays = {k: np.asarray(v, dtype) for k, v in found.arrays().items()}
    return stylegan3.Generator.from_arrays(stylegan3.GeneratorConfig(**found.config), arrays)


def load_discriminator(name, dtype):
    snapshot = read(name)
    found = read_discriminator(snapshot.networks["D"], kind="discriminator", file_size=snapshot.size)
    arrays = {k: np.asarray(v, dtype) for k, v in found.arrays().items()}
    return stylegan2.Discriminator.from_arrays(stylegan2.DiscriminatorConfig(**found.config), arrays)


def to_nhwc(image):
    return np.moveaxis(np.asarray(image), 1, -1)


def to_nchw(image):
    return np.moveaxis(np.asarray(image), -1, 1)


def jit(function):
    """Compiles with optimisation in float64, where unoptimised convolutions run for tens of seconds."""
    optimised = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
    plain = jax.jit(function)
    return lambda *args: (optimised if jax.config.jax_enable_x64 else plain)(*args)


@jit
def map_and_pull_back(generator, z, cotangent):
    ws, pull_back = jax.vjp(generator.map, z)
    cut = generator.map(z, truncation_psi=0.7, truncation_cutoff=5)
    return (ws, generator.map(z, truncation_psi=0.7), cut), pull_back(cotangent)[0]


@jit
def synthesise(generator, ws, weight):
    """Returns images, feature maps, and the gradient of `mean(images * weight)` by `ws`."""

    def loss(ws):
        image, maps = generator.synthesis.forward(ws)
        return jnp.mean(image * weight), (image, maps)

    (_, (image, maps)), gradient = jax.value_and_grad(loss, has_aux=True)(ws)
    return image, maps, gradient


@jit
def discriminate(discriminator, images):
    def loss(images):
        logits = discriminator(images)
        return jnp.sum(logits), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    return logits[:, None], gradient


def fixture_outputs(name, golden, dtype):
    """Returns every output that a fixture holds, by key."""
    inputs = {k[3:]: v.astype(dtype) for k, v in golden.items() if k.startswith("in/")}
    generator, z, wplus = load(name, "G_ema", dtype), inputs["z"], inputs["wplus"]
    weight, outputs = to_nhwc(inputs["R"]), {}
    mapped, _ = map_and_pull_back(generator, z, np.zeros_like(wplus))
    outputs |= zip(("ws", "ws_psi0.7", "ws_psi0.7_cutoff5"), mapped, strict=True)
    outputs["img_const"], _, gradient = synthesise(generator, mapped[0], weight)
    outputs["grad_z"] = map_and_pull_back(generator, z, gradient)[1]
    outputs["img_psi0.7_const"] = synthesise(generator, mapped[1], weight)[0]
    outputs["img_wplus_const"], maps, outputs["grad_wplus"] = synthesise(generator, wplus, weight)
    for layer, values in maps.items():
        values = to_nchw(values)
        outputs[f"act/G.{layer}"] = values[0, :, :8, :8]
        outputs[f"actstat/G.{layer}"] = np.stack([values.mean(), values.std(ddof=1), np.abs(values).max()])
    generator.synthesis.input.transform[...] = jnp.asarray(inputs["transform"])
    outputs["img_wplus_transform"] = synthesise(generator, wplus, weight)[0]
    raw = load(name, "G", dtype)
    ws = map_and_pull_back(raw, z, np.zeros_like(wplus))[0][0]
    outputs["img_const_Gtrain"] = synthesise(raw, ws, weight)[0]
    outputs |= {key: to_nchw(value) for key, value in outputs.items() if key.startswith("img_")}

    discriminator, images = load_discriminator(name, dtype), to_nhwc(inputs["imgD"])
    outputs["logits_imgD"], gradient = discriminate(discriminator, images)
    outputs["grad_imgD"] = to_nchw(gradient)
    outputs["r1_imgD"] = np.sum(np.square(np.asarray(gradient)), axis=(1, 2, 3))
    # The minibatch deviation takes groups of two: a single image is its own group, as two equal ones are.
    outputs["logits_imgD_single0"] = discriminate(discriminator, images[[0, 0, 0, 0]])[0][:1]
    pair = to_nhwc(outputs["img_const"]).astype(dtype)
    # Groups are strided: images 0 and 2 of four make one.
    outputs["logits_img_const"] = discriminate(discriminator, pair[[0, 0, 1, 1]])[0][::2]
    return outputs


# T in one precision, because they are slow to compile: the arithmetic is shared. `-m slow` has the others.
SLOW = (("sg3_r", "f32"), ("sg3_r", "f64"), ("sg3_t", "f32"))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=[pytest.mark.slow] if (name, precision) in SLOW else [])
        for name in FIXTURES
        for precision in ("f64", "f32")
    ],
)
def test_reference_outputs(name, precision, strict_types):
    """Every key that the fixture holds is computed and equal."""
    golden = read_golden(name)
    with jax.enable_x64(precision == "f64"):
        outputs = fixture_outputs(name, golden, DTYPE[precision])
    held = {k[4:] for k in golden if k.startswith(f"{precision}/")}
    assert held - set(outputs) == set()
    for key in sorted(held):
        expected, value = golden[f"{precision}/{key}"], np.asarray(outputs[key], np.float64)
        assert value.shape == expected.shape, key
        error = np.abs(value - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[precision], f"{key}: {error:.1e}"


@pytest.mark.parametrize("name", FIXTURES)
def test_designed_filters_are_the_stored_ones(name):
    """The filters that a layer's rates imply equal those in the file to 1e-6."""
    stored = load(name, "G_ema", np.float32)
    arrays = parameters.to_arrays(stored)
    held = {key for key in arrays if key.endswith("_filter")}
    for shape in stylegan3.layer_shapes(stored.config):
        for kind, taps in zip(("up", "down"), stylegan3.design_filters(shape), strict=True):
            if taps is not None:
                key = f"synthesis/{shape.name}/{kind}_filter"
                np.testing.assert_allclose(taps, arrays[key], rtol=0, atol=1e-6, err_msg=key)
                held.remove(key)
    assert held == set() and arrays["synthesis/L0_36_16/down_filter" if name == "sg3_t" else key].ndim == 1


@pytest.mark.parametrize("taps, cutoff, width, rate", [(12, 2.0, 12.0, 32), (24, 5.0, 3.0, 64), (7, 1.0, 0.5, 8)])
def test_lowpass_is_the_window_method(taps, cutoff, width, rate):
    """The filter equals scipy's; J1 equals scipy's; the radial filter has the symmetry of the square."""
    options = dict(cutoff=cutoff, width=width, rate=rate)
    expected = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    np.testing.assert_allclose(filter_design.design_lowpass(taps, **options), expected, atol=1e-14)
    x = np.linspace(-99, 99, 301)
    np.testing.assert_allclose(filter_design.bessel_j1(x), scipy.special.j1(x), atol=1e-14)
    if taps % 2:
        with pytest.raises(ValueError, match="even number"):
            filter_design.design_radial_lowpass(taps, **options)
        return
    radial = filter_design.design_radial_lowpass(taps, **options)
    assert radial.shape == (taps, taps) and abs(radial.sum() - 1) < 1e-12
    for other in (radial.T, radial[::-1], radial[:, ::-1]):
        np.testing.assert_allclose(other, radial, atol=1e-15)
    with pytest.raises(ValueError, match="cutoff between"):
        filter_design.design_lowpass(taps, cutoff=rate, width=width, rate=rate)


def by_definition(x, bias, up_taps, down_taps, up, down, padding, slope, gain, clamp):
    """Returns the filtered leaky ReLU with zeros inserted and whole convolutions, `[n, h, w, c]` in numpy."""
    images = np.moveaxis(x + bias, 3, 1)
    results = []
    for image in images.reshape(-1, *images.shape[2:]):
        zeros = np.zeros([size * up for size in image.shape])
        zeros[::up, ::up] = image
        before, after = padding
        zeros = np.pad(zeros, (max(before, 0), max(after, 0)))
        zeros = zeros[max(-before, 0) : len(zeros) - max(-after, 0), max(-before, 0) : len(zeros) - max(-after, 0)]
        y = scipy.signal.convolve2d(zeros, np.outer(up_taps, up_taps) * up**2, "valid")
        y = np.clip(np.where(y >= 0, y, y * slope) * gain, -clamp, clamp)
        taps = down_taps if down_taps.ndim == 2 else np.outer(down_taps, down_taps)
        results.append(scipy.signal.convolve2d(y, taps, "valid")[::down, ::down])
    return np.moveaxis(np.stack(results).reshape(*images.shape[:2], *results[0].shape), 1, 3)


# (up, down, taps up, taps down, two-dimensional, padding); 3 and 2 have no common grid.
CASES = [
    (2, 2, 12, 12, False, (9, 8)),
    (4, 2, 24, 12, True, (-2, 5)),
    (1, 2, 3, 4, False, (2, 3)),
    (3, 2, 5, 7, True, (4, -1)),
    (2, 1, 2, 1, False, (0, 1)),
]


@pytest.mark.parametrize("up, down, up_size, down_size, square, padding", CASES)
def test_filtered_lrelu_is_its_definition(up, down, up_size, down_size, square, padding, x64):
    """Values equal the zero-inserting definition, and the gradient is that of the definition's own linear parts."""
    draw = np.random.default_rng(0)
    x, bias = draw.normal(size=(2, 9, 9, 3)), draw.normal(size=3)
    up_taps = draw.normal(size=up_size)
    down_taps = draw.normal(size=(down_size, down_size) if square else down_size)
    options = dict(up=up, down=down, padding=padding, slope=0.3, gain=1.5, clamp=2.0)

    def ours(x, bias):
        return filtered_lrelu(x, bias, up_taps=up_taps, down_taps=down_taps, **options)

    expected = by_definition(x, bias, up_taps, down_taps, **options)
    value, pull_back = jax.vjp(jax.jit(ours), x, bias)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())

    # The function is piecewise linear: a small enough step gives the derivative exactly.
    step, cotangent = 1e-7 * draw.normal(size=x.shape), draw.normal(size=expected.shape)
    further = by_definition(x + step, bias, up_taps, down_taps, **options)
    d_x, d_bias = pull_back(cotangent)
    np.testing.assert_allclose(np.sum(cotangent * (further - expected)), np.sum(d_x * step), rtol=1e-5)
    np.testing.assert_allclose(d_bias, np.sum(d_x, axis=(0, 1, 2)), rtol=1e-9)


def test_filtered_lrelu_without_filters():
    """Without filters the activation alone is left, cropped; a rate without a filter is refused."""
    x, bias = jnp.arange(-8.0, 8.0).reshape(1, 4, 4, 1), jnp.ones((1,))
    plain = filtered_lrelu(x, bias, slope=1.0, gain=1.0, clamp=5.0, padding=(-1, 0))
    np.testing.assert_array_equal(plain, np.clip(x + 1, -5, 5)[:, 1:, 1:])
    with pytest.raises(ValueError, match="are fewer than 9 taps"):
        filtered_lrelu(x, bias, down_taps=jnp.ones(9), down=2)
    with pytest.raises(ValueError, match="need a filter"):
        filtered_lrelu(x, bias, up=2)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_published_sizes(name):
    """Default configs give the published layers, names and shapes, here and in the converter."""
    _, kind, resolution, *rest = name.split("_")
    base, scale = (16384 if rest else 32768), (2 if kind == "r" else 1)
    widths = stylegan3.channel_widths(int(resolution), channel_base=base * scale, channel_max=512 * scale)
    kernel = dict(kernel=1, radial_filters=True) if kind == "r" else {}
    config = stylegan3.GeneratorConfig(widths=widths, resolution=int(resolution), **kernel)
    layers = stylegan3.layer_shapes(config)
    names = ("in_size", "out_size", "in_rate", "out_rate", "up", "down", "up_taps", "down_taps", "radial", "padding")
    found = {layer.name: [getattr(layer, n) for n in names[:-1]] + [list(layer.padding)] for layer in layers}
    assert found == FULL_SIZE[name]["layers"]
    assert config.num_ws == FULL_SIZE[name]["num_ws"]
    read = reader.layer_attributes(dataclasses.asdict(config))
    assert {k: [v[c] for c in COLUMNS[:-1]] for k, v in read.items()} == {k: v[:-1] for k, v in found.items()}
    arrays = {k: list(v.shape) for k, v in parameters.abstract(stylegan3.Generator, config).items()}
    assert arrays == FULL_SIZE[name]["G"]


@pytest.fixture(scope="module")
def small():
    """A conditional generator of one channel, randomly initialised."""
    config = stylegan3.GeneratorConfig(**SMALL, c_dim=3, image_channels=1)
    return jax.jit(lambda: stylegan3.Generator(config, rngs=nnx.Rngs(0)))()


@jax.jit
def generate(generator, z, c):
    return generator(z, c, truncation_psi=0.5, noise="none")


def test_conditional_single_channel(small, strict_types):
    """Labels matter, samples do not see each other, and bfloat16 layers stay close to float32."""
    z, c = jax.random.normal(jax.random.key(1), (2, 5)), jnp.eye(3)[:2]
    image = np.asarray(generate(small, z, c))
    assert image.shape == (2, 16, 16, 1) and small.resolution == 16 and small.config.num_ws == 5
    assert small.synthesis.noise_shapes() == {}
    scale = np.abs(image).max()
    relabelled = np.asarray(generate(small, z.at[1].mul(100.0), jnp.eye(3)[jnp.array([0, 2])]))
    np.testing.assert_allclose(relabelled[0], image[0], atol=1e-6 * scale)
    assert np.abs(relabelled[1] - image[1]).max() > 0.01 * scale

    config = dataclasses.replace(small.config, bfloat16_from=16)
    low = stylegan3.Generator.from_arrays(config, parameters.to_arrays(small))
    shapes = jax.eval_shape(lambda g, ws: g.synthesis.forward(ws)[1], low, low.map(z, c))
    assert {shapes["input"].dtype, shapes["L3_16_1"].dtype} == {jnp.dtype("float32"), jnp.dtype("bfloat16")}
    error = np.abs(np.asarray(generate(low, z, c)) - image).max() / scale
    assert 1e-5 < error < 0.1


def test_input_moves_with_its_transform(x64):
    """A user's shift by one pixel of the input moves the features by one pixel, against the shift; w can do it too."""
    config = stylegan3.GeneratorConfig(**SMALL)
    network = stylegan3.SynthesisInput(config, stylegan3.layer_shapes(config)[0], rngs=nnx.Rngs(0))
    features = jax.jit(lambda network, w: network(w))
    w, identity = np.zeros((1, 7)), network.transform[...]
    plain = np.asarray(features(network, w))
    network.transform[...] = identity.at[0, 2].set(1 / network.rate)
    np.testing.assert_allclose(np.asarray(features(network, w))[:, :, :-1], plain[:, :, 1:], atol=1e-5)
    network.transform[...] = identity
    network.affine.bias[...] = np.asarray([1.0, 0.0, 0.0, 1 / network.rate], network.affine.bias.dtype)
    np.testing.assert_allclose(np.asarray(features(network, w))[:, 1:], plain[:, :-1], atol=1e-5)


def test_what_the_network_refuses(small):
    """Impossible configs and wrong inputs are named."""
    for change, message in (
        (dict(resolution=24), "power of two"),
        (dict(num_critical=3), "critical layers"),
        (dict(kernel=2), "kernel must be odd"),
        (dict(first_cutoff=9.0), "bands must rise"),
    ):
        with pytest.raises(ValueError, match=message):
            stylegan3.GeneratorConfig(**(SMALL | change))
    ws = jnp.zeros((1, 5, 7))
    with pytest.raises(ValueError, match=r"ws must be \[n, 5, 7\], got \[1, 4, 7\]"):
        small.synthesis(ws[:, :4])
    silent = stylegan3.Generator(dataclasses.replace(small.config, w_avg_beta=None, c_dim=0), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="truncation_psi must be 1"):
        silent.map(jnp.zeros((1, 5)), truncation_psi=0.5)
    with pytest.raises(ValueError, match="no noise input at b4/conv1"):
        small.synthesis(ws, noise={"b4/conv1": jnp.zeros((1, 4, 4))})


def change(path, **attributes):
    """Returns a function that sets attributes of the module at `path`; None as a value removes one."""

    def apply(modules):
        modules[path].state.update(attributes)

    return apply


def change_argument(**arguments):
    return lambda modules: modules["synthesis"].state["_init_kwargs"].update(arguments)


def drop(path, table, name):
    return lambda modules: modules[path].state[table].pop(name)


# (what is done to sg3_t, what the message says)
CONTRADICTIONS = [
    (change("synthesis", img_resolution=48), "expected a power of two"),
    (change("synthesis", img_resolution=64), "L0_36_16 has out_cutoff|is missing"),
    (change("synthesis", num_critical=3), "has in_cutoff|is missing"),
    (change("synthesis", num_critical=True), "expected another type"),
    (change("synthesis", margin_size=10**30), "margin is"),
    (change("synthesis", output_scale=float("nan")), "output_scale is nan"),
    (change("synthesis.L3_36_16", in_cutoff=2.9), "in_cutoff 2.9"),
    (change("synthesis.L3_36_16", conv_clamp=128), "conv_clamp 128"),
    (change("synthesis.L3_36_16", up_factor=10**400), "up_factor"),
    (change("synthesis.input", bandwidth=1.0), "bandwidth 1.0"),
    (change("mapping", num_layers=8), "num_layers 8"),
    (change("mapping", w_avg_beta=2), "w_avg_beta is 2"),
    (change("mapping.fc1", activation="relu"), "activation 'relu'"),
    (change("mapping.fc0", bias_gain=10**400), "learning-rate multiplier"),
    (change_argument(conv_kernel=2), "conv_kernel is 2"),
    (change_argument(conv_kernel=2.5), "whole number"),
    (change_argument(first_cutoff="2"), "first_cutoff is '2'"),
    (change_argument(filter_size=float("inf")), "expected a positive number"),
    (change_argument(use_radial_filters=True), "down_filter has shape"),
    (drop("synthesis", "_modules", "L7_52_16"), "numbered from 0 on"),
    (drop("synthesis", "_modules", "input"), "without synthesis.input"),
    (drop("synthesis.L7_52_16", "_buffers", "up_filter"), "up_filter is missing"),
    (drop("synthesis.input", "_buffers", "transform"), "transform is missing"),
]


@pytest.mark.parametrize("spoil, message", CONTRADICTIONS)
def test_contradictions_are_refused(spoil, message):
    """A generator whose parts do not fit is refused with a reason."""
    snapshot = read("sg3_t")
    root = snapshot.networks["G_ema"]
    assert reader.is_stylegan3(root) and not reader.is_stylegan3(snapshot.networks["D"])
    reader.read_network(root, file_size=snapshot.size)
    spoil(dict(walk(root)))
    with pytest.raises(ConversionError, match=message):
        reader.read_network(root, file_size=snapshot.size)


def test_a_size_beyond_the_file_is_refused():
    """A network that claims more values than the file has bytes is refused."""
    with pytest.raises(ConversionError, match="more values than the file has bytes"):
        reader.read_network(read("sg3_t").networks["G"], file_size=1000)
