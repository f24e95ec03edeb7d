# SPDX-License-Identifier: Apache-2.0
"""Networks that compare images, from PyTorch files: trunks of torchvision, LPIPS' weights, ArcFace, FID's Inception.

A file holds one state dict, by itself or as `state_dict`. What it is is told by names, its widths by shapes. The
classifiers of torchvision's trunks and counters of batch normalisation are left out, all else must be there and fit.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.errors import ConversionError, concerning, shown
from convert.rules import Entry, check_shapes, convolution, transfer, unchanged
from convert.torch_legacy import read_torch_file
from convert.torchfile import Tensor

if TYPE_CHECKING:
    from flax import nnx

COUNTER = ".num_batches_tracked"
MOST_UNITS = 100  # twice as many as the network of 152 layers has
LINEAR = "lin{}.model.1.weight"
LPIPS_TRUNKS = ("vgg16", "alexnet", "squeezenet")
# Module and class of ours for every network that is known.
CLASSES = {
    "vgg16": ("vgg", "Vgg"),
    "vgg19": ("vgg", "Vgg"),
    "alexnet": ("alexnet", "AlexNet"),
    "squeezenet": ("squeezenet", "SqueezeNet"),
    "lpips": ("lpips", "Lpips"),
    "arcface": ("arcface", "ArcFace"),
    "inception": ("inception", "Inception"),
}
# A network is recognised by the first line whose names are all there.
MARKS = {
    "vgg16": ("features.17.weight", "features.28.weight"),
    "vgg19": ("features.16.weight", "features.34.weight"),
    "alexnet": ("features.6.weight", "features.10.weight"),
    "squeezenet": ("features.3.squeeze.weight", "features.12.squeeze.weight"),
    "arcface": ("input_layer.0.weight", "output_layer.3.weight"),
    "inception": ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight"),
}
DROPPED = {
    "vgg16": r"classifier\.[036]\.(weight|bias)",
    "vgg19": r"classifier\.[036]\.(weight|bias)",
    "alexnet": r"classifier\.[146]\.(weight|bias)",
    "squeezenet": r"classifier\.1\.(weight|bias)",
}
DENSE = ("output_layer.3.weight", "fc.weight")  # here convolutions that cover the whole map
# Our names of batch normalisation, and PyTorch's.
NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}

SQUEEZENET_FIRES = (3, 4, 6, 7, 9, 10, 11, 12)
ALEXNET_LAYERS = (0, 3, 6, 8, 10)
VGG_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


@dataclasses.dataclass(frozen=True, eq=False)
class Perceptual:
    """A network that was read.

    Attributes:
      network: which one, a name of `CLASSES`.
      config: keyword arguments of its configuration class.
      arrays: {our name: float32 array}.
    """

    network: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def build(self) -> nnx.Module:
        """Returns our network with these weights."""
        network_class, config_class = _classes(self.network)
        return network_class.from_arrays(config_class(**self.config), self.arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """Stands for a tensor of a file whose values are known already."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.array.shape

    @property
    def size(self) -> int:
        """Number of values."""
        return self.array.size

    def read(self) -> np.ndarray:
        """Returns the values as a new C-contiguous float32 array; raises `ConversionError` where they are integers."""
        if self.array.dtype.kind != "f":
            raise ConversionError(f"holds {self.array.dtype.name} elements, expected floating point")
        return np.array(self.array, np.float32, order="C")


Tensors = Mapping[str, Tensor | Values]


def _classes(network: str) -> tuple[type, type]:
    module, name = CLASSES[network]
    module = importlib.import_module(f"stylegan_jax.features.{module}")
    return getattr(module, name), getattr(module, f"{name}Config")


def read_perceptual(path: str | os.PathLike[str], *, linear: str | os.PathLike[str] | None = None) -> Perceptual:
    """Reads a network from a file of `torch.save`, zip or from before torch 1.6.

    Args:
      path: VGG-16, VGG-19, AlexNet or SqueezeNet 1.1 of torchvision, ArcFace (IR-SE), or pytorch-fid's Inception.
      linear: LPIPS' own weights for the trunk in `path` (`vgg.pth`, `alex.pth`, `squeeze.pth`); the two together are
        the network `lpips`.

    Returns:
      The network, its names and shapes checked, its values finite.

    Raises:
      ConversionError: a file that cannot be read, is none of these networks, or does not fit.
    """
    with concerning(path):
        found = _read(_state_dict(path))
    if linear is None:
        return found
    with concerning(linear):
        return _with_linear(found, _state_dict(linear))


