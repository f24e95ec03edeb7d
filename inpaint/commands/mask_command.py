# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint mask`: draws masks into files, white is the hole.

    python -m inpaint mask --kind strokes:0.2-0.3 --size 512 --count 8 --output masks

The same seed gives the same masks, whatever their number and size.
"""

import pathlib

import jax
from absl import flags

from inpaint import masks
from inpaint.output import file_name
from stylegan_jax import image_io

_KIND = flags.DEFINE_string(
    "kind", "strokes:0.2-0.3", "Kind of mask: " + "; ".join(f"{name} ({what})" for name, what in masks.KNOWN.items())
)
_SIZE = flags.DEFINE_integer("size", 256, "Height and width in pixels.", lower_bound=8)
_COUNT = flags.DEFINE_integer("count", 1, "Number of masks.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the first mask; the next one has the next seed.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "out/masks", "Folder for the files, KIND_SEED.png.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files of the same name.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    generator, folder = masks.parse(_KIND.value), pathlib.Path(_OUTPUT.value)
    paths = [folder / f"{file_name(generator.name)}_{_SEED.value + i}.png" for i in range(_COUNT.value)]
    there = [path for path in paths if path.exists()]
    if there and not _OVERWRITE.value:
        raise ValueError(f"{there[0]} exists already; name another --output or pass --overwrite")
    shares = []
    for i, path in enumerate(paths):
        known = generator(jax.random.key(_SEED.value + i), _SIZE.value)
        image_io.write_image(path, 1 - 2 * known)
        shares.append(100 * (1 - known.mean()))
    print(f"{len(paths)} masks of {generator.name} in {folder}, hole {min(shares):.1f} to {max(shares):.1f} % (white)")
    return 0
