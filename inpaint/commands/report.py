# SPDX-License-Identifier: Apache-2.0
"""What `restore` and `recover` tell: with what they work, the search's progress on a terminal, results, warnings, and a
log for machines."""

import datetime
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import stylegan_jax as sg
from inpaint import config as _config
from inpaint import named_methods, output
from inpaint.photograph import Prepared
from inpaint.search.method import FeedForward, Fill, Method
from inpaint.search.result import Progress, Result
from inpaint.search.selection import Selection


class ProgressLine:
    """Shows how far a search is in one line that changes; made for a terminal.

    Args:
        before: text at its beginning, such as the image's number.
        others: seconds that images after this one will take, or None where that is not known.
    """

    def __init__(self, before: str = "", others: float | None = 0.0):
        self.before, self.others = before, others
        self.shown, self.first = 0.0, None

    def __call__(self, progress: Progress) -> None:
        """Shows a state of the search."""
        now = time.perf_counter()
        # The first report ends the compilation, which would spoil speed and ETA.
        if self.first is None:
            self.first = now, progress.done
        if now - self.shown < 0.2 and progress.done < progress.total:
            return
        self.shown = now
        speed = (progress.done - self.first[1]) / max(now - self.first[0], 1e-9)
        eta = "compiled"
        if speed:
            own = (progress.total - progress.done) / speed
            eta = f"{own:.0f} s left" + (f", {own + self.others:.0f} s for all" if self.others else "")
        line = f"  {self.before}{progress.done}/{progress.total} start-steps  {speed:.0f}/s  {eta}"
        line += f"  best {progress.best:.5f}"
        print(f"\r{line}   ", end="" if progress.done < progress.total else "\n", flush=True)


class Log:
    """Appends a line of JSON to a file for every event: `time` (UTC), `process`, `event`, and what belongs to it.

    Args:
        path: of the file, or None for no log.
        process: number of this process.
        every: least seconds between two lines about the progress of a search.

    Raises:
        ValueError: where the file cannot be written.
    """

    def __init__(self, path: str | None, *, process: int = 0, every: float = 5.0):
        self.path, self.process, self.every, self.written = path, process, every, -float("inf")
        try:
            if path is not None:
                pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
                open(path, "a", encoding="utf-8").close()
        except OSError as error:
            raise ValueError(f"--json_log {path} cannot be written: {error.strerror}") from error

    def write(self, event: str, facts: dict[str, Any]) -> None:
        """Writes one event."""
        if self.path is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "process": self.process, "event": event} | facts)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def progress(self, image: str, progress: Progress) -> None:
        """Writes how far the search for an image is, if the time has come."""
        now = time.monotonic()
        if self.path is not None and now - self.written >= self.every:
            self.written = now
            best = progress.best if abs(progress.best) < float("inf") else None
            self.write("progress", {"image": image, "done": progress.done, "total": progress.total, "best": best})


class Display:
    """Tells how the search for each image goes: on a terminal unless asked to be quiet, and in a log.

    Args:
        images: in all.
        quiet: whether nothing is shown on the terminal.
        log: for machines.
    """

    def __init__(self, images: int, *, quiet: bool, log: Log):
        self.images, self.log, self.shown = images, log, not quiet and sys.stdout.isatty()
        self.seconds: list[float] = []

    def search(self, number: int, image: str) -> Callable[[Progress], None] | None:
        """Returns what is told the progress of the search for image `number`, from 1, or None where nobody asks."""
        if not self.shown and self.log.path is None:
            return None
        before = f"[{number}/{self.images}] " if self.images > 1 else ""
        left = self.images - number
        others = left * sum(self.seconds) / len(self.seconds) if self.seconds else None if left else 0.0
        line = ProgressLine(before, others) if self.shown else None

        def tell(progress: Progress) -> None:
            self.log.progress(image, progress)
            if line:
                line(progress)

        return tell

    def ended(self, row: dict[str, Any]) -> None:
        """Notes what became of an image."""
        if row["status"] == "done":
            self.seconds.append(row["seconds"])
        self.log.write("image", row)


class Plan(NamedTuple):
    """What a call would do: images by what becomes of them, why some cannot be read, and the search of each of the
    others; its memory is an estimate in bytes for each device."""

    images: dict[str, int]
    troubles: list[str]
    starts: int = 0
    steps: int = 0
    chunk: int = 0
    devices: int = 1
    memory: int = 0


