# SPDX-License-Identifier: Apache-2.0
"""What all style-based generators share: latents go through a mapping network, and its `ws` through synthesis."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import mapping, parameters


class Pyramid:
    """What follows from `widths`, the channels at 4, 8, ..., resolution; configurations with that field inherit it."""

    widths: tuple[int, ...]

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return 2 << len(self.widths)

    @property
    def activations(self) -> int:
        """Number of values in the outputs of all blocks for one image."""
        return sum((4 << i) ** 2 * width for i, width in enumerate(self.widths))

    @property
    def num_ws(self) -> int:
        """Number of latents that a synthesis network takes, two for a block: `2 log2(resolution) - 2`."""
        return 2 * len(self.widths)


class WStatistics(NamedTuple):
    """Mean `[w_dim]` and covariance `[w_dim, w_dim]` of `w = mapping(z)` for normal `z`."""

    mean: Array
    covariance: Array

    def whitening(self, *, floor: float = 1e-3) -> Array:
        """Returns `A` `[w_dim, w_dim]` with `A.T @ (w - mean)` of unit covariance.

        Directions whose variance is below `floor` times the largest are treated as having that much, so that a nearly
        singular covariance does not blow up.
        """
        return _whitening(self.covariance, floor)


@jax.jit
def _whitening(covariance: Array, floor: float) -> Array:
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jax.lax.rsqrt(jnp.maximum(values, floor * values[-1]))[None, :]


class StyleGenerator(nnx.Module):
    """Mapping and synthesis network together; a family's generator makes both in its `__init__`.

    `config` holds the settings with `resolution`, `num_ws`, `z_dim`, `w_dim` and `image_channels`; `mapping` takes `z`
    and `c` to `w` and holds `w_avg` where the mean of w is known; `synthesis(ws, noise=)` renders.
    """

    config: Any
    mapping: nnx.Module
    synthesis: nnx.Module

    @classmethod
    def from_arrays(cls, config: Any, arrays: Mapping[str, Array]) -> Self:
        """Returns the generator with weights `{"synthesis/b4/const": [4, 4, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the weights, and so of latents."""
        return jax.tree.leaves(nnx.state(self.synthesis, nnx.Param))[0].dtype

    def known_w_statistics(self) -> WStatistics | None:
        """Returns mean and covariance of W where they are known without sampling, otherwise None."""
        return None

    def map(
        self, z: Array, c: Array | None = None, *, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Array:
        """Returns `ws` `[n, num_ws, w_dim]` for latents `z` `[n, z_dim]` and labels `c` `[n, c_dim]`, truncated.

        Args:
            z: normal latents.
            c: labels, or None where the generator has none.
            truncation_psi: as `psi` of `mapping.truncate`.
            truncation_cutoff: as `cutoff` there.

        Raises:
            ValueError: a truncation without a known mean of w, or inputs of another width.
        """
        ws = jnp.repeat(self.mapping(z, c)[:, None, :], self.config.num_ws, axis=1)
        if truncation_psi == 1.0:
            return ws
        if not hasattr(self.mapping, "w_avg"):
            raise ValueError("this generator holds no mean of w, so truncation_psi must be 1")
        return mapping.truncate(ws, self.mapping.w_avg[...], psi=truncation_psi, cutoff=truncation_cutoff)

    def __call__(
        self,
        z: Array,
        c: Array | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: str | Array | Mapping[str, Array] = "const",
    ) -> Array:
        """Returns images `[n, r, r, channels]` about [-1, 1] for `z` `[n, z_dim]`; see `map` and the synthesis."""
        ws = self.map(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise=noise)
