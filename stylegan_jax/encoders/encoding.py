# SPDX-License-Identifier: Apache-2.0
"""From images to latents by any encoder: holes are filled, images resized, averages added, ReStyle's loop is run.

Images are `[n, h, w, c]` in [-1, 1], `known` is `[n, h, w]`, 1 = keep, 0 = hole, latents `ws` `[n, num_ws, w_dim]`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from stylegan_jax import stylegan3
from stylegan_jax.encoders.linear import LinearEncoder
from stylegan_jax.encoders.masked import MaskedEncoder
from stylegan_jax.encoders.single_head import SingleHeadEncoder
from stylegan_jax.encoders.style import StyleEncoder, TrunkConfig
from stylegan_jax.generator import StyleGenerator
from stylegan_jax.ops import pooling

Encoder = MaskedEncoder | LinearEncoder | StyleEncoder | SingleHeadEncoder


def encode(
    encoder: Encoder,
    images: Array,
    *,
    known: Array | None = None,
    generator: StyleGenerator | None = None,
    iterations: int | None = None,
    stage: int | None = None,
) -> Array:
    """Returns the latents `[n, num_ws, w_dim]` of images; compiled once for every encoder and shape.

    Encoders other than `MaskedEncoder` and `LinearEncoder` were made for whole images: holes are filled by `fill_holes`
    first. Then images are cropped (see `prepared`) and resized to the encoder's size; bilinear, antialiased. ReStyle's
    encoders (Alaluf et al. 2021) look several times, `ws <- ws + encoder([x, pool(G(ws))])`, beginning with the average
    of W.

    Args:
        encoder: any of this package.
        images: `[n, h, w, c]` in [-1, 1], as the generator makes them; faces aligned. Of those two they must have the
            encoder's size. Encoders of drawings and segmentations take channels and range that they were trained with.
        known: `[n, h, w]`, above 0.5 = known; None: all is known.
        generator: the one that the encoder belongs to; needed by ReStyle's encoders.
        iterations: how often ReStyle's encoders look; None: as the encoder says, 5 over StyleGAN2, 3 over StyleGAN3.
        stage: of progressive encoders (e4e): only the latents up to this number may differ from the first.

    Raises:
        ValueError: shapes that do not fit, a missing generator, or options that this encoder does not have.
    """
    return encode_steps(encoder, images, known=known, generator=generator, iterations=iterations, stage=stage)[:, -1]


def encode_steps(
    encoder: Encoder,
    images: Array,
    *,
    known: Array | None = None,
    generator: StyleGenerator | None = None,
    iterations: int | None = None,
    stage: int | None = None,
) -> Array:
    """Returns the latents after every look, `[n, iterations, num_ws, w_dim]`; arguments and errors of `encode`."""
    if images.ndim != 4 or (known is not None and known.shape != images.shape[:3]):
        raise ValueError(
            f"encode: images must be [n, h, w, c] and known [n, h, w], got {list(images.shape)} and "
            f"{None if known is None else list(known.shape)}"
        )
    masked = isinstance(encoder, MaskedEncoder | LinearEncoder)
    looks = None if masked else encoder.config.iterations
    if looks is None and iterations is not None or masked and stage is not None:
        raise ValueError(f"iterations are for ReStyle's encoders and stage for e4e's, not for {type(encoder).__name__}")
    graph, state = nnx.split(encoder)
    if masked:
        shown = jnp.ones(images.shape[:3], images.dtype) if known is None else (known > 0.5).astype(images.dtype)
        return _masked(state, images, shown, graph=graph)[:, None]
    if looks is None:
        return _once(state, images, known, graph=graph, stage=stage)[:, None]
    if generator is None:
        raise ValueError(
            "ReStyle's encoders look at what the generator makes; give `generator`, the one they belong to"
        )
    if (iterations := looks if iterations is None else iterations) < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    render_graph, render_state = nnx.split(generator.synthesis)
    graphs = graph, render_graph
    return _looking(state, render_state, images, known, graphs=graphs, iterations=iterations, stage=stage)


def expected(encoder: Encoder, images: Array, *, known: Array | None = None, generator: StyleGenerator) -> Array:
    """Returns what an encoder expects images to be, behind their holes too: `[n, s, s, c]`, s a divisor of the height.

    A `LinearEncoder` says it of pixels themselves, as means of blocks; of all others it is what the generator makes of
    their latents. Arguments and errors are those of `encode`.
    """
    if not isinstance(encoder, LinearEncoder):
        return render(generator, encode(encoder, images, known=known, generator=generator))
    graph, state = nnx.split(encoder)
    shown = jnp.ones(images.shape[:3], images.dtype) if known is None else (known > 0.5).astype(images.dtype)
    return _expected(state, images, shown, graph=graph)


@functools.partial(jax.jit, static_argnames="graph")
def _expected(state: Any, images: Array, known: Array, *, graph: Any) -> Array:
    return nnx.merge(graph, state).expected(images, known)


@functools.partial(jax.jit, static_argnames="graph")
def _masked(state: Any, images: Array, known: Array, *, graph: Any) -> Array:
    return nnx.merge(graph, state)(images, known)


@functools.partial(jax.jit, static_argnames=("graph", "stage"))
def _once(state: Any, images: Array, known: Array | None, *, graph: Any, stage: int | None) -> Array:
    encoder = nnx.merge(graph, state)
    offsets = encoder(prepared(images, encoder.config, known=known), stage=stage)
    return encoder.average[...].astype(offsets.dtype)[None] + offsets


@functools.partial(jax.jit, static_argnames=("graphs", "iterations", "stage"))
def _looking(
    state: Any,
    render_state: Any,
    images: Array,
    known: Array | None,
    *,
    graphs: tuple[Any, Any],
    iterations: int,
    stage: int | None,
) -> Array:
    """Returns the latents after every look, `[n, iterations, num_ws, w_dim]`."""
    encoder = nnx.merge(graphs[0], state)
    config = encoder.config
    x = prepared(images, config, known=known)

    def look(ws: Array, _: None) -> tuple[Array, Array]:
        made = _rendered(graphs[1], render_state, ws)
        seen = pooling.adaptive_average_pool(framed(made, config.size), config.size)
        ws = ws + nnx.merge(graphs[0], state)(jnp.concatenate([x, seen.astype(x.dtype)], -1), stage=stage)
        return ws, ws

    average = encoder.average[...].astype(x.dtype)[None]
    start = jnp.broadcast_to(average, (len(x), *average.shape[1:]))
    return jnp.moveaxis(lax.scan(look, start, length=iterations)[1], 0, 1)


def _rendered(graph: Any, state: Any, ws: Array, transform: Array | None = None) -> Array:
    """Returns images by a synthesis network; StyleGAN3's is upright unless a transform `[3, 3]` says otherwise."""
    # A copy: a transform that is set here must not be seen by who holds the state.
    synthesis = nnx.merge(graph, jax.tree.map(lambda array: array, state))
    if isinstance(synthesis, stylegan3.Synthesis):
        stored = synthesis.input.transform[...]
        transform = jnp.eye(3, dtype=stored.dtype) if transform is None else transform.astype(stored.dtype)
        synthesis.input.transform[...] = transform
    return synthesis(ws, noise="const")


