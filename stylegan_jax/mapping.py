# SPDX-License-Identifier: Apache-2.0
"""The mapping network of StyleGAN2 and 3, and of their conditional discriminators."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers


class Mapping(nnx.Module):
    """Maps latents and labels to intermediate latents `w` (Karras et al. 2019, section 2).

    Both inputs are normalised to unit second moment (the label after a linear embedding), joined and sent through
    `num_layers` dense layers. Without `z_dim` it is a discriminator's projection of the label.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_layers: int,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        has_average: bool = True,
        rngs: nnx.Rngs,
    ):
        embed = (w_dim if embed_features is None else embed_features) if c_dim else 0
        hidden = w_dim if layer_features is None else layer_features
        if z_dim + embed == 0:
            raise ValueError("a mapping network needs latents (z_dim) or labels (c_dim), both are 0")
        self.z_dim, self.c_dim, self.w_dim, self.num_layers = z_dim, c_dim, w_dim, num_layers
        if c_dim:
            self.embed = layers.Dense(c_dim, embed, rngs=rngs)
        widths = [z_dim + embed] + [hidden] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            layer = layers.Dense(
                widths[i], widths[i + 1], activation=activation, lr_multiplier=lr_multiplier, rngs=rngs
            )
            setattr(self, f"fc{i}", layer)
        if has_average:
            self.w_avg = layers.Buffer(jnp.zeros((w_dim,)))

    def __call__(self, z: Array | None, c: Array | None = None) -> Array:
        """Returns `w`.

        Args:
            z: latents `[n, z_dim]`, or None where `z_dim` is 0.
            c: labels `[n, c_dim]`, or None where `c_dim` is 0.

        Returns:
            `[n, w_dim]`, before truncation.

        Raises:
            ValueError: where an input is missing, superfluous or of another width.
        """
        parts = []
        for name, value, size in (("z", z, self.z_dim), ("c", c, self.c_dim)):
            if (value is None) != (size == 0):
                raise ValueError(
                    f"mapping: {name}_dim is {size} but {name} is {'missing' if value is None else 'given'}"
                )
            if value is not None and (value.ndim != 2 or value.shape[1] != size):
                raise ValueError(f"mapping: {name} must be [n, {size}], got {list(value.shape)}")
        if z is not None:
            parts.append(layers.normalize_second_moment(z))
        if c is not None:
            parts.append(layers.normalize_second_moment(self.embed(c)))
        x = jnp.concatenate(parts, axis=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


def truncate(ws: Array, w_avg: Array, *, psi: float = 1.0, cutoff: int | None = None) -> Array:
    """Returns `w_avg + psi * (ws - w_avg)` on the first `cutoff` layers (Karras et al. 2019, appendix B).

    Args:
        ws: `[n, num_ws, w_dim]`.
        w_avg: `[w_dim]`.
        psi: 1 leaves `ws` as they are, 0 gives the mean.
        cutoff: number of layers truncated; None means all.
    """
    if psi == 1.0:
        return ws
    mean = w_avg.astype(ws.dtype)[None, None, :]
    truncated = mean + psi * (ws - mean)
    if cutoff is None:
        return truncated
    return jnp.where((jnp.arange(ws.shape[1]) < cutoff)[None, :, None], truncated, ws)
