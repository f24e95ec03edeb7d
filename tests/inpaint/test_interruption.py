# SPDX-License-Identifier: Apache-2.0
"""Interrupted searches go on and end as if nothing had happened; memory that does not suffice halves the chunk."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint.search import loop, memory
from inpaint.search.method import Method, Phase
from inpaint.search.saved import SavedSearch
from inpaint.search.schedule import adam
from inpaint.terms import term
from stylegan_jax import image_io, latents

SIZE, KEY = 8, jax.random.key(5)
FIELDS = ("ws", "variables", "raw", "scores", "traces", "frozen", "candidates")


@functools.cache
def make_model():
    config = sg.GeneratorConfig(widths=(6, 4), z_dim=6, w_dim=6, mapping_layers=2)
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    return sg.Model(generator, w_statistics=sg.estimate_w_statistics(jax.random.key(0), generator, samples=200))


@functools.cache
def make_method(steps=4, halving=None):
    terms = (term("l2"), term("mahalanobis", 0.01))
    phases = (Phase(latents.W, steps, adam(0.1, steps), terms), Phase(latents.WPLUS, steps, adam(0.05, steps), terms))
    return Method("test", phases, inpaint.Prescreened(pool=5), halving=halving)


def search(*, seed=0, steps=4, halving=None, **options):
    known = np.ones((SIZE, SIZE), np.float32)
    known[2:6, 3:7] = 0
    images = np.random.default_rng(seed).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    mask = inpaint.operators.Mask.checked(known)
    problem = inpaint.Problem.stack([inpaint.Problem.observe(x, mask) for x in images])
    options = {"chunk": 4} | options
    return inpaint.solve(make_model(), problem, make_method(steps, halving), starts=3, key=KEY, **options)


def assert_equal(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.terms.keys() == other.terms.keys()
    for name, share in one.terms.items():
        np.testing.assert_array_equal(share, other.terms[name])


class Interruption(Exception):
    pass


def interrupting(monkeypatch, calls):
    """Lets the search raise after so many device calls."""
    run, left = loop.run_phase, [calls]

    def broken(*arguments, after_call, **options):
        def after(*told):
            after_call(*told)
            left[0] -= 1
            if left[0] == 0:
                raise Interruption

        return run(*arguments, after_call=after, **options)

    monkeypatch.setattr(loop, "run_phase", broken)


@pytest.mark.parametrize("calls", [1, 8, 13, 16])
def test_an_interrupted_search_goes_on(tmp_path, monkeypatch, shared_compilations, calls):
    """In either phase, at their ends, in the first chunk or the padded second: not a bit differs, and what was done is
    not done again."""
    whole = search()
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupting(patch, calls)
        search(state=SavedSearch(tmp_path / "state", every=0))
    told, state = [], SavedSearch(tmp_path / "state", every=0)
    found = search(state=state, progress=told.append, chunk=6)
    assert_equal(found, whole)
    assert found.chunk == 4 and told[-1].done == told[-1].total == 2 * 3 * 8
    state.remove()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("calls", [pytest.param(1, marks=pytest.mark.slow), 7, 14])
def test_a_search_by_halving_goes_on(tmp_path, monkeypatch, shared_compilations, calls):
    """Before a cut and after it, in the first chunk or a later one: not a bit differs."""
    options = dict(halving=inpaint.SuccessiveHalving(1, 2))
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupting(patch, calls)
        search(state=SavedSearch(tmp_path / "state", every=0), **options)
    assert_equal(search(state=SavedSearch(tmp_path / "state", every=0), **options), halved())


@functools.cache
def halved():
    return search(halving=inpaint.SuccessiveHalving(1, 2))


def test_finished_chunks_are_not_run_again(tmp_path, monkeypatch, shared_compilations):
    first = search(state=SavedSearch(tmp_path, every=0))
    monkeypatch.setattr(loop, "run_phase", None)
    assert_equal(search(state=SavedSearch(tmp_path)), first)


def test_the_state_of_another_search_is_kept(tmp_path, shared_compilations):
    """Other images, steps or settings of the caller are refused, unless the state may be replaced."""
    search(state=SavedSearch(tmp_path, identity="a", every=0))
    for changed, identity in ((dict(seed=1), "a"), (dict(steps=3), "a"), ({}, "b")):
        with pytest.raises(ValueError, match="interrupted search with other settings or inputs"):
            search(state=SavedSearch(tmp_path, identity=identity), **changed)
    again = search(seed=1, state=SavedSearch(tmp_path, identity="a", replace=True))
    assert_equal(again, search(seed=1))


def test_a_short_search_leaves_and_pays_nothing(tmp_path, monkeypatch, shared_compilations):
    monkeypatch.setattr(loop, "step_text", None)
    search(state=SavedSearch(tmp_path / "s", every=1000))
    assert not (tmp_path / "s").exists()


def test_finished_chunks_wait_for_their_time(tmp_path, monkeypatch):
    """Those of before are stored with the one after which the time has come."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saved = SavedSearch(tmp_path / "s", every=10)
    saved.open(lambda: "x", 2)
    saved.save_part(0, {"scores": np.zeros(2)})
    assert not (tmp_path / "s").exists()
    now[0] += 10
    saved.save_part(2, {"scores": np.ones(2)})
    again = SavedSearch(tmp_path / "s")
    assert again.open(lambda: "x", 4) == 2
    assert [again.part(first)["scores"].sum() for first in (0, 2)] == [0, 2] and again.part(4) is None


