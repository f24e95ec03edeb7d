# SPDX-License-Identifier: Apache-2.0
"""Hierarchical encoding for image inpainting with StyleGAN inversion (Dündar 2024): all networks but the generator.

Batches are `[n, ...]`, images `[n, h, w, c]` in [-1, 1], `known` `[n, h, w]`, 1 = keep.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint.learned.hierarchical import encoder as _encoder
from inpaint.learned.hierarchical.config import HierarchicalConfig
from inpaint.learned.hierarchical.mixing import Mixing
from inpaint.learned.hierarchical.skip import SkipEncoder
from inpaint.search.produced import Produced
from stylegan_jax import checkpoint, layers


class Inpainted(NamedTuple):
    """Renders `[n, h, w, c]`, output styles `[n, num_ws, w_dim]`, and the map that replaced the generator's, or None
    where there is none."""

    images: Array
    ws: Array
    features: Array | None


class Seen(NamedTuple):
    """What does not depend on sampled codes: the encoder's codes and map, and what output styles are counted from."""

    codes: Array
    fine: Array
    start: Array


class HierarchicalInpainter(nnx.Module):
    """Encoder, mixing networks, skip encoder and, for two stages, the second encoder.

    Styles are read and written as `mean + scale * x`, with mean and standard deviations of W. `guide` is the encoder of
    the generator's folder where `config.start` asks for it; it is not stored with the network.
    """

    def __init__(self, config: HierarchicalConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = _encoder.Encoder(config, rngs=rngs)
        shared = dict(w_dim=config.w_dim, code_dim=config.code_dim, hidden=config.hidden, context=config.context)
        self.mixing = Mixing(num_ws=config.num_ws, **shared, rngs=rngs)
        fine = self.encoder.fine_channels
        if config.stages == "two":
            self.second = _encoder.second_encoder(config, rngs=rngs)
            fine = config.second_widths[0]
        if config.stages != "latents":
            self.skip = SkipEncoder(fine, config.feature_channels, config.skip_widths, rngs=rngs)
        self.mean = layers.Buffer(jnp.zeros((config.w_dim,)))
        self.scale = layers.Buffer(jnp.ones((config.w_dim,)))

    @property
    def noise(self) -> str:
        """What the generator's noise inputs get."""
        return self.config.noise

    @property
    def rendered_with(self) -> str | None:
        """The noise with which the latents give the image again; None where a feature map was replaced."""
        return self.config.noise if self.config.stages == "latents" else None

    @property
    def needs_guide(self) -> bool:
        """Whether output styles are counted from what the generator's own encoder says."""
        return self.config.start == "encoder"

    def guided(self, encoder: nnx.Module | None) -> "HierarchicalInpainter":
        """Returns the network with the encoder of its generator, `encoder(images, known) -> ws`; None: without."""
        found = nnx.clone(self)
        if encoder is not None:
            found.guide = encoder
        elif hasattr(found, "guide"):
            del found.guide
        return found

    def see(self, images: Array, known: Array, *, dtype: jnp.dtype | None = None) -> Seen:
        """Returns what the encoder says of images with holes.

        Args:
            images: `[n, h, w, c]`.
            known: `[n, h, w]`.
            dtype: of the trunk's computations; None: of the images.

        Raises:
            ValueError: without the encoder of the generator where output styles are counted from it.
        """
        config = self.config
        codes, fine = self.encoder(images, known, dtype=dtype or images.dtype)
        if not self.needs_guide:
            return Seen(codes, fine, jnp.zeros((len(images), config.num_ws, config.w_dim), images.dtype))
        if not hasattr(self, "guide"):
            raise ValueError("this network counts styles from those of its generator's encoder; call guided(encoder)")
        return Seen(codes, fine, self.normal(jax.lax.stop_gradient(self.guide(images, known))))

    def counted(self, difference: Array) -> Array:
        """Returns a difference of latents `[n, num_ws, w_dim]` in standard deviations of W."""
        return difference / self.scale[...][None, None]

    def normal(self, ws: Array) -> Array:
        """Returns latents `[n, num_ws, w_dim]` from the mean of W, in its standard deviations."""
        return (ws - self.mean[...][None, None]) / self.scale[...][None, None]

    def styles(self, seen: Seen, rand: Array) -> Array:
        """Returns output styles `[n, num_ws, w_dim]` for sampled ones `rand` `[n, num_ws, w_dim]`."""
        mixed = seen.start + self.mixing(self.normal(rand) - seen.start, seen.codes)
        return self.mean[...][None, None] + self.scale[...][None, None] * mixed

    def render(self, generator: sg.Generator, ws: Array, seen: Seen, images: Array, known: Array) -> Inpainted:
        """Returns the images of output styles `ws` `[n, num_ws, w_dim]`, by the same skip path whatever they are.

        Editing adds to `ws` between `styles` and this (Dündar 2024, section 4: InterFaceGAN on W_out).

        Args:
            generator: the frozen one.
            ws: output styles.
            seen: of `see`.
            images: `[n, h, w, c]`; read again by the second encoder only.
            known: `[n, h, w]`.
        """
        config, fine = self.config, seen.fine
        if config.stages == "latents":
            return Inpainted(generator.synthesis(ws, noise=config.noise), ws, None)
        if config.stages == "two":
            first = generator.synthesis(ws, noise=config.noise)
            fine = _encoder.second_features(self.second, images, known, first, size=config.size)

        def replaced(made: Array) -> Array:
            found = self.skip(fine, made)
            return made + found if config.skip_from == "generator" else found

        features = {config.entering: replaced}
        made, maps = generator.synthesis.forward(ws, noise=config.noise, features=features)
        return Inpainted(made, ws, maps[config.entering])

    def __call__(self, generator: sg.Generator, images: Array, known: Array, rand: Array) -> Inpainted:
        """Returns restored images for sampled styles `rand` `[n, num_ws, w_dim]`; see `see` and `render`."""
        seen = self.see(images, known)
        return self.render(generator, self.styles(seen, rand), seen, images, known)

    def produce(self, key: Array, generator: sg.Generator, image: Array, known: Array) -> Produced:
        """Returns one sample, whose styles are mapped from a normal z; see `inpaint.search.produced.Inpainter`."""
        z = jax.random.normal(key, (1, generator.config.z_dim), image.dtype)
        found = self(generator, image[None], known[None], generator.map(z))
        features = None if found.features is None else {self.config.entering: found.features[0]}
        return Produced(found.images[0], found.ws[0], features)

    def restyled(self, generator: sg.Generator, ws: Array, image: Array, known: Array) -> Produced:
        """Returns the image of other output styles `ws` `[num_ws, w_dim]`, edited ones say, by the same skip path.

        Args:
            generator: the frozen one.
            ws: in place of what the mixing networks say.
            image: `[h, w, c]`, 0 where nothing is known.
            known: `[h, w]`.
        """
        shown, mask = image[None], known[None]
        found = self.render(generator, ws[None], self.see(shown, mask), shown, mask)
        features = None if found.features is None else {self.config.entering: found.features[0]}
        return Produced(found.images[0], ws, features)


checkpoint.register(HierarchicalInpainter, HierarchicalConfig)
