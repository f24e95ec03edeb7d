# SPDX-License-Identifier: Apache-2.0
"""The contract of learned inpainters: networks that restore an image in one pass, differently for every key."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

import stylegan_jax as sg
from stylegan_jax import latents
from stylegan_jax.joint import LATENTS, Features, Joint


class Produced(NamedTuple):
    """One sample of a learned inpainter.

    Attributes:
        image: `[h, w, c]`, about [-1, 1] and unclipped, in known pixels what the network makes of them.
        ws: latents `[num_ws, w_dim]` with which a search may go on, or None.
        features: feature maps `{"b16": [16, 16, c]}` that took the place of the generator's, by the layer that they
            enter, or None.
    """

    image: Array
    ws: Array | None = None
    features: Mapping[str, Array] | None = None


class Inpainter(Protocol):
    """What the search asks of a learned inpainter, a Flax module with all its networks but the frozen generator.

    It is a pure function of its arguments, for one image: batches are made by `vmap`, so no result depends on another.
    `config` holds its settings, for the checkpoint. One whose results may be edited also has
    `restyled(generator, ws, image, known)`, which returns the sample of other latents `[num_ws, w_dim]`.
    """

    config: Any

    @property
    def noise(self) -> str:
        """What the generator's noise inputs get, "const" or "none"."""

    @property
    def rendered_with(self) -> str | None:
        """The noise, "const" or "none", with which `ws` alone give the image again; None where they do not."""

    def produce(self, key: Array, generator: sg.Generator, image: Array, known: Array) -> Produced:
        """Returns one sample.

        Args:
            key: of the sample, `fold_in(fold_in(key, image), sample)`.
            generator: that the networks were trained for.
            image: `[h, w, c]` in [-1, 1], 0 where nothing is known.
            known: `[h, w]`, 1 = keep, 0 = hole.
        """


def space(produced: Produced) -> latents.Space | None:
    """Returns the space that what was produced lies in, `[...]` arrays or their shapes; None without latents."""
    if produced.ws is None:
        return None
    if not produced.features:
        return latents.WPLUS
    return Joint(latents.WPLUS, tuple(Features(name) for name in sorted(produced.features)))


def variable(produced: Produced) -> latents.Variable | None:
    """Returns the variable of that space, with the leading axes that `produced` `[..., num_ws, w_dim]` has."""
    if produced.ws is None or not produced.features:
        return produced.ws
    return {LATENTS: produced.ws} | {Features(name).name: x for name, x in produced.features.items()}
