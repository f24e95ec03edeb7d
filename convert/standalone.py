# SPDX-License-Identifier: Apache-2.0
"""Files of networks that stand alone: what compares images (`convert.perceptual`), and classifiers.

They become checkpoints of one network, which `stylegan_jax.checkpoint.load_network` reads.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convert import classifiers, perceptual
from convert.errors import ConversionError
from convert.mapped_file import file_sha256, map_file
from convert.snapshot import PickleFile
from convert.torch_legacy import TorchFile

if TYPE_CHECKING:
    from flax import nnx

LINEAR = "linear"  # LPIPS' own weights, which are no network without a trunk
TITLES = {
    "vgg16": "VGG-16 without its classifier",
    "vgg19": "VGG-19 without its classifier",
    "alexnet": "AlexNet without its classifier",
    "squeezenet": "SqueezeNet 1.1 without its classifier",
    "lpips": "LPIPS",
    "arcface": "ArcFace",
    "inception": "Inception of the Frechet distance",
    LINEAR: "LPIPS' own weights",
    classifiers.RESNET: "classifier of 40 attributes",
    classifiers.CELEBAHQ: "CelebA-HQ classifier",
}
FORMATS = {
    "arcface": "state dict of InsightFace_Pytorch's IR-SE network",
    "inception": "state dict of pytorch-fid's Inception",
    "lpips": "state dicts of a torchvision trunk and of LPIPS' own weights",
}
TORCHVISION = "state dict of a torchvision network"
VGG_LICENCE = "Weights of Oxford's Visual Geometry Group: CC BY 4.0; torchvision, which hands them on: BSD-3-Clause."
TORCHVISION_LICENCE = "torchvision's weights: BSD-3-Clause."
LPIPS_LICENCE = "LPIPS' own weights: BSD-2-Clause."
LICENCES = {
    "vgg16": VGG_LICENCE,
    "vgg19": VGG_LICENCE,
    "alexnet": TORCHVISION_LICENCE,
    "squeezenet": TORCHVISION_LICENCE,
    "arcface": "InsightFace_Pytorch's code: MIT. Trained on InsightFace's data; its publishers allow the data, and all "
    "models trained with it, for non-commercial research only.",
    "inception": "TensorFlow's Inception weights, as pytorch-fid hands them on: Apache-2.0.",
    **classifiers.LICENCES,
}
ADVICE = "; --allow_nonfinite lets them in"  # which `convert.rules` gives, and is not so here


@dataclasses.dataclass(frozen=True, eq=False)
class Standalone:
    """A network that was read, its values finite; the file is not needed any more.

    Attributes:
      network: which one, a key of `TITLES`.
      files: name, size and sha256 of the file, and of that of LPIPS' own weights where there is one.
      format, licence: what it is, in words.
      config: keyword arguments of its configuration class.
      values: {our name: float32 array}.
      open_points: what the file leaves open, by name.
      build: makes our network of the values.
    """

    network: str
    files: tuple[dict, ...]
    format: str
    licence: str
    config: dict
    values: dict[str, np.ndarray]
    build: Callable[[], nnx.Module]
    open_points: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the network is, in words."""
        if "attributes" in self.config:
            return f"{TITLES[self.network]} of {', '.join(self.config['attributes'])}"
        return TITLES[self.network]

    @property
    def kind(self) -> str:
        """What the network is among those of a checkpoint, beside `generator` and `discriminator`."""
        return "standalone"

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; they were found finite, whatever `allow_nonfinite` says."""
        return dict(self.values)

    def notes(self) -> dict[str, str]:
        """Returns what provenance should say of what the file leaves open."""
        return dict(self.open_points)

    def provenance(self) -> dict:
        """Returns what a checkpoint says of its origin."""
        named = {"linear": self.files[1]} if len(self.files) > 1 else {}
        described = {"format": self.format, "network": self.title, "licence": self.licence}
        return self.files[0] | described | named | dict(self.open_points)


def standalone_network(tree: object) -> str | None:
    """Returns which network a file holds, a key of `TITLES`, by what a reader gave; None for files of other kinds."""
    form = classifiers.classifier_form(tree)
    if form is not None:
        return classifiers.RESNET if form == "resnet" else classifiers.CELEBAHQ
    inner = tree.get("state_dict") if isinstance(tree, dict) else None
    tensors = inner if isinstance(inner, dict) else tree
    if not isinstance(tensors, dict):
        return None
    for network, marks in perceptual.MARKS.items():
        if all(mark in tensors for mark in marks):
            return network
    return LINEAR if perceptual.LINEAR.format(0) in tensors else None


def read_standalone(
    file: PickleFile | TorchFile,
    *,
    linear: str | os.PathLike[str] | None = None,
    attributes: Sequence[str] | None = None,
) -> Standalone:
    """Reads a network that stands alone: its names and shapes are checked, its values finite.

    Args:
      file: what `standalone_network` recognises.
      linear: file of LPIPS' own weights for the trunk in `file`; the two together are the network `lpips`.
      attributes: names of what a classifier classifies, where the file does not tell.

    Raises:
      ConversionError: a file that does not fit, options that do not belong to it, or the file `linear`.
    """
    network = standalone_network(file.tree)
    classifies = network in (classifiers.RESNET, classifiers.CELEBAHQ)
    if attributes is not None and not classifies:
        raise ConversionError(f"--attribute_name belongs to classifiers; this file holds {TITLES[network]}")
    if linear is not None and classifies:
        raise ConversionError(f"--linear belongs to trunks of LPIPS; this file holds a {TITLES[network]}")
    try:
        return _classifier(file, attributes) if classifies else _perceptual(file, linear)
    except ConversionError as error:
        raise ConversionError(*(p.removesuffix(ADVICE) for p in error.problems), source=error.source) from error


def _facts(file: PickleFile | TorchFile) -> dict:
    return {"file": os.path.basename(file.path), "size": file.size, "sha256": file.sha256}


def _classifier(file: PickleFile | TorchFile, attributes: Sequence[str] | None) -> Standalone:
    found = classifiers.read_classifier(
        file.tree, file_size=file.size, file_name=os.path.basename(file.path), attributes=attributes
    )
    values = found.arrays()
    stored = dataclasses.replace(found, tensors={})
    return Standalone(
        network=found.network,
        files=(_facts(file),),
        format=classifiers.FORMATS[found.form],
        licence=LICENCES[found.network],
        config=found.config,
        values=values,
        build=lambda: stored.build(values),
        open_points=found.notes,
    )


def _perceptual(file: TorchFile, linear: str | os.PathLike[str] | None) -> Standalone:
    found = perceptual.read_perceptual(file.path, linear=linear)
    files, licence = (_facts(file),), LICENCES[found.config.get("trunk", found.network)]
    if linear is not None:
        data = map_file(os.fspath(linear))
        files += ({"file": os.path.basename(linear), "size": len(data), "sha256": file_sha256(data.obj)},)
        licence = f"{licence} {LPIPS_LICENCE}"
    return Standalone(
        network=found.network,
        files=files,
        format=FORMATS.get(found.network, TORCHVISION),
        licence=licence,
        config=found.config,
        values=found.arrays,
        build=found.build,
    )


def describe_standalone(file: PickleFile | TorchFile, *, attributes: Sequence[str] | None = None) -> dict:
    """Says what is in a file that `standalone_network` recognises.

    Returns:
      `network` (what it is, in words), and either `problem` (why it cannot be converted) or `format`, `licence`,
      `values` (how many numbers it holds), `config` and `notes`.
    """
    try:
        found = read_standalone(file, attributes=attributes)
    except ConversionError as error:
        return {"network": TITLES[standalone_network(file.tree)], "problem": "; ".join(error.problems)}
    return {
        "network": found.title,
        "format": found.format,
        "licence": found.licence,
        "values": sum(array.size for array in found.values.values()),
        "config": dict(found.config),
        "notes": dict(found.open_points),
    }
