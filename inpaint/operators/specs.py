# SPDX-License-Identifier: Apache-2.0
"""Degradations of images `[h, w, c]` in [-1, 1] by text, for command lines and tables of results."""

import functools
import re
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from inpaint import masks
from inpaint.operators.blur import GaussianBlur, MotionBlur
from inpaint.operators.composition import Composition
from inpaint.operators.downsample import KERNELS, Downsample
from inpaint.operators.grayscale import Grayscale
from inpaint.operators.jpeg import Jpeg
from inpaint.operators.mask import Mask
from inpaint.operators.noise import GaussianNoise, PoissonBernoulli
from inpaint.operators.protocol import Operator
from inpaint.operators.quantise import Quantise
from inpaint.operators.sensing import DenseGaussian, PartialCirculant

KNOWN = types.MappingProxyType(
    {
        "downsample": f"fewer pixels, downsample:FACTOR or downsample:FACTOR:KERNEL of {', '.join(KERNELS)} (bicubic)",
        "blur": "a Gaussian blur, blur:SIGMA in pixels",
        "motion": "a motion blur, motion:LENGTH or motion:LENGTH:ANGLE in pixels and degrees (0)",
        "noise": "normal noise, noise:SIGMA in units of the range [-1, 1], or noise:SIGMA:clip",
        "poisson": "photon noise and dead pixels, poisson:PHOTONS or poisson:PHOTONS:KEEP, the share that lives (1)",
        "jpeg": "a JPEG file, jpeg:QUALITY",
        "quantise": "the levels of a file, quantise or quantise:BITS (8)",
        "grayscale": "no colour",
        "circulant": "compressed sensing with a partial circulant, circulant:RATIO of measurements to values",
        "dense": "compressed sensing with a dense matrix, dense:RATIO of measurements to values; small images only",
        "mask": "missing pixels, mask:MASK with a mask such as centre:0.25, of the size that is left of the image",
    }
)

# Five levels of each degradation; they stand for arguments, as in "downsample:XL" or "jpeg:M".
# Source: robust unsupervised StyleGAN restoration (Poirier-Ginter and Lalonde 2023), whose dead pixels are 1 - KEEP.
LEVELS = types.MappingProxyType(
    {
        "XS": {"downsample": "2", "poisson": "96:0.96", "jpeg": "18"},
        "S": {"downsample": "4", "poisson": "48:0.92", "jpeg": "15"},
        "M": {"downsample": "8", "poisson": "24:0.84", "jpeg": "12"},
        "L": {"downsample": "16", "poisson": "12:0.68", "jpeg": "9"},
        "XL": {"downsample": "32", "poisson": "6:0.36", "jpeg": "6"},
    }
)


def parse(text: str, *, size: int | tuple[int, int], key: Array | None = None, channels: int = 3) -> Operator:
    """Returns the operator that a text stands for: NAME, NAME:ARGUMENT..., or several of them joined by "+".

    Each acts on what the one before it leaves, so in "downsample:4+mask:centre" the mask has a quarter of the size.
    `KNOWN` lists names and arguments. A mask's file whose path holds a "+" cannot be named here.

    Args:
        text: such as "downsample:4:bicubic+jpeg:10", "blur:2+noise:0.1", "poisson:XL", "mask:strokes:0.2-0.3".
        size: of the images, one number or (height, width).
        key: draws masks and compressed sensing, each by `fold_in(key, position)`; None where nothing is drawn.
        channels: of the images.

    Raises:
        ValueError: for an unknown name, missing, surplus or malformed arguments, arguments that do not fit the image
            at that place, or a missing key.
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    image = jax.ShapeDtypeStruct((height, width, channels), jnp.float32)
    members = []
    for position, part in enumerate(text.split("+")):
        name, colon, arguments = part.partition(":")
        if name not in _READERS:
            raise ValueError(f"unknown degradation {part!r} in {text!r}; known: {', '.join(KNOWN)}")
        if colon and not arguments:
            raise ValueError(f"degradation {part!r} has nothing after its colon; {name}: {KNOWN[name]}")
        level, *rest = arguments.split(":")
        level = LEVELS.get(level, {}).get(name, level)
        own = None if key is None else jax.random.fold_in(key, position)
        try:
            members.append(_READERS[name](":".join([level, *rest]), own, image.shape))
            image = jax.eval_shape(members[-1], image)
        except ValueError as error:
            raise ValueError(f"degradation {part!r}: {error}; {name}: {KNOWN[name]}") from error
    return members[0] if len(members) == 1 else Composition.checked(members)


# A reader returns the operator of arguments, key, and the shape of what it acts on.
_Reader = Callable[[str, Array | None, tuple[int, ...]], Operator]


def _number(text: str) -> float:
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text, re.ASCII):
        raise ValueError(f"{text!r} is no number such as 4 or 0.5")
    return float(text)


def _word(text: str, *, expected: str) -> bool:
    if text != expected:
        raise ValueError(f"{text!r} is not {expected!r}")
    return True


def _split(arguments: str, *, least: int, most: int) -> list[str]:
    found = arguments.split(":") if arguments else []
    if not least <= len(found) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise ValueError(f"it takes {wanted} argument{'s' * (most != 1)}, got {len(found)}")
    return found


def _plain(make: Callable[..., Operator], *readers: Callable[[str], object], least: int) -> _Reader:
    """Returns a reader that gives `make` each argument as its own reader reads it."""

    def read(arguments: str, key: Array | None, shape: tuple[int, ...]) -> Operator:
        found = _split(arguments, least=least, most=len(readers))
        return make(*(reader(argument) for reader, argument in zip(readers, found, strict=False)))

    return read


def _need(key: Array | None) -> Array:
    if key is None:
        raise ValueError("it is drawn at random: pass key, such as jax.random.key(0)")
    return key


def _sensing(kind: type[PartialCirculant] | type[DenseGaussian]) -> _Reader:
    def read(arguments: str, key: Array | None, shape: tuple[int, ...]) -> Operator:
        (ratio,) = _split(arguments, least=1, most=1)
        return kind.draw(_need(key), shape, ratio=_number(ratio))

    return read


def _mask(arguments: str, key: Array | None, shape: tuple[int, ...]) -> Operator:
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"a mask by its name is for square images, and what is left here is {list(shape)}")
    return Mask.checked(masks.parse(arguments)(_need(key), shape[0]))


_READERS: dict[str, _Reader] = {
    "downsample": _plain(Downsample, _number, str, least=1),
    "blur": _plain(GaussianBlur, _number, least=1),
    "motion": _plain(MotionBlur, _number, _number, least=1),
    "noise": _plain(
        lambda sigma, clip=False: GaussianNoise(sigma, clip=clip),
        _number,
        functools.partial(_word, expected="clip"),
        least=1,
    ),
    "poisson": _plain(PoissonBernoulli, _number, _number, least=1),
    "jpeg": _plain(Jpeg, _number, least=1),
    "quantise": _plain(Quantise, _number, least=0),
    "grayscale": _plain(Grayscale, least=0),
    "circulant": _sensing(PartialCirculant),
    "dense": _sensing(DenseGaussian),
    "mask": _mask,
}
