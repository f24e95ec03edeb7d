# SPDX-License-Identifier: Apache-2.0
"""DiFaI as one network: coarse completion, latents, steps along SeFa's directions, style images, decoder.

Images are `[n, h, w, c]` in [-1, 1], `known` is `[n, h, w]`, 1 = keep, 0 = hole, latents are `[n, num_ws, w_dim]`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import stylegan_jax as sg
from inpaint import edit
from inpaint.learned.difai.coarse import CoarseCompleter, CoarseConfig, Completer
from inpaint.learned.difai.decoder import Decoder, DecoderConfig
from inpaint.search.produced import Produced
from stylegan_jax import checkpoint, encoders, layers
from stylegan_jax.encoders.encoding import Encoder

SEEN_BY_ENCODER = ("coarse", "masked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifaiConfig:
    """What determines the networks beside their weights, and how samples differ.

    Attributes:
        w_dim: of the generator.
        image_channels, encoder_widths, widths, hidden, norm, affine, resize: see `decoder.DecoderConfig`.
        coarse_seen, coarse_widths: see `coarse.CoarseConfig`.
        sees: what the encoder of latents looks at: the "coarse" image as a whole, as in the paper, or the "masked" one
            with its hole, which encoders that know holes can take (the demo generator's takes both).
        directions: how many of SeFa's directions a sample moves along; the paper says "a number of".
        distance: farthest step along each, in standard deviations of W along it; every sample draws its own between
            plus and minus that. The paper does not say; SeFa shows up to 3 units of W.
        first_layer, last_layer: latents that are moved, both included; last_layer -1: to the last.
        noise: what the generator's noise inputs get, "const" or "none".
    """

    w_dim: int
    image_channels: int = 3
    encoder_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    widths: tuple[int, ...] = (1024, 1024, 1024, 512, 256, 128, 64)
    hidden: int = 128
    norm: str = "region"
    affine: str = "masked"
    resize: str = "mean"
    coarse_seen: int = 64
    coarse_widths: tuple[int, ...] = (32, 64, 128, 128)
    sees: str = "coarse"
    directions: int = 10
    distance: float = 1.0
    first_layer: int = 0
    last_layer: int = -1
    noise: str = "const"

    def __post_init__(self):
        if self.sees not in SEEN_BY_ENCODER:
            raise ValueError(f"sees must be one of {', '.join(SEEN_BY_ENCODER)}, got {self.sees!r}")
        if self.noise not in ("const", "none"):
            raise ValueError(f'noise must be "const" or "none", got {self.noise!r}')
        if not 1 <= self.directions <= self.w_dim or not 0 <= self.distance < float("inf"):
            raise ValueError(
                f"directions must be 1 to w_dim ({self.w_dim}) and distance at least 0, got {self.directions} and "
                f"{self.distance}"
            )
        if self.resolution % self.coarse_seen:
            raise ValueError(f"coarse_seen must divide the resolution {self.resolution}, got {self.coarse_seen}")

    @property
    def decoder(self) -> DecoderConfig:
        """The settings of the decoder."""
        return DecoderConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(DecoderConfig)})

    @property
    def coarse(self) -> CoarseConfig:
        """The settings of the coarse completer."""
        return CoarseConfig(image_channels=self.image_channels, seen=self.coarse_seen, widths=tuple(self.coarse_widths))

    @property
    def resolution(self) -> int:
        """Image height and width in pixels."""
        return self.decoder.resolution


def sefa_steps(model: sg.Model, config: DifaiConfig) -> np.ndarray:
    """Returns SeFa's first directions times W's standard deviation along each, `[directions, w_dim]`.

    Args:
        model: a generator with statistics of W.
        config: says how many, and of which layers.

    Raises:
        ValueError: for a generator without styles or statistics, or layers that it does not have.
    """
    if model.w_statistics is None:
        raise ValueError("steps are measured by the statistics of W, which this model has not; estimate them first")
    layers_moved = moved_layers(config, model.generator.config.num_ws)
    directions, _ = edit.sefa(model.generator, layers=layers_moved, count=config.directions)
    lengths = [edit.spread(direction, model.w_statistics) for direction in directions]
    return (directions * np.asarray(lengths)[:, None]).astype(np.float32)


def moved_layers(config: DifaiConfig, num_ws: int) -> tuple[int, int]:
    """Returns the first and the last latent that steps move; raises ValueError where there is no such range."""
    last = num_ws - 1 if config.last_layer == -1 else config.last_layer
    if not 0 <= config.first_layer <= last < num_ws:
        raise ValueError(f"layers must be a range within 0-{num_ws - 1}, got {config.first_layer}-{last}")
    return config.first_layer, last


class Difai(nnx.Module):
    """All networks of DiFaI but the frozen generator, and but the encoder of latents, which is the generator's own.

    `steps` `[directions, w_dim]` is filled once, by `sefa_steps`. The encoder is given by `guided`.
    """

    def __init__(self, config: DifaiConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.coarse = CoarseCompleter(config.coarse, rngs=rngs)
        self.decoder = Decoder(config.decoder, rngs=rngs)
        self.steps = layers.Buffer(jnp.zeros((config.directions, config.w_dim)))
        self.encoder = nnx.data(None)
        self.completer = nnx.data(None)

    @property
    def rendered_with(self) -> str | None:
        """None: latents alone do not give a result again, since the decoder changes what they render."""
        return None

    @property
    def noise(self) -> str:
        """What the generator's noise inputs get, "const" or "none"."""
        return self.config.noise

    @property
    def needs_guide(self) -> bool:
        """True: latents come from the generator's encoder."""
        return True

    def guided(self, encoder: Encoder | None) -> "Difai":
        """Returns the same networks, not copied, with an encoder of latents, or for storage without one."""
        graph, state = nnx.split(self)
        found = nnx.merge(graph, state)
        found.encoder = encoder
        return found

    def with_completer(self, completer: Completer | None) -> "Difai":
        """Returns the same networks with another coarse completion, `completer(images [n, h, w, c], known [n, h, w])`;
        None: their own."""
        graph, state = nnx.split(self)
        found = nnx.merge(graph, state)
        found.completer = completer
        return found

    def at_distance(self, distance: float) -> "Difai":
        """Returns the same networks with another farthest step of samples; 0: all samples are the unperturbed one."""
        graph, state = nnx.split(self)
        found = nnx.merge(graph, state)
        found.config = dataclasses.replace(self.config, distance=distance)
        return found

    def complete(self, images: Array, known: Array) -> Array:
        """Returns `images` `[n, h, w, c]` with a coarse guess in their holes (equation 2)."""
        return (self.coarse if self.completer is None else self.completer)(images, known)

    def encode(self, generator: sg.Generator, images: Array, known: Array) -> Array:
        """Returns the latents `[n, num_ws, w_dim]` of images with holes, `images` `[n, h, w, c]`.

        Raises:
            ValueError: where no encoder was given.
        """
        if self.encoder is None:
            raise ValueError(
                "DiFaI takes its latents from an encoder of the generator, and none was given; train one with "
                "`python -m inpaint train`, or name one by --encoder"
            )
        if self.config.sees == "masked":
            return encoders.encode(self.encoder, images, known=known, generator=generator)
        return encoders.encode(self.encoder, self.complete(images, known), generator=generator)

    def moved(self, ws: Array, distances: Array) -> Array:
        """Returns latents `[n, num_ws, w_dim]` moved by `distances` `[n, directions]` along each direction."""
        first, last = moved_layers(self.config, ws.shape[1])
        chosen = (jnp.arange(ws.shape[1]) >= first) & (jnp.arange(ws.shape[1]) <= last)
        step = distances.astype(ws.dtype) @ self.steps[...].astype(ws.dtype)
        return ws + jnp.where(chosen[None, :, None], step[:, None], 0)

    def draw_distances(self, key: Array, n: int) -> Array:
        """Returns how far `n` samples go along each direction, `[n, directions]`."""
        return jax.random.uniform(key, (n, self.config.directions), minval=-1.0) * self.config.distance

    def check_direction(self, direction: int) -> None:
        """Raises ValueError unless there is a direction of this number, from 0."""
        if not 0 <= direction < self.config.directions:
            raise ValueError(f"direction must be 0 to {self.config.directions - 1}, got {direction}")

    def styles(self, generator: sg.Generator, ws: Array) -> Array:
        """Returns the style images `[n, h, w, c]` of latents `[n, num_ws, w_dim]` (equation 3)."""
        return generator.synthesis(ws, noise=self.config.noise)

    def decoded(self, generator: sg.Generator, images: Array, known: Array, ws: Array) -> Array:
        """Returns the results `[n, h, w, c]` that latents `[n, num_ws, w_dim]` lead to (equation 5)."""
        return self.decoder(images, self.styles(generator, ws).astype(images.dtype), known)

    def produce(self, key: Array, generator: sg.Generator, image: Array, known: Array) -> Produced:
        """Returns one sample for `image` `[h, w, c]` and `known` `[h, w]`; see `inpaint.search.produced.Inpainter`."""
        ws = self.encode(generator, image[None], known[None])
        ws = self.moved(ws, self.draw_distances(key, 1))
        return Produced(self.decoded(generator, image[None], known[None], ws)[0], ws[0])

    def restyled(self, generator: sg.Generator, ws: Array, image: Array, known: Array) -> Produced:
        """Returns the sample of other latents `ws` `[num_ws, w_dim]`, edited ones say, for `image` `[h, w, c]` (0 where
        nothing is known) and `known` `[h, w]`."""
        return Produced(self.decoded(generator, image[None], known[None], ws[None])[0], ws)

    def along(
        self, generator: sg.Generator, image: Array, known: Array, *, direction: int, distances: Array
    ) -> tuple[Array, Array]:
        """Returns results `[n, h, w, c]` along one direction, and their style images (the paper's figure 4).

        Args:
            generator: that the networks were trained for.
            image: `[h, w, c]`.
            known: `[h, w]`.
            direction: its number, from 0.
            distances: `[n]`, in standard deviations of W.

        Raises:
            ValueError: for a direction that there is not.
        """
        self.check_direction(direction)
        n = len(distances)
        images, shown = (jnp.broadcast_to(x[None], (n, *x.shape)) for x in (image, known))
        steps = jnp.asarray(distances)[:, None] * jax.nn.one_hot(direction, self.config.directions)[None]
        ws = self.moved(jnp.repeat(self.encode(generator, image[None], known[None]), n, axis=0), steps)
        return self.decoded(generator, images, shown, ws), self.styles(generator, ws)


checkpoint.register(Difai, DifaiConfig)
