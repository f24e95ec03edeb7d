# SPDX-License-Identifier: Apache-2.0
"""Where the generator's square lies in a photograph: cutting it out, and putting a restoration back.

Photographs are `[height, width, c]` of any size, squares `[size, size, c]`, float32 in [-1, 1]; `known` as everywhere,
1 = keep, 0 = hole. Points are (x, y) in pixels from the top left corner.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from inpaint import holes
from stylegan_jax import image_io


@dataclasses.dataclass(frozen=True)
class Frame:
    """A square of the generator's size laid over a photograph.

    Attributes:
        size: of the square, in pixels of the generator.
        photograph: height and width of the photograph.
        transform: `[2, 3]`, from points of the square to points of the photograph.
        rectangle: top, left, height and width of what the square shows of the photograph, in the square; None where
            the square was turned to a face.
    """

    size: int
    photograph: tuple[int, int]
    transform: np.ndarray
    rectangle: tuple[int, int, int, int] | None = None

    @property
    def scale(self) -> float:
        """Pixels of the photograph per pixel of the generator."""
        return float(np.sqrt(abs(np.linalg.det(self.transform[:, :2]))))

    @property
    def whole(self) -> bool:
        """Whether photograph and square are the same picture, pixel for pixel."""
        return self.rectangle == (0, 0, *self.photograph)

    def cut(self, image: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns image `[size, size, c]` and known `[size, size]`; what lies outside of the photograph is hole.

        The values in the hole of `image` `[height, width, c]` influence nothing; a pixel of the square is known by as
        much as those that went into it are, by `known` `[height, width]`.
        """
        if self.whole:
            return image, known
        image = holes.filled(image, known)
        if self.rectangle is None:
            # Fills with 0 what lies outside, so the mean over a pixel is taken of what lies inside.
            planes = np.concatenate([image, known[..., None], np.ones_like(known[..., None])], -1)
            planes = image_io.warp(planes, self.transform, (self.size, self.size), samples=4)
            inside = planes[..., -1:]
            square, shown = planes[..., :-2] / np.maximum(inside, 1e-6), planes[..., -2]
        else:
            top, left, height, width = self.rectangle
            square = np.zeros((self.size, self.size, image.shape[2]), np.float32)
            shown = np.zeros((self.size, self.size), np.float32)
            place = slice(top, top + height), slice(left, left + width)
            square[place] = image_io.resize(image, (height, width))
            shown[place] = image_io.resize_mask(known, (height, width))
        # Rounding of a mean must not leave a fully known pixel slightly soft.
        shown = np.where(shown < 1e-5, 0, np.where(shown > 1 - 1e-5, 1, shown))
        return np.clip(square, -1, 1), shown.astype(np.float32)

    def shown(self, square: np.ndarray) -> np.ndarray:
        """Returns the part of `square` `[size, size, c]` (or `[size, size]`) that shows the photograph."""
        if self.rectangle is None:
            return square
        top, left, height, width = self.rectangle
        return square[top : top + height, left : left + width]

    def covered(self) -> np.ndarray:
        """Returns which pixels of the photograph lie in the square, `[height, width]` bool."""
        height, width = self.photograph
        if self.rectangle is not None:
            return np.ones((height, width), bool)
        inverse = self._inverse()
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        # Half a pixel inside, so that every point has neighbours to interpolate between.
        at = (inverse[i, 0] * x[None, :] + (inverse[i, 1] * y + inverse[i, 2])[:, None] for i in (0, 1))
        return np.logical_and(*((p >= 0.5) & (p <= self.size - 0.5) for p in at))

    def enlarged(self, square: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
        """Returns what `square` `[size, size, c]` shows in a box (rows, columns) of the photograph, by a cubic.

        Pixels that the square does not cover are without meaning.
        """
        inverse = self._inverse()
        if self.rectangle is not None:
            # Cut first: the padding is no neighbour of the photograph's border.
            inverse[:, 2] -= self.rectangle[1::-1]
            square = self.shown(square)
        rows, columns = box
        inverse[:, 2] += inverse[:, :2] @ (columns.start, rows.start)
        shape = rows.stop - rows.start, columns.stop - columns.start
        return image_io.warp(square, inverse, shape, samples=max(1, int(np.ceil(1 / self.scale))), cubic=True)

    def _inverse(self) -> np.ndarray:
        linear = np.linalg.inv(self.transform[:, :2])
        return np.concatenate([linear, -linear @ self.transform[:, 2:]], -1)


def letterboxed(height: int, width: int, size: int) -> Frame:
    """Returns the square around a whole photograph, scaled to fit and centred.

    Raises:
        ValueError: where it is so elongated that its short side vanishes.
    """
    scale = size / max(height, width)
    inner = tuple(max(round(side * scale), 0) for side in (height, width))
    if not min(inner):
        raise ValueError(f"a picture of {width}x{height} is too elongated: at {size} px nothing remains; crop it")
    top, left = ((size - side) // 2 for side in inner)
    steps = np.asarray([width / inner[1], height / inner[0]])
    transform = np.concatenate([np.diag(steps), (-steps * [left, top])[:, None]], -1)
    return Frame(size, (height, width), transform, (top, left, *inner))


def aligned(height: int, width: int, landmarks: np.ndarray, size: int) -> Frame:
    """Returns the square around a face, by the rule of `stylegan_jax.image_io.alignment`.

    Args:
        height, width: of the photograph.
        landmarks: `[3, 2]`: left-of-picture eye, right-of-picture eye, mouth, as (x, y) pixels.
        size: of the square.

    Raises:
        ValueError: where the landmarks are no face's: not finite, far outside, in another order, or too close.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if landmarks.shape != (3, 2) or not np.isfinite(landmarks).all():
        raise ValueError("landmarks must be three points (left eye, right eye, mouth) of two finite numbers each")
    margin = 0.1 * max(height, width)
    for name, (x, y) in zip(("left eye", "right eye", "mouth"), landmarks, strict=True):
        if not (-margin <= x <= width + margin and -margin <= y <= height + margin):
            raise ValueError(f"the {name} at ({x:g}, {y:g}) lies outside of the picture of {width}x{height} pixels")
    (left, right, mouth), order = landmarks, "give the eye at the left of the picture first, then the right one, mouth"
    across, down = right - left, mouth - (left + right) / 2
    if np.hypot(*across) < 2 or np.hypot(*down) < 1:
        raise ValueError(f"the landmarks are too close to each other for a face; {order}, in pixels")
    if across[0] <= 0:
        raise ValueError(f"the left eye is right of the right eye; {order}")
    if across[0] * down[1] - across[1] * down[0] <= 0:
        raise ValueError(f"the mouth lies above the eyes; {order}")
    return Frame(size, (height, width), image_io.alignment(landmarks, size))


def _spread(x: np.ndarray, sigma: float) -> np.ndarray:
    """Returns `[h, w, c]` blurred by a Gaussian, wide ones on a coarser grid; nothing lies outside the image."""
    block = max(int(sigma // 4), 1)
    height, width = x.shape[:2]
    pads = (-height % block, -width % block)
    x = np.pad(x, ((0, pads[0]), (0, pads[1]), (0, 0)))
    x = x.reshape(x.shape[0] // block, block, x.shape[1] // block, block, -1).mean((1, 3))
    x = ndimage.gaussian_filter(x, (sigma / block, sigma / block, 0), mode="constant", truncate=3)
    return x if block == 1 else image_io.warp(x, np.eye(2, 3) / block, (height, width))


def paste(levels: np.ndarray, known: np.ndarray, restored: np.ndarray, frame: Frame, *, sigma: float) -> np.ndarray:
    """Returns the photograph at its own size with its hole filled from a restored square.

    As in `inpaint.feathered`, the difference between photograph and square is carried from the known pixels into the
    hole: `render + min(1, 2 b(known)) * b(known (photograph - render)) / b(known)`, where b is a Gaussian blur; then
    once more with a quarter of its width, for what the first leaves close to the border.

    Args:
        levels: photograph `[height, width, 3]` uint8.
        known: `[height, width]` in [0, 1].
        restored: `[size, size, c]` in [-1, 1], one channel or three.
        frame: where the square lies; a hole outside of it stays as it is.
        sigma: of the blur, in pixels of the generator; 0 carries nothing.

    Returns:
        `[height, width, 3]` uint8; where known is 1 it equals `levels` bit for bit.
    """
    covered = frame.covered()
    hole = (known < 1) & covered
    pasted = levels.copy()
    if not hole.any():
        return pasted
    wide = sigma * max(frame.scale, 1e-6)
    reach = int(np.ceil(3 * wide)) + 1
    spans = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
    box = tuple(
        slice(max(span[0] - reach, 0), min(span[-1] + 1 + reach, side))
        for span, side in zip(spans, known.shape, strict=True)
    )
    image, covered, hole = image_io.from_uint8(levels[box]), covered[box], hole[box]
    render = np.broadcast_to(np.clip(frame.enlarged(restored, box), -1, 1), image.shape)
    soft = known[box][..., None]
    if sigma:
        weight = soft * covered[..., None]
        for width in (wide, wide / 4):
            spread = _spread(np.concatenate([weight, weight * (image - render)], -1), width)
            near = spread[..., :1]
            render = render + np.minimum(2 * near, 1) * spread[..., 1:] / np.maximum(near, 1e-6)
    mixed = image_io.to_uint8(soft * image + (1 - soft) * np.clip(render, -1, 1))
    pasted[box][hole] = mixed[hole]
    return pasted
