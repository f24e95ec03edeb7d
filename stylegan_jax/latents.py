# SPDX-License-Identifier: Apache-2.0
"""Latent spaces of a style-based generator, the exact lifts between them, and the statistics of W.

A variable describes one image:

| space | variable | what it is |
|---|---|---|
| z | `[z_dim]` | normal latent |
| z+ | `[num_ws, z_dim]` | a normal latent for every layer |
| p+ | `[num_ws, w_dim]` | normal latents of the Gaussian model of W: `w = LeakyReLU_0.2(mean + deviation v)` |
| w | `[w_dim]` | one latent for all layers |
| w+ | `[num_ws, w_dim]` | a latent for every layer |
| w++ | `[num_ws, filters, w_dim]` | a latent for every filter of every layer |
| s | `{layer: [in]}` | the styles themselves (StyleSpace) |

`stylegan_jax.joint` adds noise maps, features and more to them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from stylegan_jax import generator, parameters

Generator = generator.StyleGenerator
WStatistics = generator.WStatistics
Variable = Any  # an array, or a pytree of arrays


class Inputs(NamedTuple):
    """What a synthesis network gets for one image; None stands for what the network has of its own.

    Attributes:
        ws: latents `[num_ws, w_dim]`.
        styles: `{"b8/conv0": [in]}`, or `[out, in]` with a style for every filter.
        noise: `{"b8/conv0": [8, 8]}`.
        features: `{"b16": [16, 16, c]}`, by the layer that they enter.
        transform: of StyleGAN3's input, `[3, 3]`.
        weights: of the synthesis network, `{"b8/conv0/weight": [3, 3, in, out]}`.
        walk: directions and distances of further images from this one (`stylegan_jax.joint.Walk`), which the network
            itself does not see.
    """

    ws: Array | None = None
    styles: Mapping[str, Array] | None = None
    noise: Mapping[str, Array] | None = None
    features: Mapping[str, Array] | None = None
    transform: Array | None = None
    weights: Mapping[str, Array] | None = None
    walk: Mapping[str, Array] | None = None


class Host(NamedTuple):
    """What it takes to read a variable.

    Attributes:
        generator: whose spaces these are.
        c: label `[c_dim]` of a conditional generator.
        key: for spaces that draw.
        p_space: mean and deviation `[w_dim]` of `LeakyReLU_5(w)`.
        noise: what noise inputs get that a variable does not name, see `render`.
    """

    generator: Generator
    c: Array | None = None
    key: Array | None = None
    p_space: tuple[Array, Array] | None = None
    noise: str = "const"


@dataclasses.dataclass(frozen=True)
class Space:
    """A latent space: the way from a variable to what the synthesis network gets, and back where there is one.

    `name` identifies it, `finer` are the names of the plain spaces that hold all its images, and `needs` what it looks
    for beside the generator (see `inpaint.objective.ROLES`).
    """

    name: ClassVar[str]
    finer: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    is_normal: ClassVar[bool] = False  # its variables are normal by nature, so that it has no mean of W

    @property
    def has_ws(self) -> bool:
        """Whether `ws` alone, with the noise of its own, says all about the image."""
        return True

    def holds(self, source: "Space") -> bool:
        """Whether all images of `source` are in this space."""
        return self == source or self.name in source.finer

    def to_inputs(self, host: Host, v: Variable) -> Inputs:
        """Returns what the synthesis network gets for one variable."""
        raise NotImplementedError

    def from_inputs(self, host: Host, inputs: Inputs) -> Variable:
        """Returns the variable that gives the image of `inputs`; raises ValueError where the space has none."""
        raise ValueError(f"nothing can be lifted to {self.name}")

    def lifted(self, host: Host, v: Variable, source: "Space") -> Variable:
        """Returns the variable of the image that `v` has in `source`."""
        return self.from_inputs(host, source.to_inputs(host, v))

    def draw(self, host: Host) -> Variable:
        """Returns a random variable by the space's own distribution, with `host.key`."""
        raise ValueError(f"the space {self.name} has no distribution of its own")


def _ws(inputs: Inputs, space: Space) -> Array:
    if inputs.ws is None:
        raise ValueError(f"what has no latents for its layers cannot be lifted to {space.name}")
    return inputs.ws


def _tile(host: Host, w: Array) -> Array:
    return jnp.broadcast_to(w[None], (host.generator.config.num_ws, w.shape[0]))


