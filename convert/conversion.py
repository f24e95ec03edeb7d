# SPDX-License-Identifier: Apache-2.0
"""The two things this package does: convert a checkpoint file, and say what is in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convert import description, encoders, standalone
from convert.building import W_STATISTICS
from convert.destination import check_destination
from convert.encoders_conversion import convert_encoder
from convert.errors import ConversionError, concerning, shown
from convert.network import Network
from convert.source import Source, from_file, read_file

if TYPE_CHECKING:
    from flax import nnx

    import stylegan_jax

GENERATORS = ("G_ema", "G")
ALIGNMENT = 64  # bytes; JAX takes over memory of the CPU that begins at a multiple of it


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    network: str | None = None,
    discriminator: bool = True,
    step: int | None = None,
    linear: str | os.PathLike[str] | None = None,
    attributes: Sequence[str] | None = None,
    generator: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> stylegan_jax.Model | nnx.Module:
    """Converts a checkpoint file into a checkpoint directory of `stylegan_jax`; nothing in the file is executed.

    The whole file is checked before anything is written, and of a generator before JAX is imported. Mean and
    covariance of its W are estimated from 10 000 latents of a fixed key.

    Args:
      source: an NVlabs torch snapshot of StyleGAN2 or StyleGAN3, a TensorFlow pickle of StyleGAN1 or StyleGAN2, a
        checkpoint of rosinality's StyleGAN1 or StyleGAN2 code, or state dicts of a PyTorch DCGAN; an encoder of
        `convert.encoders`; or a network that stands alone, one of `convert.perceptual` or `convert.classifiers`.
      destination: the directory to write; it appears complete or not at all.
      network: the generator to take, `G_ema` (the averaged one, taken by default) or `G`.
      discriminator: whether to take `D` too, where the file has one; some losses need it.
      step: the last trained one of a StyleGAN1 file, whose images are `4 << step` pixels; None finds it.
      linear: file of LPIPS' own weights for the trunk in `source`.
      attributes: names of what a classifier classifies, where the file does not tell.
      generator: the converted checkpoint that an encoder belongs to, where its file holds no generator.
      overwrite: replace a checkpoint that is already at `destination`.
      allow_nonfinite: accept NaN and infinite weights, but of networks that stand alone.

    Returns:
      What was written: a model, or the network that stands alone.

    Raises:
      ConversionError: the file is damaged, hostile, of an unknown format, or does not hold what was asked for; the
        destination exists or cannot be written. Lists every problem found.
    """
    for file in (source, linear):
        if file is not None:
            check_destination(file, destination, overwrite=overwrite)
    of_generators = {
        "--network": network is not None,
        "--nodiscriminator": not discriminator,
        "--step": step is not None,
    }
    of_others = {"--linear": linear is not None, "--attribute_name": attributes is not None}
    of_encoders, finite = {"--generator": generator is not None}, {"--allow_nonfinite": allow_nonfinite}
    with concerning(source):
        file = read_file(source)
        alone = standalone.standalone_network(file.tree)
        if encoders.is_encoder(file.tree):
            _refuse(of_generators | of_others, "an encoder")
            del file
            return convert_encoder(
                source, destination, overwrite=overwrite, generator=generator, allow_nonfinite=allow_nonfinite
            )
        if alone is not None:
            _refuse(of_generators | of_encoders | finite, standalone.TITLES[alone])
            read = standalone.read_standalone(file, linear=linear, attributes=attributes)
            made, provenance = read.build(), read.provenance()
        else:
            _refuse(of_others | of_encoders, "neither an encoder nor a network that stands alone")
            found = from_file(file)
            chosen = _choose(found, network=network or "G_ema", discriminator=discriminator)
            networks, arrays = _validated(found, chosen, step=step, allow_nonfinite=allow_nonfinite)
            provenance = _provenance(found, chosen, networks)
            plans = {kind: network.without_tensors() for kind, network in networks.items()}
            # Nothing refers to the file then: it is no longer mapped, and its pages are free.
            del file, found, networks
            made = _build(plans, arrays, provenance)
    _write(destination, made, provenance, overwrite=overwrite)
    return made


def _refuse(options: Mapping[str, bool], held: str) -> None:
    given = [name for name, asked in options.items() if asked]
    if given:
        raise ConversionError(f"holds {held}, to which {' and '.join(given)} cannot be applied; leave that out")


def _write(
    destination: str | os.PathLike[str],
    made: stylegan_jax.Model | nnx.Module,
    provenance: Mapping[str, object],
    *,
    overwrite: bool,
) -> None:
    from stylegan_jax import checkpoint

    try:
        if isinstance(made, checkpoint.Model):
            checkpoint.save(destination, made, overwrite=overwrite)
        else:
            checkpoint.save_network(destination, made, provenance=provenance, overwrite=overwrite)
    except checkpoint.CheckpointError as error:  # names the destination itself
        raise ConversionError(str(error)) from error


def inspect(
    source: str | os.PathLike[str], *, step: int | None = None, attributes: Sequence[str] | None = None
) -> dict:
    """Says what a checkpoint file holds, without converting or executing anything.

    Args:
      source: a file of one of the formats of `convert`.
      step: as there.
      attributes: as there.

    Returns:
      `file`, `size` in bytes, `sha256`, `format`, `licence`, `training` (the arguments stored in the file, or None) and
      `networks`: by name None, `{"problem": ...}` where it cannot be converted, or `family`, `kind`, `resolution`,
      `values` (how many numbers it holds), `config` and `notes`. A sound file of an unknown kind has `problem` (why it
      is not converted), `tensors` (a list of `TensorFact`) and `guess` (what it probably is and why, or None) in place
      of `format`, `licence`, `training` and `networks`. Of an encoder and of a network that stands alone there are
      `network` (what it is, in words) and either `problem` or `format`, `licence`, `values`, `config` and `notes`.

    Raises:
      ConversionError: the file is damaged or hostile, or holds no tensors.
    """
    with concerning(source):
        file = read_file(source)
        facts = {"file": os.path.basename(file.path), "size": file.size, "sha256": file.sha256}
        if standalone.standalone_network(file.tree) is not None:
            return facts | standalone.describe_standalone(file, attributes=attributes)
        if encoders.is_encoder(file.tree):
            return facts | _described_encoder(file.path)
        try:
            found = from_file(file)
        except ConversionError as error:
            tensors = description.tensors(file.tree)
            if not tensors:
                raise
            return facts | {"problem": str(error), "tensors": tensors, "guess": description.guess(tensors)}
    return facts | {
        "format": found.format,
        "licence": found.licence,
        "training": _plain(found.training),
        "networks": {name: _described(found, name, step) for name in found.networks},
    }


def _choose(found: Source, *, network: str, discriminator: bool) -> list[str]:
    if network not in GENERATORS:
        raise ConversionError(f"network must be {' or '.join(GENERATORS)}, got {shown(network)}")
    if network not in found.present:
        others = [name for name in GENERATORS if name in found.present]
        advice = f"; --network={others[0]} takes that generator" if others else ""
        state = "is None" if network in found.networks else "is not there"
        raise ConversionError(f"{network} {state}; the file holds {', '.join(found.present) or 'no network'}{advice}")
    return [network, "D"] if discriminator and "D" in found.present else [network]


def _validated(
    found: Source, names: list[str], *, step: int | None, allow_nonfinite: bool
) -> tuple[dict[str, Network], dict[str, dict[str, np.ndarray]]]:
    networks, arrays, problems = {}, {}, []
    for name in names:
        try:
            network = found.read(name, step)
            if network.family == "stylegan1":
                step = len(network.config["widths"]) - 1  # generator and discriminator were trained together
            networks[network.kind] = network
            arrays[network.kind] = _in_one_block(network.arrays(allow_nonfinite=allow_nonfinite))
        except ConversionError as error:
            problems.extend(f"{name}: {problem}" for problem in error.problems)
    if problems:
        raise ConversionError(*problems)
    pair = [networks[kind] for kind in ("generator", "discriminator") if kind in networks]
    facts = [(n.resolution, n.config["image_channels"], n.config.get("c_dim", 0)) for n in pair]
    if len(set(facts)) != 1:
        raise ConversionError("generator and discriminator disagree about resolution, channels or labels")
    return networks, arrays


def _in_one_block(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Moves arrays, out of the dictionary given, into one piece of memory from which JAX takes them without a copy."""
    sizes = [-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays.values()]
    block = np.empty(sum(sizes) + ALIGNMENT, np.uint8)
    begin, moved = -block.ctypes.data % ALIGNMENT, {}
    for name, size in zip(list(arrays), sizes, strict=True):
        array = arrays.pop(name)
        moved[name] = block[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        moved[name][...] = array
        begin += size
    return moved


def _provenance(found: Source, names: list[str], networks: dict[str, Network]) -> dict:
    return {
        "file": os.path.basename(found.path),
        "size": found.size,
        "sha256": found.sha256,
        "format": found.format,
        "networks": names,
        "licence": found.licence,
        "w_statistics": W_STATISTICS,
        **networks["generator"].notes(),
    }


def _build(plans: dict[str, Network], arrays: dict[str, dict[str, np.ndarray]], provenance: dict) -> stylegan_jax.Model:
    """Builds the model; `arrays` are JAX's afterwards, so that no array is held twice."""
    # These need JAX, which comes after the file was found good.
    from convert.building import build, build_generator, move_to_jax

    move_to_jax(arrays["generator"])
    generator, statistics = build_generator(plans["generator"], arrays["generator"])
    discriminator = None
    if "discriminator" in plans:
        move_to_jax(arrays["discriminator"])
        discriminator = build(plans["discriminator"], arrays["discriminator"])
    import stylegan_jax

    return stylegan_jax.Model(
        generator=generator, discriminator=discriminator, w_statistics=statistics, provenance=provenance
    )


def _described_encoder(path: str) -> dict:
    try:
        found = encoders.read_encoder(path)
    except ConversionError as error:
        return {"network": encoders.FORMAT, "problem": "; ".join(error.problems)}
    decoder = "none that can be converted" if found.decoder is None else f"StyleGAN2, {found.decoder.resolution} px"
    return {
        "network": encoders.FORMAT,
        "format": f"{found.kind[1]} with its decoder: {decoder}",
        "licence": encoders.LICENCE,
        "values": sum(tensor.size for tensor in found.tensors.values()),
        "config": dict(found.config),
        "notes": dict(found.notes),
    }


def _described(found: Source, name: str, step: int | None) -> dict | None:
    if not found.networks[name]:
        return None
    try:
        network = found.read(name, step)
    except ConversionError as error:
        return {"problem": str(error)}
    return {
        "family": network.family,
        "kind": network.kind,
        "resolution": network.resolution,
        "values": network.values,
        "config": network.config,
        "notes": network.notes(),
    }


def _plain(value: object, depth: int = 0) -> object:
    # Values that a file shares among lists could double at every level, so depth and width are cut.
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 2**63 else shown(value)
    if isinstance(value, str):
        return value if len(value) <= 200 and value.isprintable() else shown(value)
    if isinstance(value, dict) and depth < 2 and len(value) <= 50:
        return {str(_plain(key, 2)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 2 and len(value) <= 50:
        return [_plain(item, depth + 1) for item in value]
    return shown(value)
