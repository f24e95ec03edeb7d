# SPDX-License-Identifier: Apache-2.0
"""Classifiers of the attributes of faces: the three files in which they are handed on.

Anycost GAN's `attribute_predictor.pt` is torchvision's ResNet-50 with 80 outputs:

| `state_dict`                                               | `AttributeResNet`                            |
|------------------------------------------------------------|----------------------------------------------|
| `conv1`, `bn1`                                             | `stem/weight`, `stem/norm/...`               |
| `layer2.3.conv1`, `layer2.3.bn1`                           | `stage2_3/conv1/weight`, `.../norm/...`      |
| `layer2.0.downsample.0`, `.1`                              | `stage2_0/shortcut/weight`, `.../norm/...`   |
| `fc` [80, 2048], absent and present of 40 attributes       | `head` [2048, 80]                            |

NVIDIA's `celebahq-classifier-NN-*.pkl` comes from TensorFlow; DiffPure has the same networks in PyTorch:

| TensorFlow, PyTorch                                        | `CelebaHqClassifier`                         |
|------------------------------------------------------------|----------------------------------------------|
| `FromRGB_lod0/weight`, `fromrgb_lod0.conv.conv.weight`     | `fromrgb/weight`                             |
| `64x64/Conv1_down/bias`, `64x64.conv1.wscale.b`            | `b64/conv1/bias`                             |
| `4x4/Dense0/weight`, `4x4.dense0.linear.weight`            | `b4/fc/weight`, rows in the order h, w, c    |

What a file is is told by names, widths by shapes; everything must be there and fit. Counters of batch normalisation are
not needed, and neither is the level of detail, which must be 0.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convert.errors import ConversionError, shown
from convert.network import check_claims
from convert.rules import (
    Entry,
    Stored,
    Transform,
    check_shapes,
    convolution,
    dense,
    dense_after_4x4,
    transfer,
    unchanged,
)
from convert.tensorflow_config import Arguments, axis, block_sizes
from convert.tensorflow_files import TensorflowNetwork
from convert.tensorflow_stylegan1 import discriminator_table
from convert.torchfile import is_state_dict

if TYPE_CHECKING:
    from flax import nnx

RESNET, CELEBAHQ = "attribute_resnet", "celebahq_classifier"
# By these names a network is recognised; the second entry is the port's.
RESNET_MARKS = ("conv1.weight", "layer1.0.conv3.weight", "layer4.0.conv3.weight", "fc.weight")
PORT_MARKS = ("fromrgb_lod0.conv.conv.weight", "4x4.dense1.linear.weight")
TENSORFLOW_MARKS = ("FromRGB_lod0/weight", "4x4/Conv/weight", "4x4/Dense1/weight")
FORMATS = {
    "resnet": "state dict of a PyTorch ResNet-50 for 40 attributes (Anycost GAN)",
    "tensorflow": "TensorFlow pickle of a CelebA-HQ classifier of NVIDIA's",
    "port": "state dict of a CelebA-HQ classifier of NVIDIA's in PyTorch (DiffPure)",
}
LICENCES = {
    RESNET: "Anycost GAN's code and networks: MIT. Trained on CelebA-HQ, whose terms for its pictures are its own.",
    CELEBAHQ: "NVIDIA's CelebA-HQ classifiers: CC BY-NC 4.0, non-commercial use only; ports of them keep that licence.",
}
COUNTER = ".num_batches_tracked"
EXPANSION = 4  # of a bottleneck
STAGES = 4
MOST_BLOCKS = 100
ALL_ATTRIBUTES = 40
NORM_PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
BLUR = [1, 2, 1]
LEVELS = ("lod", "lod_in")
FILE_NAME = re.compile(r"celebahq-classifier-(\d\d)(?:-([a-z0-9-]+))?", re.ASCII | re.IGNORECASE)
# Of the 40 numbers in the names of NVIDIA's files, whose order is not CelebA's, those that are known for certain.
NUMBERED = {
    0: "male",
    1: "smiling",
    2: "attractive",
    3: "wavy-hair",
    4: "young",
    5: "5-o-clock-shadow",
    39: "wearing-necktie",
}

Tensors = Mapping[str, Stored]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredClassifier:
    """A classifier whose names and shapes were checked; its values still lie in the file.

    Attributes:
      network: `attribute_resnet` or `celebahq_classifier`.
      form: a key of `FORMATS`.
      config: keyword arguments of its configuration class.
      tensors: source name to tensor.
      table: what the file must hold.
      notes: what provenance should say of what the file leaves open.
    """

    network: str
    form: str
    config: dict
    tensors: Tensors
    table: tuple[Entry, ...]
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        arrays = transfer(self.tensors, [entry.rule for entry in self.table])
        for name in LEVELS:
            if name in self.tensors and not float(self.tensors[name].read()) <= 0:
                raise ConversionError(f"{name} is not 0: saved before the network had grown to its full size")
        return arrays

    def build(self, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
        """Returns our network with `arrays` {our name: array [...]}; raises `ConversionError` if they do not fit."""
        from stylegan_jax import classifiers

        kind, config = {
            RESNET: (classifiers.AttributeResNet, classifiers.AttributeResNetConfig),
            CELEBAHQ: (classifiers.CelebaHqClassifier, classifiers.CelebaHqConfig),
        }[self.network]
        try:
            return kind.from_arrays(config(**self.config), arrays)
        except ValueError as error:
            raise ConversionError(str(error)) from error


def _state_dict(tree: object) -> dict:
    inner = tree.get("state_dict") if isinstance(tree, dict) else None
    tensors = inner if isinstance(inner, dict) else tree
    return tensors if is_state_dict(tensors) else {}


def classifier_form(tree: object) -> str | None:
    """Returns which of the three files this is, a key of `FORMATS`, by what a reader gave; None for another file.

    A network with minibatch deviation that stands alone in a TensorFlow pickle is a discriminator, no classifier.
    """
    if isinstance(tree, TensorflowNetwork):
        variables = tree.variables()
        if not all(mark in variables for mark in TENSORFLOW_MARKS):
            return None
        shape = variables["4x4/Conv/weight"].shape
        return None if len(shape) == 4 and shape[2] > shape[3] else "tensorflow"
    tensors = _state_dict(tree)
    if all(mark in tensors for mark in RESNET_MARKS):
        return "resnet"
    return "port" if all(mark in tensors for mark in PORT_MARKS) else None


def read_classifier(
    tree: object, *, file_size: int, file_name: str = "", attributes: Sequence[str] | None = None
) -> StoredClassifier:
    """Finds out what classifier a file holds and checks every name and shape.

    Args:
      tree: what `read_torch_file` or `read_pickle_file` gave.
      file_size: bytes in the file: no network can hold more values than that.
      file_name: names of NVIDIA's files say which attribute is classified.
      attributes: names of what is classified, in the order of the outputs; needed where the file does not tell.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: none of the three files, contradictions, or tensors that are missing, unexpected or misshapen.
    """
    form = classifier_form(tree)
    if form is None:
        raise ConversionError(f"{_held(tree)}; expected {', '.join(FORMATS.values())}")
    if form == "tensorflow":
        tensors = tree.variables()
    else:
        tensors = {
            name: tensor
            for name, tensor in _state_dict(tree).items()
            if not (name.endswith(COUNTER) and tensor.shape == ())
        }
    check_claims(tensors, file_size=file_size)
    if form == "resnet":
        config, table = _describe_resnet(tensors, attributes)
        found = StoredClassifier(RESNET, form, config, tensors, tuple(table))
    else:
        config, table, notes = _describe_tensorflow(tree, tensors) if form == "tensorflow" else _describe_port(tensors)
        names = [file_name, tree.name] if form == "tensorflow" else [file_name]
        config = {"attributes": _one_attribute(attributes, names), **config}
        found = StoredClassifier(CELEBAHQ, form, config, tensors, tuple(table), notes)
    problems = check_shapes(tensors, {entry.source: entry.shape for entry in found.table})
    if problems:
        raise ConversionError(*problems)
    return found


def _held(tree: object) -> str:
    if isinstance(tree, TensorflowNetwork) and all(mark in tree.variables() for mark in TENSORFLOW_MARKS):
        inputs, outputs = tree.variables()["4x4/Conv/weight"].shape[2:]
        return (
            f"4x4/Conv/weight takes {inputs} channels of {outputs}: with minibatch deviation, answers would depend on "
            "the other images, so this is a discriminator"
        )
    return f"holds {shown(tree)} that is no classifier"


# Which attributes.


def canonical_attribute(name: str) -> str | None:
    """Returns CelebA's own spelling of `name`, in which case does not matter nor `-` or `_`; None if it has none."""
    from stylegan_jax.classifiers import CELEBA

    plain = name.replace("-", "_").casefold()
    return next((known for known in CELEBA if known.casefold() == plain), None)