def test_states_are_stored_at_intervals(tmp_path, monkeypatch):
    """Not before the time has come, and then whole."""
    now, starts = [100.0], loop.begin_phase(jax.numpy.zeros((2, 6)), jax.numpy.zeros(2, bool), frozen(), phase())
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saved = SavedSearch(tmp_path / "s", every=10)
    saved.open(lambda: "x", 2)
    traces = [jax.numpy.ones((1, 2))]
    saved.save_running(0, 0, 1, starts, traces)
    assert not (tmp_path / "s").exists()
    now[0] += 10
    saved.save_running(0, 1, 1, starts, traces)
    assert saved.running(0, size=2) == (1, 1)
    assert saved.running(2, size=2) is None and saved.running(0, size=4) is None
    loaded, objectives = saved.load_running(starts, 1)
    np.testing.assert_array_equal(objectives, traces[0])
    np.testing.assert_array_equal(loaded.v, starts.v)


def phase():
    return make_method().phases[0]


@functools.cache
def frozen():
    return loop.split_context(inpaint.search.solve.make_context(make_model()))


def exhausting(monkeypatch, largest):
    """Lets steps of more than `largest` lanes fail as a device does whose memory is used up."""
    program = loop._program

    def limited(starts, *arguments):
        if len(starts.v) > largest:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
        return program(starts, *arguments)

    monkeypatch.setattr(loop, "_program", limited)


def test_a_chunk_that_exhausts_memory_is_halved(tmp_path, monkeypatch, shared_compilations):
    """The results are those of smaller chunks, with a stored state too; one start that is too large is told."""
    expected = search(chunk=2)
    exhausting(monkeypatch, 3)
    for state in (None, SavedSearch(tmp_path / "state", every=0)):
        found = search(chunk=5, state=state)
        assert found.chunk == 2
        assert_equal(found, expected)
    assert json.loads((tmp_path / "state" / "search.json").read_text())["chunk"] == 2
    exhausting(monkeypatch, 0)
    with pytest.raises(MemoryError, match="does not hold one start on each device"):
        search(chunk=5)


