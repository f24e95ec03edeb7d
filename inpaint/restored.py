# SPDX-License-Identifier: Apache-2.0
"""A finished restoration read back from its folder, for what comes after it."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

import stylegan_jax as sg
from inpaint import blend, holes, output
from inpaint import config as _config
from inpaint.photograph import Prepared, prepare, read_photograph
from stylegan_jax import checkpoint, image_io, rendering

LATENTS = "latents.npz"


def _stored(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the file of latents, or of a learned inpainter's styles where those alone are not the image."""
    styles = pathlib.Path(folder) / output.STYLES
    return styles if styles.is_file() else pathlib.Path(folder) / LATENTS


@dataclasses.dataclass(frozen=True)
class Restored:
    """What it takes to go on from a restoration.

    Attributes:
        settings: of its `config.json`.
        ws: latents `[keep, num_ws, w_dim]`, best first.
        noise: what the generator's noise inputs got, "const" or "none".
        image: `[h, w, c]` in [-1, 1] at the generator's size, of which the known pixels count.
        known: `[h, w]` in [0, 1], what composites keep; weight: `[h, w]`, what a search looks at.
        prepared: the photograph with its square, or None where its files are gone or changed, or there never were any.
        notes: what a person should know.
        network: content hash of the learned inpainter that makes images of `ws`, or None for the generator alone.
        expected: `[s, s, c]`, what the encoder expected of the image, where composites went towards it.
    """

    settings: dict[str, Any]
    ws: np.ndarray
    noise: str
    image: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    prepared: Prepared | None
    notes: tuple[str, ...]
    network: str | None = None
    expected: np.ndarray | None = None

    @property
    def config(self) -> _config.RestoreConfig:
        """How composites were made; all else is as it is by default."""
        stored = self.settings["config"]
        names = ("composite", *(name for kind in _config.COMPOSITES.values() for name in kind.settings))
        return _config.RestoreConfig(**{name: stored[name] for name in names if name in stored})

    def composites(self, raw: np.ndarray, *, before: np.ndarray | None = None) -> np.ndarray:
        """Returns renders `[..., h, w, c]` with the known pixels of the input, as the restoration made them.

        `before` `[..., h, w, c]` are renders from before an edit: what was expected of those is no reason to undo it,
        so that the edited ones are corrected by as much as they were.
        """
        config, means = self.config, self.expected
        if before is not None and means is not None:
            raw = raw + np.asarray(blend.correction(before, means, share=config.expected_share))
            means = None
        return _config.composite(config, raw, self.image, self.known, means=means)


def read_settings(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns the settings of the finished restoration in a folder.

    Raises:
        ValueError: no such folder, none of one restoration, or one without latents.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name one that `restore` wrote")
    if not (folder / output.CONFIG).is_file():
        several = (folder / output.SUMMARY).is_file()
        what = "holds many restorations; name the folder of one" if several else "holds no finished restoration"
        raise ValueError(f"{folder} {what}")
    try:
        found = json.loads((folder / output.CONFIG).read_text(encoding="utf-8"))
        stored, options, _ = found["config"], found["options"], found["inputs"]["image_sha256"]
        recovered = "degradation" in options
        _ = recovered or options["mask_band"]
        whole = stored["composite"] in _config.COMPOSITES
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / output.CONFIG} cannot be read; restore the image again") from error
    if recovered:
        raise ValueError(f"{folder} holds what `recover` found, and not what `restore` did; only that can be edited")
    if not whole:
        raise ValueError(f"{folder / output.CONFIG} names an unknown composite; restore the image again")
    if not _stored(folder).is_file():
        raise ValueError(
            f"{folder} holds no {LATENTS}: the method {found.get('method')} makes an image without latents"
        )
    return found


def _prepared(settings: dict[str, Any], model: sg.Model) -> tuple[Prepared | None, tuple[str, ...]]:
    """Returns the photograph of a restoration and its square, if the files are what they were, and notes."""
    inputs, options = settings["inputs"], settings["options"]
    files = {settings["image"]: inputs["image_sha256"]}
    if settings["mask"] is not None:
        files[settings["mask"]] = inputs["mask_sha256"]
    if None in files.values():
        return None, ()  # the sample portrait
    gone = [
        path for path, digest in files.items() if not os.path.isfile(path) or checkpoint.file_sha256(path) != digest
    ]
    if gone:
        return None, (f"{gone[0]} is not there any more, or has changed; results have the generator's size only",)
    photograph = read_photograph(
        settings["image"],
        mask=settings["mask"],
        polarity=options["mask_polarity"],
        threshold=options["mask_threshold"],
    )
    landmarks = None if inputs["landmarks"] is None else np.asarray(inputs["landmarks"])
    dilate, band = options["mask_dilate"], options["mask_band"]
    found = prepare(photograph, model.resolution, landmarks=landmarks, dilate=dilate, band=band)
    if model.generator.config.image_channels == 1:
        found = dataclasses.replace(found, image=found.image.mean(-1, keepdims=True))
    return found, ()


def read_restoration(folder: str | os.PathLike, settings: dict[str, Any], model: sg.Model) -> Restored:
    """Returns the restoration in a folder.

    Args:
        folder: that `restore` wrote for one image.
        settings: of `read_settings`.
        model: the generator that it was made with.

    Raises:
        ValueError: latents that are unreadable, of another generator, or stored without the image.
    """
    path = _stored(folder)
    ws, noise = rendering.read_latents(path, model)
    config = model.generator.config
    with np.load(path, allow_pickle=False) as arrays:
        shown = {name: arrays[name] for name in ("known", "image") if name in arrays.files}
        network = str(arrays["network_hash"]) if "network_hash" in arrays.files else None
        expected = arrays["expected"] if "expected" in arrays.files else None
    size = (config.resolution, config.resolution)
    shapes = {name: array.shape for name, array in shown.items()}
    if shapes != {"known": size, "image": (*size, config.image_channels)}:
        raise ValueError(f"{path} does not hold image and mask at the generator's size; restore the image again")
    image, known = image_io.from_uint8(shown["image"]), shown["known"].astype(np.float32)
    prepared, notes = _prepared(settings, model)
    if prepared is None:
        weight = holes.grown(known, settings["options"]["mask_band"])
        return Restored(settings, ws, noise, image, known, weight, None, notes, network, expected)
    # Not rounded to 8 bits, as the restoration saw it.
    seen = prepared.image, prepared.known, prepared.weight
    return Restored(settings, ws, noise, *seen, prepared, notes, network, expected)
