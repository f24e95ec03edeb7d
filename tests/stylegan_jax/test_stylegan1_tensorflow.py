# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's StyleGAN1, written as its TensorFlow code writes it, converted, and compared with formulas in numpy.

There is no file with reference outputs, so `Reference` computes them in float64 from the variables of the file,
channels first and operation by operation as published; it shares no code with the network.
"""

import functools
import math
import pickle
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convert
import stylegan_jax as sg
from convert import tensorflow, tensorflow_stylegan1
from convert.numpyfile import numpy_globals
from convert.rules import check_shapes
from convert.tensorflow_files import recognise, tensorflow_globals
from convert.unpickle import Work, read_pickle
from stylegan_jax import parameters, stylegan1_tensorflow

TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
DTYPE = {"f64": np.float64, "f32": np.float32}
SIZES = dict(z_dim=9, w_dim=7, hidden=7, layers=2, labels=0, colours=3, features=None, group=4, groups=1)
# Odd widths; images of 1 to 3 channels; labels; up- and down-convolutions in one operation (fused) or in two.
CASES = {
    "4px": SIZES | dict(widths=(5,), colours=1, given={"label_size": 0}, layers=1),
    "8px_labels": SIZES | dict(widths=(6, 5), labels=3, hidden=11, layers=3, given={"fused_scale": False}),
    "16px_fused": SIZES | dict(widths=(7, 5, 3), given={"fused_scale": True, "mapping_lrmul": 0.1}, features=4),
    "32px": SIZES | dict(widths=(6, 5, 4, 3), colours=2, group=2, groups=2, given={}),
    "8px_one_label": SIZES | dict(widths=(3, 2), colours=1, labels=1, group=1, groups=0, given={}),
}


# Files.


def shapes_of_generator(case):
    """Returns {component: {variable: shape}} of a generator; "" is the network around the others."""
    width, found = case["z_dim"], {}
    if case["labels"]:
        found["LabelConcat/weight"] = (case["labels"], case["z_dim"])
        width *= 2
    for i in range(case["layers"]):
        features = case["w_dim"] if i == case["layers"] - 1 else case["hidden"]
        found |= {f"Dense{i}/weight": (width, features), f"Dense{i}/bias": (features,)}
        width = features
    synthesis, widths = {"lod": ()}, case["widths"]
    for i, width in enumerate(widths):
        size = 4 << i
        names = [f"{size}x{size}/{part}" for part in (("Conv0_up", "Conv1") if i else ("Const", "Conv"))]
        for j, name in enumerate(names):
            before = widths[i - 1] if i and not j else width
            kernel = {f"{name}/weight": (3, 3, before, width)} if i or j else {f"{name}/const": (1, width, 4, 4)}
            synthesis |= kernel | {f"noise{2 * i + j}": (1, 1, size, size), f"{name}/Noise/weight": (width,)}
            synthesis |= {f"{name}/bias": (width,), f"{name}/StyleMod/weight": (case["w_dim"], 2 * width)}
            synthesis |= {f"{name}/StyleMod/bias": (2 * width,)}
        rgb = f"ToRGB_lod{len(widths) - 1 - i}"
        synthesis |= {f"{rgb}/weight": (1, 1, width, case["colours"]), f"{rgb}/bias": (case["colours"],)}
    return {"": {"lod": (), "dlatent_avg": (case["w_dim"],)}, "mapping": found, "synthesis": synthesis}


def shapes_of_discriminator(case):
    """Returns {"": {variable: shape}} of a discriminator."""
    found, widths = {"lod": ()}, case["widths"]
    layers = {}
    for i, width in enumerate(widths):
        layers[f"FromRGB_lod{len(widths) - 1 - i}"] = (1, 1, case["colours"], width)
        if i:
            layers[f"{4 << i}x{4 << i}/Conv0"] = (3, 3, width, width)
            layers[f"{4 << i}x{4 << i}/Conv1_down"] = (3, 3, width, widths[i - 1])
    layers["4x4/Conv"] = (3, 3, widths[0] + case["groups"], widths[0])
    layers["4x4/Dense0"] = (16 * widths[0], case["features"] or widths[0])
    layers["4x4/Dense1"] = (layers["4x4/Dense0"][1], max(case["labels"], 1))
    for name, shape in layers.items():
        found |= {f"{name}/weight": shape, f"{name}/bias": shape[-1:]}
    return {"": found}


def draw(name, shape, rng, case):
    """Returns values that leave no part of the network without effect."""
    if name == "lod":
        return np.float32(0)
    lr = case["given"].get("mapping_lrmul", 0.01)
    scale = 1 / lr if name.startswith("Dense") and len(shape) < 3 and "x" not in name else 1.0
    scale = 0.3 * scale if name.endswith("bias") or name == "dlatent_avg" else scale
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def arguments_of(case, kind):
    """Returns what the network was built with: the sizes, and whatever differs from the defaults of the code."""
    sizes = {"num_channels": case["colours"], "resolution": 2 << len(case["widths"]), "label_size": case["labels"]}
    given = {k: v for k, v in case["given"].items() if kind == "G" or not k.startswith("mapping")}
    if kind == "D":
        return sizes | given | {"mbstd_group_size": case["group"], "mbstd_num_features": case["groups"] or 1}
    return (
        sizes
        | given
        | {"latent_size": case["z_dim"], "dlatent_size": case["w_dim"]}
        | {
            "mapping_layers": case["layers"],
            "mapping_fmaps": case["hidden"],
        }
    )


@functools.cache
def variables_of(name):
    """Returns {network: {component: {variable: float32 values}}} of a case."""
    case, rng = CASES[name], np.random.default_rng(0)
    parts = {"G": shapes_of_generator(case), "D": shapes_of_discriminator(case), "Gs": shapes_of_generator(case)}
    return {
        network: {c: {k: draw(k, v, rng, case) for k, v in shapes.items()} for c, shapes in components.items()}
        for network, components in parts.items()
    }


def written(name, monkeypatch):
    """Returns a file as the code writes one: a tuple of objects with a state, each with its variables and networks."""
    case, module = CASES[name], types.ModuleType("dnnlib.tflib.network")

    class Network:
        def __init__(self, path, function, variables, arguments, **components):
            self.state = {"version": 3, "name": path, "static_kwargs": arguments, "components": components}
            self.state |= {"build_module_src": "1 / 0", "build_func_name": function}
            self.state["variables"] = list(variables.items())

        def __getstate__(self):
            return self.state

    Network.__module__, Network.__qualname__, module.Network = module.__name__, "Network", Network
    for part in ("dnnlib", "dnnlib.tflib", module.__name__):
        monkeypatch.setitem(sys.modules, part, module)
    networks = []
    for key, variables in variables_of(name).items():
        arguments = arguments_of(case, key[0])
        inner = {
            part: Network(f"{key}_{part}", f"G_{part}", values, arguments | {"dlatent_broadcast": None})
            for part, values in variables.items()
            if part
        }
        networks.append(Network(key, "D_basic" if key == "D" else "G_style", variables[""], arguments, **inner))
    return pickle.dumps(tuple(networks), protocol=3)


def read(data, key):
    tree = read_pickle(memoryview(data), numpy_globals() | tensorflow_globals(), work=Work())[0]
    return tensorflow.read_network(recognise(tree), key, file_size=len(data))


# The reference.


def dense(x, weight, bias, gain, lr=1.0):
    return np.einsum("ni,io->no", x, weight) * gain * lr / np.sqrt(len(weight)) + bias * lr


def leaky(x):
    return np.maximum(x, 0.2 * x)


def correlate(x, weight, stride=1):
    """Returns a correlation, zeros around it, as large as the image, or half of that."""
    k, (n, _, height, width) = len(weight), x.shape
    padded = np.pad(x, ((0, 0), (0, 0), ((k - 1) // 2,) * 2, ((k - 1) // 2,) * 2))
    y = np.zeros((n, weight.shape[3], height // stride, width // stride))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            patch = padded[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
            y[:, :, i, j] = np.einsum("ncab,abco->no", patch, weight)
    return y


def spread(weight):
    """Returns the 4x4 kernel that is the sum of the 3x3 one at the four corners."""
    found = np.zeros((4, 4, *weight.shape[2:]))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        found[i : i + 3, j : j + 3] += weight
    return found


def up(x, weight, fused):
    """Returns the convolution at twice the size: of the doubled image, or transposed with the kernel as it is."""
    n, _, height, width = x.shape
    if not fused:
        return correlate(np.kron(x, np.ones((1, 1, 2, 2))), weight)
    kernel, y = spread(weight), np.zeros((n, weight.shape[3], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            y[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("nc,abco->noab", x[:, :, i, j], kernel)
    return y[:, :, 1:-1, 1:-1]


def down(x, weight, fused):
    """Returns the convolution at half the size, then the mean of 2x2 pixels, or both in one."""
    if fused:
        return correlate(x, spread(weight) / 4, stride=2)
    y = correlate(x, weight)
    return (y[:, :, ::2, ::2] + y[:, :, 1::2, ::2] + y[:, :, ::2, 1::2] + y[:, :, 1::2, 1::2]) / 4


def blur(x):
    channels = np.eye(x.shape[1])
    return correlate(x, np.einsum("a,b,io->abio", [0.25, 0.5, 0.25], [0.25, 0.5, 0.25], channels))


class Reference:
    """A generator or discriminator in float64, from {component: {variable: values}}; `[n, c, h, w]` throughout."""

    def __init__(self, name, key):
        self.case = CASES[name]
        self.fused_scale = self.case["given"].get("fused_scale", "auto")
        parts = variables_of(name)[key].items()
        self.v = {f"{c}/{k}".lstrip("/"): np.asarray(v, np.float64) for c, p in parts for k, v in p.items()}

    def is_fused(self, size):
        return size >= 128 if self.fused_scale == "auto" else self.fused_scale

    def kernel(self, name, gain):
        weight = self.v[f"{name}/weight"]
        return weight * gain / np.sqrt(np.prod(weight.shape[:-1]))

    def bias(self, name):
        return self.v[f"{name}/bias"][None, :, None, None]

    def map(self, z, c, *, psi, cutoff):
        x = z if c is None else np.concatenate([z, np.einsum("nl,lk->nk", c, self.v["mapping/LabelConcat/weight"])], 1)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)
        for i in range(self.case["layers"]):
            weight, bias = (self.v[f"mapping/Dense{i}/{part}"] for part in ("weight", "bias"))
            x = leaky(dense(x, weight, bias, np.sqrt(2), self.case["given"].get("mapping_lrmul", 0.01)))
        mean = self.v["dlatent_avg"]
        return np.stack([mean + (psi if i < cutoff else 1) * (x - mean) for i in range(self.num_ws)], 1)

    @property
    def num_ws(self):
        return 2 * len(self.case["widths"])

    def silence(self):
        return [np.zeros((1, 4 << i // 2, 4 << i // 2)) for i in range(self.num_ws)]

    def finish(self, x, name, w, noise):
        x = x + noise[:, None] * self.v[f"{name}/Noise/weight"][None, :, None, None] + self.bias(name)
        x = leaky(x)
        x = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-8)
        style = dense(w, self.v[f"{name}/StyleMod/weight"], self.v[f"{name}/StyleMod/bias"], 1)
        style = style.reshape(len(w), 2, -1, 1, 1)
        return x * (style[:, 0] + 1) + style[:, 1]

    def synthesise(self, ws, noise=None):
        """Returns images for `ws`, with the stored noise maps, or `noise` {index: `[n, h, w]`}."""
        x = np.repeat(self.v["synthesis/4x4/Const/const"], len(ws), 0)
        for i in range(self.num_ws):
            size = 4 << i // 2
            part = ("Conv0_up", "Conv1")[i % 2] if i > 1 else ("Const", "Conv")[i]
            name = f"synthesis/{size}x{size}/{part}"
            if part == "Conv0_up":
                x = blur(up(x, self.kernel(name, np.sqrt(2)), self.is_fused(size)))
            elif i:
                x = correlate(x, self.kernel(name, np.sqrt(2)))
            x = self.finish(x, name, ws[:, i], self.v[f"synthesis/noise{i}"][0] if noise is None else noise[i])
        return correlate(x, self.kernel("synthesis/ToRGB_lod0", 1)) + self.bias("synthesis/ToRGB_lod0")

    def discriminate(self, images, c):
        x = leaky(correlate(images, self.kernel("FromRGB_lod0", np.sqrt(2))) + self.bias("FromRGB_lod0"))
        for i in range(len(self.case["widths"]) - 1, 0, -1):
            first, second = (f"{4 << i}x{4 << i}/{part}" for part in ("Conv0", "Conv1_down"))
            x = leaky(correlate(x, self.kernel(first, np.sqrt(2))) + self.bias(first))
            x = down(blur(x), self.kernel(second, np.sqrt(2)), self.is_fused(4 << i))
            x = leaky(x + self.bias(second))
        if self.case["group"] > 1:
            x = np.concatenate([x, self.deviations(x)], 1)
        x = leaky(correlate(x, self.kernel("4x4/Conv", np.sqrt(2))) + self.bias("4x4/Conv"))
        x = x.reshape(len(x), -1)
        x = leaky(dense(x, self.v["4x4/Dense0/weight"], self.v["4x4/Dense0/bias"], np.sqrt(2)))
        y = dense(x, self.v["4x4/Dense1/weight"], self.v["4x4/Dense1/bias"], 1)
        return y[:, 0] if c is None else (y * c).sum(1)

    def deviations(self, x):
        """Returns `[n, groups, 4, 4]`: sample i shares its group with every one that is a multiple of n/group away."""
        count = self.case["groups"]
        found = np.zeros((len(x), count, 4, 4))
        apart, features = len(x) // min(self.case["group"], len(x)), x.shape[1] // count
        for i in range(len(x)):
            for f in range(count):
                own = x[i % apart :: apart, f * features : (f + 1) * features]
                found[i, f] = np.sqrt(own.var(0) + 1e-8).mean()
        return found


# Comparison.


def to_nhwc(image):
    return np.moveaxis(np.asarray(image), 1, -1)


@jax.jit
def render(network, z, c, noise):
    """Returns `ws`, truncated `ws`, and images of the latter."""
    ws = network.map(z, c, truncation_psi=0.7, truncation_cutoff=3)
    return network.map(z, c), ws, network.synthesis(ws, noise=noise)


@jax.jit
def pull_back(network, ws, noise, weight):
    """Returns images, and the gradients of `sum(images * weight)` by `ws` and the noise maps."""
    image, pull = jax.vjp(lambda ws, noise: network.synthesis(ws, noise=noise), ws, noise)
    return image, *pull(weight)


def load(name, key, dtype, monkeypatch):
    found = read(written(name, monkeypatch), key)
    module, kind = stylegan1_tensorflow, found.kind.capitalize()
    arrays = {k: np.asarray(v, dtype) for k, v in found.arrays().items()}
    return getattr(module, kind).from_arrays(getattr(module, f"{kind}Config")(**found.config), arrays)


def inputs_of(name, dtype):
    """Returns latents, labels (or None) and images of 4 samples, the same in every precision."""
    case, rng = CASES[name], np.random.default_rng(3)
    size = 2 << len(case["widths"])
    z, images = rng.standard_normal((4, case["z_dim"])), rng.standard_normal((4, case["colours"], size, size))
    c = rng.standard_normal((4, case["labels"])) if case["labels"] else None
    return tuple(x if x is None else x.astype(np.float32).astype(dtype) for x in (z, images, c))


def deviation(found, expected):
    assert found.shape == expected.shape
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


# Every case in float64; in float32 the two that have all there is. (Fused or not is a matter of the conversion.)
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "f64") for name in CASES), ("8px_labels", "f32"), ("32px", "f32")]
)
def test_against_the_formulas(name, precision, strict_types, monkeypatch):
    """Latents, images with the stored noise and without any, and logits."""
    dtype = DTYPE[precision]
    z, images, c = inputs_of(name, dtype)
    with jax.enable_x64(precision == "f64"):
        generator, discriminator = (load(name, key, dtype, monkeypatch) for key in ("G_ema", "D"))
        const = generator.synthesis.noise_maps("const", 1, dtype)
        ws, cut, rendered = render(generator, z, c, const)
        silent = render(generator, z, c, {k: jnp.zeros_like(v) for k, v in const.items()})[2]
        logits = jax.jit(lambda d, x, c: d(x, c))(discriminator, to_nhwc(images), c)
    reference = Reference(name, "Gs")
    expected = reference.map(z, c, psi=0.7, cutoff=3)
    found = {
        "ws": deviation(ws, reference.map(z, c, psi=1, cutoff=0)),
        "truncated": deviation(cut, expected),
        "image": deviation(rendered, to_nhwc(reference.synthesise(expected))),
        "image without noise": deviation(silent, to_nhwc(reference.synthesise(expected, reference.silence()))),
        "logits": deviation(logits, Reference(name, "D").discriminate(images, c)),
    }
    assert max(found.values()) < TOLERANCE[precision], found


def test_gradients(x64, monkeypatch):
    """In a random direction of W+ and of all noise maps, an image changes as the formulas' central difference says."""
    name, rng = "8px_labels", np.random.default_rng(1)
    generator, reference = load(name, "G_ema", np.float64, monkeypatch), Reference(name, "Gs")
    names = list(generator.synthesis.noise_shapes())
    ws, d_ws = rng.standard_normal((2, 1, 4, 7))
    noise, d_noise = ([rng.standard_normal((1, r, r)) for r in (4, 4, 8, 8)] for _ in range(2))
    weight, step = rng.standard_normal((1, 8, 8, 3)), 1e-4
    image, by_ws, by_noise = pull_back(generator, ws, dict(zip(names, noise, strict=True)), weight)
    assert deviation(image, to_nhwc(reference.synthesise(ws, noise))) < TOLERANCE["f64"]

    def projected(t):
        moved = reference.synthesise(ws + t * d_ws, [a + t * b for a, b in zip(noise, d_noise, strict=True)])
        return (to_nhwc(moved) * weight).sum()

    found = (by_ws * d_ws).sum() + sum((by_noise[k] * d).sum() for k, d in zip(names, d_noise, strict=True))
    first, second = ((projected(k * step) - projected(-k * step)) / (2 * k * step) for k in (1, 2))
    # Richardson's extrapolation, whose error is of the order of rounding / step.
    np.testing.assert_allclose(found, (4 * first - second) / 3, rtol=1e-8)


