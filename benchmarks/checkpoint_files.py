# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of the published sizes, 1024 pixels, with random weights, laid out as the original code does it.

The names that a pickle calls are those of the original code; while one is written, functions stand behind them that
are never called. Tensors are drawn when they are written.
"""

import collections
import gzip
import io
import itertools
import json
import math
import pathlib
import pickle
import re
import sys
import types
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple
from unittest import mock

import numpy as np

from convert import nvlabs, rosinality_tables, stylegan3, tensorflow, tensorflow_stylegan1
from convert.nvlabs_config import DEFAULT_TAPS, normalised
from convert.rules import Entry
from convert.torchfile import LEGACY_VERSION, MAGIC

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "tests" / "golden" / "full_size_specs.json.gz"  # {row: {network: {source name: shape}}}
RESOLUTION = 1024
SIZES = [4 << i for i in range(9)]  # pixels of the blocks
WIDTHS = tuple(min(32768 // size, 512) for size in SIZES)  # of StyleGAN2, configuration F
STYLEGAN1_WIDTHS = tuple(min(16384 // size, 512) for size in SIZES)
HALF_PRECISION_FROM = 128  # pixels; in stylegan2-ada-pytorch the weights of these blocks have their channels last
CLAMP = 256
SOURCE = "# source text of the original module, which no reader needs\n" * 400
LATENTS = {"z_dim": 512, "c_dim": 0, "w_dim": 512}
IMAGE = {"img_resolution": RESOLUTION, "img_channels": 3}
MAPPING = {"mapping_layers": 8, "embed_features": None, "layer_features": None, "w_avg_beta": 0.995}
COMMON = {"widths": WIDTHS, "image_channels": 3, "resample_filter": DEFAULT_TAPS}
GENERATOR = LATENTS | MAPPING | COMMON | {"use_noise": True, "architecture": "skip"}
DISCRIMINATOR = COMMON | {"c_dim": 0, "minibatch_channels": 1, "architecture": "resnet"}


# What is written: values that stand for objects of the original code.


class Values(NamedTuple):
    """A tensor: its shape, its values (None: normal ones), and whether its channels lie last in memory."""

    shape: tuple[int, ...]
    constant: np.ndarray | float | None = None
    channels_last: bool = False

    def stride(self) -> tuple[int, ...]:
        """Returns the steps of the axes in elements."""
        if self.channels_last:
            _, inputs, height, width = self.shape
            return inputs * height * width, 1, width * inputs, inputs
        return tuple(math.prod(self.shape[i + 1 :]) for i in range(len(self.shape)))

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Returns the values, float32."""
        if self.constant is None:
            return random.standard_normal(self.shape, np.float32)
        return np.array(np.broadcast_to(np.float32(self.constant), self.shape), order="C")


class Parameter(NamedTuple):
    """A tensor that is trained."""

    values: Values


class Storage(NamedTuple):
    """The elements of a tensor, and their name in the file."""

    key: str
    values: Values


class Module(NamedTuple):
    """A module of NVlabs' torch code."""

    class_name: str
    state: dict


class Network:
    """A network of NVIDIA's TensorFlow code."""

    __module__ = "dnnlib.tflib.network"

    def __init__(self, **state: Any):
        self.__dict__ = state


