# SPDX-License-Identifier: Apache-2.0
"""Time and memory of `python -m convert` on files of the published sizes, 1024 pixels.

    python benchmarks/conversion.py --output benchmarks/results/conversion.json

Every row writes a file with random weights in the layout that the original code gives it, converts it in a process of
its own and deletes it. Measured is that whole process, start and imports included, once; peak memory is its largest
resident set, into which pages of the file count that are mapped at that moment.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from absl import app, flags
from checkpoint_files import FILES, write

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOST_SECONDS, MOST_RATIO = 60, 2.5
IMPORTS = "import jax, stylegan_jax.checkpoint; jax.devices()"
# A process takes over the peak memory of the one that starts it, so a small one stands between it and this one.
MEASURE = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.perf_counter() - began
scale = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * scale
print(json.dumps([done.returncode, done.stdout + done.stderr, seconds, peak]))
"""

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")
_FOLDER = flags.DEFINE_string("folder", None, "Where the files are written; by default a temporary folder.")
_ROWS = flags.DEFINE_multi_enum("row", None, list(FILES), "What to measure; by default all.")
_KEEP = flags.DEFINE_bool("keep", False, "Keep files and checkpoints in --folder, and take files that lie there.")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured conversion; sizes in bytes, `written_bytes` that of the checkpoint."""

    name: str
    file_bytes: int
    written_bytes: int
    seconds: float
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """Peak memory over the size of the file."""
        return self.peak_bytes / self.file_bytes

    def line(self) -> str:
        """Returns the row as a line of the table."""
        sizes = f"{self.file_bytes / 1e6:.0f} | {self.written_bytes / 1e6:.0f}"
        return f"| {self.name} | {sizes} | {self.seconds:.1f} | {self.peak_bytes / 1e6:.0f} | {self.ratio:.2f} |"


def measure(*arguments: str) -> tuple[float, int]:
    """Returns wall seconds and peak resident bytes of a Python process with these arguments.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    status, said, seconds, peak = json.loads(done.stdout)
    if status:
        raise RuntimeError(said)
    return seconds, peak


def measure_row(name: str, folder: pathlib.Path, *, keep: bool) -> Row:
    """Writes the file `name`, converts it and returns what that took."""
    suffix, _ = FILES[name]
    stem = re.sub(r"\W+", "_", name.lower()).strip("_")
    source, destination = folder / f"{stem}{suffix}", folder / stem
    if not (keep and source.exists()):
        write(name, source)
    seconds, peak = measure("-m", "convert", str(source), str(destination), "--overwrite")
    written = sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())
    row = Row(name, source.stat().st_size, written, seconds, peak)
    if not keep:
        source.unlink()
        shutil.rmtree(destination)
    return row


def main(argv: list[str]) -> None:
    """Measures all rows, prints the table and writes the results."""
    seconds, floor = measure("-c", IMPORTS)
    print(f"{os.cpu_count()} cores; importing JAX and orbax alone: {seconds:.1f} s, {floor / 1e6:.0f} MB")
    print("| file | MB | checkpoint, MB | seconds | peak, MB | peak / file |\n|---|---|---|---|---|---|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(_FOLDER.value or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ROWS.value or FILES:
            rows.append(measure_row(name, folder, keep=_KEEP.value))
            print(rows[-1].line(), flush=True)
    beyond = [row.name for row in rows if row.seconds > MOST_SECONDS or row.ratio > MOST_RATIO]
    print(f"Beyond {MOST_SECONDS} s or {MOST_RATIO} times the file: {'; '.join(beyond) or 'none'}")
    if not _OUTPUT.value:
        return
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "imports": {"seconds": seconds, "peak_bytes": floor},
        "rows": [dataclasses.asdict(row) | {"ratio": row.ratio} for row in rows],
    }
    path = pathlib.Path(_OUTPUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