def render(generator: StyleGenerator, ws: Array, *, landmark_transform: Array | None = None) -> Array:
    """Returns the images `[n, r, r, c]` of latents as encoders mean them: with the stored noise, StyleGAN3 upright.

    Encoders see aligned faces. What "Third Time's the Charm?" (Alaluf et al. 2022) does for unaligned ones comes after
    the last look: StyleGAN3 renders the same latents moved to where the face was.

    Args:
        generator: the one that the encoder belongs to.
        ws: `[n, num_ws, w_dim]`.
        landmark_transform: `[3, 3]` or `[n, 3, 3]`, from `landmark_transform` below; of StyleGAN3 only.

    Raises:
        ValueError: a transform for another generator than StyleGAN3, or of another shape.
    """
    graph, state = nnx.split(generator.synthesis)
    if landmark_transform is None:
        return _upright(state, ws, graph=graph)
    if not isinstance(generator, stylegan3.Generator):
        raise ValueError("landmark_transform moves images of StyleGAN3 only; this generator has no such input")
    if landmark_transform.shape not in ((3, 3), (len(ws), 3, 3)):
        raise ValueError(f"landmark_transform must be [3, 3] or [{len(ws)}, 3, 3], got {landmark_transform.shape}")
    return _moved(state, ws, jnp.broadcast_to(landmark_transform, (len(ws), 3, 3)), graph=graph)


