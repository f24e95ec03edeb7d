# SPDX-License-Identifier: Apache-2.0
"""The patch discriminator with spectral normalisation, as in the published code of region normalisation."""

import dataclasses

import jax
from flax import nnx
from jax import Array

from inpaint.learned.difai import spectral


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """What determines the discriminator beside its weights.

    Attributes:
        image_channels: of images.
        widths: channels of its convolutions of kernel 4; all but the last halve the size, and one to a single channel
            follows. DiFaI does not tell its discriminator; these are those of region normalisation's.
    """

    image_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self):
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ValueError(f"a patch discriminator has two or more widths above 0, got {self.widths}")


class PatchDiscriminator(nnx.Module):
    """Says of every patch of an image how real it is: `[n, h, w, c] -> [n, h', w']`, unbounded."""

    def __init__(self, config: PatchConfig, *, rngs: nnx.Rngs):
        self.config = config
        before = config.image_channels
        for index, width in enumerate((*config.widths, 1)):
            setattr(self, f"conv{index}", spectral.Conv(before, width, 4, bias=False, rngs=rngs))
            before = width

    @property
    def smallest(self) -> int:
        """The least height and width of images, in pixels."""
        return 3 << (len(self.config.widths) - 1)

    def check(self, size: int) -> None:
        """Raises ValueError for images of fewer than `smallest` pixels."""
        if size < self.smallest:
            raise ValueError(
                f"a patch discriminator of {len(self.config.widths)} widths needs images of {self.smallest} px, got "
                f"{size}; give it fewer widths"
            )

    def __call__(self, images: Array) -> Array:
        """Returns the scores `[n, h', w']` of `images` `[n, h, w, c]`; raises ValueError as `check`."""
        self.check(min(images.shape[1:3]))
        x, halvings = images, len(self.config.widths) - 1
        for index in range(halvings + 2):
            conv = getattr(self, f"conv{index}")
            x = conv.halve(x) if index < halvings else conv(x)
            x = x if index == halvings + 1 else jax.nn.leaky_relu(x, 0.2)
        return x[..., 0]