def recorded_attribute(names: Sequence[str]) -> str | None:
    """Returns the attribute that the first of these `names` of a file or network tells, as NVIDIA's do, or None."""
    for name in names:
        if match := FILE_NAME.search(os.path.basename(name)):
            found = match[2] and canonical_attribute(match[2])
            found = found or canonical_attribute(NUMBERED.get(int(match[1]), ""))
            if found:
                return found
    return None


def _one_attribute(attributes: Sequence[str] | None, names: Sequence[str]) -> tuple[str]:
    if attributes is None:
        recorded = recorded_attribute(names)
        if recorded is None:
            raise ConversionError(
                "which attribute it classifies is recorded neither in the file nor in its name (as in "
                "celebahq-classifier-01-smiling.pkl); --attribute_name=Smiling says it"
            )
        return (recorded,)
    if len(attributes) != 1 or not attributes[0]:
        raise ConversionError(f"classifies one attribute, but {len(attributes)} names are given")
    return (canonical_attribute(attributes[0]) or attributes[0],)


# Anycost GAN's ResNet.


def _normed(module: str, norm: str, ours: str, shape: tuple[int, ...]) -> list[Entry]:
    entries = [Entry(f"{module}.weight", shape, f"{ours}/weight", convolution)]
    return entries + [Entry(f"{norm}.{part}", shape[:1], f"{ours}/norm/{name}") for part, name in NORM_PARTS.items()]


