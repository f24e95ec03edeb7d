# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 against the reference outputs of every fixture: float64 at 1e-9, float32 at 2e-5, of the largest value."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.nvlabs import read_network
from convert.snapshot import read_snapshot
from stylegan_jax import stylegan2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FIXTURES = sorted(path.stem for path in GOLDEN.glob("sg2_*.pkl"))
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
KINDS = {
    "generator": (stylegan2.Generator, stylegan2.GeneratorConfig),
    "discriminator": (stylegan2.Discriminator, stylegan2.DiscriminatorConfig),
}


def load(name: str, network: str, dtype: str):
    """Returns one network of a fixture with its weights widened to `dtype`."""
    path = GOLDEN / f"{name}.pkl"
    snapshot = read_snapshot(path)
    kind = "discriminator" if network == "D" else "generator"
    found = read_network(snapshot.networks[network], kind=kind, file_size=snapshot.size)
    arrays = {k: np.asarray(v, dtype) for k, v in found.arrays(allow_nonfinite=False).items()}
    network_class, config_class = KINDS[kind]
    return network_class.from_arrays(config_class(**found.config), arrays)


def to_nhwc(image):
    return jnp.moveaxis(image, 1, -1)


def to_nchw(image):
    return jnp.moveaxis(image, -1, 1)


@jax.jit
def generator_outputs(generator, inputs):
    """Returns everything that the fixtures hold of a generator, by their keys, in their layout."""
    z, c, ws = inputs["z"], inputs.get("c"), inputs["wplus"]
    weight = to_nhwc(inputs["R"])
    synthesis = generator.synthesis
    outputs = {"ws": generator.map(z, c), "ws_psi0.7": generator.map(z, c, truncation_psi=0.7)}
    outputs["ws_psi0.7_cutoff3"] = generator.map(z, c, truncation_psi=0.7, truncation_cutoff=3)

    def from_z(z):
        image = generator(z, c)
        return jnp.mean(image * weight), image

    def from_ws(ws, noise):
        image, maps = synthesis.forward(ws, noise=noise)
        return jnp.mean(image * weight), (image, maps)

    (_, image), outputs["grad_z"] = jax.value_and_grad(from_z, has_aux=True)(z)
    outputs["img_const"] = to_nchw(image)
    outputs["img_psi0.7_const"] = to_nchw(generator(z, c, truncation_psi=0.7))
    (_, (image, maps)), outputs["grad_wplus"] = jax.value_and_grad(from_ws, has_aux=True)(ws, "const")
    outputs["img_wplus_const"] = to_nchw(image)
    outputs["img_wplus_none"] = to_nchw(synthesis(ws, noise="none"))
    outputs |= {f"act/G.{k.removesuffix('/torgb')}": to_nchw(v)[0] for k, v in maps.items() if k.endswith("/torgb")}
    outputs |= {f"act/G.{k.replace('/', '.')[:-3]}g": to_nchw(v)[0] for k, v in maps.items() if k.endswith("/image")}
    outputs = {k.replace(".imag", ".im"): v for k, v in outputs.items()}
    noise = {k.removeprefix("noise/").replace(".", "/"): v[:, 0] for k, v in inputs.items() if k.startswith("noise/")}
    if noise:
        (_, (image, _)), gradient = jax.value_and_grad(from_ws, argnums=1, has_aux=True)(ws, noise)
        outputs["img_wplus_noise"] = to_nchw(image)
        outputs |= {f"grad_noise/{k.replace('/', '.')}": v[:, None] for k, v in gradient.items()}
    return outputs


@jax.jit
def discriminator_outputs(discriminator, inputs, images):
    """Returns everything that the fixtures hold of a discriminator."""
    x, c = to_nhwc(inputs["imgD"]), inputs.get("cD")
    logits, maps = discriminator.forward(x, c)
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x, c)))(x)
    outputs = {"logits_imgD": logits[:, None], "grad_imgD": to_nchw(gradient)}
    outputs["r1_imgD"] = jnp.sum(jnp.square(gradient), axis=(1, 2, 3))
    outputs["logits_imgD_single0"] = discriminator(x[:1], None if c is None else c[:1])[:, None]
    outputs["logits_img_const"] = discriminator(images, inputs.get("c"))[:, None]
    outputs |= {f"act/D.{name}": to_nchw(value)[0] for name, value in maps.items()}
    outputs["act/D.b4"] = logits[:1]
    return outputs


@jax.jit
def positive_features(generator, ws):
    """Returns the sign of every feature map of `ws`, `[n, ...]`, by layer."""
    return {k: v > 0 for k, v in generator.synthesis.forward(ws)[1].items()}


def samples_at_kink(name, ws):
    """Returns which samples have a leaky ReLU whose input rounds to the other side of 0 in float32, `[n]` bool.

    There the derivative jumps between 0.2 and 1, so the float32 gradient of such a sample says nothing.
    """
    single = positive_features(load(name, "G_ema", "float32"), ws)
    with jax.enable_x64(True):
        double = positive_features(load(name, "G_ema", "float64"), jnp.asarray(ws, jnp.float64))
        return np.any([np.any(single[k] != double[k], axis=(1, 2, 3)) for k in single], axis=0)


def compare(outputs, golden, precision, at_kink):
    """Asserts equality for every key that the fixture holds, and returns the keys compared.

    `at_kink()` says which samples may differ in their float32 gradients of the generator.
    """
    compared = set()
    for key, value in outputs.items():
        if f"{precision}/{key}" in golden:
            expected = golden[f"{precision}/{key}"]
            assert value.shape == expected.shape, key
            error = np.abs(np.asarray(value, np.float64) - expected)
            scale = np.abs(expected).max()
            if precision == "f32" and key in ("grad_wplus", "grad_z") and error.max() >= TOLERANCE[precision] * scale:
                error = error[~at_kink()]
            assert error.max(initial=0) < TOLERANCE[precision] * scale, f"{key}: {error.max() / scale:.1e}"
            compared.add(key)
    return compared


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize("name", FIXTURES)
def test_reference_outputs(name, precision, strict_types):
    with np.load(GOLDEN / f"{name}.npz") as file:
        golden = dict(file)
    dtype = {"f64": "float64", "f32": "float32"}[precision]
    with jax.enable_x64(precision == "f64"):
        inputs = {k[3:]: jnp.asarray(v, dtype) for k, v in golden.items() if k.startswith("in/")}
        outputs = generator_outputs(load(name, "G_ema", dtype), inputs)
        images = to_nhwc(jnp.asarray(outputs["img_const"]))
        outputs |= discriminator_outputs(load(name, "D", dtype), inputs, images)
        if f"{precision}/img_const_Gtrain" in golden:
            trained = load(name, "G", dtype)
            outputs["img_const_Gtrain"] = to_nchw(trained(inputs["z"], inputs.get("c")))
        compared = compare(outputs, golden, precision, lambda: samples_at_kink(name, inputs["wplus"]))
    held = {k[4:] for k in golden if k.startswith(f"{precision}/") and "actstat" not in k}
    assert held - compared == set()