def stand_ins() -> dict[str, types.ModuleType]:
    """Returns modules with the names that the original code gives to what it pickles."""
    names = ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network", "torch", "torch._utils", "torch.storage")
    modules = {name: types.ModuleType(name) for name in (*names, "torch_utils", "torch_utils.persistence")}
    modules["dnnlib.tflib.network"].Network = Network
    for module, name in (
        ("torch", "FloatStorage"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "_load_from_bytes"),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = module, name
        setattr(modules[module], name, function)
    return modules


MODULES = stand_ins()


class Writer(pickle.Pickler):
    """Writes the classes above as what they stand for; each kind of file has its own way with tensors."""

    def reducer_override(self, value: Any) -> Any:
        match value:
            case Values():
                return self.reduce_tensor(value)
            case Parameter():
                function = MODULES["torch._utils"]._rebuild_parameter
                return function, (value.values, False, collections.OrderedDict())
            case Module():
                record = {"type": "class", "version": 6, "module_src": SOURCE, **value._asdict()}
                return MODULES["torch_utils.persistence"]._reconstruct_persistent_obj, (record,)
        return NotImplemented


def _rebuilt(storage: Storage) -> tuple:
    values = storage.values
    arguments = storage, 0, values.shape, values.stride(), False, collections.OrderedDict()
    return MODULES["torch._utils"]._rebuild_tensor_v2, arguments


class TorchWriter(Writer):
    """For `torch.save`: elements lie elsewhere in the file; afterwards `storages` says which."""

    def __init__(self, file: BinaryIO, **options: int):
        super().__init__(file, **options)
        self.storages: list[Storage] = []

    def reduce_tensor(self, values: Values) -> tuple:
        """Returns how a tensor is made."""
        return _rebuilt(Storage(str(len(self.storages)), values))

    def persistent_id(self, value: Any) -> tuple | None:
        if type(value) is not Storage:
            return None
        self.storages.append(value)
        return ("storage", MODULES["torch"].FloatStorage, value.key, "cpu", math.prod(value.values.shape))


class LegacyTorchWriter(TorchWriter):
    """For `torch.save` before torch 1.6."""

    def persistent_id(self, value: Any) -> tuple | None:
        identity = super().persistent_id(value)
        return identity and (*identity, None)


class SnapshotWriter(Writer):
    """For NVlabs' torch snapshots: elements lie where they are used, each tensor's in a small file of its own."""

    def __init__(self, file: BinaryIO, random: np.random.Generator, **options: int):
        super().__init__(file, **options)
        self.random, self.keys = random, itertools.count(94_000_000_000_000, 64)

    def reduce_tensor(self, values: Values) -> tuple:
        """Returns how a tensor is made."""
        return _rebuilt(Storage(str(next(self.keys)), values))

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Storage):
            return super().reducer_override(value)
        stream = io.BytesIO()
        write_legacy(stream, value, self.random)
        return MODULES["torch.storage"]._load_from_bytes, (stream.getvalue(),)


class TensorflowWriter(Writer):
    """For the TensorFlow code: tensors are numpy arrays."""

    def __init__(self, file: BinaryIO, random: np.random.Generator, **options: int):
        super().__init__(file, **options)
        self.random = random

    def reduce_tensor(self, values: Values) -> tuple:
        """Returns how a tensor is made."""
        return values.draw(self.random).__reduce__()


def write_legacy(file: BinaryIO, tree: Any, random: np.random.Generator) -> None:
    """Writes `tree` as `torch.save` did before torch 1.6."""
    system = {"protocol_version": LEGACY_VERSION, "little_endian": True}
    system["type_sizes"] = {"short": 2, "int": 4, "long": 4}
    for header in (MAGIC, LEGACY_VERSION, system):
        pickle.dump(header, file, protocol=2)
    writer = LegacyTorchWriter(file, protocol=2)
    writer.dump(tree)
    pickle.dump([storage.key for storage in writer.storages], file, protocol=2)
    for storage in writer.storages:
        elements = storage.values.draw(random)
        file.write(elements.size.to_bytes(8, "little"))
        file.write(elements.data if elements.ndim else elements.tobytes())


def write_zip(file: BinaryIO, tree: Any, random: np.random.Generator) -> None:
    """Writes `tree` as `torch.save` does since torch 1.6."""
    pickled = io.BytesIO()
    writer = TorchWriter(pickled, protocol=2)
    writer.dump(tree)
    with zipfile.ZipFile(file, "w") as archive:

        def record(name: str, data: bytes | memoryview) -> None:
            entry = zipfile.ZipInfo(f"archive/{name}")
            begin = file.tell() + zipfile.sizeFileHeader + len(entry.filename) + 4
            padding = -begin % 64  # elements begin at multiples of 64 bytes
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(entry, data)

        record("data.pkl", pickled.getvalue())
        record("byteorder", b"little")
        for storage in writer.storages:
            record(f"data/{storage.key}", storage.values.draw(random).tobytes())
        record("version", b"3\n")


# NVlabs' torch snapshots.