def test_a_search_whose_chunk_was_halved_on_the_way_goes_on(tmp_path, monkeypatch, shared_compilations):
    """Parts of a larger chunk are as long as they are; a state of another chunk, or on other devices, is begun anew."""
    whole = search(chunk=2)
    run, calls = loop.run_phase, []

    def limited(*arguments, **options):
        calls.append(len(arguments[0].v))
        if len(calls) == 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        if len(calls) == 5:
            raise Interruption
        return run(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(loop, "run_phase", limited)
        search(chunk=4, state=SavedSearch(tmp_path, every=0))
    assert calls == [4, 4, 4, 2, 2]
    found = search(chunk=4, state=SavedSearch(tmp_path, every=0))
    assert found.chunk == 2
    for name in ("ws", "scores", "traces"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_read_is_made_again(tmp_path, monkeypatch, shared_compilations):
    """A damaged part or state, and parts that no search.json speaks for; other learning rates are another search."""
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        interrupting(patch, 6)
        search(state=SavedSearch(tmp_path / "s", every=0))
    for file in (tmp_path / "s" / "running" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"torn")
    first = search(state=SavedSearch(tmp_path / "s", every=0))
    assert_equal(first, search())
    (tmp_path / "s" / "part-0-00000000.npz").write_bytes(b"torn")
    assert_equal(search(state=SavedSearch(tmp_path / "s", every=0)), first)
    (tmp_path / "s" / "search.json").unlink()
    with np.load(tmp_path / "s" / "part-0-00000000.npz") as arrays:
        wrong = {name: array * 0 for name, array in arrays.items()}
    np.savez(tmp_path / "s" / "part-0-00000000.npz", **wrong)
    assert_equal(search(state=SavedSearch(tmp_path / "s", every=0)), first)
    terms = (term("l2"), term("mahalanobis", 0.01))
    phases = (Phase(latents.W, 4, adam(0.1, 4), terms), Phase(latents.WPLUS, 4, adam(0.06, 4), terms))
    other = Method("test", phases, inpaint.Prescreened(pool=5))
    monkeypatch.setattr(sys.modules[__name__], "make_method", lambda steps, halving: other)
    with pytest.raises(ValueError, match="interrupted search with other settings or inputs"):
        search(state=SavedSearch(tmp_path / "s"))


def test_other_failures_are_not_taken_for_memory(monkeypatch):
    def fail(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(loop, "_program", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        search()


def test_the_chunk_fits_the_memory(monkeypatch, shared_compilations):
    """Without a chunk, what the compiled step says that it takes is held against what is free."""
    needed = []
    step_bytes = loop.step_bytes
    monkeypatch.setattr(loop, "step_bytes", lambda *a, **k: needed.append(step_bytes(*a, **k)) or needed[-1])
    assert search(chunk=None).chunk == 6 and needed[0] > 6 * SIZE * SIZE * 3 * 4
    monkeypatch.setattr(memory, "capacity_bytes", lambda device: needed[0] / memory.SHARE * 0.55)
    assert search(chunk=None).chunk == 2


@pytest.mark.parametrize(
    ("size", "needed", "capacity", "devices", "expected"),
    [(64, 100, None, 1, 64), (50, 100, 200, 1, 50), (64, 100, 100, 1, 32), (64, 1000, 10, 8, 8), (64, 100, 50, 8, 16)],
)
def test_fitting_chunk(size, needed, capacity, devices, expected):
    assert memory.fitting_chunk(size, needed=needed, capacity=capacity, devices=devices) == expected


def test_free_memory():
    """An accelerator's allocator is asked; this machine's CPU has some; of others nobody knows."""
    gpu = types.SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 100, "bytes_in_use": 30})
    other = types.SimpleNamespace(platform="other", memory_stats=lambda: None)
    assert memory.capacity_bytes(gpu) == 100 and memory.capacity_bytes(other) is None
    if os.path.exists("/proc/meminfo"):
        assert memory.capacity_bytes(jax.local_devices()[0]) > 2**20


def test_a_command_goes_on(tmp_path, save_generator, save_pictures, run_commands):
    """A stored state is used, or told where it does not fit, and gone in the end; a dry run tells the plan."""
    save_generator(tmp_path / "generator")
    save_pictures(tmp_path)
    restore = ["restore", "--generator=generator", "--image=image.png", "--mask=mask.png", "--starts=2", "--keep=1"]
    restore += ["--config.search.coarse_share=0"]
    (tmp_path / ".b.search").mkdir()
    (tmp_path / ".b.search" / "search.json").write_text('{"search": "another", "chunk": 2}')
    cases = [
        [*restore, "--steps=2", "--output=a", "--save_every=0.0001"],
        [*restore, "--steps=2", "--output=b"],
        [*restore, "--steps=2", "--output=b", "--overwrite"],
        [*restore, "--steps=2", "--output=a", "--dry_run"],
        [*restore, "--steps=2", "--output=c", "--dry_run", "--config.search.chunk=1"],
    ]
    done = run_commands("inpaint", cases, tmp_path)
    assert [code for code, _, _ in done] == [0, 1, 0, 0, 0], [errors for _, _, errors in done]
    assert "interrupted search with other settings or inputs" in done[1][2]
    assert "plan       0 to do, 1 finished, 0 unreadable" in done[3][1]
    assert "plan       1 to do, 0 finished" in done[4][1] and "2 starts x 2 steps" in done[4][1]
    assert "1 at once in 2 chunks on 1 device" in done[4][1] and "GiB on each device" in done[4][1]
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / ".a.search").exists() and not (tmp_path / ".b.search").exists()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, save_generator, save_pictures):
    """Ten times SIGKILL, SIGTERM or SIGINT; the results are those of a run that nobody disturbed."""
    save_generator(tmp_path / "generator")
    save_pictures(tmp_path)
    command = [sys.executable, "-m", "inpaint", "restore", "--generator=generator", "--image=image.png"]
    command += ["--mask=mask.png", "--starts=6", "--keep=1", "--steps=400", "--save_every=0.05", "--quiet"]
    command += ["--config.search.chunk=4", "--compilation_cache=cache"]
    place = os.path.dirname(os.path.dirname(inpaint.__file__))
    options = dict(cwd=tmp_path, env=os.environ | {"PYTHONPATH": place}, stdout=-3, stderr=-3)
    began = time.monotonic()
    assert subprocess.run([*command, "--output=whole"], **options).returncode == 0
    length, rng, resumed = time.monotonic() - began, random.Random(0), 0
    for number in range(10):
        process = subprocess.Popen([*command, "--output=killed"], **options)
        time.sleep(rng.uniform(0.3, 0.95) * length)
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3])
        process.wait()
        resumed += (tmp_path / ".killed.search").exists()
    assert resumed, "no state was stored"
    assert subprocess.run([*command, "--output=killed"], **options).returncode == 0
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in files:
        if name.endswith(".png"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    whole, killed = (np.load(tmp_path / name / "latents.npz") for name in ("whole", "killed"))
    np.testing.assert_array_equal(whole["w"], killed["w"])
    assert not (tmp_path / ".killed.search").exists()


MEASURED = """
import resource, sys
from inpaint.__main__ import run
try:
    run()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_images(tmp_path, save_generator):
    """A thousand images take hardly more memory than a hundred."""
    save_generator(tmp_path / "generator")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    image_io.write_image(tmp_path / "mask.png", mask)
    peaks = []
    for count in (100, 1000):
        (tmp_path / f"images{count}").mkdir()
        for i in range(count):
            image_io.write_image(tmp_path / f"images{count}" / f"{i:04d}.png", np.roll(pixels, i, axis=i % 2))
        command = [sys.executable, "-c", MEASURED, "restore", "--generator=generator", f"--image=images{count}"]
        command += ["--mask=mask.png", "--starts=8", "--steps=2", "--keep=1", f"--output=out{count}", "--quiet"]
        place = os.path.dirname(os.path.dirname(inpaint.__file__))
        environment = os.environ | {"PYTHONPATH": place}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / f"out{count}" / "summary.json").read_text())["done"] == count
        peaks.append(int(done.stderr.split("peak ")[1]))
    assert peaks[1] < 1.1 * peaks[0], peaks
