# SPDX-License-Identifier: Apache-2.0
"""Strictness for all tests, and where the fixtures are."""

import os
import pathlib

# Tests compile much and compute little; must be set before JAX starts.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

import jax
import pytest

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
