# SPDX-License-Identifier: Apache-2.0
"""What a restoration leaves in its folder: pictures, latents, scores and the settings that made them."""

import dataclasses
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

import stylegan_jax as sg
from inpaint.contact_sheet import contact_sheet
from inpaint.search.selection import Selection
from inpaint.search.solve import Result
from stylegan_jax import checkpoint, image_io

SCORES = "scores.json"


def psnr(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Returns the PSNR in dB (range 2) of clipped `a` against `b` `[h, w, c]`, weighted by `weight` `[h, w]`."""
    error = np.square(np.clip(a, -1, 1).astype(np.float64) - b) * weight[..., None]
    mean = error.sum() / (weight.sum() * a.shape[-1])
    return float(10 * np.log10(4 / max(mean, 1e-10)))


def check_folder(folder: str | os.PathLike, *, overwrite: bool) -> pathlib.Path:
    """Returns the output folder after checking that writing it will lose nothing.

    Raises:
        ValueError: where it exists without `overwrite`, or holds something other than a restoration.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        if not folder.is_dir():
            raise ValueError(f"--output {folder} is a file; name a folder")
        if any(folder.iterdir()):
            if not (folder / SCORES).is_file():
                raise ValueError(f"--output {folder} holds other files; name an empty or a new folder")
            if not overwrite:
                raise ValueError(f"--output {folder} holds a restoration already; name another or pass --overwrite")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe = folder.parent / f".{folder.name}.probe-{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be written: {error.strerror}") from error
    return folder


def write_folder(folder: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Calls `fill(partial)` and moves the finished folder to its place, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir()
        fill(partial)
        checkpoint.replace_directory(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def score_table(result: Result, selection: Selection, image: np.ndarray, *, seed: int) -> list[dict[str, Any]]:
    """Returns a row for every start, best first: terms, total, rank, PSNR of the raw render on `image` `[h, w, c]`."""
    known = np.asarray(result.problem.operator.known)
    rows = []
    for rank, start in enumerate(np.argsort(result.scores, kind="stable"), 1):
        rows.append(
            {
                "rank": rank,
                "start": int(start),
                "kept_as": [int(i) + 1 for i in np.flatnonzero(selection.starts == start)],
                "seed": seed,
                "candidate": int(result.candidates[start]),
                "total": float(result.scores[start]),
                "terms": {name: float(share[start]) for name, share in result.terms.items()},
                "known_psnr": psnr(result.raw[start], image, known),
                "frozen": bool(result.frozen[start]),
            }
        )
    return rows


def write_restoration(
    folder: pathlib.Path,
    *,
    model: sg.Model,
    image: np.ndarray,
    known: np.ndarray,
    truth: np.ndarray | None,
    result: Result,
    selection: Selection,
    raw: np.ndarray,
    restored: np.ndarray,
    settings: dict[str, Any],
) -> None:
    """Writes the folder of one restored image.

    Args:
        folder: destination.
        model: the generator used.
        image: input at the generator's size `[h, w, c]`; known: `[h, w]`.
        truth: the whole image where somebody knows it.
        result, selection: of the search.
        raw, restored: renders and composites of the selection `[keep, h, w, c]`.
        settings: the resolved config and how it was called, JSON-like.
    """
    rows = score_table(result, selection, image, seed=settings["config"]["search"]["seed"])

    def fill(partial: pathlib.Path) -> None:
        scores = selection.scores
        titles = [f"restored {i} (score {score:.4f})" for i, score in enumerate(scores, 1)]
        sheet = contact_sheet(image, known, restored, np.clip(raw, -1, 1), truth=truth, titles=titles)
        image_io.write_image(partial / "contact_sheet.png", sheet)
        image_io.write_image(partial / "input.png", image * (known > 0)[..., None])
        image_io.write_image(partial / "mask.png", 1 - 2 * known)
        for i, (picture, render) in enumerate(zip(restored, raw, strict=True), 1):
            image_io.write_image(partial / f"restored_{i}.png", picture)
            image_io.write_image(partial / f"raw_{i}.png", render)
        labels = {} if result.labels is None else {"c": result.labels[selection.starts]}
        np.savez(
            partial / "latents.npz",
            w=selection.ws,
            noise_mode=settings["config"]["search"]["noise"],
            generator_hash=model.content_hash or "",
            starts=selection.starts,
            scores=scores,
            known=known,
            image=image_io.to_uint8(image * (known > 0)[..., None]),
            **labels,
        )
        (partial / SCORES).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        facts = settings | {
            "generator": {
                "content_hash": model.content_hash,
                "config": dataclasses.asdict(model.generator.config),
                "provenance": dict(model.provenance),
            },
            "chunk": result.chunk,
            "versions": checkpoint.library_versions(),
        }
        (partial / "config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    write_folder(folder, fill)