def _describe_resnet(tensors: Tensors, attributes: Sequence[str] | None) -> tuple[dict, list[Entry]]:
    stem = axis(tensors, "conv1.weight", 0, 4)
    widths, depths = [], []
    for stage in range(1, STAGES + 1):
        depth = sum(f"layer{stage}.{i}.conv1.weight" in tensors for i in range(MOST_BLOCKS))
        widths.append(axis(tensors, f"layer{stage}.0.conv1.weight", 0, 4))
        depths.append(depth)
    entries, before = _normed("conv1", "bn1", "stem", (stem, 3, 7, 7)), stem
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        for i in range(depth):
            source, ours, after = f"layer{stage}.{i}", f"stage{stage}_{i}", EXPANSION * width
            shapes = (width, before, 1, 1), (width, width, 3, 3), (after, width, 1, 1)
            for k, shape in enumerate(shapes, 1):
                entries += _normed(f"{source}.conv{k}", f"{source}.bn{k}", f"{ours}/conv{k}", shape)
            if i == 0 and (stage > 1 or before != after):
                modules = f"{source}.downsample.0", f"{source}.downsample.1"
                entries += _normed(*modules, f"{ours}/shortcut", (after, before, 1, 1))
            before = after
    config = {"widths": tuple(widths), "depths": tuple(depths), "stem": stem}
    count = ALL_ATTRIBUTES
    if attributes is not None:
        config["attributes"] = tuple(canonical_attribute(name) or name for name in attributes)
        count = len(attributes)
    outputs = axis(tensors, "fc.weight", 0, 2)
    if outputs != 2 * count:
        raise ConversionError(
            f"its last layer fc has {outputs} outputs, expected two for each of {count} attributes, {2 * count}"
        )
    entries.append(Entry("fc.weight", (outputs, before), "head/weight", dense))
    return config, [*entries, Entry("fc.bias", (outputs,), "head/bias")]


