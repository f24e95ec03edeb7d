# SPDX-License-Identifier: Apache-2.0
"""Noise: `operator(image)` is its mean, `surrogate` and `simulate` draw it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from inpaint.operators.protocol import Operator, check_image
from inpaint.operators.straight_through import clip_softly, clip_through


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianNoise(Operator):
    """`y = x + sigma n`, n standard normal and of every value its own; takes measurements of any shape `[...]`.

    Attributes:
        sigma: standard deviation in units of the range [-1, 1] (2 / 255 is one 8-bit level), above 0.
        clip: clips the sum to [-1, 1]; the gradient stays 1. `operator(image)` is the image, which then is the mean
            only where the noise does not reach the ends.
    """

    random = True
    pointwise = True
    sigma: float = dataclasses.field(metadata={"static": True})
    clip: bool = dataclasses.field(default=False, kw_only=True, metadata={"static": True})

    def __post_init__(self):
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"the sigma of noise must be above 0, in units of the range [-1, 1], got {self.sigma}")
        object.__setattr__(self, "sigma", float(self.sigma))

    @property
    def linear(self) -> bool:
        """Whether nothing is clipped."""
        return not self.clip

    def __call__(self, image: Array) -> Array:
        """Returns `image` `[...]` as it is, the mean of the noisy ones."""
        return image

    def surrogate(self, key: Array, image: Array) -> Array:
        """Returns `image` `[...]` with noise; differentiable."""
        noisy = image + self.sigma * jax.random.normal(key, image.shape, image.dtype)
        return clip_through(noisy) if self.clip else noisy

    def simulate(self, key: Array | None, image: Array) -> Array:
        """Returns `image` `[...]` with noise: what `surrogate` draws by this key."""
        return self.surrogate(key, image)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PoissonBernoulli(Operator):
    """Few photons and dead pixels: `v = min(b n / N, 1)`, `n ~ Poisson(N u)`, `b ~ Bernoulli(keep)`.

    u and v are image and measurement in [0, 1], that is `x = 2 u - 1`; n is of every value its own, b one for all
    channels of a pixel.

    Attributes:
        photons: N, how many a white value gets on average, above 0.
        keep: probability of a pixel to live, above 0 and at most 1.

    Source: the degradations of robust unsupervised StyleGAN restoration (Poirier-Ginter and Lalonde 2023).
    """

    linear = False
    random = True
    pointwise = True
    photons: float = dataclasses.field(metadata={"static": True})
    keep: float = dataclasses.field(default=1.0, metadata={"static": True})

    def __post_init__(self):
        if not 0 < self.photons < math.inf:
            raise ValueError(f"the number of photons must be above 0, got {self.photons}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"the probability to keep a pixel must be above 0 and at most 1, got {self.keep}")
        object.__setattr__(self, "photons", float(self.photons))
        object.__setattr__(self, "keep", float(self.keep))

    def __call__(self, image: Array) -> Array:
        """Returns the mean, `keep (x + 1) - 1`, of `image` `[h, w, c]`, but for what is clipped."""
        return self.keep * (image + 1) - 1

    def surrogate(self, key: Array, image: Array) -> Array:
        """Returns `image` `[h, w, c]` with normal noise of the photons' mean and variance, `N u` and `N u + 1e-3`.

        Clipped before and after with the gradient of a sigmoid. The dead pixels are those of `simulate` by this key.
        The source lowers the mean by half a photon, which the truth does not: at 6 photons it would darken most greys
        by a twelfth of the range.
        """
        noise, alive = self._draw(key, image)
        expected = self.photons * (clip_softly(image) + 1) / 2
        drawn = expected + jnp.sqrt(expected + 1e-3) * jax.random.normal(noise, image.shape, image.dtype)
        return clip_softly(2 * alive * drawn / self.photons - 1)

    def simulate(self, key: Array | None, image: Array) -> Array:
        """Returns `image` `[h, w, c]` with true photons, each pixel alive or dead."""
        noise, alive = self._draw(key, image)
        expected = self.photons * (jnp.clip(image, -1, 1) + 1) / 2
        counts = jax.random.poisson(noise, expected).astype(image.dtype)
        return jnp.clip(2 * alive * counts / self.photons - 1, -1, 1)

    def _draw(self, key: Array, image: Array) -> tuple[Array, Array]:
        """Returns the photons' key, and `[h, w, 1]`, 1 where a pixel lives."""
        check_image(image, "drawing photons")
        noise, pixels = jax.random.split(key)
        return noise, jax.random.bernoulli(pixels, self.keep, (*image.shape[:2], 1)).astype(image.dtype)
