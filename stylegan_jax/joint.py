# SPDX-License-Identifier: Apache-2.0
"""Spaces that hold more than latents: noise maps, the constant input, feature maps, the input's transform, weights.

The variable of `Joint(WPLUS, (Noise(), Features("b16")))` is `{"latents": [num_ws, w_dim], "noise": {...},
"features:b16": [16, 16, c]}`. All of it starts as what the network has of its own, so a lift leaves the image as it is.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from stylegan_jax import latents, parameters
from stylegan_jax.latents import Host, Inputs, Variable

LATENTS = "latents"  # the part of a variable that lies in the space of latents


@dataclasses.dataclass(frozen=True)
class Part:
    """Something beside the latents: how its variable is read, and what it is for inputs that lack it."""

    @property
    def name(self) -> str:
        """Its key in the variable."""
        raise NotImplementedError

    def add(self, host: Host, v: Variable, inputs: Inputs) -> Inputs:
        """Returns `inputs` with what the variable `v` says."""
        raise NotImplementedError

    def of(self, host: Host, inputs: Inputs) -> Variable:
        """Returns the variable that leaves the image of `inputs` as it is; raises ValueError where there is none."""
        raise ValueError(f"nothing can be lifted to a space with {self.name}")

    def draw(self, host: Host, inputs: Inputs) -> Variable:
        """Returns where the variable begins for drawn latents."""
        return self.of(host, inputs)


@dataclasses.dataclass(frozen=True)
class Noise(Part):
    """The noise maps, `{"b8/conv0": [8, 8], ...}`, of the first `maps` layers from 4x4 up (None: of all)."""

    name = "noise"
    maps: int | None = None

    def add(self, host: Host, v: Mapping[str, Array], inputs: Inputs) -> Inputs:
        return inputs._replace(noise=dict(inputs.noise or {}) | dict(v))

    def of(self, host: Host, inputs: Inputs) -> dict[str, Array]:
        stored = host.generator.synthesis.noise_maps("const", 1, host.generator.dtype)
        if not stored:
            raise ValueError("this generator has no noise inputs to search")
        own = {name: jnp.zeros_like(x[0]) if host.noise == "none" else x[0] for name, x in stored.items()}
        return dict(list((own | dict(inputs.noise or {})).items())[: self.maps])


@dataclasses.dataclass(frozen=True)
class Features(Part):
    """The feature map that enters a layer: "b16" (block 16), "b4/conv1" (the constant), "b16/conv1", "b16/torgb"."""

    entering: str = "b16"

    @property
    def name(self) -> str:
        """Different for maps that enter different layers, of which there may be several."""
        return f"features:{self.entering}"

    def add(self, host: Host, v: Array, inputs: Inputs) -> Inputs:
        return inputs._replace(features=dict(inputs.features or {}) | {self.entering: v})

    def of(self, host: Host, inputs: Inputs) -> Array:
        given = (inputs.features or {}).get(self.entering)
        return features_entering(host, inputs, self.entering)[0] if given is None else given


@dataclasses.dataclass(frozen=True)
class Content(Features):
    """The constant that synthesis begins with, `[4, 4, c]`."""

    entering: str = "b4/conv1"


@dataclasses.dataclass(frozen=True)
class Transform(Part):
    """Rotation and shift of StyleGAN3's input, `[4]`: cosine and sine (of any length), x and y in image sizes."""

    name = "transform"

    def add(self, host: Host, v: Array, inputs: Inputs) -> Inputs:
        c, s = v[:2] / jnp.linalg.norm(v[:2])
        zero, one = jnp.zeros_like(c), jnp.ones_like(c)
        matrix = jnp.stack([c, -s, v[2], s, c, v[3], zero, zero, one]).reshape(3, 3)
        return inputs._replace(transform=matrix)

    def of(self, host: Host, inputs: Inputs) -> Array:
        if not hasattr(host.generator.synthesis, "input"):
            raise ValueError("only StyleGAN3 has an input with a transform")
        matrix = inputs.transform
        if matrix is None:
            matrix = host.generator.synthesis.input.transform[...].astype(host.generator.dtype)
        return jnp.stack([matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]])


@dataclasses.dataclass(frozen=True)
class Weights(Part):
    """The weights of the synthesis network, by flat name. Every start has its own, so its steps cost far more."""

    name = "weights"

    def add(self, host: Host, v: Mapping[str, Array], inputs: Inputs) -> Inputs:
        return inputs._replace(weights=v)

    def of(self, host: Host, inputs: Inputs) -> dict[str, Array]:
        return parameters.trainable(host.generator.synthesis) if inputs.weights is None else dict(inputs.weights)


