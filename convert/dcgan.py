# SPDX-License-Identifier: Apache-2.0
"""DCGANs as PyTorch saves them: the state dict of a generator, of a discriminator, or a file that holds some of both.

Names of modules differ from author to author, so they are not looked at; their order in the dictionary, which is that
of the network, and the shapes tell everything. With the names of PyTorch's own example, at 64 pixels:

| generator                                                  | here                                                  |
|------------------------------------------------------------|-------------------------------------------------------|
| `main.0.weight` [z, c, 4, 4], a transposed convolution     | `synthesis/b4/weight` [z, 4, 4, c]                    |
| `main.1.weight`, `.bias`, `.running_mean`, `.running_var`  | `synthesis/b4/norm/scale`, `bias`, `mean`, `variance` |
| `main.3`, `main.6`, `main.9` and their norms, one further  | `synthesis/b8`, `b16`, `b32`                          |
| `main.12.weight` [c, 3, 4, 4], without a norm              | `synthesis/b64/weight` [4, 4, c, 3]                   |

| discriminator                                              | here                                                  |
|------------------------------------------------------------|-------------------------------------------------------|
| `main.0.weight` [c, 3, 4, 4], without a norm               | `b64/weight` [4, 4, 3, c]                             |
| `main.2`, `main.5`, `main.8` and their norms, one further  | `b32`, `b16`, `b8`                                    |
| `main.11.weight` [1, c, 4, 4], without a norm              | `b4/weight` [4, 4, c]                                 |

A `module.` in front (DataParallel) changes nothing; convolutions may have biases; `num_batches_tracked` is not needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from convert.errors import ConversionError, shown
from convert.network import Network, check_claims
from convert.rosinality_tables import scalar, transposed
from convert.rules import Entry, Transform, check_shapes, constant_input, convolution, unchanged
from convert.torchfile import Tensor, is_state_dict

FORMAT = "state dict of a PyTorch DCGAN"
LICENCE = "Not recorded in the file; the networks have the licence that their publisher gave them."
COUNTER = "num_batches_tracked"  # of batch normalisation in training; no result depends on it
NORM_PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
AVERAGES = ("ema", "average", "running")  # in the key of a generator that stands beside another
MOST_LAYERS = 10

Tensors = Mapping[str, Tensor]


def _from_latent(weight: np.ndarray) -> np.ndarray:
    """Turns the [z, c, 4, 4] of a transposed convolution of a single pixel into [z, 4, 4, c]."""
    return weight.transpose(0, 2, 3, 1)


def _over_4x4(bias: np.ndarray) -> np.ndarray:
    """Turns [c] into [4, 4, c]."""
    return np.broadcast_to(bias, (4, 4, *bias.shape))


@dataclasses.dataclass(frozen=True)
class _Modules:
    """Names of modules in the order of the file: convolutions, and batch normalisations."""

    convolutions: list[str]
    norms: list[str]


def _modules(tensors: Tensors) -> _Modules:
    convolutions, norms = [], {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        if part == "weight" and len(tensor.shape) == 4:
            convolutions.append(module)
        elif part.startswith("running_") or (part == "weight" and len(tensor.shape) == 1):
            norms[module] = None
    return _Modules(convolutions, list(norms))


def _kernels(tensors: Tensors, modules: _Modules) -> list[tuple[int, ...]]:
    return [tensors[_part(module, "weight")].shape for module in modules.convolutions]


def _part(module: str, part: str) -> str:
    return f"{module}.{part}" if module else part


def _kind(tensors: object) -> str | None:
    """Returns which network this is the state dict of, `generator` or `discriminator`, if any."""
    if not tensors or not is_state_dict(tensors):
        return None
    modules = _modules(tensors)
    kernels, norms = _kernels(tensors, modules), len(modules.norms)
    if not 2 <= len(kernels) <= MOST_LAYERS or any(shape[2:] != (4, 4) for shape in kernels):
        return None
    pairs = list(zip(kernels, kernels[1:], strict=False))
    generates = all(a[1] == b[0] for a, b in pairs)
    judges = all(a[0] == b[1] for a, b in pairs) and kernels[-1][0] == 1
    if generates == judges:  # a damaged file, or one of equal widths
        return {len(kernels) - 1: "generator", len(kernels) - 2: "discriminator"}.get(norms)
    return "generator" if generates else "discriminator"


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds; tensors still lie in it.

    `networks` holds `G`, `G_ema` and `D` as far as present, as {source name: tensor}.
    """

    networks: dict[str, dict[str, Tensor]]

    @property
    def present(self) -> list[str]:
        return list(self.networks)


@dataclasses.dataclass(frozen=True, eq=False)
class DcganNetwork(Network):
    """A network of a DCGAN, without counters; `generated` are shapes of our biases that the file does not hold, since
    other layers alone have one.
    """

    generated: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def resolution(self) -> int:
        """Height and width of images in pixels."""
        return 4 << len(self.config["widths"])

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        arrays = super().arrays(allow_nonfinite=allow_nonfinite)
        return arrays | {name: np.zeros(shape, np.float32) for name, shape in self.generated.items()}

    def notes(self) -> dict[str, str]:
        """Returns what provenance should say of arrays that the file does not hold."""
        notes = {"w_statistics": "exact: w is z, which is normal"} if self.kind == "generator" else {}
        if self.generated:
            notes["biases"] = f"not in the file, zero: {', '.join(self.generated)}"
        return notes