@functools.partial(jax.jit, static_argnames="graph")
def _upright(state: Any, ws: Array, *, graph: Any) -> Array:
    return _rendered(graph, state, ws)


@functools.partial(jax.jit, static_argnames="graph")
def _moved(state: Any, ws: Array, transforms: Array, *, graph: Any) -> Array:
    return jax.vmap(lambda w, transform: _rendered(graph, state, w[None], transform)[0])(ws, transforms)


def landmark_transform(angle: float, translation: tuple[float, float]) -> np.ndarray:
    """Returns what StyleGAN3's input takes `[3, 3]` to turn an image by `angle` degrees and move it by `translation`.

    The inverse of `[[cos, sin, x], [-sin, cos, y], [0, 0, 1]]`; a translation of 1 is the size of the image.
    """
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.linalg.inv([[c, s, translation[0]], [-s, c, translation[1]], [0.0, 0.0, 1.0]])


def framed(images: Array, size: tuple[int, int]) -> Array:
    """Returns the middle rows of square images `[n, r, r, c]` in the proportions of `size` (height, width).

    Generators of cars make square images with bars above and below; of other images `[n, h, w, c]` nothing is cut.
    """
    rows = images.shape[1] * size[0] // size[1]
    if images.shape[1] != images.shape[2] or rows >= images.shape[1]:
        return images
    top = (images.shape[1] - rows) // 2
    return images[:, top : top + rows]


def prepared(images: Array, config: TrunkConfig, *, known: Array | None = None) -> Array:
    """Returns images as an encoder takes them, `[n, *config.size, c]`: holes filled, cropped, resized.

    Args:
        images: `[n, h, w, c]` in [-1, 1].
        config: the encoder's.
        known: `[n, h, w]`, above 0.5 = known; None: all is known.

    Raises:
        ValueError: images of other channels.
    """
    channels = config.image_channels // (1 if config.iterations is None else 2)
    if images.shape[3] != channels:
        raise ValueError(f"encode: images must be [n, h, w, {channels}], got {list(images.shape)}")
    images = framed(images if known is None else fill_holes(images, known), config.size)
    if images.shape[1:3] == config.size:
        return images
    return jax.image.resize(images, (len(images), *config.size, channels), "linear", antialias=True)


def fill_holes(images: Array, known: Array) -> Array:
    """Returns images whose holes hold smooth colours of what surrounds them.

    Push and pull (Gortler et al. 1996, section 4.3): means of known pixels over squares of 2, 4, 8, ... pixels; from
    the coarsest on, what is unknown on a level is interpolated from the one above. What is hidden has no influence,
    known pixels stay as they are, and an image of which nothing is known becomes 0.

    Args:
        images: `[n, h, w, c]`.
        known: `[n, h, w]`, above 0.5 = known.
    """
    shown = (known > 0.5)[..., None]
    return _pulled(jnp.where(shown, images, 0), shown.astype(images.dtype))


def _pulled(colours: Array, weight: Array) -> Array:
    """Returns `colours` `[n, h, w, c]` where `weight` `[n, h, w, 1]` is 1, and less of them the smaller it is."""
    if max(colours.shape[1:3]) == 1:
        return colours
    half = tuple(-(-size // 2) for size in colours.shape[1:3])
    share = pooling.adaptive_average_pool(weight, half)
    mean = pooling.adaptive_average_pool(colours * weight, half) / jnp.where(share > 0, share, 1)
    # One known pixel of four says nearly as much as four do about colour; so the next level counts it whole.
    below = _pulled(mean, (share > 0).astype(weight.dtype))
    return jnp.where(weight > 0, colours, jax.image.resize(below, colours.shape, "linear"))