def from_state_dict(
    state_dict: Mapping[str, np.ndarray], *, linear: Mapping[str, np.ndarray] | None = None
) -> Perceptual:
    """Does what `read_perceptual` does with state dicts {PyTorch's name: array [...]} in memory.

    Raises:
      ConversionError: none of these networks, or names, shapes or values that do not fit.
    """
    found = _read({name: Values(np.asarray(array)) for name, array in state_dict.items()})
    if linear is None:
        return found
    return _with_linear(found, {name: Values(np.asarray(array)) for name, array in linear.items()})


def _state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    file = read_torch_file(path)
    tree = file.tree
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict) or not tree:
        raise ConversionError(f"holds {shown(tree)}; expected a state dict, that is names with tensors")
    other = [name for name, item in tree.items() if not isinstance(name, str) or not isinstance(item, Tensor)]
    if other:
        raise ConversionError(f"{shown(other[0])} is {shown(tree[other[0]])}; expected a state dict of tensors alone")
    if sum(tensor.size for tensor in tree.values()) > file.size:
        raise ConversionError(f"its tensors claim more values than the file has bytes ({file.size}); hostile file")
    return tree


def _read(tensors: Tensors) -> Perceptual:
    network = next((n for n, marks in MARKS.items() if all(mark in tensors for mark in marks)), None)
    if network is None:
        what = "LPIPS' own weights; they need a trunk, and are given as `linear`" if LINEAR.format(0) in tensors else ""
        what = what or f"{', '.join(map(shown, itertools.islice(tensors, 8)))}"
        raise ConversionError(f"holds {what}; expected the state dict of one of {', '.join(MARKS)}")
    dropped = re.compile(DROPPED.get(network, r"(?!)"))
    needed = {
        name: tensor
        for name, tensor in tensors.items()
        if not dropped.fullmatch(name) and not (name.endswith(COUNTER) and tensor.shape == ())
    }
    try:
        config, rename = _DESCRIBE[network](needed)
        entries = _entries(network, config, rename)
    except ValueError as error:  # widths that no network of this kind has
        raise error if isinstance(error, ConversionError) else ConversionError(str(error)) from error
    return Perceptual(network, config, transfer_checked(needed, entries))


def _with_linear(trunk: Perceptual, tensors: Tensors) -> Perceptual:
    _, config_class = _classes("lpips")
    if trunk.network not in LPIPS_TRUNKS:
        raise ConversionError(f"is meant for a trunk of {', '.join(LPIPS_TRUNKS)}, but that is {trunk.network}")
    config = {"trunk": trunk.network, "widths": trunk.config["widths"]}
    ours = config_class(**config)
    if ours.trunk_config == config_class(trunk=trunk.network).trunk_config:
        config["widths"] = None
    entries = [
        Entry(LINEAR.format(i), (1, ours.trunk_config.taps[tap], 1, 1), f"head{i}", np.ravel)
        for i, tap in enumerate(ours.taps)
    ]
    heads = transfer_checked(tensors, entries)
    negative = [LINEAR.format(name[4:]) for name, head in heads.items() if (head < 0).any()]
    if negative:
        raise ConversionError(*(f"{name} holds negative weights; in LPIPS all are at least 0" for name in negative))
    return Perceptual("lpips", config, {f"trunk/{name}": array for name, array in trunk.arrays.items()} | heads)


def transfer_checked(
    tensors: Tensors, entries: Iterable[Entry], *, allow_nonfinite: bool = False
) -> dict[str, np.ndarray]:
    """Returns {our name: float32 array [...]} for tensors that must be exactly those of a table.

    Raises:
      ConversionError: lists every tensor that is missing, unexpected, misshapen or not finite.
    """
    entries = list(entries)
    problems = check_shapes(tensors, {entry.source: entry.shape for entry in entries})
    if problems:
        raise ConversionError(*problems)
    return transfer(tensors, [entry.rule for entry in entries], allow_nonfinite=allow_nonfinite)


