# SPDX-License-Identifier: Apache-2.0
"""The Inception-v3 network of the Frechet inception distance (Szegedy et al. 2016; Heusel et al. 2017).

It is the TensorFlow graph of 2015 with 1008 classes, in which pools differ from torchvision's: averages leave out the
padding, and the last block takes a maximum. Batches are `[n, h, w, c]`, images in [-1, 1], red first. Features are the
2048 channel means in front of the classifier.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from stylegan_jax import parameters
from stylegan_jax.dcgan import BatchNorm
from stylegan_jax.features.vgg import Convolution, check_images, max_pool

RESOLUTION = 299
EPSILON = 1e-3  # of batch normalisation
SMALLEST = 75  # rows and columns: below, the last blocks have no map


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionConfig:
    """What determines a network beside its weights: a divisor of all widths (1 for the published one), and the number
    of classes."""

    narrower: int = 1
    classes: int = 1008

    def __post_init__(self):
        if self.narrower not in (1, 2, 4, 8, 16) or self.classes < 1:
            raise ValueError(
                f"narrower must divide all widths (1, 2, 4, 8 or 16) and classes be positive, got {self.narrower} and "
                f"{self.classes}"
            )

    @property
    def features(self) -> int:
        """Width of the features."""
        return 2048 // self.narrower


class Layer(nnx.Module):
    """A convolution without bias, batch normalisation and ReLU, `[n, h, w, in] -> [n, h', w', out]`."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int, pad: bool, *, rngs: nnx.Rngs):
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else 0
        self.conv = Convolution(inputs, outputs, kernel, stride=stride, padding=padding, bias=False, rngs=rngs)
        self.norm = BatchNorm(outputs, epsilon=EPSILON, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.norm(self.conv(x)))


@dataclasses.dataclass(frozen=True)
class _Block:
    """Branches of layers (name, outputs, rows, columns), of which two in one tuple, at an end, take the same input.

    `pool` is the width of the layer behind the pool, None if there is none; `maximum` says that the pool is no
    average; in a block that `halves`, the pool and the last layer of every branch have stride 2 and no padding.
    """

    branches: tuple[tuple, ...]
    pool: int | None = None
    maximum: bool = False
    halves: bool = False


def _square(pool: int) -> _Block:
    return _Block(
        (
            (("branch1x1", 64, 1, 1),),
            (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 5)),
            (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 3), ("branch3x3dbl_3", 96, 3, 3)),
        ),
        pool,
    )


def _crossed(width: int) -> _Block:
    double = (("branch7x7dbl_1", width, 1, 1), ("branch7x7dbl_2", width, 7, 1), ("branch7x7dbl_3", width, 1, 7))
    return _Block(
        (
            (("branch1x1", 192, 1, 1),),
            (("branch7x7_1", width, 1, 1), ("branch7x7_2", width, 1, 7), ("branch7x7_3", 192, 7, 1)),
            (*double, ("branch7x7dbl_4", width, 7, 1), ("branch7x7dbl_5", 192, 1, 7)),
        ),
        192,
    )


def _spread(*, maximum: bool) -> _Block:
    double = (("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 3))
    return _Block(
        (
            (("branch1x1", 320, 1, 1),),
            (("branch3x3_1", 384, 1, 1), (("branch3x3_2a", 384, 1, 3), ("branch3x3_2b", 384, 3, 1))),
            (*double, (("branch3x3dbl_3a", 384, 1, 3), ("branch3x3dbl_3b", 384, 3, 1))),
        ),
        192,
        maximum=maximum,
    )


_HALVE_17 = _Block(
    (
        (("branch3x3", 384, 3, 3),),
        (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 3), ("branch3x3dbl_3", 96, 3, 3)),
    ),
    halves=True,
)
_HALVE_8 = _Block(
    (
        (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 3)),
        (
            ("branch7x7x3_1", 192, 1, 1),
            ("branch7x7x3_2", 192, 1, 7),
            ("branch7x7x3_3", 192, 7, 1),
            ("branch7x7x3_4", 192, 3, 3),
        ),
    ),
    halves=True,
)
# Name, outputs, kernel, stride, padded; None is a 3x3 maximum pool of stride 2.
STEM = (
    ("Conv2d_1a_3x3", 32, 3, 2, False),
    ("Conv2d_2a_3x3", 32, 3, 1, False),
    ("Conv2d_2b_3x3", 64, 3, 1, True),
    None,
    ("Conv2d_3b_1x1", 80, 1, 1, False),
    ("Conv2d_4a_3x3", 192, 3, 1, False),
    None,
)
BLOCKS = {
    "Mixed_5b": _square(32),
    "Mixed_5c": _square(64),
    "Mixed_5d": _square(64),
    "Mixed_6a": _HALVE_17,
    "Mixed_6b": _crossed(128),
    "Mixed_6c": _crossed(160),
    "Mixed_6d": _crossed(160),
    "Mixed_6e": _crossed(192),
    "Mixed_7a": _HALVE_8,
    "Mixed_7b": _spread(maximum=False),
    "Mixed_7c": _spread(maximum=True),
}