def test_noise_maps(monkeypatch):
    """Two for each block: those stored, none, drawn anew for every sample, or given."""
    synthesis = load("4px", "G_ema", np.float32, monkeypatch).synthesis
    assert synthesis.noise_shapes() == {"b4/style0": (4, 4), "b4/style1": (4, 4)}
    const = synthesis.noise_maps("const", 2, jnp.float32)
    for i in range(2):
        np.testing.assert_array_equal(const[f"b4/style{i}"], variables_of("4px")["Gs"]["synthesis"][f"noise{i}"][0])
    assert synthesis.noise_maps("none", 2, jnp.float32) == {}
    drawn = synthesis.noise_maps(jax.random.key(0), 2, jnp.float32)
    assert {k: v.shape for k, v in drawn.items()} == {"b4/style0": (2, 4, 4), "b4/style1": (2, 4, 4)}
    assert len({float(x) for v in drawn.values() for x in np.asarray(v)[:, 0, 0]}) == 4
    given = {"b4/style0": np.ones((1, 4, 4))}
    assert synthesis.noise_maps(given, 2, jnp.float32) == given
    with pytest.raises(ValueError, match="no noise input at b4; there is b4/style0, b4/style1"):
        synthesis.noise_maps({"b4": np.ones((1, 4, 4))}, 1, jnp.float32)
    with pytest.raises(ValueError, match=r"noise b4/style1 must be \[n, 4, 4\], got \[1, 8, 8\]"):
        synthesis.noise_maps({"b4/style1": np.ones((1, 8, 8))}, 1, jnp.float32)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda g, d: g.synthesis(jnp.ones((1, 3, 4))), r"ws must be \[n, 2, 4\], got \[1, 3, 4\]"),
        (lambda g, d: g(jnp.ones((1, 5)), jnp.ones((1, 2))), r"z must be \[n, 3\], got \[1, 5\]"),
        (lambda g, d: g(jnp.ones((1, 3))), "mapping: c_dim is 2 but c is missing"),
        (lambda g, d: g(jnp.ones((1, 3)), jnp.ones((1, 3))), r"mapping: c must be \[n, 2\], got \[1, 3\]"),
        (lambda g, d: d(jnp.ones((1, 8, 8, 3))), r"images must be \[n, 4, 4, 3\], got \[1, 8, 8, 3\]"),
        (lambda g, d: d(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 2))), "discriminator: c_dim is 0 but c is given"),
        (lambda g, d: stylegan1_tensorflow.DiscriminatorConfig(widths=()), "widths must hold the channels"),
    ],
)
def test_what_does_not_fit_is_refused(call, reason):
    generator = stylegan1_tensorflow.GeneratorConfig(widths=(2,), z_dim=3, c_dim=2, w_dim=4, mapping_layers=1)
    networks = nnx.eval_shape(
        lambda: (
            stylegan1_tensorflow.Generator(generator, rngs=nnx.Rngs(0)),
            stylegan1_tensorflow.Discriminator(stylegan1_tensorflow.DiscriminatorConfig(widths=(2,)), rngs=nnx.Rngs(0)),
        )
    )
    with pytest.raises(ValueError, match=reason):
        call(*networks)


