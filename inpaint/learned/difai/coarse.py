# SPDX-License-Identifier: Apache-2.0
"""The coarse completion: a small network that fills a hole with a blurred guess.

It stands for the paper's MLGN, re-weighted for blurry results, which leave the encoder more room. Any other function
`(images [n, r, r, c], known [n, r, r]) -> images [n, r, r, c]` can take its place.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from inpaint.learned.difai import spectral

Completer = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoarseConfig:
    """What determines the coarse completer beside its weights.

    Attributes:
        image_channels: of images.
        seen: resolution at which it works; its guess is enlarged from there, and blurred by that.
        widths: channels at `seen`, half of it, ...
    """

    image_channels: int = 3
    seen: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 128)

    def __post_init__(self):
        if not self.widths or self.seen < 1 << (len(self.widths) - 1) or self.seen % (1 << (len(self.widths) - 1)):
            raise ValueError(f"{len(self.widths)} widths halve a size of {self.seen} more often than it can be halved")


class CoarseCompleter(nnx.Module):
    """A U-net on means of blocks of known pixels; trained by squared error, so that it tells the mean of what may be.

    The paper's blur comes from a weight of another network's loss; here it has two causes that need no weight: the mean
    of all likely images is blurred, and so is an image enlarged from `seen`.
    """

    def __init__(self, config: CoarseConfig, *, rngs: nnx.Rngs):
        self.config = config

        def conv(before: int, after: int) -> spectral.Conv:
            return spectral.Conv(before, after, 3, spectral=False, gain=2**0.5, rngs=rngs)

        before = config.image_channels + 1
        for level, width in enumerate(config.widths):
            setattr(self, f"down{level}", conv(before, width))
            before = width
        self.middle = conv(before, before)
        for level in reversed(range(len(config.widths))):
            width = config.widths[level]
            setattr(self, f"up{level}", conv(before + width, width))
            before = width
        self.to_image = spectral.Conv(before, config.image_channels, 3, spectral=False, gain=0.1, rngs=rngs)

    def guess(self, images: Array, known: Array) -> Array:
        """Returns the guess of the whole images `[n, seen, seen, c]` for `images` `[n, r, r, c]`, `known` `[n, r, r]`.

        Values behind a hole have no influence.
        """
        seen = self.config.seen
        n, r, _, c = images.shape
        if r % seen or c != self.config.image_channels:
            raise ValueError(
                f"the coarse completer sees blocks of {seen} x {seen} and {self.config.image_channels} channels, which "
                f"images {list(images.shape)} do not divide into"
            )
        shown = (known > 0.5)[..., None]

        def means(x: Array) -> Array:
            return x.reshape(n, seen, r // seen, seen, r // seen, x.shape[-1]).mean((2, 4))

        share = means(shown.astype(images.dtype))
        colours = means(jnp.where(shown, images, 0)) / jnp.where(share > 0, share, 1)
        x, skips = jnp.concatenate([colours, share], -1), []
        for level in range(len(self.config.widths)):
            x = x if level == 0 else _halved(x)
            x = jax.nn.leaky_relu(getattr(self, f"down{level}")(x), 0.2)
            skips.append(x)
        x = jax.nn.leaky_relu(self.middle(x), 0.2)
        for level in reversed(range(len(skips))):
            x = x if level == len(skips) - 1 else x.repeat(2, 1).repeat(2, 2)
            x = jnp.concatenate([x, skips[level]], -1)
            x = jax.nn.leaky_relu(getattr(self, f"up{level}")(x), 0.2)
        return jnp.tanh(self.to_image(x))

    def __call__(self, images: Array, known: Array) -> Array:
        """Returns `images` `[n, r, r, c]` with the enlarged guess in their holes; `known` `[n, r, r]`, 1 = keep."""
        filled = jax.image.resize(self.guess(images, known), images.shape, "linear")
        return jnp.where((known > 0.5)[..., None], images, filled)


def _halved(x: Array) -> Array:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def loss(completer: CoarseCompleter, images: Array, known: Array) -> Array:
    """Returns the mean squared error of the guess, scalar, against `images` `[n, r, r, c]` at the size seen.

    All blocks count, since what is seen is easily told again and costs nothing.
    """
    guess = completer.guess(images, known)
    n, seen, _, c = guess.shape
    factor = images.shape[1] // seen
    truth = images.reshape(n, seen, factor, seen, factor, c).mean((2, 4))
    return jnp.mean(jnp.square(guess - truth))
