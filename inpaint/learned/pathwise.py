# SPDX-License-Identifier: Apache-2.0
"""Samples of what may be behind a hole by an encoder alone, without training: pathwise conditioning.

A draw of the generator becomes a draw given the known pixels by adding what an encoder says of the difference:
`w = E(y) + spread * (w_r - E(M G(w_r)))`, y being the image with its hole, M the same hole and w_r = mapping(z). Were
latents and pixels jointly normal and E the conditional mean, this would be an exact sample of the latents given y at
spread 1 (Matheron's rule; Wilson et al. 2021, "Pathwise Conditioning of Gaussian Processes", section 3).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint.search.produced import Produced
from stylegan_jax import encoders
from stylegan_jax.encoders.encoding import Encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathwiseConfig:
    """How samples differ.

    Attributes:
        spread: how much of what the encoder cannot know of a draw is added to its guess; 0: the guess alone.
        truncation_psi: of the draws, towards the mean of W.
    """

    spread: float = 0.5
    truncation_psi: float = 0.7

    def __post_init__(self):
        if not 0 <= self.spread < float("inf") or not 0 <= self.truncation_psi < float("inf"):
            raise ValueError(
                f"spread and truncation_psi must be at least 0, got {self.spread} and {self.truncation_psi}"
            )


class PathwiseSampler(nnx.Module):
    """Samples of W+ given the known pixels, about an encoder's guess; see `inpaint.search.produced.Inpainter`."""

    def __init__(self, encoder: Encoder, config: PathwiseConfig | None = None):
        self.config = PathwiseConfig() if config is None else config
        self.encoder = encoder

    def varied(self, *, spread: float | None = None, truncation_psi: float | None = None) -> "PathwiseSampler":
        """Returns the same encoder, not copied, with other settings of `PathwiseConfig`; None: as they are."""
        changes = {"spread": spread, "truncation_psi": truncation_psi}
        given = {name: value for name, value in changes.items() if value is not None}
        return PathwiseSampler(self.encoder, dataclasses.replace(self.config, **given))

    @property
    def noise(self) -> str:
        """What the generator's noise inputs get: "none" for encoders that `inpaint train` made, which know it without
        noise, else "const"."""
        return "none" if isinstance(self.encoder, encoders.MaskedEncoder | encoders.LinearEncoder) else "const"

    @property
    def rendered_with(self) -> str:
        """The noise with which the latents alone give a sample again."""
        return self.noise

    def produce(self, key: Array, generator: sg.Generator, image: Array, known: Array) -> Produced:
        """Returns one sample for `image` `[h, w, c]` and `known` `[h, w]`; see `inpaint.search.produced.Inpainter`."""
        z = jax.random.normal(key, (1, generator.config.z_dim), image.dtype)
        drawn = generator.map(z, truncation_psi=self.config.truncation_psi)
        seen = jnp.concatenate([image[None], generator.synthesis(drawn, noise=self.noise).astype(image.dtype)])
        both = jnp.broadcast_to(known, (2, *known.shape))
        guess, of_drawn = encoders.encode(self.encoder, seen, known=both, generator=generator)
        ws = guess + self.config.spread * (drawn[0] - of_drawn)
        return Produced(generator.synthesis(ws[None], noise=self.noise)[0], ws)
