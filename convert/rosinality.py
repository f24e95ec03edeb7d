# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of rosinality's PyTorch code: StyleGAN1 (style-based-gan-pytorch) and StyleGAN2 (stylegan2-pytorch).

A training file holds dictionaries of tensors: generator, its running average, discriminator; here they are named `G`,
`G_ema` and `D`, as elsewhere in this package. A dictionary of one generator alone counts as `G_ema`. Everything is told
by names and shapes; one table for each network says which tensors there are and where they go.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from convert.errors import ConversionError, shown
from convert.network import Network, check_claims
from convert.rosinality_tables import (
    AVERAGE,
    stylegan1_discriminator,
    stylegan1_generator,
    stylegan2_discriminator,
    stylegan2_generator,
)
from convert.rules import Entry, check_shapes
from convert.torchfile import Tensor, is_state_dict

NAMES = {"G": ("g", "generator"), "G_ema": ("g_ema", "g_running"), "D": ("d", "discriminator")}
# By this tensor a network is recognised: (family, kind).
MARKS = {
    "input.input": ("stylegan2", "generator"),
    "convs.0.0.weight": ("stylegan2", "discriminator"),
    "generator.progression.0.conv1.input": ("stylegan1", "generator"),
    "linear.linear.weight_orig": ("stylegan1", "discriminator"),
}
FORMAT = "checkpoint of rosinality's code"
LICENCE = (
    "Written by rosinality's StyleGAN code (MIT). Networks converted from NVIDIA's keep NVIDIA's licence, for "
    "non-commercial use only; other networks have the licence that their publisher gave them."
)
NOISE_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds; tensors still lie in it.

    `networks` holds `G`, `G_ema` and `D` as far as present, as {source name: tensor}; `training` are the command line
    arguments of the training, where the file has them.
    """

    networks: dict[str, dict[str, Tensor]]
    average: Tensor | None
    training: dict | None

    @property
    def present(self) -> list[str]:
        return list(self.networks)


@dataclasses.dataclass(frozen=True, eq=False)
class RosinalityNetwork(Network):
    """A network of this code; `generated` are our names of arrays that the file does not hold."""

    generated: tuple[str, ...] = ()

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong.

        Noise maps that the file does not hold are normal ones of a fixed seed, a missing mean of w is zero.
        """
        arrays = super().arrays(allow_nonfinite=allow_nonfinite)
        problems = [_unlike(entry, self.tensors[entry.source]) for entry in self.table if entry.constant is not None]
        if any(problems):
            raise ConversionError(*filter(None, problems))
        random = np.random.default_rng(NOISE_SEED)
        for name in self.generated:
            if name == "mapping/w_avg":
                arrays[name] = np.zeros(self.config["z_dim"], np.float32)
            else:
                size = int(re.findall(r"/b(\d+)/", name)[0])
                arrays[name] = random.standard_normal((size, size)).astype(np.float32)
        return arrays

    def notes(self) -> dict[str, str]:
        """Returns what provenance should say of arrays that the file does not hold."""
        notes = {}
        if any(name.endswith("noise_const") for name in self.generated):
            notes["noise_const"] = f"not in the file; normal maps of numpy's PCG64, seed {NOISE_SEED}"
        if "mapping/w_avg" in self.generated:
            notes["w_avg"] = "not in the file; estimated, the mean of w_statistics"
        return notes


def _unlike(entry: Entry, tensor: Tensor) -> str | None:
    # Loose enough for a filter stored in half precision; another set of taps differs by far more.
    if np.allclose(tensor.read(), entry.constant, rtol=2e-3, atol=1e-6):
        return None
    return f"{entry.source} does not hold the filter that this code base uses; other filters are not supported"


