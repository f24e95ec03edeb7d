# SPDX-License-Identifier: Apache-2.0
"""Encoders of whole images with one head: into W, or into W+ by one dense layer (the ablations of pSp and e4e).

Batches are `[n, h, w, c]`, images in [-1, 1], red first; outputs are offsets from `average`, as in `encoders.style`.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import layers, parameters
from stylegan_jax.dcgan import BatchNorm
from stylegan_jax.encoders.style import TrunkConfig
from stylegan_jax.features.irse import EPSILON
from stylegan_jax.features.vgg import Convolution
from stylegan_jax.ops import pooling


@dataclasses.dataclass(frozen=True, kw_only=True)
class SingleHeadEncoderConfig(TrunkConfig):
    """What determines an encoder with one head, beside its weights; see `TrunkConfig`.

    Attributes:
        pool: rows and columns to which the last map is averaged before the dense layers of an encoder into W+; 0 for
            one into W, which takes the mean of the whole map.
        features: width between these dense layers.
    """

    pool: int = 0
    features: int = 512


class SingleHeadEncoder(nnx.Module):
    """A residual trunk and one head; pSp's `BackboneEncoderUsingLastLayerIntoW` and `...IntoWPlus`."""

    def __init__(self, config: SingleHeadEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.trunk = config.build_trunk(rngs=rngs)
        width = config.widths[-1]
        if config.pool:
            self.norm = BatchNorm(width, epsilon=EPSILON, rngs=rngs)
            # A convolution that covers the whole map: so the weight does not depend on how a map would be flattened.
            self.dense = Convolution(width, config.features, config.pool, rngs=rngs)
            self.linear = layers.Dense(config.features, config.num_ws * config.w_dim, rngs=rngs)
        else:
            self.linear = layers.Dense(width, config.w_dim, rngs=rngs)
        self.average = layers.Buffer(jnp.zeros((config.num_ws, config.w_dim)))

    @classmethod
    def from_arrays(cls, config: SingleHeadEncoderConfig, arrays: Mapping[str, Array]) -> "SingleHeadEncoder":
        """Returns the encoder with weights `{"trunk/conv/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array, *, stage: int | None = None) -> Array:
        """Returns latents as offsets from `average`, `[n, num_ws, w_dim]`, for images `[n, h, w, image_channels]`.

        Raises:
            ValueError: a stage, which only progressive encoders have, or images of another kind.
        """
        if stage is not None:
            raise ValueError(f"stage is for progressive encoders (e4e) only, got {stage}")
        config, last = self.config, self.config.trunk_config.stage_ends[-1]
        x = self.trunk(images, (last,))[last]
        if not config.pool:
            return jnp.repeat(self.linear(x.mean((1, 2)))[:, None], config.num_ws, axis=1)
        x = self.dense(pooling.adaptive_average_pool(self.norm(x), (config.pool, config.pool)))[:, 0, 0]
        return self.linear(x).reshape(-1, config.num_ws, config.w_dim)
