# SPDX-License-Identifier: Apache-2.0
"""The feature maps that perceptual and style loss compare: of a VGG, or of the generator's own discriminator."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features import Vgg
from stylegan_jax.features.vgg import imagenet

DISCRIMINATOR = "discriminator"
# The paper names no layers; these are those of the losses in the published code of region normalisation.
VGG_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclasses.dataclass(frozen=True)
class Features:
    """A frozen network, which of its maps are compared, and what each is divided by.

    The maps of a discriminator have no common scale, so they are divided by their mean magnitude on real images;
    weights that were published for a VGG's then have about the effect that they have there.
    """

    network: nnx.Module
    taps: tuple[str, ...]
    scales: tuple[float, ...]

    @classmethod
    def load(cls, name: str | os.PathLike, model: sg.Model, taps: Sequence[str], images: np.ndarray) -> "Features":
        """Returns the features that a name stands for.

        Args:
            name: "discriminator", that of the model; or the path of a VGG's checkpoint.
            model: the generator's.
            taps: names of maps; none: see `VGG_TAPS`, or all of a discriminator's.
            images: uint8 `[n, h, w, c]`, on which the scales of a discriminator's maps are measured.

        Raises:
            ValueError: where the network or a map is missing, or the image has not the channels it takes.
        """
        if os.fspath(name) != DISCRIMINATOR:
            if not pathlib.Path(name).is_dir():
                raise ValueError(f'features must be "{DISCRIMINATOR}" or the checkpoint of a VGG, got {str(name)!r}')
            network, _ = checkpoint.load_network(name, Vgg)
            taps = tuple(taps) or VGG_TAPS
            unknown = [tap for tap in taps if tap not in network.config.taps]
            if unknown or images.shape[3] != 3:
                raise ValueError(f"VGG: no feature {', '.join(unknown)}" if unknown else "a VGG takes 3 channels")
            return cls(network, taps, (1.0,) * len(taps))
        if model.discriminator is None:
            raise ValueError("the checkpoint has no discriminator; set features to the checkpoint of a VGG")
        graph, state = nnx.split(model.discriminator)
        magnitudes = _magnitudes(state, image_io.from_uint8(images), graph=graph)
        taps = tuple(taps) or tuple(magnitudes)
        if unknown := [tap for tap in taps if tap not in magnitudes]:
            raise ValueError(f"the discriminator has no map {', '.join(unknown)}; there are {', '.join(magnitudes)}")
        return cls(model.discriminator, taps, tuple(float(magnitudes[tap]) + 1e-8 for tap in taps))

    def with_network(self, network: nnx.Module) -> "Features":
        """Returns the same maps of a network of the same kind."""
        return dataclasses.replace(self, network=network)

    def __call__(self, images: Array) -> Mapping[str, Array]:
        """Returns the maps `[n, h', w', k]` by name of `images` `[n, h, w, c]` in [-1, 1]."""
        if isinstance(self.network, Vgg):
            return self.network(imagenet(images), self.taps)
        maps = _maps(self.network, images)
        return {tap: maps[tap] / scale for tap, scale in zip(self.taps, self.scales, strict=True)}


def _maps(network: nnx.Module, images: Array) -> dict[str, Array]:
    # One by one, since behind these maps StyleGAN's discriminator looks at groups, which batches must divide into.
    return jax.vmap(lambda image: jax.tree.map(lambda x: x[0], network.forward(image[None])[1]))(images)


@functools.partial(jax.jit, static_argnames="graph")
def _magnitudes(state: Any, images: Array, *, graph: Any) -> dict[str, Array]:
    maps = _maps(nnx.merge(graph, state), images)
    return {name: jnp.mean(jnp.abs(x)) for name, x in maps.items()}