def module_tree(
    shapes: Mapping[str, tuple[int, ...]],
    describe: Callable[[str, Mapping[str, tuple[int, ...]]], tuple[str, dict]],
    *,
    without_tensors: tuple[str, ...] = (),
    channels_last: bool = False,
) -> Module:
    """Returns the module tree that holds tensors of these `shapes`.

    Args:
        shapes: {dotted name: shape}.
        describe: class name and attributes of the module at a path with these tensors.
        without_tensors: paths of further modules.
        channels_last: weights of blocks in half precision lie so.
    """
    own: dict[str, dict] = {path: {} for path in ("", *without_tensors)}
    for name, shape in shapes.items():
        *parents, leaf = name.split(".")
        for depth in range(len(parents)):
            own.setdefault(".".join(parents[: depth + 1]), {})
        own[".".join(parents)][leaf] = shape

    def tensor(path: str, name: str, shape: tuple[int, ...]) -> Values | Parameter:
        if name == "resample_filter":
            return Values(shape, normalised(DEFAULT_TAPS))
        if name.startswith(("noise_const", "w_avg", "magnitude_ema", "up_", "down_", "transform", "freqs", "phases")):
            return Values(shape)
        block = re.search(r"\bb(\d+)\b", path)
        half = channels_last and block is not None and int(block[1]) >= HALF_PRECISION_FROM
        return Parameter(Values(shape, channels_last=half and len(shape) == 4))

    modules: dict[str, Module] = {}
    for path, tensors in own.items():
        class_name, attributes = describe(path, tensors)
        made = {name: tensor(path, name, shape) for name, shape in tensors.items()}
        state: dict = {"training": False}
        state["_parameters"] = {name: value for name, value in made.items() if isinstance(value, Parameter)}
        state["_buffers"] = {name: value for name, value in made.items() if isinstance(value, Values)}
        state["_non_persistent_buffers_set"] = set()
        hooks = ("backward", "forward", "forward_pre", "state_dict", "load_state_dict_pre", "load_state_dict_post")
        state |= {f"_{name}_hooks": collections.OrderedDict() for name in hooks}
        modules[path] = Module(class_name, state | {"_modules": {}, "_init_args": (), "_init_kwargs": {}} | attributes)
    for path in filter(None, modules):
        above, _, name = path.rpartition(".")
        modules[above].state["_modules"][name] = modules[path]
    return modules[""]


def _dense(path: str, tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, dict]:
    mapped = path.startswith("mapping.fc")
    multiplier = 0.01 if mapped else 1.0
    gains = {"weight_gain": multiplier / math.sqrt(tensors["weight"][1]), "bias_gain": multiplier}
    linear = path.endswith((".affine", ".out"))
    return "FullyConnectedLayer", {"activation": "linear" if linear else "lrelu", **gains}


def _mapping(num_ws: int, num_layers: int, w_avg_beta: float) -> tuple[str, dict]:
    return "MappingNetwork", LATENTS | {"num_ws": num_ws, "num_layers": num_layers, "w_avg_beta": w_avg_beta}


def stylegan2_generator() -> Module:
    """Returns a StyleGAN2 generator of stylegan2-ada-pytorch."""

    def describe(path: str, tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, dict]:
        name = path.rpartition(".")[2]
        num_ws = 2 * len(WIDTHS)
        if path in ("", "synthesis"):
            return ("SynthesisNetwork" if path else "Generator"), LATENTS | IMAGE | {"num_ws": num_ws}
        if path == "mapping":
            return _mapping(num_ws, MAPPING["mapping_layers"], MAPPING["w_avg_beta"])
        if name.startswith("conv"):
            layer = {"use_noise": True, "activation": "lrelu", "conv_clamp": CLAMP}
            return "SynthesisLayer", layer | {"act_gain": math.sqrt(2)}
        if name == "torgb":
            return "ToRGBLayer", {"conv_clamp": CLAMP, "weight_gain": 1 / math.sqrt(tensors["weight"][1])}
        return _dense(path, tensors) if "weight" in tensors else ("SynthesisBlock", {"architecture": "skip"})

    return module_tree(nvlabs.generator_shapes(GENERATOR), describe, channels_last=True)


def stylegan2_discriminator(*, channels_last: bool) -> Module:
    """Returns a StyleGAN2 discriminator of NVlabs' torch code, which StyleGAN3 uses too."""

    def describe(path: str, tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, dict]:
        name = path.rpartition(".")[2]
        if not path:
            return "Discriminator", {"c_dim": 0} | IMAGE
        if name == "mbstd":
            return "MinibatchStdLayer", {"group_size": 4, "num_channels": 1}
        if path in ("b4.fc", "b4.out"):
            return _dense(path, tensors)
        if "weight" not in tensors:
            return ("DiscriminatorEpilogue" if path == "b4" else "DiscriminatorBlock"), {"architecture": "resnet"}
        skip = name == "skip"
        layer = {"activation": "linear" if skip else "lrelu", "conv_clamp": None if skip else CLAMP}
        gain = 1 / math.sqrt(math.prod(tensors["weight"][1:]))
        return "Conv2dLayer", layer | {"weight_gain": gain, "act_gain": 1.0 if skip else math.sqrt(2)}

    shapes = nvlabs.discriminator_shapes(DISCRIMINATOR)
    # Blocks are made from the largest down, as there.
    shapes = dict(sorted(shapes.items(), key=lambda item: -int(item[0][1:].partition(".")[0])))
    return module_tree(shapes, describe, without_tensors=("b4.mbstd",), channels_last=channels_last)


