# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint distance`: the Frechet inception distance (FID) between two sets of images.

    python -m inpaint distance --real faces.npz --split report --made out/report/images/ridge/centre_0.25/0 \\
        --inception checkpoints/inception --output out/fid.json
    python -m inpaint distance --real faces/ --inception checkpoints/inception --statistics out/faces.npz
    python -m inpaint distance --real out/faces.npz --made out/photos --inception checkpoints/inception

A set is a folder (with the folders below it), an npz with uint8 images [n, h, w, c], or an npz with mu and sigma, as
pytorch-fid and --statistics write it. Images are not resized but for the network: bring both sets to one size first.
The two conventions give different figures, and FID falls with the number of images: compare like with like only.
"""

import json
import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from inpaint.metrics import frechet_inception as fid
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features import Inception

_REAL = flags.DEFINE_string("real", None, "True images: a folder, an npz of images, or an npz of statistics.")
_MADE = flags.DEFINE_string("made", None, "Restored or generated images: likewise.")
_SPLIT = flags.DEFINE_string("split", None, "Of --real, take only the images of an npz whose 'split' is this.")
_INCEPTION = flags.DEFINE_string("inception", None, "Checkpoint of the network, converted by python -m convert.")
_CONVENTION = flags.DEFINE_enum(
    "convention", "pytorch_fid", fid.CONVENTIONS, "Whose figures they are to be compared with."
)
_STATISTICS = flags.DEFINE_string("statistics", None, "npz to which the statistics of --real are written.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figure and what it was computed from.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files of an earlier call.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")

TOLD_EVERY = 1000  # images


def _told(images: Iterator[np.ndarray], flag: str) -> Iterator[np.ndarray]:
    for number, image in enumerate(images, 1):
        yield image
        if number % TOLD_EVERY == 0:
            print(f"--{flag}: {number} images", file=sys.stderr, flush=True)


def _opened(flag: flags.FlagHolder, split: str | None) -> fid.InceptionStatistics | Iterator[np.ndarray]:
    """Returns the statistics that the flag names, or images yet to be read."""
    try:
        if fid.holds_statistics(flag.value):
            if split is not None:
                raise ValueError(f"split {split!r} needs images, {flag.value} holds statistics")
            found = fid.read_statistics(flag.value)
            if found.convention not in (None, _CONVENTION.value):
                raise ValueError(f"{flag.value} holds statistics of the convention {found.convention}")
            return found
        return _told(fid.read_images(flag.value, split=split), flag.name)
    except ValueError as error:
        raise ValueError(f"--{flag.name}: {error}") from error


def _statistics(flag: flags.FlagHolder, found, network: Inception, content_hash: str) -> fid.InceptionStatistics:
    try:
        if not isinstance(found, fid.InceptionStatistics):
            found = fid.inception_statistics(network, found, convention=_CONVENTION.value, network_hash=content_hash)
    except ValueError as error:
        raise ValueError(f"--{flag.name}: {error}") from error
    if found.count is not None and found.count <= len(found.mu):
        print(
            f"warning: --{flag.name} has {found.count} images, no more than the network has features ({len(found.mu)}):"
            " the covariance is singular and the distance too large; compare at equal numbers of images only",
            file=sys.stderr,
        )
    return found


def _facts(found: fid.InceptionStatistics, path: str, split: str | None) -> dict[str, str | int | None]:
    return {"name": pathlib.Path(path).name, "split": split, "images": found.count}


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    for flag in (_REAL, _INCEPTION, *(() if _STATISTICS.value else (_MADE,))):
        if not flag.value:
            raise ValueError(f"--{flag.name} is needed")
    for flag in (_STATISTICS, _OUTPUT):
        if flag.value and pathlib.Path(flag.value).exists() and not _OVERWRITE.value:
            raise ValueError(f"--{flag.name} {flag.value} exists already; name another or pass --overwrite")
    if _OUTPUT.value and not _MADE.value:
        raise ValueError("--output takes a distance, and --made is not given")
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    # What can be wrong with files is found before the network runs.
    opened = [(flag, _opened(flag, split)) for flag, split in ((_REAL, _SPLIT.value), (_MADE, None)) if flag.value]
    network, content_hash = checkpoint.load_network(_INCEPTION.value, Inception)
    sets = [_statistics(flag, found, network, content_hash) for flag, found in opened]
    if _STATISTICS.value:
        fid.write_statistics(_STATISTICS.value, sets[0])
        print(f"statistics of {sets[0].count} images in {_STATISTICS.value}")
    if not _MADE.value:
        return 0
    distance = fid.inception_distance(*sets)
    facts = {"frechet_inception_distance": distance, "convention": _CONVENTION.value, "inception": content_hash}
    facts |= {"real": _facts(sets[0], _REAL.value, _SPLIT.value), "made": _facts(sets[1], _MADE.value, None)}
    facts |= {"device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}"}
    facts |= {"versions": checkpoint.library_versions()}
    if _OUTPUT.value:
        text = json.dumps(facts, indent=1) + "\n"
        image_io.write_atomically(_OUTPUT.value, lambda path: pathlib.Path(path).write_text(text, encoding="utf-8"))
    counts = " and ".join("unknown" if one.count is None else str(one.count) for one in sets)
    print(f"FID {distance:.6g} ({_CONVENTION.value}; {counts} images)")
    return 0
