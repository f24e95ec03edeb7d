# SPDX-License-Identifier: Apache-2.0
"""Results and truths as converted networks see them: LPIPS, whole and in the hole, and whether it is the same person.

Images are `[n, h, w, c]` floats in [-1, 1], clipped to that range (one channel is repeated); `holes` `[n, h, w]` in
[0, 1] says how much each pixel counts. They are compared in chunks of a fixed size, the last one filled up, so that no
value depends on how many there are. Figures are NumPy arrays; an image that is not finite has NaN.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from stylegan_jax.features.arcface import ArcFace, face_crop
from stylegan_jax.features.lpips import Lpips
from stylegan_jax.ops.pooling import adaptive_average_pool

CHUNK_PIXELS = 2**18  # of a chunk of pairs: four at 256 pixels, for which VGG-16 keeps about half a gigabyte
LARGEST_CHUNK = 8
ALIGNED_SIZE = 256  # rows and columns of the images that faces are cropped from


class PerceptualDistances(NamedTuple):
    """LPIPS of `n` pairs: over `whole` images `[n]`, and in the `hole` `[n]`, which is None where none was given."""

    whole: np.ndarray
    hole: np.ndarray | None


def _images(images: ArrayLike, name: str) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or images.shape[3] not in (1, 3) or images.dtype.kind != "f":
        raise ValueError(
            f"{name} must be floats [n, h, w, 1 or 3] in [-1, 1], n at least 1, got {images.dtype} {list(images.shape)}"
        )
    return images


def _pairs(images: ArrayLike, truths: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    images, truths = _images(images, "images"), _images(truths, "truths")
    if images.shape != truths.shape:
        raise ValueError(
            f"images and truths must have one shape, got {list(images.shape)} and {list(truths.shape)}; resample one"
        )
    return images, truths


def _colours(images: Array) -> Array:
    return jnp.broadcast_to(jnp.clip(images, -1, 1), (*images.shape[:3], 3))


def _both(images: Array, truths: Array) -> Array:
    # One pass over twice as many: compiling a network takes longer than running it.
    return jnp.concatenate([_colours(images), _colours(truths)])


def _in_chunks(
    run: Callable[..., tuple[Array, ...]], arrays: Sequence[np.ndarray], chunk: int | None
) -> list[np.ndarray]:
    """Returns what `run` gives, `[n]` each, for `arrays` `[n, ...]`, of which it gets `chunk` rows at a time."""
    pixels = int(np.prod(arrays[0].shape[1:3]))
    # By the size of the images alone: whatever else decided it would show in the last digits of the figures.
    chunk = max(1, min(LARGEST_CHUNK, CHUNK_PIXELS // pixels)) if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    count, found = len(arrays[0]), []
    for first in range(0, count, chunk):
        index = np.minimum(np.arange(first, first + chunk), count - 1)
        # Figures are compared between devices, some of which would round the factors of products.
        with jax.default_matmul_precision("highest"):
            found.append([np.asarray(x) for x in run(*(jnp.asarray(array[index]) for array in arrays))])
    finite = np.logical_and.reduce([np.isfinite(array).reshape(count, -1).all(1) for array in arrays])
    return [np.where(finite, np.concatenate(parts)[:count], np.nan) for parts in zip(*found, strict=True)]


@functools.partial(jax.jit, static_argnames="definition")
def _distances(weights, images: Array, truths: Array, holes: Array | None = None, *, definition) -> tuple[Array, ...]:
    network, count = nnx.merge(definition, weights), len(images)
    features = network.features(_both(images, truths))
    pair = tuple(x[:count] for x in features), tuple(x[count:] for x in features)
    whole = network.layers(*pair).sum(-1)
    if holes is None:
        return (whole,)
    spatial, total = network.spatial(*pair, images.shape[1:3]), holes.sum((1, 2))
    mean = (spatial * holes).sum((1, 2)) / jnp.where(total > 0, total, 1)
    return whole, jnp.where(total > 0, mean, jnp.nan)


def perceptual_distances(
    network: Lpips, images: ArrayLike, truths: ArrayLike, *, holes: ArrayLike | None = None, chunk: int | None = None
) -> PerceptualDistances:
    """Returns LPIPS between images and truths (Zhang et al. 2018, equation 1), and its mean over the holes.

    In the hole it is `sum_yx m_yx d_yx / sum_yx m_yx` with the map d of distances, each feature's upsampled bilinearly
    to the image's size (LPIPS' own `spatial` form), and the hole m. Features see their surroundings, so pixels beside
    a hole enter it, and a hole that is the whole image has nearly, not exactly, the whole image's distance.

    Args:
        network: LPIPS over any trunk.
        images: `[n, h, w, c]`, c of 1 or 3; for restorations the composites.
        truths: `[n, h, w, c]`.
        holes: `[n, h, w]`.
        chunk: pairs that are compared together; by default what suits the size of the images.

    Returns:
        Distances, not negative, 0 for equal images; in a hole without pixels NaN.

    Raises:
        ValueError: for shapes that do not fit, integers, or images too small for the trunk.
    """
    arrays = list(_pairs(images, truths))
    if holes is not None:
        holes = np.asarray(holes, arrays[0].dtype)
        if holes.shape != arrays[0].shape[:3]:
            raise ValueError(f"holes must be {list(arrays[0].shape[:3])} as the images, got {list(holes.shape)}")
        arrays.append(holes)
    definition, weights = nnx.split(network)
    found = _in_chunks(functools.partial(_distances, weights, definition=definition), arrays, chunk)
    return PerceptualDistances(found[0], None if holes is None else found[1])


def perceptual_diversity(
    network: Lpips, results: ArrayLike, *, hole: ArrayLike | None = None, chunk: int | None = None
) -> float:
    """Returns the mean LPIPS over the k (k - 1) / 2 pairs of results for one problem.

    The diversity score of pluralistic inpainting (Zheng, Cham and Cai 2019), whose authors average it over problems and
    give it for whole images and for the hole.

    Args:
        network: LPIPS over any trunk.
        results: `[k, h, w, c]`, composites of one problem.
        hole: `[h, w]`, for the mean over it, see `perceptual_distances`; None takes whole images.
        chunk: pairs that are compared together.

    Returns:
        0 where all are equal; NaN for k = 1.

    Raises:
        ValueError: for shapes that do not fit, integers, or images too small for the trunk.
    """
    results = _images(results, "results")
    if len(results) == 1:
        return float("nan")
    first, second = np.triu_indices(len(results), 1)
    holes = None if hole is None else np.broadcast_to(np.asarray(hole), (len(first), *np.shape(hole)))
    found = perceptual_distances(network, results[first], results[second], holes=holes, chunk=chunk)
    return float(np.mean(found.whole if hole is None else found.hole, dtype=np.float64))


def check_size(network: Lpips, size: tuple[int, int]) -> None:
    """Raises ValueError where images of `size` (rows, columns) are too small for the network; nothing is computed."""
    nnx.eval_shape(lambda n, x: n.features(x), network, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))


def to_aligned_size(images: Array) -> Array:
    """Returns square `images` `[n, r, r, c]` as `[n, 256, 256, c]`, from which `face_crop` takes the face.

    Larger ones are averaged over whole pixels, as pSp's face pool does (`adaptive_average_pool`); smaller ones are
    interpolated linearly between the centres of pixels.

    Raises:
        ValueError: for images that are not square.
    """
    n, rows, columns, channels = images.shape
    if rows != columns:
        raise ValueError(f"identity needs square images, got {rows} x {columns}; crop them to the aligned face")
    if rows >= ALIGNED_SIZE:
        return images if rows == ALIGNED_SIZE else adaptive_average_pool(images, (ALIGNED_SIZE, ALIGNED_SIZE))
    return jax.image.resize(images, (n, ALIGNED_SIZE, ALIGNED_SIZE, channels), "linear", antialias=False)


@functools.partial(jax.jit, static_argnames="definition")
def _similarities(weights, images: Array, truths: Array, *, definition) -> tuple[Array]:
    network, count = nnx.merge(definition, weights), len(images)
    faces = face_crop(to_aligned_size(_both(images, truths)), size=network.config.resolution)
    embeddings = network(faces)
    return ((embeddings[:count] * embeddings[count:]).sum(-1),)


def identity_similarity(
    network: ArcFace, images: ArrayLike, truths: ArrayLike, *, chunk: int | None = None
) -> np.ndarray:
    """Returns the cosine `<e(x), e(y)>` of ArcFace's embeddings of images and truths (Deng et al. 2019).

    Images are brought to 256 pixels (`to_aligned_size`) and cropped as pSp's identity loss does, so they must be
    aligned as FFHQ is.

    Args:
        network: whose embeddings have length 1.
        images: `[n, r, r, c]`, c of 1 or 3; for restorations the composites.
        truths: `[n, r, r, c]`.
        chunk: pairs that are compared together; by default what suits the size of the images.

    Returns:
        `[n]` in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: for shapes that do not fit, integers, or images that are not square.
    """
    definition, weights = nnx.split(network)
    run = functools.partial(_similarities, weights, definition=definition)
    return _in_chunks(run, _pairs(images, truths), chunk)[0]