def _average_pool(x: Array) -> Array:
    """Returns the mean of the neighbours 3x3 of every pixel that lie inside the map."""

    def summed(y: Array) -> Array:
        pads = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(y, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), pads)

    return summed(x) / summed(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _side_by_side(step: tuple) -> tuple:
    """Returns the one or two layers of a step."""
    return step if isinstance(step[0], tuple) else (step,)


class Mixed(nnx.Module):
    """Branches side by side, then those of a pool, `[n, h, w, in] -> [n, h', w', out]`."""

    def __init__(self, block: _Block, inputs: int, narrower: int, *, rngs: nnx.Rngs):
        self.block = block
        self.outputs = inputs if block.pool is None else block.pool // narrower
        for branch in block.branches:
            before = inputs
            for i, step in enumerate(branch):
                last = i == len(branch) - 1
                stride = 2 if block.halves and last else 1
                for name, outputs, *kernel in _side_by_side(step):
                    width = outputs // narrower
                    setattr(self, name, Layer(before, width, tuple(kernel), stride, stride == 1, rngs=rngs))
                    self.outputs += width if last else 0
                before = width
        if block.pool is not None:
            self.branch_pool = Layer(inputs, block.pool // narrower, (1, 1), 1, True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        found = []
        for branch in self.block.branches:
            ends = [x]
            for step in branch:
                ends = [getattr(self, name)(ends[0]) for name, *_ in _side_by_side(step)]
            found += ends
        if self.block.halves:
            pooled = max_pool(x, 3, stride=2)
        else:
            pooled = max_pool(x, 3, stride=1, padding=1) if self.block.maximum else _average_pool(x)
        return jnp.concatenate([*found, pooled if self.block.pool is None else self.branch_pool(pooled)], -1)


class Inception(nnx.Module):
    """The network; layers have the names of the first publication's graph, as PyTorch's port has them."""

    def __init__(self, config: InceptionConfig, *, rngs: nnx.Rngs):
        self.config = config
        before = 3
        for layer in filter(None, STEM):
            name, outputs, kernel, stride, pad = layer
            width = outputs // config.narrower
            setattr(self, name, Layer(before, width, (kernel, kernel), stride, pad, rngs=rngs))
            before = width
        for name, block in BLOCKS.items():
            setattr(self, name, Mixed(block, before, config.narrower, rngs=rngs))
            before = getattr(self, name).outputs
        self.fc = Convolution(before, config.classes, 1, rngs=rngs)

    @classmethod
    def from_arrays(cls, config: InceptionConfig, arrays: Mapping[str, Array]) -> "Inception":
        """Returns the network with weights `{"Conv2d_1a_3x3/conv/weight": [3, 3, 3, c], ...}`; all must match."""
        return parameters.fill(cls, config, arrays)

    def __call__(self, images: Array) -> Array:
        """Returns features `[n, 2048]` of images of the network's own size; see `resize` and `resize_tensorflow`.

        Args:
            images: `[n, 299, 299, 3]` in [-1, 1] (other sizes from 75 on are taken as they are).

        Raises:
            ValueError: images too small, or without three channels.
        """
        return self.maps(images)["Mixed_7c"].mean((1, 2))

    def maps(self, images: Array) -> dict[str, Array]:
        """Returns `{"pool1" | "pool2" | "Mixed_...": [n, h', w', c]}` of `images` `[n, h, w, 3]` in [-1, 1].

        Raises:
            ValueError: images too small, or without three channels.
        """
        check_images(images, SMALLEST, "Inception")
        x, found = images, {}
        for layer in STEM:
            x = getattr(self, layer[0])(x) if layer else max_pool(x, 3, stride=2)
            if layer is None:
                found[f"pool{len(found) + 1}"] = x
        for name in BLOCKS:
            x = found[name] = getattr(self, name)(x)
        return found

    def logits(self, features: Array) -> Array:
        """Returns the logits `[n, classes]` of `features` `[n, 2048]`."""
        return self.fc(features[:, None, None])[:, 0, 0]


def _resize(images: Array, source: Callable[[np.ndarray, int], np.ndarray]) -> Array:
    """Interpolates linearly at `source(i, size)` for row or column i, clamped to the image."""

    def matrix(size: int) -> Array:
        place = np.clip(source(np.arange(RESOLUTION), size), 0, size - 1)
        low = np.floor(place).astype(int)
        weights = np.zeros((RESOLUTION, size))
        np.add.at(weights, (np.arange(RESOLUTION), low), 1 - (place - low))
        np.add.at(weights, (np.arange(RESOLUTION), np.minimum(low + 1, size - 1)), place - low)
        return jnp.asarray(weights, images.dtype)

    rows, columns = (matrix(size) for size in images.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, images, columns)


def resize(images: Array) -> Array:
    """Returns `images` `[n, h, w, c]` as `[n, 299, 299, c]`, as pytorch-fid interpolates: linearly between the centres
    of pixels, `(i + 1/2) h / 299 - 1/2`, without a filter."""
    return _resize(images, lambda i, size: (i + 0.5) * size / RESOLUTION - 0.5)


def resize_tensorflow(images: Array) -> Array:
    """Returns `images` `[n, h, w, c]` as `[n, 299, 299, c]`, as the graph of 2015 does: linearly at `i h / 299`.

    That graph, and NVIDIA's copy of it, want `from_bytes` of what comes out.
    """
    return _resize(images, lambda i, size: i * size / RESOLUTION)


def from_bytes(images: Array) -> Array:
    """Returns `(images - 128) / 128`, in nearly [-1, 1], for `images` `[n, h, w, c]` in 0..255."""
    return (images - 128) / 128
