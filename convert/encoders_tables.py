# SPDX-License-Identifier: Apache-2.0
"""What the encoders of pSp, e4e and ReStyle hold: for each of their types our class, and the table of its tensors."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Mapping
from typing import Any

from convert.perceptual import IRSE_NAMES, covering, rename_by
from convert.rules import Entry, convolution, dense, unchanged

# Module, class, and the settings that a file's names and shapes do not tell, for every type of encoder.
STYLE, SINGLE = ("style", "StyleEncoder"), ("single_head", "SingleHeadEncoder")
TYPES: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "GradualStyleEncoder": (STYLE, {"trunk": "irse", "pyramid": True, "progressive": False}),
    "ResNetGradualStyleEncoder": (STYLE, {"trunk": "resnet", "pyramid": True, "progressive": False}),
    "BackboneEncoder": (STYLE, {"trunk": "irse", "pyramid": False, "progressive": False}),
    "ResNetBackboneEncoder": (STYLE, {"trunk": "resnet", "pyramid": False, "progressive": False}),
    "Encoder4Editing": (STYLE, {"trunk": "irse", "pyramid": True, "progressive": True}),
    "ProgressiveBackboneEncoder": (STYLE, {"trunk": "irse", "pyramid": False, "progressive": True}),
    "ResNetProgressiveBackboneEncoder": (STYLE, {"trunk": "resnet", "pyramid": False, "progressive": True}),
    "BackboneEncoderUsingLastLayerIntoW": (SINGLE, {"trunk": "irse"}),
    "SingleStyleCodeEncoder": (SINGLE, {"trunk": "irse"}),
    "BackboneEncoderUsingLastLayerIntoWPlus": (SINGLE, {"trunk": "irse"}),
}

RESNET_NAMES = {
    r"conv/(\w+)": r"conv1.\1",
    r"norm/(\w+)": r"bn1.\1",
    r"slope": r"relu.weight",
    r"unit(\d+)/conv0/(\w+)": r"body.\1.conv1.\2",
    r"unit(\d+)/norm0/(\w+)": r"body.\1.bn1.\2",
    r"unit(\d+)/conv1/(\w+)": r"body.\1.conv2.\2",
    r"unit(\d+)/norm1/(\w+)": r"body.\1.bn2.\2",
    r"unit(\d+)/shortcut_conv/(\w+)": r"body.\1.downsample.0.\2",
    r"unit(\d+)/shortcut_norm/(\w+)": r"body.\1.downsample.1.\2",
}
HEAD_NAMES = {
    r"lateral0/(\w+)": r"latlayer1.\1",
    r"lateral1/(\w+)": r"latlayer2.\1",
    r"head(\d+)/linear/(\w+)": r"styles.\1.linear.\2",
    r"norm/(\w+)": r"output_layer_2.0.\1",
    r"dense/(\w+)": r"output_layer_2.3.\1",
    r"linear/(\w+)": r"linear.\1",
}
COVERING = "output_layer_2.3.weight"  # a dense layer there, here a convolution that covers the whole map


def classes(kind: tuple[str, str]) -> tuple[type, type]:
    """Returns our class of an encoder and that of its configuration, by module and class name."""
    module = importlib.import_module(f"stylegan_jax.encoders.{kind[0]}")
    return getattr(module, kind[1]), getattr(module, f"{kind[1]}Config")


def encoder_table(kind: tuple[str, str], config: Mapping[str, Any], heads: int) -> list[Entry]:
    """Returns what becomes of every tensor of an encoder; latents beyond `num_ws` are dropped.

    Args:
      kind: module and class of ours.
      config: arguments of its configuration.
      heads: how many latents the encoder in the file gives.
    """
    trunk = RESNET_NAMES if config["trunk"] == "resnet" else IRSE_NAMES
    names = {f"trunk/{ours}": theirs for ours, theirs in trunk.items()} | HEAD_NAMES
    entries = []
    plain = {"num_ws": heads, "iterations": None} | ({"progressive": False} if kind == STYLE else {})
    for name, shape in _our_shapes(kind, tuple((config | plain).items())).items():
        if name == "average":
            continue
        if match := re.fullmatch(r"head(\d+)/conv(\d+)/(\w+)", name):
            source = f"styles.{match[1]}.convs.{2 * int(match[2])}.{match[3]}"  # activations lie between
        else:
            source = rename_by(names, name)
        transform = {4: convolution, 2: dense}.get(len(shape), unchanged)
        if len(shape) == 4:
            rows, columns, inputs, outputs = shape
            shape = (outputs, inputs, rows, columns)
            if source == COVERING:
                transform, shape = functools.partial(covering, shape=shape), (outputs, inputs * rows * columns)
        elif len(shape) == 2:
            shape = shape[::-1]
        match = re.match(r"head(\d+)/", name)
        spare = match is not None and int(match[1]) >= config["num_ws"]
        entries.append(Entry(source, shape, None if spare else name, transform))
    return entries


@functools.lru_cache(maxsize=8)
def _our_shapes(kind: tuple[str, str], config: tuple[tuple[str, Any], ...]) -> dict[str, tuple[int, ...]]:
    # Remembered, since JAX takes two seconds to say what a network of a hundred layers holds. What changes no shape is
    # left out of `config`.
    from stylegan_jax import parameters

    network_class, config_class = classes(kind)
    arrays = parameters.abstract(network_class, config_class(**dict(config)))
    return {name: array.shape for name, array in arrays.items()}
