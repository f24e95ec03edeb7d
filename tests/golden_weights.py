# SPDX-License-Identifier: Apache-2.0
"""Weights of published networks by a rule: what the golden values of their networks were computed with.

Every tensor `[out, in, kh, kw]` (or less) is drawn by a generator of its own, PCG64 of seed + crc32(name), as float64
and rounded to float32. State dicts are `{PyTorch's name: array}`, images `[n, 3, h, w]`, as PyTorch has them.
"""

import io
import pathlib
import pickle
import re
import zipfile
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / "golden"

VGG_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
ALEXNET = ((0, 11), (3, 5), (6, 3), (8, 3), (10, 3))  # index among the layers, and kernel
FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
WIDTHS = {
    "vgg16": (64, 128, 256, 512, 512),
    "vgg19": (64, 128, 256, 512, 512),
    "alexnet": (64, 192, 384, 256, 256),
    "squeezenet": (64, 128, 128, 256, 256, 384, 384, 512, 512),
}
SEEDS = {"vgg16": 131, "alexnet": 132, "squeezenet": 133, "vgg19": 134, "arcface": 111, "inception": 141}
GAINS = {"arcface": 1.0}  # of all others sqrt 2


def draw(name, shape, seed, gain, *, norm=False):
    """Returns the array of this name; `norm` for the parts of a batch normalisation."""
    rng = np.random.Generator(np.random.PCG64(seed + zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        array = 0.75 + 0.5 * rng.random(shape)
    elif name.endswith("running_mean") or name.endswith("bias"):
        array = 0.1 * rng.standard_normal(shape)
    elif len(shape) > 1:
        array = gain / np.sqrt(int(np.prod(shape[1:]))) * rng.standard_normal(shape)
    elif norm:
        array = 1 + 0.1 * rng.standard_normal(shape)
    else:  # the slopes of a PReLU
        array = 0.25 + 0.05 * rng.standard_normal(shape)
    return array.astype(np.float32)


def shapes(network, widths=None):
    """Returns {name: shape} of the convolutions of a trunk of torchvision."""
    widths, before, found = widths or WIDTHS[network], 3, {}

    def convolution(name, inputs, outputs, kernel):
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, kernel, kernel), (outputs,)

    if network in VGG_DEPTHS:
        index = 0
        for width, depth in zip(widths, VGG_DEPTHS[network], strict=True):
            for _ in range(depth):
                convolution(f"features.{index}", before, width, 3)
                before, index = width, index + 2
            index += 1
    elif network == "alexnet":
        for width, (index, kernel) in zip(widths, ALEXNET, strict=True):
            convolution(f"features.{index}", before, width, kernel)
            before = width
    else:
        convolution("features.0", 3, widths[0], 3)
        before = widths[0]
        for width, index in zip(widths[1:], FIRES, strict=True):
            convolution(f"features.{index}.squeeze", before, width // 8, 1)
            convolution(f"features.{index}.expand1x1", width // 8, width // 2, 1)
            convolution(f"features.{index}.expand3x3", width // 8, width // 2, 3)
            before = width
    return found


def norm_shapes(name, width):
    """Returns {name: shape} of a batch normalisation, without its counter."""
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}


def arcface_shapes(widths=(64, 128, 256, 512), depths=(3, 4, 14, 3), *, stem=64, size=112, embedding=512, reduction=16):
    """Returns {name: shape} of ArcFace's IR-SE network."""
    found = norm_shapes("output_layer.0", widths[-1])
    found["output_layer.3.weight"] = (embedding, widths[-1] * (size >> len(widths)) ** 2)
    found["output_layer.3.bias"] = (embedding,)
    found |= norm_shapes("output_layer.4", embedding)
    return found | irse_shapes(widths, depths, stem=stem, reduction=reduction)


def irse_shapes(widths, depths, *, stem, reduction=16, channels=3):
    """Returns {name: shape} of the trunk IR-SE."""
    found = {"input_layer.0.weight": (stem, channels, 3, 3), **norm_shapes("input_layer.1", stem)}
    found["input_layer.2.weight"] = (stem,)
    before, unit = stem, 0
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            name = f"body.{unit}"
            if before != width:
                found[f"{name}.shortcut_layer.0.weight"] = (width, before, 1, 1)
                found |= norm_shapes(f"{name}.shortcut_layer.1", width)
            found |= norm_shapes(f"{name}.res_layer.0", before)
            found[f"{name}.res_layer.1.weight"] = (width, before, 3, 3)
            found[f"{name}.res_layer.2.weight"] = (width,)
            found[f"{name}.res_layer.3.weight"] = (width, width, 3, 3)
            found |= norm_shapes(f"{name}.res_layer.4", width)
            found[f"{name}.res_layer.5.fc1.weight"] = (width // reduction, width, 1, 1)
            found[f"{name}.res_layer.5.fc2.weight"] = (width, width // reduction, 1, 1)
            before, unit = width, unit + 1
    return found


def weights(network, found):
    """Returns the state dict of these shapes by the rule."""
    seed, gain = SEEDS[network], GAINS.get(network, np.sqrt(2))
    norms = {name.removesuffix(".running_mean") for name in found if name.endswith(".running_mean")}
    return {n: draw(n, shape, seed, gain, norm=n.rpartition(".")[0] in norms) for n, shape in found.items()}


def image(seed, shape, low=-1.0, high=1.0):
    """Returns smooth images `[n, c, h, w]` in [low, high]: a few cosine waves and 5 % noise."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.arange(shape[2])[:, None] / shape[2], np.arange(shape[3])[None] / shape[3]
    found = np.zeros(shape)
    for i, j in np.ndindex(*shape[:2]):
        for _ in range(6):
            down, right, phase, gain = rng.random(4)
            found[i, j] += (0.2 + gain) * np.cos(2 * np.pi * (4 * down * rows + 4 * right * columns + phase))
        found[i, j] /= np.abs(found[i, j]).max()
    found = 0.95 * found + 0.05 * (2 * rng.random(shape) - 1)
    return (low + (found + 1) / 2 * (high - low)).astype(np.float32)


# Encoders: pSp, e4e, ReStyle.

ENCODER_SEEDS = {
    "psp": 310,
    "e4e": 311,
    "restyle": 313,
    "resnet": 314,
    "stylegan3": 315,
    "intow": 317,
    "intowplus": 318,
}
FULL_SEEDS = {"psp": 101, "e4e": 102, "stylegan3": 103}
DECODER_SEED = 900
NARROW = {"widths": (16, 20, 24, 32), "stem": 16}
FULL = {"widths": (64, 128, 256, 512), "stem": 64}
DEPTHS = (3, 4, 14, 3)


def probe(seed, shape):
    """Returns the weights of a sum whose gradient is compared."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def encoder_shapes(*, widths, stem, styles, size, pyramid=True, channels=3, depths=DEPTHS, reduction=16):
    """Returns {name: shape} of an encoder with one head for every latent, in PyTorch's names."""
    width, found = widths[-1], irse_shapes(widths, depths, stem=stem, channels=channels, reduction=reduction)
    for i in range(styles):
        convolutions = (size >> len(widths)).bit_length() - 1 + ((i >= 3) + (i >= 7) if pyramid else 0)
        for j in range(convolutions):
            found[f"styles.{i}.convs.{2 * j}.weight"] = (width, width, 3, 3)
            found[f"styles.{i}.convs.{2 * j}.bias"] = (width,)
        found[f"styles.{i}.linear.weight"], found[f"styles.{i}.linear.bias"] = (width, width), (width,)
    for i, below in enumerate(widths[-2:-4:-1] if pyramid else (), 1):
        found[f"latlayer{i}.weight"], found[f"latlayer{i}.bias"] = (width, below, 1, 1), (width,)
    return found


def single_head_shapes(*, widths, stem, styles=None, pool=2):
    """Returns {name: shape} of an encoder with one head, into W+ if there are `styles`."""
    width, found = widths[-1], irse_shapes(widths, DEPTHS, stem=stem)
    outputs = width
    if styles is not None:
        found |= norm_shapes("output_layer_2.0", width)
        found["output_layer_2.3.weight"], found["output_layer_2.3.bias"] = (width, width * pool**2), (width,)
        outputs *= styles
    return found | {"linear.weight": (outputs, width), "linear.bias": (outputs,)}


def encoder_weights(seed, found, *, last=1):
    """Returns the state dict of these shapes; the dense layers of the heads are multiplied by `last`."""
    norms = {name.removesuffix(".running_mean") for name in found if name.endswith(".running_mean")}
    state = {}
    for name, shape in found.items():
        if re.search(r"(^|styles\.\d+\.)linear\.weight$", name):  # scaled at run time
            rng = np.random.Generator(np.random.PCG64(seed + zlib.crc32(name.encode())))
            state[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            state[name] = draw(name, shape, seed, 1.0, norm=name.rpartition(".")[0] in norms)
        if last != 1 and ".linear." in name:
            state[name] = state[name] * np.float32(last)
    return state


def decoder_value(name, shape):
    """Returns a tensor of the decoder in rosinality's names, which is the same in all files."""
    if name.endswith("kernel"):
        taps = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 16
        return taps.astype(np.float32)
    rng = np.random.Generator(np.random.PCG64(DECODER_SEED + zlib.crc32(name.encode())))
    normal, tenth = rng.standard_normal(shape).astype(np.float32), np.float32(0.1)
    if name.startswith("style."):
        return (normal if name.endswith("weight") else tenth * normal) / np.float32(0.01)
    if name.endswith("modulation.bias"):
        return 1 + tenth * normal
    return tenth * normal if name.endswith(("bias", "noise.weight")) else normal


class _Records(pickle.Unpickler):
    """Reads the pickle of a file of torch.save: a tensor becomes (type, key of its storage, shape)."""

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, shape, *rest: (*storage, shape)
        return name if module == "torch" else super().find_class(module, name)

    def persistent_load(self, identity):
        return identity[1], identity[2]


def encoder_tensors(name):
    """Returns what the golden file of an encoder holds: {key of its storage: array}."""
    with zipfile.ZipFile(GOLDEN / "encoder_pickles.zip") as archive:
        tree = _Records(io.BytesIO(archive.read(name))).load()
    with np.load(GOLDEN / "encoders.npz") as file:
        golden = dict(file)
    records = dict(tree["state_dict"])
    shapes = {k.removeprefix("encoder."): v[2] for k, v in records.items() if k.startswith("encoder.")}
    counted = {k: shape for k, shape in shapes.items() if shape}
    state = encoder_weights(ENCODER_SEEDS[name], counted, last=0.3 if name == "restyle" else 1)
    arrays = {}
    for key, (_, storage, shape) in records.items():
        part, _, own = key.partition(".")
        if part == "encoder":
            arrays[storage] = state[own] if shape else np.zeros((), np.int64)
        else:
            arrays[storage] = golden[f"{name}/{key}"] if name == "stylegan3" else decoder_value(own, shape)
    _, storage, shape = tree["latent_avg"]
    mean = golden["stylegan3/latent_avg" if name == "stylegan3" else "latent_avg"]
    return arrays | {storage: np.ascontiguousarray(np.broadcast_to(mean, shape))}


def write_encoder(path, name, *, pickled=None, arrays=None):
    """Writes the golden file of an encoder, byte by byte the tensors and the pickle that torch wrote.

    `pickled` changes the pickle, `arrays` gives other tensors by the keys of their storages.
    """
    with zipfile.ZipFile(GOLDEN / "encoder_pickles.zip") as archive:
        data = archive.read(name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickled(data) if pickled else data)
        archive.writestr(f"{name}/byteorder", b"little")
        for key, array in (encoder_tensors(name) | (arrays or {})).items():
            archive.writestr(f"{name}/data/{key}", array.tobytes())
        archive.writestr(f"{name}/version", b"3\n")
    return path
