# SPDX-License-Identifier: Apache-2.0
"""What lies in a file that no converter knows: names, shapes and types of its tensors, and what it probably is."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping

from convert.numpyfile import Array
from convert.snapshot import Module
from convert.tensorflow_files import TensorflowNetwork, Variable
from convert.torchfile import Tensor

MOST_TENSORS = 20_000
MOST_STEPS = 500_000
DEEPEST = 24
LONGEST_KEY = 200


@dataclasses.dataclass(frozen=True)
class TensorFact:
    """One tensor of a file: its path in the file, its shape and the name of its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """A kind of file, and the tensors by which it is known: {pattern of a name: shape, None where any is left open}."""

    kind: str
    tensors: Mapping[str, tuple[int | None, ...] | None]

    def found(self, facts: list[TensorFact]) -> list[TensorFact] | None:
        """Returns one tensor for every pattern, or None where one is missing."""
        found = []
        for pattern, shape in self.tensors.items():
            compiled = re.compile(rf"(.*[./])?{pattern}", re.ASCII)
            match = next((f for f in facts if _fits(f.shape, shape) and compiled.fullmatch(f.name)), None)
            if match is None:
                return None
            found.append(match)
        return found


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


# The more special ones come first: an encoder's file holds a decoder and an average too.
SIGNATURES = (
    Signature(
        "an encoder of pSp, e4e or ReStyle with its StyleGAN2 decoder",
        {r"encoder\.styles\.0\.convs\.0\.weight": None, r"decoder\.convs\.0\.conv\.weight": None},
    ),
    Signature(
        "an encoder of pSp, e4e or ReStyle",
        {r"encoder\.input_layer\.0\.weight": None, r"encoder\.styles\.0\.linear\.weight": None},
    ),
    Signature(
        "an encoder with the ResNet trunk of ReStyle",
        {r"encoder\.conv1\.weight": (64, None, 7, 7), r"encoder\.styles\.0\.linear\.weight": None},
    ),
    Signature(
        "an identity network IR-SE50", {r"input_layer\.0\.weight": None, r"body\.0\.res_layer\.5\.fc1\.weight": None}
    ),
    Signature("an identity network IR-50", {r"input_layer\.0\.weight": None, r"body\.0\.res_layer\.0\.weight": None}),
    Signature("the linear layers of LPIPS", {r"lin0\.model\.1\.weight": None, r"lin4\.model\.1\.weight": None}),
    Signature("an Inception network for the Frechet distance", {r"Conv2d_1a_3x3\.conv\.weight": (32, 3, 3, 3)}),
    Signature(
        "a ResNet-50 with 40 attributes",
        {r"layer4\.2\.conv3\.weight": None, r"(fc|last_linear)\.weight": (80, None)},
    ),
    Signature("a ResNet", {r"conv1\.weight": (64, 3, 7, 7), r"layer1\.0\.conv1\.weight": None}),
    Signature("a VGG-16 or VGG-19", {r"features\.0\.weight": (64, 3, 3, 3), r"features\.28\.weight": (512, 512, 3, 3)}),
    Signature("an AlexNet", {r"features\.0\.weight": (64, 3, 11, 11)}),
    Signature("a SqueezeNet", {r"features\.3\.squeeze\.weight": None}),
    Signature("a StyleGAN3 generator", {r"synthesis\.input\.(freqs|weight)": None, r"mapping\.fc0\.weight": None}),
    Signature(
        "a StyleGAN2 generator of NVIDIA's torch code",
        {r"synthesis\.b4\.const": None, r"mapping\.fc0\.weight": None},
    ),
    Signature(
        "a StyleGAN2 discriminator of NVIDIA's torch code", {r"b4\.out\.weight": None, r"b8\.conv0\.weight": None}
    ),
    Signature("a StyleGAN2 generator of rosinality's code", {r"input\.input": None, r"style\.1\.weight": None}),
    Signature("a StyleGAN2 discriminator of rosinality's code", {r"final_linear\.1\.weight": None}),
    Signature("a StyleGAN1 generator of rosinality's code", {r"generator\.progression\.0\.conv1\.input": None}),
    Signature("a StyleGAN1 discriminator of rosinality's code", {r"progression\.0\.conv1\.0\.conv\.weight_orig": None}),
    Signature("a classifier of NVIDIA's TensorFlow code", {r"4x4/Dense1/weight": None, r".*FromRGB_lod0/weight": None}),
    Signature("a DCGAN", {r"main\.0\.weight": (None, None, 4, 4)}),
)


def tensors(tree: object) -> list[TensorFact]:
    """Returns every tensor in what a reader gave, by its path in the file; at most 20,000 of them."""
    found = []
    # A value shared at every level has more paths than could ever be walked, hence a limit for the walk too.
    for name, value in itertools.islice(_walk(tree, "", ()), MOST_STEPS):
        if isinstance(value, Tensor):
            found.append(TensorFact(name, value.shape, value.dtype.removesuffix("Storage").lower()))
        elif isinstance(value, Variable):
            dtype = value.value.dtype.name if isinstance(value.value, Array) else "number"
            found.append(TensorFact(name, value.shape, dtype))
        if len(found) == MOST_TENSORS:
            break
    return found


def _walk(value: object, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    """Yields (path, value) for `value` and all below it, but for what holds itself; a tensor's value is a `Tensor` or a
    `Variable`."""
    yield path, Variable(value) if isinstance(value, Array) else value
    if len(above) > DEEPEST or id(value) in above:
        return
    if isinstance(value, Module):
        inner = value.tensors | value.children
    elif isinstance(value, TensorflowNetwork):
        inner = value.variables()
    elif isinstance(value, dict):
        inner = value
    elif isinstance(value, list | tuple):
        inner = dict(enumerate(value))
    else:
        return
    for key, item in inner.items():
        # A long key would be repeated for everything below it.
        yield from _walk(item, f"{path}.{str(key)[:LONGEST_KEY]}".lstrip("."), (*above, id(value)))


def guess(facts: list[TensorFact]) -> tuple[str, str] | None:
    """Returns what a file with these tensors probably is, and the reason; None where nothing is known of it."""
    for signature in SIGNATURES:
        if found := signature.found(facts):
            reason = ", ".join(f"{fact.name} {list(fact.shape)}" for fact in found)
            return signature.kind, f"it has {reason}"
    return None
