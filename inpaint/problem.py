# SPDX-License-Identifier: Apache-2.0
"""What is asked: a measurement, and the operator that made it."""

import dataclasses
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inpaint import photograph
from inpaint.operators import Operator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """One restoration `y = A(x)`, or a batch of them with a leading axis on every array.

    `measurement` is what the operator makes of an image, for a mask `[h, w, c]` in [-1, 1]; `operator` is a pytree of
    `inpaint.operators`. `expected` `[s, s, c]` is what is thought of the image before any search, s a divisor of h and
    w; `inpaint.solve` asks the encoder for it where the objective needs it and there is none.
    """

    operator: Operator
    measurement: Array
    expected: Array | None = None

    @classmethod
    def observe(cls, image: Array, operator: Operator, *, key: Array | None = None) -> "Problem":
        """Returns the problem of restoring `image` from what `operator.simulate(key, image)` leaves of it.

        Args:
            image: `[h, w, c]` float in [-1, 1].
            operator: of `inpaint.operators`.
            key: of JAX; needed where the operator draws noise.

        Raises:
            ValueError: where the image is no float image in range, or does not fit the operator, or a key is missing.
        """
        image = jnp.asarray(image)
        if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(f"an image must be float [h, w, c] in [-1, 1], got {image.dtype} {list(image.shape)}")
        if not bool(jnp.isfinite(image).all()) or float(jnp.abs(image).max()) > 1 + 1e-6:
            raise ValueError("an image must be finite and in [-1, 1]; scale 8-bit levels by x / 127.5 - 1")
        if operator.random and key is None:
            raise ValueError("the operator draws noise: pass key, such as key=jax.random.key(0)")
        return cls(operator, operator.simulate(key, image))

    @classmethod
    def stack(cls, problems: Sequence["Problem"]) -> "Problem":
        """Returns a batch of problems whose operators have equal settings and shapes.

        Raises:
            ValueError: for no problems, or unequal ones.
        """
        if not problems:
            raise ValueError("no problems to stack")
        kinds = [(jax.tree.structure(p), [jnp.shape(x) for x in jax.tree.leaves(p)]) for p in problems]
        other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
        if other is not None:
            raise ValueError(
                f"problem {other} has another operator or shape than problem 0: {kinds[other]} against {kinds[0]}; "
                "stack those that are alike"
            )
        return jax.tree.map(lambda *arrays: jnp.stack(arrays), *problems)

    @property
    def batched(self) -> bool:
        """Whether the arrays carry a leading image axis."""
        return self.measurement.ndim > self.operator.rank


def read(
    image: str | os.PathLike,
    *,
    mask: str | os.PathLike | None = None,
    size: int,
    polarity: str = "white_hole",
    threshold: int | None = None,
    landmarks: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image file and its mask at the generator's size.

    `inpaint.read_photograph` and `inpaint.prepare` do the same and keep what it takes to go back to the photograph.

    Args:
        image: file; transparent pixels become hole. What is not square is scaled to fit, and the padding is hole.
        mask: file of the same shape as the image; grey is a soft edge. None where transparency is the mask.
        size: height and width wanted.
        polarity: "white_hole" or "black_hole".
        threshold: mask levels of at least this are white, all others black; None keeps grey.
        landmarks: `[3, 2]`, eyes and mouth as (x, y) pixels: cuts out the face as the generator expects it.

    Returns:
        image `[size, size, 3]` in [-1, 1], and known `[size, size]` in [0, 1].

    Raises:
        stylegan_jax.image_io.ImageError: for unreadable files, other shapes, or a mask without hole or known pixels.
        ValueError: where landmarks are no face's, or nothing is left of the hole at this size.
    """
    found = photograph.read_photograph(image, mask=mask, polarity=polarity, threshold=threshold)
    prepared = photograph.prepare(found, size, landmarks=landmarks)
    return prepared.image, prepared.known
