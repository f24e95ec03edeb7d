# SPDX-License-Identifier: Apache-2.0
"""Networks in pickles of NVIDIA's TensorFlow code, and the tables of StyleGAN2 (stylegan2 and stylegan2-ada).

Sizes come from the shapes of the variables, what shapes do not tell from the arguments that a network was built with;
arguments that repeat a size must agree with it. Weights lie as ours do, `[kh, kw, in, out]` and `[in, out]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from convert import tensorflow_stylegan1
from convert.errors import ConversionError
from convert.network import Network, check_claims
from convert.nvlabs_config import normalised
from convert.rules import (
    Entry,
    check_shapes,
    constant_input,
    noise_map,
    unchanged,
)
from convert.tensorflow_config import Variables, discriminator_config, generator_config
from convert.tensorflow_files import Checkpoint, TensorflowNetwork, dense_4x4, flipped, identity

FORMAT = "TensorFlow pickle of NVIDIA's code"
LICENCE = (
    "Written by NVIDIA's StyleGAN code. Networks that NVIDIA published are for non-commercial use only (StyleGAN1: "
    "CC BY-NC 4.0, later ones: NVIDIA Source Code License); the converted weights keep the licence of this file."
)
STYLEGAN2_VERSION = 4


@dataclasses.dataclass(frozen=True, eq=False)
class TensorflowModel(Network):
    """A StyleGAN1 or StyleGAN2 network of a pickle; `assumed` is what the file leaves to the code, by name."""

    assumed: dict[str, str] = dataclasses.field(default_factory=dict)

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        arrays = super().arrays(allow_nonfinite=allow_nonfinite)
        if self.family != "stylegan2":
            tensorflow_stylegan1.check_grown(self.tensors)
            return arrays
        place = "synthesis/" if self.kind == "generator" else ""
        return arrays | {f"{place}resample_filter": normalised(self.config["resample_filter"])}

    def notes(self) -> dict[str, str]:
        """Returns what provenance should say of what the file does not hold."""
        return dict(self.assumed)


def read_network(checkpoint: Checkpoint, name: str, *, file_size: int) -> Network:
    """Finds out what network `name` of a checkpoint is and checks every name and shape.

    Args:
      checkpoint: from `recognise`.
      name: `G`, `G_ema` or `D`.
      file_size: bytes in the file: no network can hold more values than that.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: no such network, another kind, contradictions, or variables that are missing, unexpected or
        misshapen.
    """
    if name not in checkpoint.networks:
        raise ConversionError(f"{name} is not there; the file holds {', '.join(checkpoint.present)}")
    network = checkpoint.networks[name]
    variables = network.variables()
    check_claims(variables, file_size=file_size, called="variables")
    family, kind = identity(variables)
    if kind != ("discriminator" if name == "D" else "generator"):
        raise ConversionError(f"{name} is a {kind}")
    if family != "stylegan2":
        config, assumed, table = tensorflow_stylegan1.describe(network, variables, kind=kind)
    else:
        config, assumed, table = _describe(network, variables, kind=kind)
    problems = check_shapes(variables, {entry.source: entry.shape for entry in table})
    if problems:
        raise ConversionError(*problems)
    return TensorflowModel(family, kind, config, variables, tuple(table), assumed=assumed)


def _describe(
    network: TensorflowNetwork, variables: Variables, *, kind: str
) -> tuple[dict, dict[str, str], list[Entry]]:
    """Returns configuration, what was assumed of it, and table of a StyleGAN2 network."""
    if network.versions() != {STYLEGAN2_VERSION}:
        found = ", ".join(map(str, sorted(network.versions())))
        raise ConversionError(
            f"a StyleGAN2 network whose state has version {found}; StyleGAN2's own code writes version 4, so this file "
            "was changed or is of an unknown kind"
        )
    describe, tabulate = {
        "generator": (generator_config, generator_table),
        "discriminator": (discriminator_config, discriminator_table),
    }[kind]
    config, assumed = describe(network, variables)
    return config, assumed, tabulate(config, variables)


# Layouts.


def plus_one(bias: np.ndarray) -> np.ndarray:
    """Turns the bias [in] of a style, stored as the difference from 1, into the whole."""
    return bias + np.float32(1)


# Tables.


def _dense(source: str, destination: str, inputs: int, outputs: int) -> list[Entry]:
    return [
        Entry(f"{source}/weight", (inputs, outputs), f"{destination}/weight"),
        Entry(f"{source}/bias", (outputs,), f"{destination}/bias"),
    ]


def _mapping(config: Mapping, sources: tuple[str, str], *, z_dim: int, w_dim: int) -> list[Entry]:
    embed, layer = sources
    entries, width = [], z_dim
    if config["c_dim"]:
        features = config["embed_features"] or w_dim
        entries += _dense(embed, "mapping/embed", config["c_dim"], features)
        width += features
    for index in range(config["mapping_layers"]):
        last = index == config["mapping_layers"] - 1
        features = w_dim if last else config["layer_features"] or w_dim
        entries += _dense(f"{layer}{index}", f"mapping/fc{index}", width, features)
        width = features
    return entries


def _level_of_detail(variables: Variables, *names: str) -> list[Entry]:
    # Left over from growing step by step; at its end, 0, it does nothing, and these networks never read it.
    return [Entry(name, (), None) for name in names if name in variables]


def generator_table(config: Mapping, variables: Variables) -> list[Entry]:
    """Returns every variable that a generator of this configuration has; what is optional is looked up."""
    w_dim, widths, colours = config["w_dim"], config["widths"], config["image_channels"]
    entries = [Entry("dlatent_avg", (w_dim,), "mapping/w_avg"), *_level_of_detail(variables, "lod", "synthesis/lod")]
    entries += _mapping(config, ("mapping/LabelEmbed", "mapping/Dense"), z_dim=config["z_dim"], w_dim=w_dim)

    def modulated(source: str, destination: str, inputs: int, outputs: int, size: int) -> None:
        # Their transposed convolution takes its kernel the other way round.
        transform = flipped if source.endswith("Conv0_up") else unchanged
        entries.append(Entry(f"{source}/weight", (size, size, inputs, outputs), f"{destination}/weight", transform))
        entries.append(Entry(f"{source}/bias", (outputs,), f"{destination}/bias"))
        entries.append(Entry(f"{source}/mod_weight", (w_dim, inputs), f"{destination}/affine/weight"))
        entries.append(Entry(f"{source}/mod_bias", (inputs,), f"{destination}/affine/bias", plus_one))

    def noisy(source: str, destination: str, number: int, size: int) -> None:
        if config["use_noise"]:
            shape = (1, 1, size, size)
            entries.append(Entry(f"{source}/noise_strength", (), f"{destination}/noise_strength"))
            entries.append(Entry(f"synthesis/noise{number}", shape, f"{destination}/noise_const", noise_map))

    for index, width in enumerate(widths):
        size, below = 4 << index, widths[max(index - 1, 0)]
        source, block = f"synthesis/{size}x{size}", f"synthesis/b{size}"
        if index == 0:
            entries.append(Entry(f"{source}/Const/const", (1, width, 4, 4), f"{block}/const", constant_input))
        else:
            modulated(f"{source}/Conv0_up", f"{block}/conv0", below, width, 3)
            noisy(f"{source}/Conv0_up", f"{block}/conv0", 2 * index - 1, size)
            if config["architecture"] == "resnet":
                entries.append(Entry(f"{source}/Skip/weight", (1, 1, below, width), f"{block}/skip/weight", flipped))
        second = f"{source}/{'Conv1' if index else 'Conv'}"
        modulated(second, f"{block}/conv1", width, width, 3)
        noisy(second, f"{block}/conv1", 2 * index, size)
        if config["architecture"] == "skip" or index == len(widths) - 1:
            modulated(f"{source}/ToRGB", f"{block}/torgb", width, colours, 1)
    return entries


def discriminator_table(config: Mapping, variables: Variables) -> list[Entry]:
    """Returns every variable that a discriminator of this configuration has; what is optional is looked up."""
    widths, colours = config["widths"], config["image_channels"]
    entries = _level_of_detail(variables, "lod")
    outputs = 1
    if config["c_dim"]:
        outputs = config["cmap_dim"]
        entries += _mapping(config, ("LabelEmbed", "Mapping"), z_dim=0, w_dim=outputs)

    def convolve(source: str, destination: str, inputs: int, outputs: int, size: int) -> None:
        entries.append(Entry(f"{source}/weight", (size, size, inputs, outputs), f"{destination}/weight"))
        entries.append(Entry(f"{source}/bias", (outputs,), f"{destination}/bias"))

    for index, width in enumerate(widths):
        size, below = 4 << index, widths[max(index - 1, 0)]
        source, block = f"{size}x{size}", f"b{size}"
        if config["architecture"] == "skip" or index == len(widths) - 1:
            convolve(f"{source}/FromRGB", f"{block}/fromrgb", colours, width, 1)
        if index == 0:
            convolve(f"{source}/Conv", "b4/conv", width + config["minibatch_channels"], width, 3)
            continue
        convolve(f"{source}/Conv0", f"{block}/conv0", width, width, 3)
        convolve(f"{source}/Conv1_down", f"{block}/conv1", width, below, 3)
        if config["architecture"] == "resnet":
            entries.append(Entry(f"{source}/Skip/weight", (1, 1, width, below), f"{block}/skip/weight"))
    entries.append(Entry("4x4/Dense0/weight", (16 * widths[0], widths[0]), "b4/fc/weight", dense_4x4))
    entries.append(Entry("4x4/Dense0/bias", (widths[0],), "b4/fc/bias"))
    return entries + _dense("Output", "b4/out", widths[0], outputs)
