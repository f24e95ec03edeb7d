# SPDX-License-Identifier: Apache-2.0
"""Several processes share a folder of images: each takes its own, one may die, a rerun makes what is missing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import inpaint
from inpaint import output
from inpaint.commands import report
from inpaint.commands.hosts import Share
from inpaint.search.result import Progress
from stylegan_jax import image_io


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_of_it(count):
    """Every piece falls to one process, and no process has two pieces more than another."""
    parts = [Share(index, count).of(range(5)) for index in range(count)]
    assert sorted(sum(parts, [])) == list(range(5))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def row(number, status="done"):
    """Returns a row of a summary."""
    return {"number": number, "image": f"{number}.png", "status": status}


def test_the_last_process_has_the_whole_summary(tmp_path):
    """Whatever the order; one process's rows are replaced by its newer ones, and other counts do not mix."""
    folder = tmp_path / "out"
    output.begin_summary(folder)
    assert json.loads((folder / "summary.json").read_text())["images"] == []
    output.write_summary(folder, [row(9)], index=2, count=3)
    output.write_summary(folder, [row(2)], index=1, count=2)
    output.write_summary(folder, [row(1), row(3, "failed")], index=0, count=2)
    output.begin_summary(folder)
    found = json.loads((folder / "summary.json").read_text())
    assert [r["number"] for r in found["images"]] == [1, 2, 3] and (found["done"], found["failed"]) == (2, 1)
    output.write_summary(folder, [row(2), row(4)], index=1, count=2)
    found = json.loads((folder / "summary.json").read_text())
    assert [r["number"] for r in found["images"]] == [1, 2, 3, 4]


def test_a_summary_overwritten_by_a_slower_process_is_made_again(tmp_path, monkeypatch):
    """The other process ends between the reading of its rows and the writing of the summary."""
    output.write_summary(tmp_path, [row(2)], index=1, count=2)
    write, calls = output._write_json, []

    def slow(path, value):
        calls.append(path.name)
        if calls == ["summary.0-of-2.json", "summary.json"]:
            write(tmp_path / "summary.1-of-2.json", [row(2), row(4)])
        write(path, value)

    monkeypatch.setattr(output, "_write_json", slow)
    output.write_summary(tmp_path, [row(1)], index=0, count=2)
    assert [r["number"] for r in json.loads((tmp_path / "summary.json").read_text())["images"]] == [1, 2, 4]


def test_folders_are_begun_once(tmp_path):
    """What is in a folder already stays, and a file in its place is an error."""
    output.begin_summary(tmp_path / "a")
    output.write_summary(tmp_path / "a", [row(1)])
    output.begin_summary(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["done"] == 1
    (tmp_path / "b").write_text("mine")
    with pytest.raises(ValueError, match="cannot write"):
        output.begin_summary(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_log_holds_one_event_a_line(tmp_path, monkeypatch):
    """Progress not more often than asked, an objective that is not finite as null, and a clear error."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = report.Log(str(tmp_path / "logs" / "a.jsonl"), process=3, every=5)
    display = report.Display(2, quiet=True, log=log)
    tell = display.search(1, "face")
    for done, seconds, best in ((1, 0.0, np.inf), (2, 1.0, 0.5), (3, 5.0, 0.25)):
        now[0] = seconds
        tell(Progress(done, 4, best))
    display.ended({"status": "done", "seconds": 2.0})
    lines = [json.loads(line) for line in (tmp_path / "logs" / "a.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["progress", "progress", "image"]
    assert [(line.get("done"), line.get("best")) for line in lines[:2]] == [(1, None), (3, 0.25)]
    assert all(line["process"] == 3 and line["time"].endswith("+00:00") for line in lines)
    with pytest.raises(ValueError, match="--json_log .* cannot be written"):
        report.Log(str(tmp_path))


def test_time_left_counts_the_other_images(capsys):
    """Of an image from its own speed, of all from the images before."""
    line = report.ProgressLine("[2/3] ", others=100.0)
    line(Progress(1, 10, 1.0))
    line.shown, line.first = 0.0, (time.perf_counter() - 1, 1)
    line(Progress(6, 10, 0.5))
    text = capsys.readouterr().out.splitlines()[-1]
    assert "[2/3] 6/10 start-steps" in text and " 1 s left, 101 s for all  best 0.50000" in text


def free_port():
    """Returns a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_processes_dies(tmp_path, save_generator, save_pictures, victim):
    """Two processes with two devices each: the other finishes its share, a rerun of both the rest; the results and the
    summary are those of one process."""
    save_generator(tmp_path / "generator")
    (tmp_path / "images").mkdir()
    pixels, _ = save_pictures(tmp_path)
    for i in range(4):
        image_io.write_image(tmp_path / "images" / f"{i}.png", np.roll(pixels, i, axis=1))
    place = os.path.dirname(os.path.dirname(inpaint.__file__))
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    options = dict(cwd=tmp_path, env=os.environ | {"PYTHONPATH": place, "XLA_FLAGS": flags}, text=True)
    options |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command = [sys.executable, "-m", "inpaint", "restore", "--generator=generator", "--image=images"]
    command += ["--mask=mask.png", "--starts=3", "--steps=30", "--keep=1", "--compilation_cache=cache"]

    def begin():
        address = f"--coordinator_address=localhost:{free_port()}"
        shared = [*command, "--output=out", "--json_log=log.jsonl", "--distributed", address, "--num_processes=2"]
        return [subprocess.Popen([*shared, f"--process_id={i}"], **options) for i in range(2)]

    processes, other = begin(), 1 - victim
    while not (tmp_path / "out" / str(victim)).exists() and processes[victim].poll() is None:
        time.sleep(0.02)
    processes[victim].send_signal(signal.SIGKILL)
    processes[victim].communicate()
    text, errors = processes[other].communicate(timeout=300)
    assert processes[other].returncode == 0, errors
    assert f"process    {other} of 2, with 2 of 4 images" in text
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {str(other), str(other + 2)} <= names and str(victim + 2) not in names
    for process in begin():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["image"] for row in found["images"]] == [f"images/{i}.png" for i in range(4)]
    assert found["done"] + found["skipped"] == 4 and found["done"] >= 1
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["process"] for line in log} == {0, 1} and {"begin", "progress", "image", "end"} == {
        line["event"] for line in log
    }
    assert subprocess.run([*command, "--output=alone"], **options).returncode == 0
    for i in range(4):
        for name in ("restored_1.png", "raw_1.png"):
            one, other = (tmp_path / where / str(i) / name for where in ("out", "alone"))
            assert one.read_bytes() == other.read_bytes(), (i, name)
