# SPDX-License-Identifier: Apache-2.0
"""The learned inpainters by name, and their checkpoints, each tied to the generator that it was trained for."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import stylegan_jax as sg
from inpaint.learned.difai.inpainter import Difai
from inpaint.learned.hierarchical.network import HierarchicalInpainter
from inpaint.learned.pathwise import PathwiseSampler
from inpaint.search.produced import Inpainter
from stylegan_jax import checkpoint

# A network of the name lies in the folder of that name beside its generator's arrays, unless it is named otherwise.
KINDS: dict[str, type[nnx.Module]] = {"difai": Difai, "hierarchical": HierarchicalInpainter}
# Needs no network but the generator's encoder.
PATHWISE = "pathwise"
NAMES = (*KINDS, PATHWISE)


def cast(network: nnx.Module, dtype: jnp.dtype) -> nnx.Module:
    """Returns a network like `network` whose floating-point arrays, of whatever shape `[...]`, are of type `dtype`."""
    graph, state = nnx.split(network)
    floating = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    return nnx.merge(graph, floating)


def save(
    path: str | os.PathLike,
    network: nnx.Module,
    *,
    generator: str,
    provenance: Mapping[str, Any],
    half: bool = True,
    overwrite: bool = False,
) -> None:
    """Writes a learned inpainter.

    Args:
        path: destination directory.
        network: of `KINDS`.
        generator: content hash of the generator that it was trained for.
        provenance: JSON-like.
        half: store the arrays in half precision.
        overwrite: replace what is there.
    """
    network = cast(network, jnp.float16) if half else network
    checkpoint.save_network(path, network, provenance=dict(provenance) | {"generator": generator}, overwrite=overwrite)


def load(name: str, model: sg.Model, *, path: str | os.PathLike | None = None) -> tuple[Inpainter, str]:
    """Returns the learned inpainter `name` of a model, in the dtype of its generator, and its content hash.

    Args:
        name: one of `NAMES`.
        model: a loaded one.
        path: of its checkpoint; None: the folder `name` beside the generator's arrays.

    Raises:
        CheckpointError: where it is missing, damaged, of another kind, or of another generator.
        ValueError: a path for an inpainter that is made of the model's encoder, or a model without one for it.
    """
    if name == PATHWISE:
        return _pathwise(model, path)
    if path is None:
        path = None if model.path is None else pathlib.Path(model.path) / name
        if path is None or not path.is_dir():
            raise checkpoint.CheckpointError(
                f"the generator {str(model.content_hash)[:12]} has no {name} network in its folder; name one by "
                f"config.network, or train one with `python -m inpaint train --config configs/learned/{name}64.py`"
            )
    network, digest = checkpoint.load_network(path, KINDS[name])
    trained_for = checkpoint.info(path)["provenance"].get("generator")
    if trained_for != model.content_hash:
        raise checkpoint.CheckpointError(
            f"{path} is a {name} network of the generator {str(trained_for)[:12]}, not of "
            f"{str(model.content_hash)[:12]}; train one for it with `python -m inpaint train`"
        )
    network = cast(network, model.generator.dtype)
    if getattr(network, "needs_guide", False):
        network = network.guided(_guide(path, model))
    return network, digest


def _pathwise(model: sg.Model, path: str | os.PathLike | None) -> tuple[Inpainter, str]:
    if path is not None:
        raise ValueError(f"pathwise samples by the generator's own encoder and takes no network, got {path}")
    if model.encoder is None or model.encoder_hash is None:
        raise ValueError(
            "pathwise samples by the generator's encoder, and it has none; train one or name it (--encoder)"
        )
    return PathwiseSampler(cast(model.encoder, model.generator.dtype)), model.encoder_hash


def _guide(path: str | os.PathLike, model: sg.Model) -> nnx.Module:
    """Returns the encoder of the model, which must be the one that the network at `path` was trained with."""
    wanted = checkpoint.info(path)["provenance"].get("encoder")
    if model.encoder is None or model.encoder_hash != wanted:
        found = "none" if model.encoder is None else str(model.encoder_hash)[:12]
        raise checkpoint.CheckpointError(
            f"{path} begins with the generator's encoder {str(wanted)[:12]}, and that of the model is {found}"
        )
    return cast(model.encoder, model.generator.dtype)