def stylegan3_generator(*, radial: bool) -> Module:
    """Returns a StyleGAN3 generator, R if `radial`, else T."""
    base, most = (65536, 1024) if radial else (32768, 512)
    config = LATENTS | {"mapping_layers": 2, "w_avg_beta": 0.998, "num_critical": 2}
    config |= {"image_channels": 3, "resolution": RESOLUTION, "margin": 10, "conv_clamp": CLAMP, "widths": (1,) * 14}
    config |= {ours: default for ours, default in stylegan3.ARGUMENTS.values()}
    given = {"conv_kernel": 1, "use_radial_filters": True} if radial else {}
    config |= {stylegan3.ARGUMENTS[name][0]: value for name, value in given.items()}
    cutoffs = [layer["out_cutoff"] for layer in stylegan3.layer_attributes(config).values()]
    config["widths"] = tuple(round(min(base / 2 / cutoff, most)) for cutoff in cutoffs[:-1])
    layers = stylegan3.layer_attributes(config)
    num_ws = len(layers) + 1

    def describe(path: str, tensors: Mapping[str, tuple[int, ...]]) -> tuple[str, dict]:
        name = path.rpartition(".")[2]
        if not path:
            return "Generator", LATENTS | IMAGE | {"num_ws": num_ws}
        if path == "synthesis":
            counts = {"num_layers": len(layers) - 1, "num_critical": 2, "margin_size": 10, "num_ws": num_ws}
            return "SynthesisNetwork", IMAGE | counts | {"output_scale": 0.25, "_init_kwargs": given}
        if path == "mapping":
            return _mapping(num_ws, config["mapping_layers"], config["w_avg_beta"])
        if path == "synthesis.input":
            return "SynthesisInput", {"channels": config["widths"][0], "size": np.array([36, 36])}
        return ("SynthesisLayer", layers[name]) if name in layers else _dense(path, tensors)

    return module_tree(stylegan3.generator_shapes(config, layers), describe)


def write_snapshot(file: BinaryIO, generator: Callable[[], Module], *, channels_last: bool) -> None:
    """Writes a snapshot of NVlabs' torch code with generators that `generator` returns."""
    discriminator = stylegan2_discriminator(channels_last=channels_last)
    tree = {"training_set_kwargs": {"resolution": RESOLUTION}, "G": generator(), "D": discriminator}
    SnapshotWriter(file, _random(), protocol=4).dump(tree | {"G_ema": generator(), "augment_pipe": None})


# Checkpoints of rosinality's code.


def rosinality_networks(family: str) -> tuple[dict[str, Values], dict[str, Values]]:
    """Returns a generator and a discriminator, {source name: tensor}."""
    row = {"stylegan1": "rosinality_stylegan1", "stylegan2": "rosinality_stylegan2_1024_cm2_mlp8"}[family]
    published = json.loads(gzip.decompress(PUBLISHED.read_bytes()))[row]
    found = []
    for shapes, kind in zip(published.values(), ("generator", "discriminator"), strict=True):
        tensors = {name: Values(tuple(shape)) for name, shape in shapes.items()}
        options = {"step": len(SIZES) - 1} if family == "stylegan1" else {}  # all blocks were trained
        describe = getattr(rosinality_tables, f"{family}_{kind}")
        constants = {entry.source: entry.constant for entry in describe(tensors, **options).entries}
        found.append({name: Values(value.shape, constants[name]) for name, value in tensors.items()})
    generator, discriminator = found
    return generator, discriminator


def write_rosinality1(file: BinaryIO) -> None:
    """Writes a checkpoint of style-based-gan-pytorch, without the state of its optimisers."""
    (generator, discriminator), (average, _) = (rosinality_networks("stylegan1") for _ in range(2))
    tree = {"generator": generator, "discriminator": discriminator, "g_running": average}
    write_legacy(file, {name: collections.OrderedDict(value) for name, value in tree.items()}, _random())