def _normal(host: Host, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(host.key, shape, host.generator.dtype)


@dataclasses.dataclass(frozen=True)
class _Z(Space):
    name = "z"
    finer = ("z", "z+", "w", "w+", "w++", "s")
    is_normal = True

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        c = None if host.c is None else host.c[None]
        return Inputs(_tile(host, host.generator.mapping(v[None], c)[0]))

    def draw(self, host: Host) -> Array:
        return _normal(host, (host.generator.config.z_dim,))


@dataclasses.dataclass(frozen=True)
class _ZPlus(Space):
    name = "z+"
    finer = ("z+", "w+", "w++", "s")
    is_normal = True

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        c = None if host.c is None else jnp.broadcast_to(host.c[None], (v.shape[0], host.c.shape[0]))
        return Inputs(host.generator.mapping(v, c))

    def lifted(self, host: Host, v: Variable, source: Space) -> Array:
        check_lift(source, self)
        return jnp.broadcast_to(v[None], (host.generator.config.num_ws, v.shape[0]))

    def draw(self, host: Host) -> Array:
        config = host.generator.config
        return _normal(host, (config.num_ws, config.z_dim))


@dataclasses.dataclass(frozen=True)
class _PPlus(Space):
    name = "p+"
    finer = ("p+", "w+", "w++", "s")
    is_normal = True
    needs = ("p_space",)

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        mean, deviation = host.p_space
        x = mean[None] + deviation[None] * v
        return Inputs(jnp.where(x >= 0, x, 0.2 * x))

    def draw(self, host: Host) -> Array:
        config = host.generator.config
        return _normal(host, (config.num_ws, config.w_dim))


@dataclasses.dataclass(frozen=True)
class _W(Space):
    name = "w"
    finer = ("w", "w+", "w++", "s")

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        return Inputs(_tile(host, v))

    def from_inputs(self, host: Host, inputs: Inputs) -> Array:
        return _ws(inputs, self)[0]

    def draw(self, host: Host) -> Array:
        return Z.to_inputs(host, Z.draw(host)).ws[0]


@dataclasses.dataclass(frozen=True)
class _WPlus(Space):
    name = "w+"
    finer = ("w+", "w++", "s")

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        return Inputs(v)

    def from_inputs(self, host: Host, inputs: Inputs) -> Array:
        return _ws(inputs, self)


def _synthesis(host: Host, method: str, what: str) -> Any:
    found = getattr(host.generator.synthesis, method, None)
    if found is None:
        raise ValueError(f"{what} needs a StyleGAN2, this generator is {type(host.generator).__module__}")
    return found


@dataclasses.dataclass(frozen=True)
class _WPlusPlus(Space):
    name = "w++"
    finer = ("w++",)

    @property
    def has_ws(self) -> bool:
        return False

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        return Inputs(styles=_synthesis(host, "filter_styles", "the space w++")(v))

    def from_inputs(self, host: Host, inputs: Inputs) -> Array:
        ws = _ws(inputs, self)
        filters = _synthesis(host, "most_filters", "the space w++")()
        return jnp.broadcast_to(ws[:, None], (ws.shape[0], filters, ws.shape[1]))


@dataclasses.dataclass(frozen=True)
class _S(Space):
    name = "s"
    finer = ("s",)

    @property
    def has_ws(self) -> bool:
        return False

    def to_inputs(self, host: Host, v: Mapping[str, Array]) -> Inputs:
        return Inputs(styles=v)

    def from_inputs(self, host: Host, inputs: Inputs) -> dict[str, Array]:
        found = _synthesis(host, "styles", "StyleSpace")(_ws(inputs, self)[None])
        return {name: style[0] for name, style in found.items()}


@dataclasses.dataclass(frozen=True)
class TruncatedZ(_Z):
    """Z whose w is pulled to the mean of W: `w = mean + psi (mapping(z) - mean)`."""

    name = "truncated_z"
    finer = ("w", "w+", "w++", "s")
    psi: float = 0.7

    def to_inputs(self, host: Host, v: Array) -> Inputs:
        c = None if host.c is None else host.c[None]
        return Inputs(host.generator.map(v[None], c, truncation_psi=self.psi)[0])


Z, ZPLUS, PPLUS, W, WPLUS, WPLUSPLUS, S = _Z(), _ZPlus(), _PPlus(), _W(), _WPlus(), _WPlusPlus(), _S()
SPACES = {space.name: space for space in (Z, ZPLUS, PPLUS, W, WPLUS, WPLUSPLUS, S)}


def check_lift(source: Space, target: Space) -> None:
    """Raises ValueError where `target` does not hold all images of `source`."""
    if not target.holds(source):
        plain = ", ".join(source.finer) or "itself alone"
        raise ValueError(
            f"cannot lift from {source.name} to {target.name}, which does not hold all its images; of the plain "
            f"spaces, {source.name} can be lifted to {plain}"
        )


def lift(host: Host, v: Variable, *, source: Space, target: Space) -> Variable:
    """Returns the variable of `target` that gives the same image as `v` does in `source`.

    Args:
        host: whose spaces these are, with the label of a conditional generator (needed from Z).
        v: one variable of `source`.
        source, target: spaces.

    Raises:
        ValueError: where `target` does not hold all images of `source`.
    """
    check_lift(source, target)
    return v if target == source else target.lifted(host, v, source)


def noise_inputs(generator: Generator, given: Mapping[str, Array] | None, *, noise: str, key: Array | None) -> Any:
    """Returns what a synthesis network takes as noise: the maps given, `{"b8/conv0": [8, 8]}`, and for others `noise`,
    as `render` explains it."""
    rest: Any = key if noise == "fresh" else noise
    if not given:
        return rest
    maps = generator.synthesis.noise_maps(rest, 1, generator.dtype)
    return maps | {name: x[None] for name, x in given.items()}


def render(generator: Generator, inputs: Inputs, *, noise: str = "const", key: Array | None = None) -> Array:
    """Returns the image `[h, w, c]` of the inputs of one synthesis.

    Args:
        generator: whose synthesis network runs.
        inputs: of it; what they leave open is the network's own.
        noise: what noise inputs get that `inputs.noise` does not name: "const" (the stored maps), "none", or "fresh"
            (drawn with `key`).
        key: of fresh noise.

    Raises:
        ValueError: where the network does not take such inputs.
    """
    synthesis = generator.synthesis
    if inputs.weights is not None:
        synthesis = parameters.replaced(synthesis, inputs.weights)
    options = {"noise": noise_inputs(generator, inputs.noise, noise=noise, key=key)}
    for name in ("styles", "features"):
        given = getattr(inputs, name)
        if given is not None:
            options[name] = {layer: x[None] for layer, x in given.items()}
    if inputs.transform is not None:
        options["transform"] = inputs.transform[None]
    return synthesis(None if inputs.ws is None else inputs.ws[None], **options)[0]


def random_labels(key: Array, c_dim: int, n: int) -> Array | None:
    """Returns `n` one-hot labels `[n, c_dim]` of uniformly drawn classes, or None for an unconditional generator."""
    if not c_dim:
        return None
    return jax.nn.one_hot(jax.random.randint(key, (n,), 0, c_dim), c_dim)


def estimate_w_statistics(
    key: Array, generator: Generator, *, samples: int = 10_000, transform: Callable[[Array], Array] | None = None
) -> WStatistics:
    """Returns the mean and covariance of `mapping(z)`, or of what `transform` makes of it, in the dtype of the weights.

    Args:
        key: of the normal `z`, and of uniform labels for a conditional generator.
        generator: whose mapping network is sampled.
        samples: number of `z`, at least 2; taken 1,000 at a time. Where w is z, they are known without any.
        transform: of w `[n, w_dim]`, shape for shape; None leaves it.

    Raises:
        ValueError: too few samples, or a transform where w is z.
    """
    if samples < 2:
        raise ValueError(f"statistics of W need at least 2 samples, got {samples}")
    known, mapping = generator.known_w_statistics(), generator.mapping
    if known is not None and transform is not None:
        raise ValueError("this generator maps no latents: w is z, and has no other statistics")
    if known is not None:
        return known
    dtype = mapping.fc0.weight.dtype
    z_key, c_key = jax.random.split(key)
    z = jax.random.normal(z_key, (samples, mapping.z_dim), dtype)
    c = random_labels(c_key, mapping.c_dim, samples)
    run = jax.jit(lambda network, z, c: network(z, c) if transform is None else transform(network(z, c)))
    w = np.empty((samples, mapping.w_dim))  # float64, and held once
    for i in range(0, samples, 1000):
        w[i : i + 1000] = run(mapping, z[i : i + 1000], None if c is None else c[i : i + 1000].astype(dtype))
    mean = w.mean(0)
    w -= mean
    return WStatistics(jnp.asarray(mean, dtype), jnp.asarray(w.T @ w / (samples - 1), dtype))
