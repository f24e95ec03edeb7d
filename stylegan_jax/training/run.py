# SPDX-License-Identifier: Apache-2.0
"""The loop around a training step: a log in a folder, and snapshots at intervals."""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array


def run(
    folder: pathlib.Path,
    step: Callable[[int], dict[str, Array]],
    *,
    seen: int,
    images: int,
    batch: int,
    snapshot: Callable[[], None],
    snapshot_images: int,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Trains from `seen` images to `images`, writing a line of `log.jsonl` and a snapshot at intervals and at the end.

    Args:
        folder: of the run.
        step: takes the number of a step and returns its statistics, scalars by name.
        seen: images seen before.
        images: length of the run; batch: images of one step.
        snapshot: stores the state.
        snapshot_images: images between two snapshots.
        report: called with every line of the log: the means of the statistics, and images per second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pending, began, saved = [], time.perf_counter(), seen
    while seen < images:
        pending.append(step(seen // batch))
        seen += batch
        if seen - saved < snapshot_images and seen < images:
            continue
        # Not every step has them all.
        names = dict.fromkeys(n for s in pending for n in s)
        means = {n: round(float(np.mean([np.asarray(s[n]) for s in pending if n in s])), 4) for n in names}
        speed = len(pending) * batch / (time.perf_counter() - began)
        line = {"images": seen, "images_per_second": round(speed, 1), **means}
        with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        report(line)
        snapshot()
        saved, pending, began = seen, [], time.perf_counter()
