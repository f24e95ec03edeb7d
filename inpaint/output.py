# SPDX-License-Identifier: Apache-2.0
"""What a restoration or recovery leaves in its folder: pictures, latents, scores and the settings that made them."""

import dataclasses
import json
import os
import pathlib
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stylegan_jax as sg
from inpaint import metrics
from inpaint.contact_sheet import contact_sheet, recovery_sheet
from inpaint.measurement import again as measured_again
from inpaint.measurement import is_picture
from inpaint.photograph import Prepared
from inpaint.search.result import Result
from inpaint.search.selection import Selection
from stylegan_jax import checkpoint, image_io

SCORES, CONFIG, SUMMARY = "scores.json", "config.json", "summary.json"
# Output styles of a learned inpainter, which give the image together with its network.
STYLES = "styles.npz"


_psnr = jax.jit(jax.vmap(metrics.psnr, in_axes=(0, None, None)))


def psnr(images: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns `inpaint.metrics.psnr` of every image, `[n]`, for `images` `[n, h, w, c]`, `truth` `[h, w, c]` and
    `weight` `[h, w]`."""
    return np.asarray(_psnr(jnp.asarray(images), jnp.asarray(truth), jnp.asarray(weight)))


def file_name(text: str) -> str:
    """Returns `text` as a file name; where more than a colon had to go, its checksum keeps different texts apart."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    return safe if safe == text.replace(":", "_") else f"{zlib.crc32(text.encode()):08x}_{safe}"


def check_folder(folder: str | os.PathLike, *, held: tuple[str, ...] = (SCORES,)) -> pathlib.Path:
    """Returns the output folder after checking that it can be written, and holds nothing foreign.

    Args:
        folder: new, empty, or holding one of the files `held`, which tell that it came from an earlier run.
        held: names of files.

    Raises:
        ValueError: where it is a file, holds something else, or cannot be written.
    """
    folder = pathlib.Path(folder)
    try:
        if folder.exists():
            if not folder.is_dir():
                raise ValueError(f"--output {folder} is a file; name a folder")
            if any(folder.iterdir()) and not any((folder / name).is_file() for name in held):
                raise ValueError(f"--output {folder} holds other files; name an empty or a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe = folder.parent / f".{folder.name}.probe-{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be written: {error.strerror}") from error
    return folder


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Returns a nested dictionary as {dotted name: value}."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}" if name else key).items()}


def request(settings: dict[str, Any], content_hash: str | None) -> dict[str, Any]:
    """Returns what decides a result: of `settings` the config, inputs, options and method, and the generator's hash."""
    chosen = {name: settings.get(name) for name in ("config", "inputs", "options", "method")}
    return json.loads(json.dumps(chosen | {"generator": content_hash}))


def finished(folder: pathlib.Path, settings: dict[str, Any], content_hash: str | None) -> bool:
    """Returns whether a folder holds the restoration that `settings` and a generator's hash describe.

    Raises:
        ValueError: where it holds another restoration.
    """
    if not (folder / SCORES).is_file():
        return False
    try:
        facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        before = request(facts, facts["generator"]["content_hash"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before = {}
    before, now = _flat(before), _flat(request(settings, content_hash))
    other = sorted(name for name in before | now if before.get(name) != now.get(name))
    if other:
        differs = ", ".join(other[:4]) + (", .." if len(other) > 4 else "")
        raise ValueError(
            f"--output {folder} holds another restoration ({differs} differ); name another folder or pass --overwrite"
        )
    return True


def write_folder(folder: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Calls `fill(partial)` and moves the finished folder to its place, whole or not at all.

    Raises:
        ValueError: where it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir()
        fill(partial)
        checkpoint.replace_directory(partial, folder)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def begin_summary(folder: pathlib.Path) -> None:
    """Makes the folder of many restorations with an empty summary in it, unless it has one: the folder is known as
    ours from its first moment, also to other processes that begin it."""
    if (folder / SUMMARY).exists():
        return
    partial = folder.with_name(f".{folder.name}.partial-{secrets.token_hex(4)}")
    try:
        write_summary(partial, [])
        os.rename(partial, folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not (folder / SUMMARY).exists():
            raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error


def write_summary(folder: pathlib.Path, rows: list[dict[str, Any]], *, index: int = 0, count: int = 1) -> None:
    """Writes what became of the images of a folder so far, whole or not at all.

    Args:
        folder: of all restorations.
        rows: of this process; `number` is an image's place among all.
        index, count: of this process among those that share the images. Each keeps a file of its own, and the summary
            is made from the files of all: whoever is last has everything.
    """
    if count > 1:
        _write_json(folder / _part(index, count), rows)
    files = [folder / _part(other, count) for other in range(count) if other != index]
    while True:
        others = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
        found = sorted((row for part in (rows, *others) for row in part), key=lambda row: row["number"])
        counts = {state: sum(row["status"] == state for row in found) for state in ("done", "skipped", "failed")}
        _write_json(folder / SUMMARY, counts | {"images": found})
        # Another process may have ended between the reading and the writing, and have been overwritten.
        if others == [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]:
            return


def _part(index: int, count: int) -> str:
    return f"summary.{index}-of-{count}.json"


def _write_json(path: pathlib.Path, value: Any) -> None:
    image_io.write_text(path, json.dumps(value, indent=1) + "\n")


def score_table(
    result: Result, selection: Selection, *, seed: int, figures: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Returns a row for every start, best first: terms, total, rank, and of `figures` `[starts]` its own by name."""
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
                "attributes": {name: float(p[start]) for name, p in result.attributes.items()},
                **{name: float(values[start]) for name, values in figures.items()},
                "frozen": bool(result.frozen[start]),
                "steps": 0 if result.steps is None else int(result.steps[start]),
            }
        )
    return rows


def _write_latents(path: pathlib.Path, result: Result, selection: Selection, facts: dict[str, Any]) -> None:
    """Writes what it takes to render the selection again."""
    labels = {} if result.labels is None else {"c": result.labels[selection.starts]}
    np.savez(path, w=selection.ws, starts=selection.starts, scores=selection.scores, **facts, **labels)


def _write_variables(path: pathlib.Path, result: Result, selection: Selection) -> None:
    """Writes the selection's variables of a space whose latents do not say all about an image."""
    leaves = jax.tree_util.tree_leaves_with_path(result.variables)
    named = {jax.tree_util.keystr(where, simple=True, separator="|"): x[selection.starts] for where, x in leaves}
    np.savez(path, starts=selection.starts, scores=selection.scores, **named)


def _write_search(
    folder: pathlib.Path,
    *,
    model: sg.Model,
    result: Result,
    selection: Selection,
    figures: Mapping[str, np.ndarray],
    noise: str | None,
    shown: Mapping[str, np.ndarray],
    settings: dict[str, Any],
) -> None:
    """Writes what a search leaves beside pictures: latents or variables, scores and settings.

    The arguments are those of `write_restoration`; `figures` `[starts]` go into the scores, and `shown`, arrays
    `[h, w, ...]`, beside the latents.
    """
    if selection.ws is not None and noise is not None:
        made_with = {"noise_mode": noise, "generator_hash": model.content_hash or ""}
        _write_latents(folder / "latents.npz", result, selection, made_with | dict(shown))
    elif result.variables is not None:
        _write_variables(folder / "variables.npz", result, selection)
    network = settings["options"].get("networks", {}).get(settings["method"])
    if selection.ws is not None and noise is None and network is not None:
        # Of a trained network: it makes the image of these, and of edited ones, by the same skip path.
        made_with = {"noise_mode": "none", "generator_hash": model.content_hash or "", "network_hash": network}
        _write_latents(folder / STYLES, result, selection, made_with | dict(shown))
    rows = score_table(result, selection, seed=settings["config"]["search"]["seed"], figures=figures)
    (folder / SCORES).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    facts = settings | {
        "generator": {
            "content_hash": model.content_hash,
            "config": dataclasses.asdict(model.generator.config),
            "provenance": dict(model.provenance),
        },
        "chunk": result.chunk,
        "evaluations": {"forwards": result.forwards, "gradients": result.gradients},
        "versions": checkpoint.library_versions(),
    }
    (folder / CONFIG).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def write_restoration(
    folder: pathlib.Path,
    *,
    model: sg.Model,
    prepared: Prepared,
    truth: np.ndarray | None,
    result: Result,
    selection: Selection,
    raw: np.ndarray,
    restored: np.ndarray,
    photos: Sequence[np.ndarray],
    noise: str | None,
    extras: Sequence[Callable[[pathlib.Path], None]] = (),
    settings: dict[str, Any],
    expected: np.ndarray | None = None,
) -> None:
    """Writes the folder of one restored image.

    Args:
        folder: destination.
        model: the generator used.
        prepared: what was restored.
        truth: the whole image `[h, w, c]` where somebody knows it.
        result, selection: of the search.
        raw, restored: renders and composites of the selection `[keep, h, w, c]`.
        photos: the results in the whole photograph `[height, width, 3]` uint8, or none.
        noise: with which the latents give the renders again; where they do not, None, the variables of the search's
            space are written in their place.
        extras: each writes something more (an animation) into the folder that it is called with.
        settings: the resolved config and how it was called, JSON-like.
        expected: `[s, s, c]`, what composites went towards, or None.

    Raises:
        ValueError: where the folder cannot be written.
    """
    image, known = prepared.image, prepared.known
    fits = psnr(result.raw, image, np.asarray(result.problem.operator.known))

    def fill(partial: pathlib.Path) -> None:
        titles = [f"restored {i} (score {score:.4f})" for i, score in enumerate(selection.scores, 1)]
        sheet = contact_sheet(image, known, restored, np.clip(raw, -1, 1), truth=truth, titles=titles)
        image_io.write_image(partial / "contact_sheet.png", sheet)
        visible = image * (known > 0)[..., None]
        image_io.write_image(partial / "input.png", visible)
        image_io.write_image(partial / "mask.png", 1 - 2 * known)
        for i, (picture, render) in enumerate(zip(restored, raw, strict=True), 1):
            image_io.write_image(partial / f"restored_{i}.png", prepared.frame.shown(picture))
            image_io.write_image(partial / f"raw_{i}.png", render)
        for i, photo in enumerate(photos, 1):
            image_io.write_image(partial / f"photo_{i}.png", photo, profile=prepared.photograph.profile)
        for write in extras:
            write(partial)
        _write_search(
            partial,
            model=model,
            result=result,
            selection=selection,
            figures={"known_psnr": fits},
            noise=noise,
            shown={"known": known, "image": image_io.to_uint8(visible)}
            | ({} if expected is None else {"expected": expected}),
            settings=settings,
        )

    write_folder(folder, fill)


def write_recovery(
    folder: pathlib.Path,
    *,
    model: sg.Model,
    truth: np.ndarray | None,
    result: Result,
    selection: Selection,
    recovered: np.ndarray,
    raw: np.ndarray,
    figures: Mapping[str, np.ndarray],
    noise: str | None,
    settings: dict[str, Any],
) -> None:
    """Writes the folder of one image that was recovered from a measurement of it.

    Args:
        folder: destination.
        model: the generator used.
        truth: the whole image `[h, w, c]` where somebody knows it.
        result, selection: of the search; the measurement is that of its problem.
        recovered, raw: results and renders of the selection `[keep, h, w, c]`; they differ where pixels are known.
        figures: of every start, `[starts]`; "measured_psnr" among them.
        noise, settings: as in `write_restoration`.

    Raises:
        ValueError: where the folder cannot be written.
    """
    operator, measurement = result.problem.operator, np.asarray(result.problem.measurement)
    pictured = is_picture(measurement.shape)
    raw = np.clip(raw, -1, 1)

    def fill(partial: pathlib.Path) -> None:
        sheet = recovery_sheet(
            measurement if pictured else None,
            recovered,
            np.asarray(measured_again(result.problem, raw)) if pictured else None,
            truth=truth,
            titles=[f"recovered {i} (score {score:.4f})" for i, score in enumerate(selection.scores, 1)],
            below=[f"measured again: {figures['measured_psnr'][start]:.1f} dB" for start in selection.starts],
        )
        image_io.write_image(partial / "contact_sheet.png", sheet)
        if pictured:
            image_io.write_image(partial / "measurement.png", measurement)
        else:
            np.save(partial / "measurement.npy", measurement)
        if truth is not None:
            image_io.write_image(partial / "truth.png", truth)
        for i, picture in enumerate(recovered, 1):
            image_io.write_image(partial / f"recovered_{i}.png", picture)
        for i, render in enumerate(raw if operator.known is not None else (), 1):
            image_io.write_image(partial / f"raw_{i}.png", render)
        _write_search(
            partial,
            model=model,
            result=result,
            selection=selection,
            figures=figures,
            noise=noise,
            shown={},
            settings=settings,
        )

    write_folder(folder, fill)
