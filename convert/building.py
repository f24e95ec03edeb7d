# SPDX-License-Identifier: Apache-2.0
"""From the arrays of a checked file to networks of `stylegan_jax`; JAX comes in only here, after the checks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from convert.errors import ConversionError
from convert.network import Network

if TYPE_CHECKING:
    from flax import nnx

    from stylegan_jax import latents

SEED, SAMPLES = 0, 10_000  # of the latents from which mean and covariance of W are estimated
W_STATISTICS = f"{SAMPLES} latents, key {SEED}"  # what provenance says of them


def move_to_jax(arrays: dict[str, np.ndarray]) -> None:
    """Replaces `arrays` {our name: array [...]} by arrays of JAX, on a CPU without a copy where they are aligned.

    Nobody may change the old arrays afterwards: JAX may be using their memory.
    """
    import jax

    for name in arrays:
        arrays[name] = jax.device_put(arrays[name])


def build(network: Network, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    """Returns our network with `arrays` {our name: array [...]}; raises `ConversionError` if they do not fit."""
    module = importlib.import_module(f"stylegan_jax.{network.family}")
    network_class = getattr(module, network.kind.capitalize())
    config_class = getattr(module, f"{network.kind.capitalize()}Config")
    try:  # strict about names and shapes: every destination is filled, nothing is left over
        return network_class.from_arrays(config_class(**network.config), arrays)
    except ValueError as error:
        raise ConversionError(str(error)) from error


def build_generator(
    network: Network, arrays: Mapping[str, np.ndarray], *, seed: int = SEED, samples: int = SAMPLES
) -> tuple[nnx.Module, latents.WStatistics]:
    """Returns our generator with `arrays` {our name: array [...]}, and the mean and covariance of W.

    Both are estimated from `samples` latents of key `seed`; a file without a mean of w gets the estimated one.

    Raises:
      ConversionError: arrays that do not fit.
    """
    import jax

    from stylegan_jax import latents

    generator = build(network, arrays)
    statistics = latents.estimate_w_statistics(jax.random.key(seed), generator, samples=samples)
    if not network.has_average:
        generator.mapping.w_avg[...] = statistics.mean
    return generator, statistics
