# SPDX-License-Identifier: Apache-2.0
"""The two things this package does: convert a checkpoint file, and say what is in one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from convert.errors import ConversionError, concerning, shown
from convert.nvlabs import Network, read_network
from convert.snapshot import Snapshot, read_snapshot

if TYPE_CHECKING:
    import stylegan_jax

FORMAT = "NVlabs torch snapshot"
LICENCE = (
    "Written by NVIDIA's StyleGAN code. Networks that NVIDIA published are for non-commercial use only (NVIDIA Source "
    "Code License); the converted weights keep the licence of this file."
)
GENERATORS = ("G_ema", "G")
CHECKPOINT_MARK = "_CHECKPOINT_METADATA"  # orbax writes this file last, into every complete checkpoint
W_STATISTICS_SEED = 0
W_STATISTICS_SAMPLES = 10_000


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    network: str = "G_ema",
    discriminator: bool = True,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> stylegan_jax.Model:
    """Converts a checkpoint file into a checkpoint directory of `stylegan_jax`; nothing in the file is executed.

    The whole file is checked before JAX is imported and before anything is written. Mean and covariance of W are
    estimated from 10 000 latents of a fixed key.

    Args:
      source: an NVlabs torch snapshot of StyleGAN2.
      destination: the directory to write; it appears complete or not at all.
      network: the generator to take, `G_ema` (the averaged one) or `G`.
      discriminator: whether to take `D` too, where the file has one; some losses need it.
      overwrite: replace a checkpoint that is already at `destination`.
      allow_nonfinite: accept NaN and infinite weights.

    Returns:
      The model that was written.

    Raises:
      ConversionError: the file is damaged, hostile, of an unknown format, or does not hold what was asked for; the
        destination exists or cannot be written. Lists every problem found.
    """
    _check_destination(os.path.abspath(source), os.path.abspath(destination), overwrite=overwrite)
    with concerning(source):
        snapshot = read_snapshot(source)
        chosen = _choose(snapshot, network=network, discriminator=discriminator)
        networks, arrays = _validated(snapshot, chosen, allow_nonfinite=allow_nonfinite)
    model = _build(networks, arrays, _provenance(snapshot, chosen))
    from stylegan_jax import checkpoint

    try:
        checkpoint.save(destination, model, overwrite=overwrite)
    except checkpoint.CheckpointError as error:  # names the destination itself
        raise ConversionError(str(error)) from error
    return model


def inspect(source: str | os.PathLike[str]) -> dict:
    """Says what a checkpoint file holds, without converting or executing anything.

    Args:
      source: an NVlabs torch snapshot.

    Returns:
      `file`, `size` in bytes, `sha256`, `format`, `licence`, `training` (the data set arguments stored in the file, or
      None) and `networks`: by name None, `{"problem": ...}` where it cannot be converted, or `kind`, `resolution`,
      `values` (how many numbers it holds) and `config`.

    Raises:
      ConversionError: as `convert`.
    """
    with concerning(source):
        snapshot = read_snapshot(source)
    return {
        "file": os.path.basename(snapshot.path),
        "size": snapshot.size,
        "sha256": snapshot.sha256,
        "format": FORMAT,
        "licence": LICENCE,
        "training": _plain(snapshot.training_set_kwargs),
        "networks": {name: _described(snapshot, name) for name in snapshot.networks},
    }


def _check_destination(source: str, destination: str, *, overwrite: bool) -> None:
    if not os.path.lexists(destination):
        return
    if not overwrite:
        raise ConversionError("exists already; name another place, or pass --overwrite", source=destination)
    if not os.path.isfile(os.path.join(destination, CHECKPOINT_MARK)):
        raise ConversionError("is no checkpoint; --overwrite replaces only checkpoints", source=destination)
    if os.path.realpath(source).startswith(os.path.join(os.path.realpath(destination), "")):
        raise ConversionError("holds the source itself, which --overwrite would delete", source=destination)


def _choose(snapshot: Snapshot, *, network: str, discriminator: bool) -> list[str]:
    if network not in GENERATORS:
        raise ConversionError(f"network must be {' or '.join(GENERATORS)}, got {shown(network)}")
    if snapshot.networks.get(network) is None:
        others = [name for name in GENERATORS if name in snapshot.present]
        advice = f"; --network={others[0]} takes that generator" if others else ""
        state = "is None" if network in snapshot.networks else "is not there"
        raise ConversionError(
            f"{network} {state}; the file holds {', '.join(snapshot.present) or 'no network'}{advice}"
        )
    return [network, "D"] if discriminator and "D" in snapshot.present else [network]


def _read_network(snapshot: Snapshot, name: str) -> Network:
    kind = "discriminator" if name == "D" else "generator"
    return read_network(snapshot.networks[name], kind=kind, file_size=snapshot.size)


def _validated(
    snapshot: Snapshot, names: list[str], *, allow_nonfinite: bool
) -> tuple[dict[str, Network], dict[str, dict[str, np.ndarray]]]:
    networks, arrays, problems = {}, {}, []
    for name in names:
        try:
            network = _read_network(snapshot, name)
            networks[network.kind] = network
            arrays[network.kind] = network.arrays(allow_nonfinite=allow_nonfinite)
        except ConversionError as error:
            problems.extend(f"{name}: {problem}" for problem in error.problems)
    if problems:
        raise ConversionError(*problems)
    pair = [networks[kind].config for kind in ("generator", "discriminator") if kind in networks]
    facts = [(len(config["widths"]), config["image_channels"], config["c_dim"]) for config in pair]
    if len(set(facts)) != 1:
        raise ConversionError("generator and discriminator disagree about resolution, channels or labels")
    return networks, arrays


def _provenance(snapshot: Snapshot, names: list[str]) -> dict:
    return {
        "file": os.path.basename(snapshot.path),
        "size": snapshot.size,
        "sha256": snapshot.sha256,
        "format": FORMAT,
        "networks": names,
        "licence": LICENCE,
        "w_statistics": f"{W_STATISTICS_SAMPLES} latents, key {W_STATISTICS_SEED}",
    }


def _build(networks: dict[str, Network], arrays: dict[str, dict[str, np.ndarray]], provenance: dict):
    # JAX comes in only here, after the file has been found good.
    import jax

    import stylegan_jax
    from stylegan_jax import latents, stylegan2

    kinds = {
        "generator": (stylegan2.Generator, stylegan2.GeneratorConfig),
        "discriminator": (stylegan2.Discriminator, stylegan2.DiscriminatorConfig),
    }
    built = {"discriminator": None}
    for kind, network in networks.items():
        network_class, config_class = kinds[kind]
        try:  # strict about names and shapes: every destination is filled, nothing is left over
            built[kind] = network_class.from_arrays(config_class(**network.config), arrays[kind])
        except ValueError as error:
            raise ConversionError(str(error), source=provenance["file"]) from error
    generator = built["generator"]
    key = jax.random.key(W_STATISTICS_SEED)
    statistics = latents.estimate_w_statistics(key, generator, samples=W_STATISTICS_SAMPLES)
    return stylegan_jax.Model(
        generator=generator, discriminator=built["discriminator"], w_statistics=statistics, provenance=provenance
    )


def _described(snapshot: Snapshot, name: str) -> dict | None:
    if snapshot.networks[name] is None:
        return None
    try:
        network = _read_network(snapshot, name)
    except ConversionError as error:
        return {"problem": str(error)}
    return {
        "kind": network.kind,
        "resolution": network.resolution,
        "values": network.values,
        "config": network.config,
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
