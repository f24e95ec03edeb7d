# SPDX-License-Identifier: Apache-2.0
"""Strictness for all tests, and where the fixtures are."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

# Tests compile much and compute little; must be set before JAX starts.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Compilation takes a quarter of the time without them (measured on sg2_base). A jaxlib that does not know a flag
    # aborts, so only those that are known to know it get it.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture
def x64():
    """Runs a test with 64-bit types."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_types():
    """Forbids implicit promotion of dtypes, around our own operations (optax and dm_pix do not pass it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def compilations(tmp_path_factory):
    """Returns a folder that keeps what this session compiles, for tests that build equal programs anew."""
    return tmp_path_factory.mktemp("compilations")


@pytest.fixture
def shared_compilations(compilations):
    """Compiles every program of a test once per session, though it is traced again (by another Trainer, say)."""
    settings = {
        "jax_compilation_cache_dir": str(compilations),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


# Imports the libraries once and forks for every command line, since importing JAX costs seconds. No backend is started
# before the fork, and the command's module comes after it, since ml_collections reads sys.argv when it is imported.
_DRIVER = """
import importlib, json, os, sys, tempfile
package, cases = json.load(sys.stdin)
main = importlib.import_module(package + ".__main__")
import ml_collections, stylegan_jax.rendering
import inpaint.config, inpaint.film, inpaint.inputs, inpaint.output, inpaint.photograph, inpaint.experiments.run
import inpaint.experiments.papers, inpaint.experiments.report.build, inpaint.experiments.robustness
import inpaint.edit, inpaint.experiments.studies, inpaint.learned.inpainters
results = []
for case in cases:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = [package, *case]
            try:
                main.run()
            except SystemExit as stop:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(stop.code or 0)
            os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        results.append([code, out.read(), err.read()])
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="session")
def run_commands(compilations):
    """Returns a function `(package, command lines, folder) -> [(exit code, stdout, stderr), ...]`.

    Every command line of `python -m package` is run for real in `folder`, in a process of its own.
    """
    place = str(pathlib.Path(importlib.util.find_spec("stylegan_jax").origin).parents[1])
    environment = os.environ | {
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": place,
        "JAX_COMPILATION_CACHE_DIR": str(compilations),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(package, cases, folder):
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER],
            input=json.dumps([package, cases]),
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