def write_rosinality2(file: BinaryIO) -> None:
    """Writes a checkpoint of stylegan2-pytorch, without the state of its optimisers."""
    (generator, discriminator), (average, _) = (rosinality_networks("stylegan2") for _ in range(2))
    tree = {"g": generator, "d": discriminator, "g_ema": average}
    tree = {name: collections.OrderedDict(value) for name, value in tree.items()}
    write_zip(file, tree | {"latent_avg": Values((512,))}, _random())


# Pickles of NVIDIA's TensorFlow code.


def tensorflow_network(name: str, functions: tuple[str, ...], table: list[Entry], arguments: dict) -> Network:
    """Returns a network with the variables of `table`; `functions` built it and its `synthesis` and `mapping`."""
    held = {"": [], "synthesis": [], "mapping": []}
    for entry in table:
        place, _, rest = entry.source.partition("/")
        constant = 0.0 if entry.source.endswith("lod") else None
        within = place in held and len(functions) > 1
        held[place if within else ""].append((rest if within else entry.source, Values(entry.shape, constant)))
    networks = [
        {
            "version": 4,
            "name": f"{name}_{place}".rstrip("_"),
            "static_kwargs": {"num_channels": 3, "resolution": RESOLUTION, "label_size": 0, **arguments},
            "components": {},
            "build_module_src": SOURCE,
            "build_func_name": function,
            "variables": held[place],
        }
        for place, function in zip(held, functions, strict=False)
    ]
    networks[0]["components"] = dict(zip(("synthesis", "mapping"), [Network(**n) for n in networks[1:]], strict=False))
    return Network(**networks[0])


def write_tensorflow2(file: BinaryIO) -> None:
    """Writes a pickle of StyleGAN2's TensorFlow code, configuration F."""
    functions = "G_main", "G_synthesis_stylegan2", "G_mapping"
    optional = {"lod": None}

    def generator(name: str) -> Network:
        return tensorflow_network(name, functions, tensorflow.generator_table(GENERATOR, optional), {})

    table = tensorflow.discriminator_table(DISCRIMINATOR, optional)
    discriminator = tensorflow_network("D", ("D_stylegan2",), table, {"mbstd_group_size": 4})
    TensorflowWriter(file, _random(), protocol=3).dump((generator("G"), discriminator, generator("Gs")))


def write_tensorflow1(file: BinaryIO) -> None:
    """Writes a pickle of StyleGAN1's TensorFlow code."""
    config = GENERATOR | DISCRIMINATOR | {"widths": STYLEGAN1_WIDTHS, "dense_features": None}
    optional = dict.fromkeys(("lod", "synthesis/ToRGB_lod1/weight", "FromRGB_lod1/weight"))

    def generator(name: str) -> Network:
        table = tensorflow_stylegan1.generator_table(config, optional, fused_from=128)
        return tensorflow_network(name, ("G_style", "G_synthesis", "G_mapping"), table, {})

    discriminator = tensorflow_network(
        "D", ("D_basic",), tensorflow_stylegan1.discriminator_table(config, optional), {}
    )
    TensorflowWriter(file, _random(), protocol=3).dump((generator("G"), discriminator, generator("Gs")))


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def write(name: str, path: pathlib.Path) -> None:
    """Writes the file `name` of `FILES` to `path`."""
    with mock.patch.dict(sys.modules, MODULES), path.open("wb") as file:
        FILES[name][1](file)


FILES: dict[str, tuple[str, Callable[[BinaryIO], None]]] = {
    "StyleGAN2, NVlabs torch": (".pkl", lambda f: write_snapshot(f, stylegan2_generator, channels_last=True)),
    "StyleGAN3-T, NVlabs torch": (
        ".pkl",
        lambda f: write_snapshot(f, lambda: stylegan3_generator(radial=False), channels_last=False),
    ),
    "StyleGAN3-R, NVlabs torch": (
        ".pkl",
        lambda f: write_snapshot(f, lambda: stylegan3_generator(radial=True), channels_last=False),
    ),
    "StyleGAN2, rosinality (zip)": (".pt", write_rosinality2),
    "StyleGAN1, rosinality (legacy)": (".model", write_rosinality1),
    "StyleGAN2, TensorFlow": (".pkl", write_tensorflow2),
    "StyleGAN1, TensorFlow": (".pkl", write_tensorflow1),
}