def print_plan(plan: Plan) -> int:
    """Prints a plan, and every trouble on stderr; returns the exit code that the call would have by then."""
    counts = [f"{number} {what}" for what, number in plan.images.items()] + [f"{len(plan.troubles)} unreadable"]
    print(f"plan       {', '.join(counts)}")
    if plan.starts:
        chunks = -(-plan.starts // plan.chunk)
        print(
            f"search     {plan.starts} starts x {plan.steps} steps for each image, {plan.chunk} at once in {chunks} "
            f"chunk{'s' * (chunks > 1)} on {plan.devices} device{'s' * (plan.devices > 1)}"
        )
        print(f"memory     about {plan.memory / 2**30:.2f} GiB on each device, beside the weights")
    for trouble in plan.troubles:
        print(f"inpaint restore: {trouble}", file=sys.stderr)
    return 0 if not plan.troubles else 3 if any(plan.images.values()) else 1


def introduction(
    config: _config.RestoreConfig, method: Method | FeedForward | Fill, model: sg.Model, generator: str | None
) -> list[str]:
    """Returns lines about device, generator (`generator` as it was named) and method."""
    device, search = jax.local_devices()[0], config.search
    lines = [f"device     {device.platform} ({device.device_kind}), jax {jax.__version__}"]
    lines.append(f"generator  {generator or 'demo'}, {model.resolution} px, {model.content_hash[:12]}")
    spaces = ", ".join(dict.fromkeys(phase.space.name for phase in method.phases)) if method.steps else ""
    if isinstance(method, FeedForward):
        behind = f", {method.steps} steps behind each" if method.steps else ""
        lines.append(f"method     {config.method}, {search.starts} samples{behind}, seed {search.seed}")
    else:
        begin = f" of {method.halving.begins(search.starts)} that begin" if method.steps and method.halving else ""
        searched = f", {search.starts} starts{begin} x {method.steps} steps in {spaces}, seed {search.seed}"
        lines.append(f"method     {config.method}{searched if method.steps else ''}")
    if named_methods.is_substitute(config):
        lines.append(
            "note       features of the discriminator stand in for LPIPS (--perceptual): not the published objective"
        )
    return lines


def hole_meaning(mask: object, polarity: str) -> str:
    """Returns which pixels are restored, in words."""
    if mask is None:
        return "transparent pixels are restored"
    return f"{'white' if polarity == 'white_hole' else 'black'} in the mask is restored"


def hole_warning(share: float, polarity: str, *, masked: bool = True) -> str | None:
    """Returns a warning where the share of the hole, in [0, 1], makes an inverted mask likely; `masked` tells whether
    there is a mask file."""
    if 0.005 <= share <= 0.6:
        return None
    if not masked:
        return f"the hole is {100 * share:.2g} % of the picture: its transparent pixels"
    other = "black_hole" if polarity == "white_hole" else "white_hole"
    return f"the hole is {100 * share:.2g} % of the picture: is the polarity inverted? (--mask_polarity={other})"


def frozen_warning(result: Result) -> list[str]:
    """Returns a warning where starts were stopped."""
    frozen = int(result.frozen.sum())
    return [f"{frozen} of {len(result.frozen)} starts met non-finite values and were stopped"] if frozen else []


def poor_warning(fit: float, what: str) -> list[str]:
    """Returns a warning where the best start meets what is known of the image at a PSNR of `fit` only."""
    if fit >= 15:
        return []
    return [f"the generator cannot show {what} well: is the image aligned as its training data?"]


def speed(starts: int, steps: int, seconds: float) -> str:
    """Returns how fast a search was, behind a comma, or nothing where there was none."""
    return f", {starts * steps / seconds:.0f} start-steps/s" if steps and seconds else ""


def print_skipped(folder: pathlib.Path) -> None:
    """Prints that a folder holds what was asked for."""
    print(f"skipped    {folder} holds this restoration already; --overwrite makes it anew")


def outcome(prepared: Prepared, result: Result, selection: Selection, seconds: float) -> dict[str, Any]:
    """Returns the figures of a restoration: seconds, how well the known pixels are met (dB), and warnings."""
    fit = float(output.psnr(selection.images[:1], prepared.image, prepared.weight)[0])
    warnings = frozen_warning(result) + poor_warning(fit, "the known pixels")
    return {"seconds": round(seconds, 2), "known_psnr": round(fit, 2), "warnings": warnings}


def print_single(row: dict[str, Any], folder: pathlib.Path, steps: int) -> None:
    """Prints what became of the one image of a call: figures, warnings, and where the results are."""
    if row["status"] == "skipped":
        print_skipped(folder)
        return
    rate = speed(row["starts"], steps, row["seconds"])
    print(f"done       {row['seconds']:.1f} s with compilation{rate}; known pixels met at {row['known_psnr']:.1f} dB")
    for warning in row["warnings"]:
        print(f"warning    {warning}")
    if "faces" in row:
        print(f"results    {folder}/photo.png, with all {row['faces']} faces; each has a folder of its own there")
        return
    pictures = [f"{kind}_1.png .. {kind}_{row['kept']}.png" for kind in ("restored", *["photo"] * row["photos"])]
    print(f"results    {folder}/contact_sheet.png, {', '.join(pictures)}, {output.SCORES}")


def print_row(row: dict[str, Any], count: int) -> None:
    """Prints one image of a folder: what became of it, in one line, and its warnings."""
    text = row["status"]
    if row["status"] == "done":
        text = f"hole {100 * row['hole_share']:.1f} %, {row['seconds']:.1f} s, known pixels {row['known_psnr']:.1f} dB"
    elif row["status"] == "skipped":
        text = "finished already, skipped"
    print(f"[{row['number']}/{count}] {row['image']}: {text}", flush=True)
    for warning in row.get("warnings", ()):
        print(f"warning    {row['image']}: {warning}", flush=True)


def print_end(rows: list[dict[str, Any]], folder: pathlib.Path, *, steps: int, seconds: float) -> int:
    """Prints the sums over a folder, and every failure on stderr; returns the exit code.

    Args:
        rows: what became of every image.
        folder: of the results.
        steps: of every start.
        seconds: that all took.

    Returns:
        0 where all went well, 1 where nothing did, 3 where some images failed.
    """
    made, failed = ([row for row in rows if row["status"] == status] for status in ("done", "failed"))
    counts = {state: sum(row["status"] == state for row in rows) for state in ("done", "skipped", "failed")}
    text = ", ".join(f"{number} {state}" for state, number in counts.items()) + f"; {folder}/{output.SUMMARY}"
    if made:
        start_steps = sum(row["starts"] for row in made) * steps
        text += f"; {seconds:.0f} s" + (f", {start_steps / seconds:.0f} start-steps/s" if steps and seconds else "")
    print(text, flush=True)
    for row in failed:
        print(f"inpaint restore: {row['image']} failed: {row['error']}", file=sys.stderr)
    return 0 if not failed else 1 if len(failed) == len(rows) else 3
