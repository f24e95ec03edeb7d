# SPDX-License-Identifier: Apache-2.0
"""DCGANs of PyTorch: files as torch.save lays them out, recognised by order and shapes, and what is wrong named."""

import pathlib
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import convert
import stylegan_jax
from convert import ConversionError, dcgan
from convert.torch_legacy import read_torch_file

ROOT = pathlib.Path(convert.__file__).parents[1]
Z, CHANNELS = 5, (4, 3)  # at 4 and 8 pixels: images of 16 pixels


# torch.save without torch: the opcodes of its pickle, and one record for every storage.


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(array, key):
    """Returns the opcodes of a tensor whose storage is the record `key`."""
    kind = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}[array.dtype.name]
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    storage += b"J" + struct.pack("<i", array.size) + b"tQ"
    steps = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    rest = b"J\0\0\0\0" + integers(array.shape) + integers(steps) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def save(path, tree):
    """Writes arrays, numbers and dictionaries of them; dictionaries of arrays have the metadata of a state dict."""
    records = []

    def opcodes(value):
        if isinstance(value, dict):
            items = b"".join(text(key) + opcodes(item) + b"s" for key, item in value.items())
            metadata = b"}" + text("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
            plain = not all(isinstance(item, np.ndarray) for item in value.values())
            return b"}" + items if plain else b"ccollections\nOrderedDict\n)R" + items + metadata
        if isinstance(value, np.ndarray):
            records.append(np.ascontiguousarray(value).tobytes())
            return tensor(value, str(len(records) - 1))
        return b"J" + struct.pack("<i", value)

    pickled = b"\x80\x02" + opcodes(tree) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for i, data in enumerate(records):
            archive.writestr(f"archive/data/{i}", data)
        archive.writestr("archive/version", b"3\n")
    return path


def state_dict(kernels, *, norms, bias=(), counters=True, names="main.{}"):
    """Returns random tensors of a Sequential: convolutions with these kernels, `norms` {index of kernel: width}."""
    rng, tensors, place = np.random.default_rng(len(norms)), {}, 0
    for i, shape in enumerate(kernels):
        name = names.format(place)
        tensors[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        if i in bias:
            tensors[f"{name}.bias"] = rng.normal(size=bias[i]).astype(np.float32)
        place += 1
        if i in norms:
            name = names.format(place)
            for part in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{name}.{part}"] = np.abs(rng.normal(size=norms[i])).astype(np.float32)
            if counters:
                tensors[f"{name}.num_batches_tracked"] = np.asarray(7, np.int64)
            place += 1
        place += 1
    return tensors


def generator(**options):
    first, second = CHANNELS
    kernels = [(Z, first, 4, 4), (first, second, 4, 4), (second, 3, 4, 4)]
    return state_dict(kernels, norms={0: first, 1: second}, **options)


def discriminator(**options):
    first, second = CHANNELS
    kernels = [(second, 3, 4, 4), (first, second, 4, 4), (1, first, 4, 4)]
    return state_dict(kernels, norms={1: first}, **options)


# What torch computes with such a file, in float64.


def transposed(x, weight, bias, *, stride, padding):
    n, _, h, w = x.shape
    full = np.zeros((n, weight.shape[1], stride * (h - 1) + 4, stride * (w - 1) + 4))
    for i in range(h):
        for j in range(w):
            part = np.einsum("nc,cokl->nokl", x[:, :, i, j], weight)
            full[:, :, stride * i : stride * i + 4, stride * j : stride * j + 4] += part
    size = full.shape[2] - 2 * padding
    return full[:, :, padding : padding + size, padding : padding + size] + bias[:, None, None]


def correlated(x, weight, bias, *, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwkl,ockl->nohw", windows, weight) + bias[:, None, None]


def reference(tensors, x, *, transpose):
    """Returns what a Sequential with these tensors gives for `x` `[n, c, h, w]`, without its last activation."""
    tensors = {name: array.astype(np.float64) for name, array in tensors.items()}
    modules = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    last = list(modules)[-1]
    for i, module in enumerate(modules):
        weight = tensors[f"{module}.weight"]
        bias = tensors.get(f"{module}.bias", np.zeros(weight.shape[1 if transpose else 0] if weight.ndim > 1 else 1))
        if weight.ndim == 1:
            mean, variance = (tensors[f"{module}.running_{part}"][:, None, None] for part in ("mean", "var"))
            x = (x - mean) / np.sqrt(variance + 1e-5) * weight[:, None, None] + bias[:, None, None]
        elif transpose:
            x = transposed(x, weight, bias, stride=1 if i == 0 else 2, padding=0 if i == 0 else 1)
        else:
            x = correlated(x, weight, bias, stride=1 if module == last else 2, padding=0 if module == last else 1)
        following = list(modules)[i + 1 : i + 2]
        normalised_next = bool(following) and tensors[f"{following[0]}.weight"].ndim == 1
        if module != last and not normalised_next:
            x = np.maximum(x, 0) if transpose else np.where(x > 0, x, 0.2 * x)
    return x


FILES = {
    "both": ({"netG": generator(), "netD": discriminator(), "epoch": 3}, "G"),
    "alone": (generator(), "G_ema"),
    "parallel": ({"g": generator(names="module.main.{}"), "g_ema": generator(), "x": discriminator()}, "G_ema"),
    "biases": ({"a": generator(bias={0: 4, 1: 3, 2: 3}), "b": discriminator(bias={0: 3, 1: 4, 2: 1})}, "G"),
    "old": ({"state_dict": generator(counters=False, names="conv{}")}, "G_ema"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_the_network(name, tmp_path):
    """What is converted computes what PyTorch's modules do, with the file's own running moments."""
    tree, network = FILES[name]
    path = save(tmp_path / "dcgan.pth", tree)
    model = convert.convert(path, tmp_path / "model", network=network)
    held = [tree] if name == "alone" else [tensors for tensors in tree.values() if isinstance(tensors, dict)]
    rng = np.random.default_rng(0)
    z, images = rng.normal(size=(2, Z)), rng.normal(size=(2, 16, 16, 3))
    expected = np.tanh(reference(held[0], z[:, :, None, None], transpose=True)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model.generator(z.astype(np.float32)), expected, atol=2e-5 * np.abs(expected).max())
    if len(held) > 1:
        expected = reference(held[-1], images.transpose(0, 3, 1, 2), transpose=False).reshape(-1)
        logits = model.discriminator(images.astype(np.float32))
        np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
    loaded = stylegan_jax.load(tmp_path / "model")
    assert loaded.resolution == 16 and loaded.provenance["format"] == "state dict of a PyTorch DCGAN"
    np.testing.assert_array_equal(loaded.w_statistics.covariance, np.eye(Z))
    assert loaded.provenance["w_statistics"].startswith("exact")


def test_inspect(tmp_path):
    """Facts and networks; a discriminator alone can be read, but not become a model."""
    facts = convert.inspect(save(tmp_path / "a.pth", {"netG": generator(), "netD": discriminator()}))
    assert facts["networks"]["G"]["config"] == {
        "widths": (4, 3),
        "image_channels": 3,
        "kernel": 4,
        "bias": False,
        "z_dim": Z,
    }
    assert {k: v["resolution"] for k, v in facts["networks"].items()} == {"G": 16, "D": 16}
    path = save(tmp_path / "b.pth", discriminator())
    assert convert.inspect(path)["networks"]["D"]["config"]["widths"] == (4, 3)
    with pytest.raises(ConversionError, match="G_ema is not there; the file holds D"):
        convert.convert(path, tmp_path / "model")
    with pytest.raises(ConversionError, match="step belongs to StyleGAN1"):
        convert.convert(tmp_path / "a.pth", tmp_path / "model", network="G", step=2)


def test_some_biases():
    """Where only some layers have a bias, the others get one of zero, and the provenance says so."""
    # Read through a file in the tests above; here the tensors are looked at only.
    network = read(generator(bias={2: 3}), "G_ema")
    arrays = network.arrays()
    assert network.config["bias"] and arrays["synthesis/b4/bias"].shape == (4, 4, 4)
    assert not arrays["synthesis/b8/bias"].any() and arrays["synthesis/b16/bias"].all()
    assert "synthesis/b4/bias" in network.notes()["biases"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(tree, name, *, file_size=None):
    """Returns a checked network of a tree that went through a file."""
    file = read_torch_file(save("file.pth", tree))
    return dcgan.read_network(dcgan.recognise(file.tree), name, file_size=file_size or file.size)


def changed(tensors, **changes):
    """Returns the tensors with some replaced, added, or (None) taken away; `_` stands for a dot."""
    tensors = dict(tensors)
    for key, value in changes.items():
        module, part = key.split("_", 1)
        if value is None:
            del tensors[f"main.{module[1:]}.{part}"]
        else:
            tensors[f"main.{module[1:]}.{part}"] = np.asarray(value, np.float32)
    return tensors


@pytest.mark.parametrize(
    ("network", "changes", "reason"),
    [
        ("G", {"m1_bias": None}, "main.1.bias is missing"),
        ("G", {"m4_running_var": None}, "main.4.running_var is missing"),
        ("G", {"m1_running_mean": np.ones(9)}, r"main.1.running_mean has shape \(9,\), expected \(4,\)"),
        ("G", {"m3_weight": np.ones((9, 3, 4, 4))}, r"main.3.weight has shape \(9, 3, 4, 4\), expected \(4, 3, 4, 4\)"),
        ("G", {"m9_gain": np.ones(2)}, "main.9.gain is unexpected"),
        ("G", {"m7_weight": np.ones(3)}, "3 convolutions and 3 batch normalisations; a generator of a DCGAN has 2"),
        ("G", {"m6_weight": np.full((3, 3, 4, 4), np.nan)}, "main.6.weight holds 144 NaN"),
        ("G", {"m1_running_var": [1, 1, 1, -1]}, r"main\.1\.running_var holds negative variances"),
        ("G", {"m1_bias": np.ones(0)}, "main.1.bias is empty"),
        ("D", {"m3_weight": None}, "main.3.weight is missing"),
        ("D", {"m5_weight": np.ones((2, 4, 4, 4))}, r"main.5.weight has shape \(2, 4, 4, 4\), expected \(1, 4, 4, 4\)"),
        ("D", {"m0_bias": np.ones(2)}, r"main.0.bias has shape \(2,\), expected \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(network, changes, reason):
    networks = {"G": generator(), "D": discriminator()}
    networks[network] = changed(networks[network], **changes)
    with pytest.raises(ConversionError, match=reason):
        read(networks, network).arrays()


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"a": 3}, "holds 'a'; expected state dicts of a DCGAN"),
        ({"a": generator(), "b": generator()}, "holds several generators: 'a', 'b'; expected one of a kind"),
        ({"a": discriminator(), "b": discriminator()}, "holds several discriminators"),
        ({"a.weight": np.ones((3, 3, 3, 3), np.float32)}, "holds 'a.weight'"),
        (changed(generator(), m3_weight=np.ones((4, 3, 5, 5))), "convolutions are all of 4x4"),
    ],
)
def test_trees_of_other_kinds(tree, reason):
    file = read_torch_file(save("file.pth", tree))
    assert dcgan.is_dcgan(file.tree) == ("several" in reason)
    with pytest.raises(ConversionError, match=reason):
        dcgan.recognise(file.tree)


def test_requests_that_cannot_be_met():
    with pytest.raises(ConversionError, match="D is not there; the file holds G_ema"):
        read(generator(), "D")
    with pytest.raises(ConversionError, match="more values than the file has bytes"):
        read(generator(), "G_ema", file_size=100)


def test_other_networks_are_described(tmp_path):
    """A sound file of no known family is refused, but inspected: every tensor, and what it probably is."""
    weights = {"features.0.weight": np.ones((64, 3, 11, 11), np.float32), "steps": np.arange(3)}
    path = save(tmp_path / "a.pt", {"epoch": 3, "state_dict": weights})
    with pytest.raises(ConversionError, match="state dicts of a DCGAN"):
        convert.convert(path, tmp_path / "model")
    found = convert.inspect(path)
    assert [(f.name, f.shape, f.dtype) for f in found["tensors"]] == [
        ("state_dict.features.0.weight", (64, 3, 11, 11), "float"),
        ("state_dict.steps", (3,), "long"),
    ]
    assert found["guess"][0] == "an AlexNet" and "networks" not in found
    done = subprocess.run([sys.executable, "-m", "convert", "inspect", path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "probably an AlexNet: it has" in done.stdout and done.stdout.count("\n") == 5
    with pytest.raises(ConversionError, match="holds nothing"):
        convert.inspect(save(tmp_path / "b.pt", {}))