def _state_dicts(tree: object) -> dict[str, dict[str, Tensor]]:
    """Returns the state dicts of DCGANs in what a file held, by their key ("" for the whole)."""
    if _kind(tree):
        return {"": tree}
    found = tree.items() if isinstance(tree, dict) else ()
    return {str(key): value for key, value in found if _kind(value)}


def is_dcgan(tree: object) -> bool:
    """Returns whether what `read_torch_file` gave looks like networks of a DCGAN."""
    return bool(_state_dicts(tree))


def recognise(tree: object) -> Checkpoint:
    """Returns the networks in what `read_torch_file` gave; a generator without company counts as `G_ema`.

    Raises:
      ConversionError: no such networks, or several that cannot be told apart.
    """
    found = _state_dicts(tree)
    if not found:
        held = ", ".join(map(shown, list(tree)[:8])) if isinstance(tree, dict) else shown(tree)
        raise ConversionError(
            f"holds {held or 'nothing'}; expected state dicts of a DCGAN's generator or discriminator, whose "
            "convolutions are all of 4x4"
        )
    generators = [key for key, tensors in found.items() if _kind(tensors) == "generator"]
    discriminators = [key for key in found if key not in generators]
    averages = [key for key in generators if any(mark in key.lower() for mark in AVERAGES)]
    plain = [key for key in generators if key not in averages]
    for kind, keys in (("generators", plain), ("averaged generators", averages), ("discriminators", discriminators)):
        if len(keys) > 1:
            raise ConversionError(f"holds several {kind}: {', '.join(map(shown, keys))}; expected one of a kind")
    if generators == list(found) and len(generators) == 1:
        plain, averages = [], plain or averages
    named = {"G": plain, "G_ema": averages, "D": discriminators}
    return Checkpoint({name: dict(found[keys[0]]) for name, keys in named.items() if keys})


def _describe(kind: str, tensors: Tensors) -> tuple[dict, list[Entry], dict[str, tuple[int, ...]]]:
    """Returns configuration, table and missing biases of the network with these tensors (without counters)."""
    modules = _modules(tensors)
    kernels = _kernels(tensors, modules)
    generator, last = kind == "generator", len(kernels) - 1
    # Values between the layers: z or image channels first, image channels or one logit last.
    sizes = [kernels[0][0 if generator else 1], *(shape[1 if generator else 0] for shape in kernels)]
    sizes[-1] = sizes[-1] if generator else 1
    widths = sizes[1:-1] if generator else sizes[-2:0:-1]
    bias = any(_part(module, "bias") in tensors for module in modules.convolutions)
    config = {"widths": tuple(widths), "image_channels": sizes[-1 if generator else 0], "kernel": 4, "bias": bias}
    config |= {"z_dim": sizes[0]} if generator else {}
    with_norm = range(last) if generator else range(1, last)
    if len(modules.norms) != len(with_norm):
        raise ConversionError(
            f"has {len(kernels)} convolutions and {len(modules.norms)} batch normalisations; a {kind} of a DCGAN has "
            f"{len(with_norm)} of them"
        )
    entries, generated = [], {}
    for i, module in enumerate(modules.convolutions):
        block = f"synthesis/b{4 << i}" if generator else f"b{4 << (last - i)}"
        before, after = sizes[i], sizes[i + 1]
        transform, of_bias, bias_shape = _layouts(kind, first=i == 0, last=i == last, width=after)
        shape = (before, after, 4, 4) if generator else (after, before, 4, 4)
        entries.append(Entry(_part(module, "weight"), shape, f"{block}/weight", transform))
        if _part(module, "bias") in tensors:
            entries.append(Entry(_part(module, "bias"), (after,), f"{block}/bias", of_bias))
        elif bias:
            generated[f"{block}/bias"] = bias_shape
    for i, module in zip(with_norm, modules.norms, strict=True):
        block = f"synthesis/b{4 << i}" if generator else f"b{4 << (last - i)}"
        for part, ours in NORM_PARTS.items():
            entries.append(Entry(_part(module, part), (sizes[i + 1],), f"{block}/norm/{ours}"))
    return config, entries, generated


def _layouts(kind: str, *, first: bool, last: bool, width: int) -> tuple[Transform, Transform, tuple[int, ...]]:
    """Returns the changes of layout of a layer's weight and bias, and the shape of our bias."""
    if kind == "generator":
        return (_from_latent, _over_4x4, (4, 4, width)) if first else (transposed, unchanged, (width,))
    return (constant_input, scalar, ()) if last else (convolution, unchanged, (width,))


def read_network(checkpoint: Checkpoint, name: str, *, file_size: int) -> Network:
    """Finds out what network `name` of a checkpoint is and checks every name and shape.

    Args:
      checkpoint: from `recognise`.
      name: `G`, `G_ema` or `D`.
      file_size: bytes in the file: no network can hold more values than that.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: no such network, or tensors that are missing, unexpected or misshapen.
    """
    if name not in checkpoint.networks:
        raise ConversionError(f"{name} is not there; the file holds {', '.join(checkpoint.present)}")
    tensors = checkpoint.networks[name]
    kind = "discriminator" if name == "D" else "generator"
    check_claims(tensors, file_size=file_size)
    problems = [f"{key} is empty: its shape is {tensor.shape}" for key, tensor in tensors.items() if not tensor.size]
    if problems:
        raise ConversionError(*problems)
    kept = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[2] != COUNTER}
    config, entries, generated = _describe(kind, kept)
    problems = check_shapes(kept, {entry.source: entry.shape for entry in entries})
    if problems:
        raise ConversionError(*problems)
    return DcganNetwork("dcgan", kind, config, kept, tuple(entries), generated=generated)