@pytest.mark.parametrize(("kind", "trained"), [("generator", 26_219_627), ("discriminator", 23_087_249)])
def test_full_size(kind, trained):
    """At 1024 pixels, names and shapes fit those of the file, which has the published number of trained values."""
    sizes = dict(z_dim=512, w_dim=512, hidden=512, layers=8)
    case = SIZES | sizes | dict(widths=tuple(min(8192 >> i, 512) for i in range(1, 10)), given={})
    listed = shapes_of_generator(case) if kind == "generator" else shapes_of_discriminator(case)
    shapes = {f"{c}/{name}".lstrip("/"): shape for c, part in listed.items() for name, shape in part.items()}
    variables = {name: types.SimpleNamespace(shape=shape, size=math.prod(shape)) for name, shape in shapes.items()}
    network = types.SimpleNamespace(arguments={}, components={}, function="D_basic")
    if kind == "discriminator":
        network.arguments = {"resolution": 1024, "num_channels": 3}
    config, _, table = tensorflow_stylegan1.describe(network, variables, kind=kind)
    assert check_shapes(variables, {entry.source: entry.shape for entry in table}) == []
    buffers = re.compile("(synthesis/)?(lod|noise[0-9]+)|dlatent_avg")
    assert sum(math.prod(shape) for name, shape in shapes.items() if not buffers.fullmatch(name)) == trained
    # Zeros that take no memory.
    found = {
        entry.destination: entry.transform(np.broadcast_to(np.float32(0), entry.shape)).shape
        for entry in table
        if entry.destination
    }
    settings = getattr(stylegan1_tensorflow, f"{kind.capitalize()}Config")(**config)
    held = parameters.abstract(getattr(stylegan1_tensorflow, kind.capitalize()), settings)
    assert found == {name: value.shape for name, value in held.items()}
    if kind == "generator":
        assert settings == stylegan1_tensorflow.GeneratorConfig(widths=case["widths"]) and settings.num_ws == 18