def recognise(tree: object) -> Checkpoint:
    """Returns the networks in what `read_torch_file` gave; `is_rosinality` says whether there are any.

    Raises:
      ConversionError: something else than dictionaries of tensors, or networks of both families.
    """
    if not is_rosinality(tree):
        held = ", ".join(map(shown, list(tree)[:8])) if isinstance(tree, dict) else shown(tree)
        raise ConversionError(
            f"holds {held or 'nothing'}; expected a checkpoint of rosinality's StyleGAN code with g_ema, g_running, g "
            "or generator, the tensors of one generator, or state dicts of a DCGAN"
        )
    found, average, training = {"G_ema": tree}, None, None
    if not any(mark in tree for mark in MARKS):
        pairs = ((ours, key) for ours, keys in NAMES.items() for key in keys if tree.get(key) is not None)
        found = {ours: tree[key] for ours, key in pairs}
        average, training = tree.get(AVERAGE), tree.get("args")
    problems = []
    for name, tensors in found.items():
        if not is_state_dict(tensors):
            problems.append(f"{name} is {shown(tensors)}, expected a dictionary of tensors under names of members")
    if average is not None and not isinstance(average, Tensor):
        problems.append(f"{AVERAGE} is {shown(average)}, expected a tensor")
    if problems:
        raise ConversionError(*problems)
    families = {_identity(name, tensors)[0] for name, tensors in found.items()}
    if len(families) > 1:
        raise ConversionError("holds networks of StyleGAN1 and of StyleGAN2; expected one kind")
    return Checkpoint(found, average, training if isinstance(training, dict) else None)


def is_rosinality(tree: object) -> bool:
    """Returns whether what `read_torch_file` gave looks like a checkpoint of these code bases."""
    if not isinstance(tree, dict):
        return False
    inner = [tree[key] for keys in NAMES.values() for key in keys if isinstance(tree.get(key), dict)]
    return any(mark in tensors for mark in MARKS for tensors in (tree, *inner))


def _identity(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    found = [identity for mark, identity in MARKS.items() if mark in tensors]
    wanted = "discriminator" if name == "D" else "generator"
    if len(found) != 1 or found[0][1] != wanted:
        raise ConversionError(f"{name} has none of the tensors by which a {wanted} of this code base is known")
    return found[0]


def read_network(checkpoint: Checkpoint, name: str, *, file_size: int, step: int | None = None) -> Network:
    """Finds out what network `name` of a checkpoint is and checks every name and shape.

    Args:
      checkpoint: from `recognise`.
      name: `G`, `G_ema` or `D`.
      file_size: bytes in the file: no network can hold more values than that.
      step: of a StyleGAN1 network, which always has all blocks: the last one that was trained, of `4 << step` pixels.
        None finds it: image layers that were never trained have biases of zero. Blocks beyond it are left out.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: no such network, or tensors that are missing, unexpected or misshapen.
    """
    if name not in checkpoint.networks:
        raise ConversionError(f"{name} is not there; the file holds {', '.join(checkpoint.present)}")
    tensors = dict(checkpoint.networks[name])
    check_claims(tensors, file_size=file_size)
    family, kind = _identity(name, tensors)
    if family == "stylegan2" and step is not None:
        raise ConversionError("step belongs to StyleGAN1, whose files do not say which one was trained")
    if family == "stylegan2" and kind == "generator" and checkpoint.average is not None:
        tensors[AVERAGE] = checkpoint.average
    if family == "stylegan1":
        describe = stylegan1_generator if kind == "generator" else stylegan1_discriminator
        config, entries, generated = describe(tensors, step=step)
    else:
        describe = stylegan2_generator if kind == "generator" else stylegan2_discriminator
        config, entries, generated = describe(tensors)
    problems = check_shapes(tensors, {entry.source: entry.shape for entry in entries})
    if problems:
        raise ConversionError(*problems)
    return RosinalityNetwork(
        family,
        kind,
        config,
        tensors,
        tuple(entries),
        has_average=kind == "generator" and "mapping/w_avg" not in generated,
        generated=tuple(generated),
    )
