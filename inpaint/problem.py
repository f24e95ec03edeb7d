# SPDX-License-Identifier: Apache-2.0
"""What is asked: a measurement, and the operator that made it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint.operators import Mask, Operator
from stylegan_jax import image_io


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """One restoration `y = A(x)`, or a batch of them with a leading axis on every array.

    `measurement` is `[h, w, c]` in [-1, 1] for a mask; `operator` is a pytree of `inpaint.operators`.
    """

    operator: Operator
    measurement: Array

    @classmethod
    def observe(cls, image: Array, operator: Operator) -> "Problem":
        """Returns the problem of restoring `image` `[h, w, c]` in [-1, 1] from `operator(image)` alone.

        Raises:
            ValueError: where the image is no float image in range, or does not fit the mask.
        """
        image = jnp.asarray(image)
        if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(f"an image must be float [h, w, c] in [-1, 1], got {image.dtype} {list(image.shape)}")
        if not bool(jnp.isfinite(image).all()) or float(jnp.abs(image).max()) > 1 + 1e-6:
            raise ValueError("an image must be finite and in [-1, 1]; scale 8-bit levels by x / 127.5 - 1")
        if operator.known is not None and operator.known.shape != image.shape[:2]:
            raise ValueError(
                f"the mask is {list(operator.known.shape)} but the image is {list(image.shape[:2])}; resize one of them"
            )
        return cls(operator, operator(image))

    @classmethod
    def stack(cls, problems: Sequence["Problem"]) -> "Problem":
        """Returns a batch of problems of equal kind and shape."""
        if not problems:
            raise ValueError("no problems to stack")
        return jax.tree.map(lambda *arrays: jnp.stack(arrays), *problems)

    @property
    def batched(self) -> bool:
        """Whether the arrays carry a leading image axis."""
        return self.measurement.ndim == 4


def read(image: str, *, mask: str, size: int, polarity: str = "white_hole") -> tuple[np.ndarray, np.ndarray]:
    """Returns an image file and its mask at the generator's size.

    Args:
        image: file; transparent pixels become hole.
        mask: file of the same size as the image; grey is a soft edge.
        size: height and width wanted; the image must be square.
        polarity: "white_hole" or "black_hole".

    Returns:
        image `[size, size, 3]` in [-1, 1], and known `[size, size]` in [0, 1].

    Raises:
        stylegan_jax.image_io.ImageError: for unreadable files, other sizes, or a mask without hole or known pixels.
    """
    pixels, opaque = image_io.read_image(image)
    known = image_io.read_mask(mask, polarity=polarity)
    if known.shape != pixels.shape[:2]:
        raise image_io.ImageError(
            f"mask {mask} is {known.shape[1]}x{known.shape[0]} but image {image} is "
            f"{pixels.shape[1]}x{pixels.shape[0]}; they must have the same size"
        )
    known = known * opaque
    if pixels.shape[0] != pixels.shape[1]:
        raise image_io.ImageError(f"image {image} is {pixels.shape[1]}x{pixels.shape[0]}; it must be square")
    if pixels.shape[0] != size:
        # A shrunk pixel is known only as far as all that went into it was.
        pixels = image_io.resize(pixels, size)
        known = image_io.resize_mask(known, size)
    try:
        Mask.checked(known)
    except ValueError as error:
        raise image_io.ImageError(f"mask {mask}: {error}") from error
    return pixels, known
