# SPDX-License-Identifier: Apache-2.0
"""The noise inputs of a style-based generator: one map `[n or 1, r, r]` for each layer or block that gets noise."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array


class NoisyLayer(Protocol):
    """A layer or block with a stored noise map."""

    noise_const: Any  # a variable of an array [r, r]


def maps(
    noise: str | Array | Mapping[str, Array], noisy: Mapping[str, NoisyLayer], n: int, dtype: jnp.dtype
) -> dict[str, Array]:
    """Returns the noise map `[n or 1, r, r]` of every layer of `noisy` that gets one.

    Args:
        noise: "const" (the stored maps), "none", a key (fresh normal maps for each of `n` samples), or the maps
            themselves, `{"b8": [n, 8, 8], ...}`; layers left out get none.
        noisy: the layers with noise, by name.
        n: number of samples.
        dtype: of stored and random maps.

    Raises:
        ValueError: for another string, an unknown name or a map of another shape.
    """
    if isinstance(noise, Mapping):
        _check(noise, {name: layer.noise_const.shape for name, layer in noisy.items()})
        return dict(noise)
    if isinstance(noise, str):
        if noise not in ("const", "none"):
            raise ValueError(f'noise must be "const", "none", a key or a dict of maps, got {noise!r}')
        stored = noisy if noise == "const" else {}
        return {name: layer.noise_const[...][None].astype(dtype) for name, layer in stored.items()}
    keys = jax.random.split(noise, max(len(noisy), 1))
    drawn = zip(noisy.items(), keys, strict=False)  # without noise inputs one key is left over
    return {name: jax.random.normal(key, (n, *layer.noise_const.shape), dtype) for (name, layer), key in drawn}


def _check(given: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    unknown = sorted(set(given) - set(shapes))
    if unknown:
        raise ValueError(f"no noise input at {', '.join(unknown)}; there is {', '.join(shapes) or 'none'}")
    for name, array in given.items():
        if array.ndim != 3 or array.shape[1:] != shapes[name]:
            size = shapes[name][0]
            raise ValueError(f"noise {name} must be [n, {size}, {size}], got {list(array.shape)}")
