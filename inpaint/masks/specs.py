# SPDX-License-Identifier: Apache-2.0
"""Mask generators by text, for command lines and tables of results.

Masks are `known` `[size, size]` float32, 1 = keep, 0 = hole.
"""

import dataclasses
import functools
import re
import types
from collections.abc import Callable

import numpy as np
from jax import Array

from inpaint.masks import conditions, drawings, files, freeform, irregular, regions, scattered
from stylegan_jax import image_io

KNOWN = types.MappingProxyType(
    {
        "centre": "a centred square, centre:SHARE of the area (0.25)",
        "upper_half": "the upper half",
        "lower_half": "the lower half",
        "left_half": "the left half",
        "right_half": "the right half",
        "mouth": "an ellipse over the mouth of an aligned face (15 % of the area)",
        "eyes": "a rectangle over the eyes and brows of an aligned face (12 % of the area)",
        "rectangles": "one random rectangle, rectangles:LOW-HIGH shares of the area (0.1-0.4)",
        "noise": "random pixels, noise:SHARE of all (0.8)",
        "square": "one square of 85/256 of the side at a random place",
        "strokes": "smooth random strokes like hand-drawn ones, strokes:LOW-HIGH shares of the area (0-1)",
        "strokes_and_square": "both together, strokes_and_square:LOW-HIGH shares of the area (0-1)",
        "brush": "rectangles and brush strokes of CoModGAN, brush:LOW-HIGH or one of brush:"
        + ", ".join(freeform.BRUSH_BANDS),
        "quickdraw": "strokes of QuickDraw's simplified drawings, quickdraw:PATH or quickdraw:PATH@LOW-HIGH (0-1)",
        "file": "a mask file or a random one of a folder, file:PATH (white = hole) or file:PATH@black_hole",
    }
)
_NUMBER = r"(\d+\.?\d*|\.\d+)"


@dataclasses.dataclass(frozen=True)
class Generator:
    """A mask generator with all its options: `generator(key, size)` is `known` `[size, size]`.

    `name` is its canonical text: `parse(generator.name) == generator`, and generators are equal where names are.
    """

    name: str
    draw: Callable[[Array, int], np.ndarray] = dataclasses.field(compare=False, repr=False)

    def __call__(self, key: Array, size: int) -> np.ndarray:
        """Returns `known` `[size, size]` float32, 1 = keep, 0 = hole, for a JAX key and a size in pixels."""
        return self.draw(key, size)


def parse(spec: str) -> Generator:
    """Returns the generator that a text NAME or NAME:ARGUMENT stands for; `KNOWN` lists names and arguments.

    Args:
        spec: such as "centre", "noise:0.5", "strokes:0.2-0.3", "brush:easy", "file:mask.png".

    Raises:
        ValueError: for an unknown name, a missing, surplus or malformed argument, or an impossible share or band.
    """
    name, colon, argument = spec.partition(":")
    if name not in _READERS:
        raise ValueError(f"unknown mask {spec!r}; known: {', '.join(KNOWN)}")
    if colon and not argument:
        raise ValueError(f"mask {spec!r} has nothing after its colon; {name}: {KNOWN[name]}")
    try:
        argument, draw = _READERS[name](argument)
    except ValueError as error:
        raise ValueError(f"mask {spec!r}: {error}; {name}: {KNOWN[name]}") from error
    return Generator(f"{name}:{argument}" if argument else name, draw)


# What a reader returns: the canonical argument and the function that draws.
_Read = tuple[str, Callable[[Array, int], np.ndarray]]


def _text(number: float) -> str:
    """Returns the shortest decimal text that reads back as the same number, without an exponent."""
    return np.format_float_positional(number, trim="-")


def _band(text: str) -> tuple[float, float]:
    match = re.fullmatch(f"{_NUMBER}-{_NUMBER}", text, re.ASCII)
    if not match:
        raise ValueError(f"{text!r} is no band LOW-HIGH such as 0.1-0.4")
    low, high = float(match[1]), float(match[2])
    conditions.check_band(low, high)
    return low, high


def _fixed(draw: Callable[[Array, int], np.ndarray], argument: str) -> _Read:
    if argument:
        raise ValueError(f"it takes no argument, got {argument!r}")
    return "", draw


def _with_share(draw: Callable[..., np.ndarray], default: str, argument: str) -> _Read:
    text = argument or default
    if not re.fullmatch(_NUMBER, text, re.ASCII):
        raise ValueError(f"{text!r} is no share such as {default}")
    share = float(text)
    conditions.check_share(share)
    return _text(share), functools.partial(draw, share=share)


def _with_band(draw: Callable[..., np.ndarray], default: str, argument: str) -> _Read:
    low, high = _band(argument or default)
    return f"{_text(low)}-{_text(high)}", functools.partial(draw, low=low, high=high)


def _brush(argument: str) -> _Read:
    named = freeform.BRUSH_BANDS.get(argument)
    return _with_band(freeform.brushes, "0-1", "-".join(map(_text, named)) if named else argument)


def _quickdraw(argument: str) -> _Read:
    path, at, band = argument.rpartition("@")
    # A path may hold an @ of its own.
    if not at or not re.fullmatch(r"[\d.]+-[\d.]+", band, re.ASCII):
        path, band = argument, ""
    if not path:
        raise ValueError("it needs a path")
    band, draw = _with_band(drawings.quickdraw, "0-1", band)
    return f"{path}@{band}", functools.partial(draw, path=path)


def _file(argument: str) -> _Read:
    path, at, polarity = argument.rpartition("@")
    if not at or polarity not in image_io.MASK_POLARITIES:
        path, polarity = argument, "white_hole"
    if not path:
        raise ValueError("it needs a path")
    draw = functools.partial(files.from_files, path=path, polarity=polarity)
    # The default is named only where the path's own end would be taken for a polarity.
    plain = polarity == "white_hole" and path.rpartition("@")[2] not in image_io.MASK_POLARITIES
    return path if plain else f"{path}@{polarity}", draw


_READERS: dict[str, Callable[[str], _Read]] = {
    "centre": functools.partial(_with_share, regions.centre, "0.25"),
    **{
        f"{side}_half": functools.partial(_fixed, functools.partial(regions.halves, side=side))
        for side in regions.SIDES
    },
    "mouth": functools.partial(_fixed, regions.mouth),
    "eyes": functools.partial(_fixed, regions.eyes),
    "rectangles": functools.partial(_with_band, scattered.rectangles, "0.1-0.4"),
    "noise": functools.partial(_with_share, scattered.noise, "0.8"),
    "square": functools.partial(_fixed, scattered.squares),
    "strokes": functools.partial(_with_band, irregular.strokes, "0-1"),
    "strokes_and_square": functools.partial(_with_band, irregular.strokes_and_square, "0-1"),
    "brush": _brush,
    "quickdraw": _quickdraw,
    "file": _file,
}
