# SPDX-License-Identifier: Apache-2.0
"""Who is in a picture: ArcFace's embedding of an aligned face (Deng et al. 2019).

Images are `[n, h, w, 3]` in [-1, 1], red first; embeddings have length 1, and their scalar product is the similarity.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jax import Array

from stylegan_jax import parameters
from stylegan_jax.dcgan import BatchNorm
from stylegan_jax.features.irse import EPSILON, Irse, IrseConfig
from stylegan_jax.features.vgg import Convolution
from stylegan_jax.ops.pooling import adaptive_average_pool

# Where a face stands in an FFHQ-aligned image, as fractions of its size (of 256 pixels: rows 35:223, columns 32:220).
FACE_ROWS = (35 / 256, 223 / 256)
FACE_COLUMNS = (32 / 256, 220 / 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """What determines an embedding beside its weights: size of its images (a multiple of `2^stages`), width of the
    embedding, and the trunk, whose settings are those of `IrseConfig`."""

    resolution: int = 112
    embedding: int = 512
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    stem: int = 64
    reduction: int = 16

    def __post_init__(self):
        stages = len(self.trunk_config.widths)
        if self.resolution < 1 or self.resolution % (1 << stages) or self.embedding < 1:
            raise ValueError(
                f"resolution must be a multiple of {1 << stages} and embedding positive, got {self.resolution} and "
                f"{self.embedding}"
            )

    @property
    def trunk_config(self) -> IrseConfig:
        """The config of the trunk."""
        return IrseConfig(widths=self.widths, depths=self.depths, stem=self.stem, reduction=self.reduction)


class ArcFace(nnx.Module):
    """The trunk, and one dense layer over its last map, with batch normalisation in front of it and behind it."""

    def __init__(self, config: ArcFaceConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, size = config.widths[-1], config.resolution >> len(config.widths)
        self.trunk = Irse(config.trunk_config, rngs=rngs)
        self.norm0 = BatchNorm(width, epsilon=EPSILON, rngs=rngs)
        # A convolution that covers the whole map: so the weight does not depend on how a map would be flattened.
        self.dense = Convolution(width, config.embedding, size, rngs=rngs)
        self.norm1 = BatchNorm(config.embedding, epsilon=EPSILON, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: ArcFaceConfig, arrays: Mapping[str, Array]) -> "ArcFace":
        """Returns the network with weights `{"trunk/conv/weight": [3, 3, 3, c], ...}`; names and shapes must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, faces: Array) -> Array:
        """Returns embeddings `[n, embedding]` of length 1.

        Args:
            faces: `[n, r, r, 3]` in [-1, 1], cropped as `face_crop` does.

        Raises:
            ValueError: images of another size than the network's.
        """
        r = self.config.resolution
        if faces.ndim != 4 or faces.shape[1:] != (r, r, 3):
            raise ValueError(f"ArcFace: faces must be [n, {r}, {r}, 3], got {list(faces.shape)}; see face_crop")
        last = self.config.trunk_config.stage_ends[-1]
        x = self.norm1(self.dense(self.norm0(self.trunk(faces, (last,))[last])))[:, 0, 0]
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def face_crop(images: Array, *, size: int = 112) -> Array:
    """Returns the faces `[n, size, size, 3]` in FFHQ-aligned `images`, as pSp's identity loss crops them.

    Args:
        images: `[n, r, r, 3]`; the encoders use r = 256, and other sizes are cropped in proportion.
        size: of the faces, in pixels.

    Raises:
        ValueError: images that are not square.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ValueError(f"face_crop: images must be [n, r, r, 3], got {list(images.shape)}")
    (top, bottom), (left, right) = ([round(images.shape[1] * f) for f in side] for side in (FACE_ROWS, FACE_COLUMNS))
    return adaptive_average_pool(images[:, top:bottom, left:right], (size, size))


def identity_distance(embeddings0: Array, embeddings1: Array) -> Array:
    """Returns `1 - <a, b>` for embeddings `[n, e]` of length 1 each: `[n]`, 0 for the same face and at most 2."""
    return 1 - (embeddings0 * embeddings1).sum(-1)