@dataclasses.dataclass(frozen=True)
class Walk(Part):
    """Further images on a line through W+: a direction for every layer `[num_ws, w_dim]` (of any length) and how far
    along it each of them lies, `[views - 1]`. The image itself lies at 0.

    Directions begin as normal draws, distances at 0 (SPHInX' attribute walk).
    """

    name = "walk"
    views: int = 2

    def __post_init__(self):
        if self.views < 2:
            raise ValueError(f"a walk has at least two views, got {self.views}")

    def add(self, host: Host, v: Mapping[str, Array], inputs: Inputs) -> Inputs:
        return inputs._replace(walk=v)

    def of(self, host: Host, inputs: Inputs) -> dict[str, Array]:
        config, dtype = host.generator.config, host.generator.dtype
        direction = jax.random.normal(host.key, (config.num_ws, config.w_dim), dtype)
        return {"direction": direction, "distances": jnp.zeros(self.views - 1, dtype)}


def walked(inputs: Inputs, distances: Array) -> Array:
    """Returns the latents `[n, num_ws, w_dim]` that lie `distances` `[n]` along the walk of the inputs.

    Raises:
        ValueError: where they have no latents, or no walk.
    """
    if inputs.ws is None or inputs.walk is None:
        raise ValueError("these inputs have no walk: search a joint space with Walk, over latents of layers")
    direction = inputs.walk["direction"]
    unit = direction / jnp.maximum(jnp.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    return inputs.ws[None] + distances[:, None, None] * unit[None]


def features_entering(host: Host, inputs: Inputs, layer: str) -> Array:
    """Returns the feature map `[1, r, r, c]` that enters `layer` for the inputs.

    Raises:
        ValueError: where no map enters there, or the generator does not show its feature maps.
    """
    synthesis = host.generator.synthesis
    if not hasattr(synthesis, "most_filters"):
        raise ValueError(f"feature maps are searched in a StyleGAN2; this is of {type(synthesis).__module__}")
    maps = synthesis.forward(
        None if inputs.ws is None else inputs.ws[None],
        styles=None if inputs.styles is None else {name: x[None] for name, x in inputs.styles.items()},
        noise=latents.noise_inputs(host.generator, inputs.noise, noise=host.noise, key=host.key),
        features={name: x[None] for name, x in (inputs.features or {}).items()},
    )[1]
    maps = {name: x for name, x in maps.items() if not name.endswith("/image")}
    if layer not in maps:
        raise ValueError(f"no feature map enters {layer!r}; there are {', '.join(maps)}")
    return maps[layer]


@dataclasses.dataclass(frozen=True)
class Joint(latents.Space):
    """Latents in the space `base`, together with `parts`."""

    finer = ()
    base: latents.Space
    parts: tuple[Part, ...]

    def __post_init__(self):
        names = [part.name for part in self.parts]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a joint space needs parts, each once, got {', '.join(names) or 'none'}")

    @property
    def name(self) -> str:
        """Names of its latents and parts."""
        return "&".join([self.base.name, *(part.name for part in self.parts)])

    @property
    def needs(self) -> tuple[str, ...]:
        """What its latents need."""
        return self.base.needs

    @property
    def is_normal(self) -> bool:
        """Whether its latents are."""
        return self.base.is_normal

    @property
    def has_ws(self) -> bool:
        """Never: the parts say something, too."""
        return False

    def holds(self, source: latents.Space) -> bool:
        if isinstance(source, Joint):
            return self.base.holds(source.base) and {p.name for p in source.parts} <= {p.name for p in self.parts}
        return self.base.holds(source)

    def to_inputs(self, host: Host, v: Mapping[str, Variable]) -> Inputs:
        inputs = self.base.to_inputs(host, v[LATENTS])
        for part in self.parts:
            inputs = part.add(host, v[part.name], inputs)
        return inputs

    def lifted(self, host: Host, v: Variable, source: latents.Space) -> dict[str, Variable]:
        inner, own = (source.base, v[LATENTS]) if isinstance(source, Joint) else (source, v)
        inputs = source.to_inputs(host, v)
        own = own if inner == self.base else self.base.lifted(host, own, inner)
        return {LATENTS: own} | {part.name: part.of(host, inputs) for part in self.parts}

    def draw(self, host: Host) -> dict[str, Variable]:
        keys = jax.random.split(host.key, len(self.parts) + 1)
        v = self.base.draw(host._replace(key=keys[0]))
        inputs = self.base.to_inputs(host, v)
        drawn = zip(self.parts, keys[1:], strict=True)
        return {LATENTS: v} | {part.name: part.draw(host._replace(key=key), inputs) for part, key in drawn}