def _entries(network: str, config: Mapping[str, Any], rename: Callable[[str], str]) -> list[Entry]:
    """Returns the table of a network, from our names and shapes and PyTorch's names for ours."""
    entries = []
    for name, shape in _our_shapes(network, tuple(config.items())).items():
        source, transform = rename(name), unchanged
        if len(shape) == 4:
            rows, columns, inputs, outputs = shape
            shape, transform = (outputs, inputs, rows, columns), convolution
            if source in DENSE:
                transform = functools.partial(covering, shape=shape)
                shape = (outputs, inputs * rows * columns)
        entries.append(Entry(source, shape, name, transform))
    return entries


@functools.lru_cache(maxsize=8)
def _our_shapes(network: str, config: tuple[tuple[str, Any], ...]) -> dict[str, tuple[int, ...]]:
    # Remembered, since JAX takes two seconds to say what a network of a hundred layers holds.
    from stylegan_jax import parameters

    network_class, config_class = _classes(network)
    arrays = parameters.abstract(network_class, config_class(**dict(config)))
    return {name: array.shape for name, array in arrays.items()}


def covering(weight: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    """Turns [out, c * h * w] into [h, w, c, out], for `shape` (out, c, h, w)."""
    return convolution(weight.reshape(shape))


def size_of(tensors: Tensors, name: str, *, axis: int = 0) -> int:
    """Returns the length of an axis of a tensor; raises `ConversionError` where it is missing or empty."""
    if name not in tensors:
        raise ConversionError(f"{name} is missing")
    shape = tensors[name].shape
    if len(shape) <= axis or not math.prod(shape):
        raise ConversionError(f"{name} has shape {shown(shape)}, expected more axes, none of length 0")
    return shape[axis]


Description = tuple[dict[str, Any], Callable[[str], str]]  # keyword arguments of our config; our name to PyTorch's


def _renamed(modules: Mapping[str, str], name: str) -> str:
    module, _, rest = name.partition("/")
    return f"{modules[module]}.{rest.replace('/', '.')}"


def _vgg(network: str, tensors: Tensors) -> Description:
    modules, firsts, index = {}, [], 0
    for block, depth in enumerate(VGG_DEPTHS[network], 1):
        firsts.append(f"features.{index}.weight")
        for i in range(1, depth + 1):
            modules[f"conv{block}_{i}"] = f"features.{index}"
            index += 2  # a convolution and a ReLU
        index += 1  # a pool
    widths = tuple(size_of(tensors, first) for first in firsts)
    return {"widths": widths, "depths": VGG_DEPTHS[network]}, functools.partial(_renamed, modules)


def _alexnet(tensors: Tensors) -> Description:
    modules = {f"conv{i}": f"features.{index}" for i, index in enumerate(ALEXNET_LAYERS, 1)}
    widths = tuple(size_of(tensors, f"{module}.weight") for module in modules.values())
    return {"widths": widths}, functools.partial(_renamed, modules)


def _squeezenet(tensors: Tensors) -> Description:
    modules = {"conv1": "features.0"} | {f"fire{i}": f"features.{k}" for i, k in enumerate(SQUEEZENET_FIRES, 2)}
    fires = (2 * size_of(tensors, f"features.{index}.expand3x3.weight") for index in SQUEEZENET_FIRES)
    widths = (size_of(tensors, "features.0.weight"), *fires)
    return {"widths": widths}, lambda name: re.sub(r"(expand)(\d)", r"\1\2x\2", _renamed(modules, name))


# Ours, and PyTorch's; the names inside a batch normalisation change too.
IRSE_NAMES = {
    r"conv/(\w+)": r"input_layer.0.\1",
    r"norm/(\w+)": r"input_layer.1.\1",
    r"slope": r"input_layer.2.weight",
    r"unit(\d+)/shortcut_conv/(\w+)": r"body.\1.shortcut_layer.0.\2",
    r"unit(\d+)/shortcut_norm/(\w+)": r"body.\1.shortcut_layer.1.\2",
    r"unit(\d+)/norm0/(\w+)": r"body.\1.res_layer.0.\2",
    r"unit(\d+)/conv0/(\w+)": r"body.\1.res_layer.1.\2",
    r"unit(\d+)/slope": r"body.\1.res_layer.2.weight",
    r"unit(\d+)/conv1/(\w+)": r"body.\1.res_layer.3.\2",
    r"unit(\d+)/norm1/(\w+)": r"body.\1.res_layer.4.\2",
    r"unit(\d+)/squeeze/(\w+)": r"body.\1.res_layer.5.fc1.\2",
    r"unit(\d+)/excite/(\w+)": r"body.\1.res_layer.5.fc2.\2",
}
ARCFACE_NAMES = {f"trunk/{ours}": theirs for ours, theirs in IRSE_NAMES.items()} | {
    r"norm0/(\w+)": r"output_layer.0.\1",
    r"dense/(\w+)": r"output_layer.3.\1",
    r"norm1/(\w+)": r"output_layer.4.\1",
}


def rename_by(table: Mapping[str, str], name: str) -> str:
    """Returns PyTorch's name for our `name`, by a table of expressions like `IRSE_NAMES`."""
    if "norm" in name:
        stem, _, leaf = name.rpartition("/")
        name = f"{stem}/{NORM[leaf]}"
    return next(match.expand(theirs) for ours, theirs in table.items() if (match := re.fullmatch(ours, name)))


def irse_config(tensors: Tensors) -> dict[str, Any]:
    """Returns the keyword arguments of `IrseConfig` for the trunk in a state dict `{name: tensor [...]}`.

    A stage begins where the width changes: so it is in all networks of this family.

    Raises:
      ConversionError: tensors that are missing or no weights of such a trunk.
    """
    found = (re.match(r"body\.(\d{1,3})\.", name, re.ASCII) for name in tensors)
    units = 1 + max((int(match[1]) for match in found if match), default=0)
    if units > MOST_UNITS:
        raise ConversionError(f"has {units} units; at most {MOST_UNITS} are read")
    widths = [size_of(tensors, f"body.{i}.res_layer.1.weight") for i in range(units)]
    stages = [(width, len(list(units))) for width, units in itertools.groupby(widths)]
    squeezed = f"body.{len(widths) - 1}.res_layer.5.fc1.weight"
    return {
        "widths": tuple(width for width, _ in stages),
        "depths": tuple(depth for _, depth in stages),
        "stem": size_of(tensors, "input_layer.0.weight"),
        "image_channels": size_of(tensors, "input_layer.0.weight", axis=1),
        "reduction": widths[-1] // size_of(tensors, squeezed) if squeezed in tensors else 0,
    }


def _arcface(tensors: Tensors) -> Description:
    config = irse_config(tensors)
    if config.pop("image_channels") != 3:
        raise ConversionError("input_layer.0.weight is no convolution of images with three channels")
    inputs, width = size_of(tensors, "output_layer.3.weight", axis=1), config["widths"][-1]
    size = math.isqrt(inputs // width)
    if size < 1 or size * size * width != inputs:
        raise ConversionError(
            f"output_layer.3.weight takes {inputs} values, expected those of a square map of {width} channels"
        )
    config |= {"resolution": size << len(config["widths"]), "embedding": size_of(tensors, "output_layer.3.weight")}
    return config, functools.partial(rename_by, ARCFACE_NAMES)


INCEPTION_STEM = 32  # channels of the published network's first layer


def _inception(tensors: Tensors) -> Description:
    narrower = INCEPTION_STEM // size_of(tensors, "Conv2d_1a_3x3.conv.weight")

    def rename(name: str) -> str:
        stem, _, leaf = name.rpartition("/")
        if stem.endswith("/norm"):
            stem, leaf = f"{stem.removesuffix('norm')}bn", NORM[leaf]
        return f"{stem}/{leaf}".replace("/", ".")

    return {"narrower": narrower, "classes": size_of(tensors, "fc.weight")}, rename


_DESCRIBE: dict[str, Callable[[Tensors], Description]] = {
    "vgg16": functools.partial(_vgg, "vgg16"),
    "vgg19": functools.partial(_vgg, "vgg19"),
    "alexnet": _alexnet,
    "squeezenet": _squeezenet,
    "arcface": _arcface,
    "inception": _inception,
}
