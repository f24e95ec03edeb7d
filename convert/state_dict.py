# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as state dicts of NVlabs' torch modules, in safetensors files: the way back from a conversion.

A file holds one network, because that is what `load_state_dict` takes: every parameter and buffer that the module has,
under its name there, float32. In torch:

    with safetensors.safe_open(FILE, "pt") as file:
        arguments = json.loads(file.metadata()["init_kwargs"])
    network = training.networks.Generator(**arguments)  # the class that metadata()["class"] names
    network.load_state_dict(safetensors.torch.load_file(FILE), strict=True)

The arguments of StyleGAN2 are those of the stylegan2-ada-pytorch code; the StyleGAN2 generator of the stylegan3 code
takes the contents of `synthesis_kwargs` directly instead.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping

import numpy as np

from convert import nvlabs, stylegan3
from convert.errors import ConversionError, shown
from convert.rules import Rule, restore
from convert.safetensors_file import check_destination, write_safetensors

NETWORKS = ("generator", "discriminator")
UNSUPPORTED = "a {} has no place in NVlabs' torch modules, so no state dict of theirs can hold it; expected a {}"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How NVlabs' code holds one kind of network.

    Attributes:
      class_name: the class, with its module there.
      arguments: gives what its constructor takes, for a configuration of ours.
      shapes: gives every tensor that it has, {name there: shape}, for a configuration of ours.
      rules: the converter's table.
    """

    class_name: str
    arguments: Callable[[Mapping], dict]
    shapes: Callable[[Mapping], dict[str, tuple[int, ...]]]
    rules: tuple[Rule, ...]


LAYOUTS = {
    "stylegan2 generator": Layout(
        "training.networks.Generator", nvlabs.generator_arguments, nvlabs.generator_shapes, nvlabs.GENERATOR_RULES
    ),
    "stylegan2 discriminator": Layout(
        "training.networks.Discriminator",
        nvlabs.discriminator_arguments,
        nvlabs.discriminator_shapes,
        nvlabs.DISCRIMINATOR_RULES,
    ),
    "stylegan3 generator": Layout(
        "training.networks_stylegan3.Generator",
        stylegan3.generator_arguments,
        lambda config: stylegan3.generator_shapes(config, stylegan3.layer_attributes(config)),
        stylegan3.RULES,
    ),
}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """What `export` wrote: NVlabs' class, the arguments of its constructor, and {name there: shape} of all tensors."""

    class_name: str
    arguments: dict
    shapes: dict[str, tuple[int, ...]]

    @property
    def values(self) -> int:
        """Number of values in all tensors."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values())


def export(
    checkpoint: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    network: str = "generator",
    overwrite: bool = False,
) -> StateDict:
    """Writes a network of a StyleGAN2 or StyleGAN3 checkpoint as the state dict of NVlabs' torch module.

    Where the checkpoint came from does not matter: from NVlabs' torch or TensorFlow code, from rosinality's, or from a
    training here. A mean of w that the converter estimated is written as the module's own.

    Args:
      checkpoint: the checkpoint directory.
      file: the safetensors file to write; it appears complete or not at all. Its metadata hold `class`, `init_kwargs`
        (JSON; half precision, which does not change the tensors, is turned off), `provenance` (JSON) and `licence`.
      network: `generator` or `discriminator`.
      overwrite: replace a safetensors file that is already at `file`.

    Returns:
      What was written.

    Raises:
      ConversionError: no such checkpoint or network, a network that NVlabs' modules cannot hold (StyleGAN1, or widths
        that no arguments of theirs give), or a destination that exists or cannot be written.
    """
    if network not in NETWORKS:
        raise ConversionError(f"network must be {' or '.join(NETWORKS)}, got {shown(network)}")
    check_destination(file, overwrite=overwrite)
    import stylegan_jax  # needs JAX, which comes after the arguments were found good
    from stylegan_jax import parameters

    try:
        model = stylegan_jax.load(checkpoint)
    except stylegan_jax.CheckpointError as error:  # names the checkpoint itself
        raise ConversionError(str(error)) from error
    found = getattr(model, network)
    if found is None:
        raise ConversionError("holds no discriminator; it was converted or trained without", source=str(checkpoint))
    kind = f"{type(found).__module__.split('.')[-1]} {network}"
    if kind not in LAYOUTS:
        raise ConversionError(UNSUPPORTED.format(kind, " or ".join(LAYOUTS)), source=str(checkpoint))
    layout, config = LAYOUTS[kind], dataclasses.asdict(found.config)
    try:
        written = StateDict(layout.class_name, layout.arguments(config), layout.shapes(config))
        tensors = restore(parameters.to_arrays(found), written.shapes, layout.rules)
        write_safetensors(
            file, tensors, shapes=written.shapes, metadata=_metadata(written, kind, model), overwrite=overwrite
        )
    except ConversionError as error:
        error.source = error.source or str(checkpoint)
        raise
    return written


def _metadata(written: StateDict, kind: str, model: object) -> dict[str, str]:
    provenance = dict(model.provenance)
    family, network = kind.split()
    return {
        "format": "pt",
        "family": family,
        "network": network,
        "class": written.class_name,
        "init_kwargs": json.dumps(written.arguments),
        "licence": str(provenance.get("licence", "not recorded")),
        "provenance": json.dumps(provenance, default=str),
        "content_hash": str(model.content_hash),
    }
