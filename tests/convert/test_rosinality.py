# SPDX-License-Identifier: Apache-2.0
"""rosinality's checkpoints: networks recognised, what is wrong named, and StyleGAN2 against its reference outputs.

What a converted StyleGAN1 network computes is compared in tests/stylegan_jax/test_stylegan1.py.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import ConversionError, building, rosinality
from convert.rosinality_tables import FILTER
from convert.torch_legacy import read_torch_file
from convert.torchfile import STORAGE_TYPES, Storage, Tensor
from stylegan_jax import stylegan2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FLOAT = STORAGE_TYPES["torch.FloatStorage"]
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}


def tensor(values):
    """Returns a tensor as a file would hold it."""
    values = np.asarray(values, np.float32)
    steps = tuple(step // 4 for step in np.zeros(values.shape, np.float32).strides)
    return Tensor(Storage(FLOAT, values.size, memoryview(values.tobytes())), 0, values.shape, steps)


def read(name):
    """Returns a fixture as read anew: what is in it may be changed."""
    return read_torch_file(GOLDEN / name)


def convert(tree, name, **options):
    return rosinality.read_network(rosinality.recognise(tree), name, file_size=10**9, **options)


# Networks.


def test_a_running_average_alone_is_the_averaged_generator():
    """The plain dictionary of a generator, in a zip, is what the training file in the old format holds as g_running."""
    alone, whole = rosinality.recognise(read("ros1_running_zip.model").tree), read("ros1_train_step6.model").tree
    assert alone.present == ["G_ema"] and rosinality.recognise(whole).present == ["G", "G_ema", "D"]
    for key, value in whole["g_running"].items():
        np.testing.assert_array_equal(alone.networks["G_ema"][key].read(), value.read(), err_msg=key)


def test_configuration_is_inferred():
    network = convert(read("ros1_train_step6.model").tree, "D", step=6)
    assert network.config == {
        "widths": (16, 16, 16, 16, 12, 10, 8),
        "image_channels": 3,
        "from_rgb_activation": True,
    }
    network = convert(read("ros1_running_zip.model").tree, "G_ema", step=6)
    assert network.config == {
        "z_dim": 24,
        "mapping_layers": 8,
        "widths": (16, 16, 16, 16, 12, 10, 8),
        "image_channels": 3,
        "quarter_from": 128,
    }
    assert network.resolution == 256 and not network.has_average and set(network.notes()) == {"noise_const", "w_avg"}
    assert not [name for name in network.arrays() if name.startswith(("synthesis/b512/", "synthesis/b1024/"))]


@pytest.mark.parametrize(
    ("name", "source"), [("G_ema", "generator.to_rgb.{}.conv.bias"), ("D", "from_rgb.{}.0.conv.bias")]
)
def test_the_trained_step_is_found(name, source):
    """Image layers beyond the step that training reached have biases of zero."""
    tree = read("ros1_train_step6.model").tree
    tensors = rosinality.recognise(tree).networks[name]
    assert convert(tree, name).resolution == 1024
    for block in (7, 8):
        key = source.format(block if name == "G_ema" else 8 - block)
        tensors[key] = tensor(np.zeros(tensors[key].shape))
    assert convert(tree, name).resolution == 256
    assert convert(tree, name, step=3).resolution == 32
    with pytest.raises(ConversionError, match="step must be from 0 to 8"):
        convert(tree, name, step=9)


def test_a_discriminator_without_activation_is_recognised():
    tree = read("ros1_train_step6.model").tree
    tree["discriminator"] = {
        key.replace(".0.conv", ".conv") if key.startswith("from_rgb") else key: value
        for key, value in tree["discriminator"].items()
    }
    network = convert(tree, "D", step=2)
    assert network.config["from_rgb_activation"] is False and len(network.arrays()) == 2 * (2 * 3 + 4)


@pytest.mark.parametrize("file", ["ros1_running_zip.model", "ros2_train_zip.pt"])
def test_a_missing_mean_is_estimated(file):
    """Without a mean of w the estimated one is set, by a fixed key; the noise maps are those of a fixed seed."""
    network = convert(read(file).tree, "G_ema", **({"step": 1} if file.startswith("ros1") else {}))
    built, statistics = building.build_generator(network, network.arrays(), samples=2000)
    z = jax.random.normal(jax.random.key(5), (2000, network.config["z_dim"]))
    mean = jnp.mean(jax.jit(lambda network, z: network(z))(built.mapping, z), axis=0)
    np.testing.assert_array_equal(built.mapping.w_avg[...], statistics.mean)
    assert jnp.abs(mean - statistics.mean).max() < 0.1 < jnp.abs(mean).max()
    assert "estimated" in network.notes()["w_avg"]
    again = convert(read(file).tree, "G_ema", **({"step": 1} if file.startswith("ros1") else {})).arrays()
    np.testing.assert_array_equal(built.synthesis.b4.const[...], again["synthesis/b4/const"])


def test_a_mean_in_the_file_is_kept():
    tree = read("ros2_train_zip.pt").tree
    tree["latent_avg"] = tensor(np.arange(20))
    network = convert(tree, "G_ema")
    assert network.has_average and network.notes() == {}
    built, statistics = building.build_generator(network, network.arrays(), samples=100)
    np.testing.assert_array_equal(built.mapping.w_avg[...], np.arange(20))
    assert jnp.abs(statistics.mean).max() < 5


def test_old_files_without_noise_maps():
    """Files of before noise maps were stored get normal ones of a fixed seed, and the provenance says so."""
    tree = read("ros2_train_zip.pt").tree
    tree["g_ema"] = {key: value for key, value in tree["g_ema"].items() if not key.startswith("noises.")}
    network = convert(tree, "G_ema")
    first, second = network.arrays(), network.arrays()
    assert "seed 0" in network.notes()["noise_const"]
    maps = [name for name in first if name.endswith("noise_const")]
    assert len(maps) == 7 and 0.9 < np.std(np.concatenate([first[name].ravel() for name in maps])) < 1.1
    for name in maps:
        np.testing.assert_array_equal(first[name], second[name])


def change(tree, network, key, value):
    """Puts a tensor into one network of a tree, or takes it away."""
    if value is None:
        del tree[network][key]
    else:
        tree[network][key] = tensor(value)
    return tree


@pytest.mark.parametrize(
    ("network", "key", "value", "reason"),
    [
        ("g_ema", "convs.1.activate.bias", None, "convs.1.activate.bias is missing"),
        ("g_ema", "noises.noise_3", None, "noises.noise_3 is missing"),
        ("g_ema", "noises.noise_9", np.ones((1, 1, 4, 4)), "noises.noise_9 is unexpected"),
        ("g_ema", "conv1.noise.weight", np.ones(2), r"conv1.noise.weight has shape \(2,\), expected \(1,\)"),
        ("g_ema", "conv1.noise.weight", [np.nan], "conv1.noise.weight holds 1 NaN"),
        ("g_ema", "to_rgbs.0.upsample.kernel", FILTER, "the other tensors that become synthesis/resample_filter"),
        ("g_ema", "input.input", np.ones((16, 4, 4)), "input.input has shape .*, expected 4 dimensions"),
        ("g_ema", "style.1.weight", None, "style.1.weight is missing, which tells the architecture"),
        ("g_ema", "to_rgbs.0.conv.weight", None, "expected a generator of 8 pixels or more"),
        ("d", "final_conv.1.bias", None, "final_conv.1.bias is missing"),
        ("d", "convs.2.skip.1.bias", np.ones(16), "convs.2.skip.1.bias is unexpected"),
        ("g_running", "generator.progression.6.conv2.conv.bias", None, "progression.6.conv2.conv.bias is missing"),
        ("g_running", "generator.progression.6.conv1.1.weight", np.ones((8, 1, 3, 3)), "does not hold the filter"),
        ("g_running", "style.17.linear.bias", np.ones(24), "style.17.linear.bias is unexpected"),
        ("g_running", "generator.progression.7.conv1.0.weight", None, "expected all from some block on"),
        ("discriminator", "progression.8.conv2.0.conv.bias", None, "progression.8.conv2.0.conv.bias is missing"),
    ],
)
def test_what_does_not_fit_is_named(network, key, value, reason):
    tree = change(read("ros2_train_zip.pt" if len(network) < 6 else "ros1_train_step6.model").tree, network, key, value)
    name = "D" if network.startswith("d") else "G_ema"
    with pytest.raises(ConversionError, match=reason):
        convert(tree, name).arrays()


def test_every_problem_is_reported_at_once():
    tree = read("ros2_train_zip.pt").tree
    for key in ("conv1.activate.bias", "convs.3.noise.weight", "to_rgbs.1.bias"):
        change(tree, "g", key, None)
    with pytest.raises(ConversionError) as caught:
        convert(tree, "G")
    assert len(caught.value.problems) == 3


def test_another_filter_is_refused():
    tree = read("ros2_train_zip.pt").tree
    for key in tree["d"]:
        if key.endswith("kernel"):
            change(tree, "d", key, np.full((4, 4), 1 / 16))
    with pytest.raises(ConversionError, match="other filters are not supported"):
        convert(tree, "D").arrays()


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([1], "holds a list; expected a checkpoint of rosinality"),
        ({"state_dict": {}}, "holds 'state_dict'"),
        ({"g": {"input.input": 3}}, "G is a dict, expected a dictionary of tensors"),
        ({"g": {"input.input": tensor(1)}, "latent_avg": 3}, "latent_avg is 3, expected a tensor"),
        ({"d": {"input.input": tensor(1)}}, "D has none of the tensors by which a discriminator"),
        ({"g": {"input.input": tensor(1)}, "d": {"linear.linear.weight_orig": tensor(1)}}, "expected one kind"),
    ],
)
def test_trees_of_other_kinds(tree, reason):
    with pytest.raises(ConversionError, match=reason):
        rosinality.recognise(tree)


def test_requests_that_cannot_be_met():
    tree = read("ros2_train_zip.pt").tree
    with pytest.raises(ConversionError, match="step belongs to StyleGAN1"):
        convert(tree, "G", step=3)
    with pytest.raises(ConversionError, match="more values than the file has bytes"):
        rosinality.read_network(rosinality.recognise(tree), "G", file_size=1000)
    del tree["g_ema"]
    with pytest.raises(ConversionError, match="G_ema is not there; the file holds G, D"):
        convert(tree, "G_ema")
    network = convert(tree, "D")
    with pytest.raises(ConversionError, match="missing b4/out/bias"):
        building.build(network, {k: v for k, v in network.arrays().items() if k != "b4/out/bias"})


# What a converted StyleGAN2 computes.


@functools.cache
def read_golden():
    """Returns the inputs and outputs of the StyleGAN2 fixture by their keys."""
    with np.load(GOLDEN / "ros2_train_zip.npz") as file:
        return dict(file)


def load(name, dtype, *, scaled):
    """Returns a converted network in `dtype`; `scaled` divides modulated weights as the reference does."""
    file = read("ros2_train_zip.pt")
    network = rosinality.read_network(rosinality.recognise(file.tree), name, file_size=file.size)
    arrays = {key: np.asarray(value, dtype) for key, value in network.arrays().items()}
    if network.kind == "discriminator":
        return stylegan2.Discriminator.from_arrays(stylegan2.DiscriminatorConfig(**network.config), arrays)
    if scaled:
        for key, value in arrays.items():
            if key.endswith(("conv0/weight", "conv1/weight")):
                arrays[key] = value / np.sqrt(np.prod(value.shape[:3]))
    arrays["mapping/w_avg"] = read_golden()["in/mean_latent"][0].astype(dtype)
    return stylegan2.Generator.from_arrays(stylegan2.GeneratorConfig(**network.config), arrays)


def jit(function):
    """Compiles with optimisation in float64, where unoptimised convolutions run for seconds."""
    optimised = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
    plain = jax.jit(function)
    return lambda *args: (optimised if jax.config.jax_enable_x64 else plain)(*args)


@jit
def latents_of(generator, z):
    """Returns `ws`, and `ws` truncated."""
    return generator.map(z), generator.map(z, truncation_psi=0.7)


@jit
def synthesise(generator, ws, noise, weight):
    """Returns images, and the gradients of `mean(images * weight)` by `ws` and by every noise map."""

    def loss(ws, noise):
        image = generator.synthesis(ws, noise=noise)
        return jnp.mean(image * weight), image

    (_, image), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(ws, noise)
    return image, gradients


@jit
def discriminate(discriminator, images):
    """Returns logits, and the gradient of their sum by the images."""

    def loss(images):
        logits = discriminator(images)
        return jnp.sum(logits), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    return logits, gradient


@jit
def logits_of(discriminator, images):
    """Returns logits alone."""
    return discriminator(images)


def to_nchw(image):
    return np.moveaxis(np.asarray(image), -1, 1)


def to_nhwc(image):
    return np.moveaxis(np.asarray(image), 1, -1)


def outputs_of(dtype, *, scaled):
    """Returns everything that the StyleGAN2 fixture holds, by key."""
    inputs = {k[3:]: v.astype(dtype) for k, v in read_golden().items() if k.startswith("in/")}
    generator, discriminator = (load(name, dtype, scaled=scaled) for name in ("G_ema", "D"))
    weight, shapes = to_nhwc(inputs["R"]), generator.synthesis.noise_shapes()
    stored = {k: jnp.repeat(v, 2, axis=0) for k, v in generator.synthesis.noise_maps("const", 2, dtype).items()}
    given = {name: inputs[f"noise/{i}"][:, 0] for i, name in enumerate(shapes)}
    ws, truncated = latents_of(generator, inputs["z"])
    image, (by_ws, by_noise) = synthesise(generator, inputs["wplus"], given, weight)
    outputs = {"w": ws[:, 0], "img_wplus_noise": to_nchw(image), "grad_wplus": by_ws}
    outputs |= {f"grad_noise/{i}": np.asarray(by_noise[name])[:, None] for i, name in enumerate(shapes)}
    outputs["img_psi0.7_bufnoise"] = to_nchw(synthesise(generator, truncated, stored, weight)[0])
    images = synthesise(generator, ws, stored, weight)[0]
    outputs["img_bufnoise"] = to_nchw(images)
    logits, gradient = discriminate(discriminator, to_nhwc(inputs["imgD"]))
    outputs |= {"logits_imgD": logits[:, None], "grad_imgD": to_nchw(gradient)}
    outputs["logits_img_bufnoise"] = logits_of(discriminator, images)[:, None]
    outputs["logits_imgD_single0"] = logits_of(discriminator, to_nhwc(inputs["imgD"])[:1])[:, None]
    return {key: np.asarray(value) for key, value in outputs.items()}


@pytest.mark.parametrize(("precision", "scaled"), [("f64", True), ("f64", False), ("f32", False)])
def test_reference_outputs(precision, scaled, strict_types):
    """Every key that the fixture holds is computed and equal.

    The reference divides modulated weights by sqrt(fan_in) before their energy is compared with 1e-8. With the weights
    divided as well float64 agrees to 1e-9; as they are converted, the results differ by that 1e-8.
    """
    dtype = {"f64": np.float64, "f32": np.float32}[precision]
    with jax.enable_x64(precision == "f64"):
        outputs, golden = outputs_of(dtype, scaled=scaled), read_golden()
    limit = TOLERANCE[precision] if scaled or precision == "f32" else 1e-7
    held = {k[4:] for k in golden if k.startswith(f"{precision}/")}
    assert held - set(outputs) == set()
    for key in held:
        expected = golden[f"{precision}/{key}"]
        assert outputs[key].shape == expected.shape, key
        error = np.abs(outputs[key].astype(np.float64) - expected).max() / np.abs(expected).max()
        assert error < limit, f"{key}: {error:.1e}"
