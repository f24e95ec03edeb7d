# SPDX-License-Identifier: Apache-2.0
"""Data terms: `sum(weight * d(prediction, measurement)) / sum(weight)`, over all values of one measurement.

The division is by this image's own weights, so neither the size of the hole nor other images change the scale.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array


def _weighted_mean(error: Array, weight: Array) -> Array:
    weight = jnp.broadcast_to(weight, error.shape).astype(error.dtype)
    return jnp.sum(weight * error) / jnp.sum(weight)


def l2(prediction: Array, measurement: Array, weight: Array) -> Array:
    """Returns the weighted mean squared error.

    Args:
        prediction, measurement: of one shape, e.g. `[h, w, c]`.
        weight: of the same rank, broadcasting to it, not all 0.
    """
    return _weighted_mean(jnp.square(prediction - measurement), weight)


def l1(prediction: Array, measurement: Array, weight: Array) -> Array:
    """Returns the weighted mean absolute error; a scalar; the arguments are those of `l2`."""
    return _weighted_mean(jnp.abs(prediction - measurement), weight)


def expected_l2(image: Array, expected: Array, known: Array) -> Array:
    """Returns the mean squared error of block means in the hole; 0 where there is no hole.

    `sum_b h_b |mean_b(image) - expected_b|^2 / sum_b h_b`, `h_b` being the share of hole pixels of block b.

    Args:
        image: `[h, w, c]`.
        expected: `[s, s, c]`, s a divisor of h and w.
        known: `[h, w]` in [0, 1], 1 = keep.
    """
    size = expected.shape[0]

    def blocks(x: Array) -> Array:
        return x.reshape(size, x.shape[0] // size, size, x.shape[1] // size, x.shape[2]).mean((1, 3))

    hole = blocks(1 - known[..., None].astype(image.dtype))
    error = jnp.sum(hole * jnp.square(blocks(image) - expected)) / image.shape[2]
    total = jnp.sum(hole)
    return error / jnp.where(total > 0, total, 1)


def floored(error: Array, floor: float) -> Array:
    """Returns `max(error, floor)` of a scalar, without a gradient below it."""
    return jnp.maximum(error, floor)


def halved(image: Array) -> Array:
    """Returns `[h, w, c]` at half the size, each value the mean of four."""
    h, w, c = image.shape
    return image.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))


def window_weight(known: Array, *, window: int) -> Array:
    """Returns the share of hole in a window about every known pixel, and 0 in the hole: `W = known * box(1 - known)`.

    Yeh et al. 2017, "Semantic Image Inpainting with Deep Generative Models"; the image is mirrored beyond
    its borders, as in Filipovski's code.

    Args:
        known: `[h, w]` in [0, 1].
        window: height and width in pixels, at most twice the image's; that of an even one reaches one pixel farther to
            the left and up.
    """
    before, after = window // 2, (window - 1) // 2
    sums = jnp.pad(1 - known, ((before, after), (before, after)), mode="symmetric")
    for axis in (0, 1):
        total = jnp.cumsum(sums, axis=axis)
        total = jnp.pad(total, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
        size = total.shape[axis] - window
        sums = jax.lax.slice_in_dim(total, window, window + size, axis=axis) - jax.lax.slice_in_dim(
            total, 0, size, axis=axis
        )
    return known * sums / window**2


def window_l1(prediction: Array, measurement: Array, weight: Array) -> Array:
    """Returns `sum |W (prediction - measurement)|` over pixels and channels, for weights `[h, w]`."""
    return jnp.sum(weight[..., None] * jnp.abs(prediction - measurement))


def _differences(prediction: Array, target: Array, known: Array, taps: tuple[float, ...]) -> Array:
    """Returns the mean absolute error of `taps` applied along both axes, where all that they touch is known."""
    error, count = jnp.zeros((), prediction.dtype), jnp.zeros((), prediction.dtype)
    for axis in (0, 1):
        size = prediction.shape[axis] - len(taps) + 1

        def part(x: Array, i: int, axis: int = axis, size: int = size) -> Array:
            return jax.lax.slice_in_dim(x, i, i + size, axis=axis)

        difference = sum(tap * (part(prediction, i) - part(target, i)) for i, tap in enumerate(taps))
        both = math.prod([part(known, i) for i in range(len(taps))], start=jnp.ones((), known.dtype))
        error += jnp.sum(both[..., None] * jnp.abs(difference))
        count += jnp.sum(both) * prediction.shape[-1]
    return error / jnp.maximum(count, 1)


def gradient_l1(prediction: Array, target: Array, known: Array) -> Array:
    """Returns the mean absolute difference of the gradients of two images, over pairs of neighbours that are known.

    Args:
        prediction, target: `[h, w, c]`.
        known: `[h, w]` in [0, 1].
    """
    return _differences(prediction, target, known, (-1.0, 1.0))


def laplacian_l1(prediction: Array, target: Array, known: Array) -> Array:
    """Returns the mean absolute difference of second differences, a scalar; arguments are those of `gradient_l1`."""
    return _differences(prediction, target, known, (1.0, -2.0, 1.0))


def shifted_l2(prediction: Array, target: Array, known: Array, *, shift: int = 1) -> Array:
    """Returns the mean of `l2` over the image and its four shifts by `shift` pixels, the hole moving along.

    The same prediction has to fit all of them, so that what fits one pixel grid alone does not pay. A scalar; arguments
    as those of `gradient_l1`.
    """
    target = jnp.where(known[..., None] > 0, target, 0)
    errors = []
    for down, right in ((0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)):
        inside = jnp.pad(known, shift)[shift - down :, shift - right :][: known.shape[0], : known.shape[1]]
        moved = jnp.roll(target, (down, right), (0, 1))  # what wraps around has no weight
        errors.append(l2(prediction, moved, inside[..., None]))
    return jnp.mean(jnp.stack(errors))


def high_band_mismatch(prediction: Array, target: Array, known: Array, *, ring: int = 8) -> Array:
    """Returns `(log e_hole - log e_ring)^2`, e being the mean square of the Laplacian in the hole of the prediction and
    in the known ring of the target: detail in the hole as much as around it, whatever it shows.

    Args:
        prediction, target: `[h, w, c]`.
        known: `[h, w]`; a pixel known to less than a half is hole.
        ring: width of the ring in pixels.

    Returns:
        A scalar; 0 where the hole or the ring holds no pixel with all its neighbours.
    """
    whole = known > 0.5
    near = jax.lax.reduce_window(~whole, False, jnp.logical_or, (2 * ring + 1,) * 2, (1, 1), "SAME")
    found = []
    for image, region in ((prediction, ~whole), (jnp.where(whole[..., None], target, 0), whole & near)):
        inner = region[1:-1, 1:-1] & region[:-2, 1:-1] & region[2:, 1:-1] & region[1:-1, :-2] & region[1:-1, 2:]
        around = image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]
        energy = jnp.square(around - 4 * image[1:-1, 1:-1]).mean(-1)
        count = inner.sum()
        found.append((jnp.sum(inner * energy) / jnp.maximum(count, 1), count > 0))
    (hole, one), (edge, other) = found
    # As much as a level of 8-bit images in every second difference: below it there is no detail to match.
    least = (1 / 127.5) ** 2
    return jnp.where(one & other, jnp.square(jnp.log(hole + least) - jnp.log(edge + least)), 0)
