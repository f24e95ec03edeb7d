# SPDX-License-Identifier: Apache-2.0
"""Moving latents `[..., num_ws, w_dim]` along a direction, and taking layers from others."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from stylegan_jax import latents


def _chosen(ws: Array, layers: tuple[int, int] | None) -> Array:
    """Returns which layers of `ws` a range names, bool `[num_ws, 1]`."""
    if ws.ndim < 2:
        raise ValueError(f"latents must be [..., num_ws, w_dim], got {list(ws.shape)}")
    count = ws.shape[-2]
    first, last = (0, count - 1) if layers is None else layers
    if not 0 <= first <= last < count:
        raise ValueError(f"layers must be a range within 0-{count - 1}, got {first}-{last}")
    index = jnp.arange(count)[:, None]
    return (index >= first) & (index <= last)


def move(
    ws: Array, direction: Array, strength: float, *, spread: float = 1.0, layers: tuple[int, int] | None = None
) -> Array:
    """Returns `ws + strength * spread * direction` on the layers named, the others as they are.

    Args:
        ws: latents `[..., num_ws, w_dim]`.
        direction: `[w_dim]`.
        strength: how far; with `spread` of the function of that name, in standard deviations of W along the direction.
        spread: length of one unit of strength in W.
        layers: first and last layer moved; None moves all.

    Raises:
        ValueError: a direction of another width, or layers that do not exist.
    """
    ws = jnp.asarray(ws)
    chosen = _chosen(ws, layers)
    direction = jnp.asarray(direction, ws.dtype)
    if direction.shape != ws.shape[-1:]:
        raise ValueError(f"the direction must be [{ws.shape[-1]}], got {list(direction.shape)}")
    step = jnp.where(chosen, strength * spread * direction[None, :], 0)
    return ws + step.astype(ws.dtype).reshape((1,) * (ws.ndim - 2) + step.shape)


def mix(ws: Array, other: Array, layers: tuple[int, int]) -> Array:
    """Returns `ws` with the layers named taken from `other`: style mixing (Karras et al. 2019, section 3.1).

    Args:
        ws, other: latents `[..., num_ws, w_dim]` of one shape.
        layers: first and last layer taken.

    Raises:
        ValueError: latents of different shapes, or layers that do not exist.
    """
    ws, other = jnp.asarray(ws), jnp.asarray(other)
    if ws.shape != other.shape:
        raise ValueError(f"latents that are mixed must be of one shape, got {list(ws.shape)} and {list(other.shape)}")
    chosen = _chosen(ws, layers)
    return jnp.where(chosen.reshape((1,) * (ws.ndim - 2) + chosen.shape), other, ws)


def spread(direction: Array, statistics: latents.WStatistics) -> float:
    """Returns the standard deviation of W along a direction, `sqrt(n^T C n)`, the unit of an edit's strength.

    Args:
        direction: unit vector `[w_dim]`.
        statistics: of W, whose covariance is C.
    """
    n = np.asarray(direction, np.float64)
    return float(np.sqrt(max(n @ np.asarray(statistics.covariance, np.float64) @ n, 0)))
