# SPDX-License-Identifier: Apache-2.0
"""The linear-Gaussian encoder: the latents that are expected behind known pixels, in closed form, for any mask."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from stylegan_jax import layers, parameters
from stylegan_jax.encoders import masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearEncoderConfig:
    """What determines a linear encoder beside its arrays.

    Attributes:
        resolution: of the images; seen: of the means of blocks that it looks at, a divisor.
        image_channels: of the images.
        num_ws, w_dim: of the generator.
        components: of the joint distribution of images and latents.
        noise: variance of a known value about what the components say, in squared units of images in [-1, 1].
    """

    resolution: int
    seen: int
    image_channels: int = 3
    num_ws: int
    w_dim: int
    components: int
    noise: float = 0.3

    def __post_init__(self):
        if self.seen < 1 or self.resolution % self.seen or not self.noise > 0 or self.components < 1:
            raise ValueError(
                "a linear encoder needs components, noise above 0, and a size seen that divides the resolution, got "
                f"{self.components}, {self.noise}, and {self.seen} of {self.resolution}"
            )


class LinearEncoder(nnx.Module):
    """Returns the mean of latents given known pixels, where both are jointly normal with few common components.

    `x = m + L z + noise`, `w = mu + K z` with normal z of `components` numbers. For known pixels with weights a (how
    much of a block is known, times its pixels, over the noise) `z = (I + L^T a L)^-1 L^T a (x - m)`: ridge regression
    from what is known to the latents, one for every mask, without training anew.
    """

    def __init__(self, config: LinearEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        values, latents = config.seen**2 * config.image_channels, config.num_ws * config.w_dim
        self.mean = layers.Buffer(jnp.zeros((values,)))
        self.loadings = layers.Buffer(jax.random.normal(rngs.params(), (values, config.components)))
        # What is said of images stays a closed form; what is said of latents can be trained on.
        self.latent_mean = nnx.Param(jnp.zeros((config.num_ws, config.w_dim)))
        self.latent_loadings = nnx.Param(jnp.zeros((latents, config.components)))

    @classmethod
    def from_arrays(cls, config: LinearEncoderConfig, arrays: Mapping[str, Array]) -> "LinearEncoder":
        """Returns the encoder with arrays `{"mean": [seen * seen * c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.config.resolution

    def __call__(self, images: Array, known: Array) -> Array:
        """Returns latents `[n, num_ws, w_dim]` for `images` `[n, r, r, c]` in [-1, 1] and `known` `[n, r, r]`."""
        latent_mean, latent_loadings = (x[...].astype(images.dtype) for x in (self.latent_mean, self.latent_loadings))
        z = self._components(images, known)
        return jax.vmap(lambda z: latent_mean + (latent_loadings @ z).reshape(latent_mean.shape))(z)

    def expected(self, images: Array, known: Array) -> Array:
        """Returns the image that is expected, `m + L z`, as means of blocks, `[n, seen, seen, c]`."""
        shape = (self.config.seen, self.config.seen, self.config.image_channels)
        mean, loadings = (x[...].astype(images.dtype) for x in (self.mean, self.loadings))
        return jax.vmap(lambda z: (mean + loadings @ z).reshape(shape))(self._components(images, known))

    def _components(self, images: Array, known: Array) -> Array:
        """Returns the mean of z given what is known, `[n, components]`."""
        config = self.config
        masked.check_shapes(images, known, resolution=config.resolution, channels=config.image_channels)
        # The arrays may be stored narrower than they are computed with.
        dtype = images.dtype
        mean, loadings = (x[...].astype(dtype) for x in (self.mean, self.loadings))

        def one(arrays: tuple[Array, Array]) -> Array:
            image, known = arrays
            share = self._blocks(known[..., None])
            seen = self._blocks(jnp.where(known[..., None] > 0, image * known[..., None], 0))
            seen = (seen / jnp.where(share > 0, share, 1)).reshape(-1)
            area = (config.resolution // config.seen) ** 2
            weight = jnp.broadcast_to(share, (config.seen, config.seen, config.image_channels)).reshape(-1)
            weighted = loadings * (weight * (area / config.noise))[:, None]
            precision = jnp.eye(config.components, dtype=dtype) + jnp.matmul(loadings.T, weighted, precision="highest")
            return jax.scipy.linalg.solve(precision, weighted.T @ (seen - mean), assume_a="pos")

        # One by one: on CPUs two batched solves at the same time can wait for each other forever (jaxlib 0.10).
        return lax.map(one, (images, known.astype(dtype)))

    def _blocks(self, x: Array) -> Array:
        """Returns the means of blocks of `x` `[r, r, c]`, `[seen, seen, c]`."""
        seen, factor = self.config.seen, self.config.resolution // self.config.seen
        return x.reshape(seen, factor, seen, factor, x.shape[-1]).mean((1, 3))
