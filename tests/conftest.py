# SPDX-License-Identifier: Apache-2.0
"""Strictness for all tests, and where the fixtures are."""

import importlib.metadata
import os
import pathlib

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