def test_a_file_becomes_a_checkpoint(tmp_path, monkeypatch):
    """Converted, written and loaded, the generator draws what the formulas say, and the discriminator judges it."""
    name = "8px_labels"
    (tmp_path / "file.pkl").write_bytes(written(name, monkeypatch))
    facts = convert.inspect(tmp_path / "file.pkl")["networks"]["D"]
    assert (facts["family"], facts["resolution"]) == ("stylegan1_tensorflow", 8)
    converted = convert.convert(tmp_path / "file.pkl", tmp_path / "checkpoint")
    assert "no output of NVIDIA's own code" in converted.provenance["verification"]
    model, reference = sg.load(tmp_path / "checkpoint"), Reference(name, "Gs")
    np.testing.assert_array_equal(model.generator.mapping.w_avg[...], variables_of(name)["Gs"][""]["dlatent_avg"])
    z, _, c = inputs_of(name, np.float32)
    image = render(model.generator, z, c, model.generator.synthesis.noise_maps("const", 1, np.float32))[2]
    expected = reference.synthesise(reference.map(z, c, psi=0.7, cutoff=3))
    assert deviation(image, to_nhwc(expected)) < TOLERANCE["f32"]
    stored = parameters.to_arrays(model.discriminator)
    for key, value in parameters.to_arrays(load(name, "D", np.float32, monkeypatch)).items():
        np.testing.assert_array_equal(stored[key], value)
