# SPDX-License-Identifier: Apache-2.0
"""A checkpoint file of any known format, recognised by its content."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

from convert import dcgan, nvlabs, rosinality, stylegan3, tensorflow
from convert.errors import ConversionError
from convert.network import Network
from convert.snapshot import PickleFile, Snapshot, as_snapshot, read_pickle_file
from convert.tensorflow_files import is_tensorflow, recognise
from convert.torch_legacy import TorchFile, is_torch_file, read_torch_file

NVLABS_FORMAT = "NVlabs torch snapshot"
NVLABS_LICENCE = (
    "Written by NVIDIA's StyleGAN code. Networks that NVIDIA published are for non-commercial use only (NVIDIA Source "
    "Code License); the converted weights keep the licence of this file."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A file whose structure was read; values still lie in it.

    Attributes:
      path, size, sha256: of the file.
      format, licence: what it is, in words.
      training: arguments of the training that the file records, or None.
      networks: whether `G`, `G_ema` and `D`, as far as the file names them, are there.
      read: checks one of them and returns it, `read(name, step)`; step is that of a StyleGAN1 network, or None.
    """

    path: str
    size: int
    sha256: str
    format: str
    licence: str
    training: dict | None
    networks: Mapping[str, bool]
    read: Callable[[str, int | None], Network]

    @property
    def present(self) -> list[str]:
        """Names of the networks that are there."""
        return [name for name, there in self.networks.items() if there]


def read_source(path: str | os.PathLike[str]) -> Source:
    """Reads the structure of a checkpoint file without running anything in it.

    Raises:
      ConversionError: no such file, an unknown format, damage, or content that is not allowed.
    """
    return from_file(read_file(path))


def read_file(path: str | os.PathLike[str]) -> PickleFile | TorchFile:
    """Reads a file of torch.save or a pickle, whatever it holds, without running anything in it.

    Raises:
      ConversionError: no such file, another format, damage, or content that is not allowed.
    """
    return read_torch_file(path) if is_torch_file(path) else read_pickle_file(path)


def from_file(file: PickleFile | TorchFile) -> Source:
    """Returns the source that a file is; raises `ConversionError` if it is of no known family."""
    if isinstance(file, TorchFile):
        return _torch(file)
    return _tensorflow(file) if is_tensorflow(file.tree) else from_snapshot(as_snapshot(file))


def _source(
    file: PickleFile | TorchFile | Snapshot,
    *,
    format: str,
    licence: str,
    networks: Mapping[str, bool],
    read: Callable[[str, int | None], Network],
    training: dict | None = None,
) -> Source:
    return Source(file.path, file.size, file.sha256, format, licence, training, networks, read)


def _refuse_step(step: int | None) -> None:
    if step is not None:
        raise ConversionError("step belongs to StyleGAN1 files of rosinality's code; leave it out for this one")


def _tensorflow(file: PickleFile) -> Source:
    found = recognise(file.tree)

    def read(name: str, step: int | None) -> Network:
        _refuse_step(step)
        return tensorflow.read_network(found, name, file_size=file.size)

    return _source(
        file,
        format=tensorflow.FORMAT,
        licence=tensorflow.LICENCE,
        networks=dict.fromkeys(found.networks, True),
        read=read,
    )


def _torch(file: TorchFile) -> Source:
    if dcgan.is_dcgan(file.tree) and not rosinality.is_rosinality(file.tree):
        return _dcgan(file)
    found = rosinality.recognise(file.tree)
    return _source(
        file,
        format=rosinality.FORMAT,
        licence=rosinality.LICENCE,
        training=found.training,
        networks=dict.fromkeys(found.networks, True),
        read=lambda name, step: rosinality.read_network(found, name, file_size=file.size, step=step),
    )


def _dcgan(file: TorchFile) -> Source:
    found = dcgan.recognise(file.tree)

    def read(name: str, step: int | None) -> Network:
        _refuse_step(step)
        return dcgan.read_network(found, name, file_size=file.size)

    return _source(
        file,
        format=dcgan.FORMAT,
        licence=dcgan.LICENCE,
        networks=dict.fromkeys(found.networks, True),
        read=read,
    )


def from_snapshot(snapshot: Snapshot) -> Source:
    """Returns the source that an NVlabs snapshot is."""

    def read(name: str, step: int | None) -> Network:
        _refuse_step(step)
        if name != "D" and stylegan3.is_stylegan3(snapshot.networks[name]):
            return stylegan3.read_network(snapshot.networks[name], file_size=snapshot.size)
        kind = "discriminator" if name == "D" else "generator"
        return nvlabs.read_network(snapshot.networks[name], kind=kind, file_size=snapshot.size)

    return _source(
        snapshot,
        format=NVLABS_FORMAT,
        licence=NVLABS_LICENCE,
        training=snapshot.training_set_kwargs,
        networks={name: network is not None for name, network in snapshot.networks.items()},
        read=read,
    )