# NVIDIA's classifiers of CelebA-HQ.


def _describe_tensorflow(network: TensorflowNetwork, variables: Tensors) -> tuple[dict, list[Entry], dict[str, str]]:
    sizes, first = block_sizes(variables, "{0}x{0}/Conv0/weight"), axis(variables, "4x4/Conv/weight", 3, 4)
    features = axis(variables, "4x4/Dense1/weight", 0, 2)
    config = {"widths": (first, *(axis(variables, f"{r}x{r}/Conv0/weight", 3, 4) for r in sizes))}
    if features != first:
        config["dense_features"] = features
    arguments = Arguments(network)
    arguments.choice("nonlinearity", "lrelu")
    arguments.choice("use_wscale", True)
    arguments.choice("fused_scale", "auto", True, False)
    arguments.ignore("dtype", "mbstd_num_features")
    arguments.agrees("resolution", 4 << len(sizes))
    arguments.agrees("num_channels", 3)
    arguments.agrees("label_size", 0)
    arguments.choice("mbstd_group_size", 0, 1, None)  # 4x4/Conv takes no channel of a deviation
    blur = arguments.take(
        "blur_filter",
        None,
        lambda taps: taps is None or (isinstance(taps, list | tuple) and list(taps) == BLUR),
        f"{BLUR} or None",
    )
    arguments.finish()
    config["blur"] = blur is not None
    notes = {} if arguments.given("blur_filter") else {"blur": "not recorded in the file; none, as in DiffPure's port"}
    own = config | {"image_channels": 3, "minibatch_channels": 0, "c_dim": 0, "dense_features": features}
    return config, discriminator_table(own, variables), notes | _polarity()


def _polarity() -> dict[str, str]:
    return {"present_sign": "not recorded in the file; -1: a negative logit means present, as DiffPure reads it"}


def _describe_port(tensors: Tensors) -> tuple[dict, list[Entry], dict[str, str]]:
    sizes, first = block_sizes(tensors, "{0}x{0}.conv0.conv.weight"), axis(tensors, "4x4.conv.conv.weight", 0, 4)
    inputs = axis(tensors, "4x4.conv.conv.weight", 1, 4)
    if inputs == first + 1:
        raise ConversionError(
            f"4x4.conv.conv.weight takes {inputs} channels of {first}: with minibatch deviation, answers would depend "
            "on the other images, so this is a discriminator, no classifier"
        )
    features = axis(tensors, "4x4.dense1.linear.weight", 1, 2)
    widths = (first, *(axis(tensors, f"{r}x{r}.conv0.conv.weight", 0, 4) for r in sizes))
    config = {"widths": widths} | ({"dense_features": features} if features != first else {})
    entries = [Entry("lod_in", (), None)] if "lod_in" in tensors else []

    def layer(source: str, ours: str, shape: tuple[int, ...], transform: Transform = convolution) -> None:
        kind = "conv" if len(shape) == 4 else "linear"
        entries.append(Entry(f"{source}.{kind}.weight", shape, f"{ours}/weight", transform))
        entries.append(Entry(f"{source}.wscale.b", shape[:1], f"{ours}/bias", unchanged))

    layer("fromrgb_lod0.conv", "fromrgb", (widths[-1], 3, 1, 1))
    for r, width, below in zip(sizes, widths[1:], widths, strict=False):
        layer(f"{r}x{r}.conv0", f"b{r}/conv0", (width, width, 3, 3))
        layer(f"{r}x{r}.conv1", f"b{r}/conv1", (below, width, 3, 3))
    layer("4x4.conv", "b4/conv", (first, first, 3, 3))
    layer("4x4.dense0", "b4/fc", (features, 16 * first), dense_after_4x4)
    layer("4x4.dense1", "b4/out", (1, features), dense)
    return config, entries, _polarity()
