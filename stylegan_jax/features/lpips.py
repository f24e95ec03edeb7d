# SPDX-License-Identifier: Apache-2.0
"""LPIPS, version 0.1: how different two images look (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric").

Images are `[n, h, w, 3]` in [-1, 1], red first. Features of a trunk are normalised over their channels at every
position, and their squared differences weighted and averaged; distances are not negative, and 0 for equal images.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from stylegan_jax import parameters
from stylegan_jax.features import alexnet, squeezenet, vgg

# The paper's code normalises images in [-1, 1] by these rounded numbers, nearly those of `vgg.imagenet`. They are part
# of the network, and float32 as its weights are, also where it computes in float64.
SHIFT = np.float32((-0.030, -0.088, -0.188))
SCALE = np.float32((0.458, 0.448, 0.450))
EPSILON = 1e-10  # added to a length, outside the root

TAPS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "squeezenet": ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"),
}
_TRUNKS = {
    "vgg16": (vgg.Vgg, vgg.VggConfig),
    "alexnet": (alexnet.AlexNet, alexnet.AlexNetConfig),
    "squeezenet": (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LpipsConfig:
    """What determines a distance beside its weights: the trunk (`vgg16`, `alexnet` or `squeezenet`) and, where they
    are not the published ones, the widths of its config."""

    trunk: str = "vgg16"
    widths: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.trunk not in _TRUNKS:
            raise ValueError(f"trunk must be one of {', '.join(_TRUNKS)}, got {self.trunk!r}")
        _ = self.trunk_config  # refuses widths that do not fit

    @property
    def trunk_config(self) -> vgg.VggConfig | alexnet.AlexNetConfig | squeezenet.SqueezeNetConfig:
        """The config of the trunk."""
        kind = _TRUNKS[self.trunk][1]
        return kind() if self.widths is None else kind(widths=self.widths)

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the features that are compared."""
        return TAPS[self.trunk]


def unit(features: Array) -> Array:
    """Returns `f / (|f| + 1e-10)` over the channels of every position, `[n, h, w, c] -> [n, h, w, c]`.

    Where all channels are zero the derivative is taken as zero: the true one, 1e10, would drown all others.
    """
    squares = jnp.square(features).sum(-1, keepdims=True)
    some = squares > 0
    length = jnp.sqrt(jnp.where(some, squares, 1)) + EPSILON
    return jnp.where(some, features / length, 0)


class Lpips(nnx.Module):
    """A trunk and one weight for each channel of each compared feature; all weights are at least 0.

    Weights of 1 give the unweighted distance that the paper calls a baseline.
    """

    def __init__(self, config: LpipsConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.trunk = _TRUNKS[config.trunk][0](config.trunk_config, rngs=rngs)
        for i, tap in enumerate(config.taps):
            setattr(self, f"head{i}", nnx.Param(jnp.ones((config.trunk_config.taps[tap],))))

    @classmethod
    def from_arrays(cls, config: LpipsConfig, arrays: Mapping[str, Array]) -> "Lpips":
        """Returns the network with weights `{"trunk/...": ..., "head0": [c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def features(self, images: Array) -> tuple[Array, ...]:
        """Returns the normalised features `[n, h_i, w_i, c_i]` of `images` `[n, h, w, 3]`, for `layers` and `spatial`.

        What does not change during a search needs them only once.

        Raises:
            ValueError: images too small for the trunk, or without three channels.
        """
        shift, scale = (v.astype(images.dtype)[None, None, None] for v in (SHIFT, SCALE))
        found = self.trunk((images - shift) / scale, self.config.taps)
        return tuple(unit(x) for x in found.values())

    def layers(self, features0: tuple[Array, ...], features1: tuple[Array, ...]) -> Array:
        """Returns what every feature adds to the distance, `[n, features]`.

        Args:
            features0: `[n, h_i, w_i, c_i]` each, from `features`.
            features1: likewise; a batch of one is compared with all.
        """
        return jnp.stack([difference.mean((1, 2)) for difference in self._differences(features0, features1)], -1)

    def spatial(self, features0: tuple[Array, ...], features1: tuple[Array, ...], size: tuple[int, int]) -> Array:
        """Returns a map of distances `[n, h, w]`, each feature's upsampled bilinearly, and summed.

        Args:
            features0: `[n, h_i, w_i, c_i]` each, from `features`.
            features1: likewise; a batch of one is compared with all.
            size: rows and columns (h, w) of the images.
        """
        maps = (
            jax.image.resize(difference, (len(difference), *size), "linear", antialias=False)
            for difference in self._differences(features0, features1)
        )
        return sum(maps)

    def _differences(self, features0: tuple[Array, ...], features1: tuple[Array, ...]) -> Iterator[Array]:
        for i, (x, y) in enumerate(zip(features0, features1, strict=True)):
            head = getattr(self, f"head{i}")[...].astype(x.dtype)
            if {len(x), len(y)} > {1}:
                x, y = (jnp.broadcast_to(z, (max(len(x), len(y)), *z.shape[1:])) for z in (x, y))
            yield jnp.square(x - y) @ head

    def distance(self, images0: Array, images1: Array) -> Array:
        """Returns the distances of `n` pairs of images, `[n]`.

        `sum_i mean_yx sum_c head_ic (u0_iyxc - u1_iyxc)^2` with the normalised features u (the paper's equation 1).

        Args:
            images0: `[n, h, w, 3]` in [-1, 1].
            images1: `[n, h, w, 3]` in [-1, 1], or one image `[1, h, w, 3]` for all.

        Raises:
            ValueError: images of different sizes, too small for the trunk, or without three channels.
        """
        if images0.shape[1:] != images1.shape[1:]:
            raise ValueError(
                f"LPIPS compares images of one size, got {list(images0.shape)} and {list(images1.shape)}; resample one"
            )
        return self.layers(self.features(images0), self.features(images1)).sum(-1)

    def vectors(self, images: Array) -> Array:
        """Returns vectors `[n, d]` of `images` `[n, h, w, 3]` whose squared Euclidean distance is `distance`.

        `sqrt(head_ic / (h_i w_i)) u_iyxc`, all of them in a row; the differences of one vector can be averaged,
        stored and searched as such (the form of StyleGAN2's projector, Karras et al. 2020, appendix D).
        """
        rows = []
        for i, x in enumerate(self.features(images)):
            weight = jnp.sqrt(getattr(self, f"head{i}")[...].astype(x.dtype) / math.prod(x.shape[1:3]))
            rows.append((x * weight[None, None, None]).reshape(len(x), -1))
        return jnp.concatenate(rows, 1)
