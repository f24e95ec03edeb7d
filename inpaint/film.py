# SPDX-License-Identifier: Apache-2.0
"""How the kept starts came to their results: an animation of the search."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from inpaint.search.result import Watched
from stylegan_jax import image_io

FRAMES = 60  # at most


@dataclasses.dataclass
class Recorder:
    """Collects latents while a search runs; give it to `inpaint.solve` as `watch`.

    Memory is that of the latents of all starts, `FRAMES` times at most.
    """

    steps: dict[int, dict[int, np.ndarray]] = dataclasses.field(default_factory=dict)

    def __call__(self, watched: Watched) -> None:
        """Keeps the latents `[starts, num_ws, w_dim]` of a step."""
        own = self.steps.setdefault(watched.step, {})
        own.update(zip(watched.starts.tolist(), watched.ws, strict=True))

    def latents(self, start: int) -> np.ndarray:
        """Returns the latents of one start over the steps, `[frames, num_ws, w_dim]`; non-finite ones repeat."""
        found = []
        for step in sorted(self.steps):
            ws = self.steps[step][start]
            found.append(ws if np.isfinite(ws).all() or not found else found[-1])
        return np.stack(found)


def interval(steps: int) -> int:
    """Returns how many steps lie between two frames of a search of so many steps."""
    return max(1, -(-steps // (FRAMES - 1)))


def write_film(
    path: pathlib.Path,
    recorder: Recorder,
    starts: np.ndarray,
    *,
    show: Callable[[np.ndarray], np.ndarray],
    last: np.ndarray,
    tile: int = 256,
) -> None:
    """Writes the kept starts side by side over the steps, ending with a second's rest on the results.

    Args:
        path: ending in .webp or .gif.
        recorder: of the search.
        starts: kept starts, best first, `[keep]`.
        show: turns latents `[n, num_ws, w_dim]` into pictures `[n, h, w, c]` in [-1, 1].
        last: the results `[keep, h, w, c]`, the last frame.
        tile: pixels that every picture is enlarged to.
    """
    strips = []
    for start, end in zip(starts, last, strict=True):
        pictures = [*show(recorder.latents(int(start))), end]
        strips.append(np.stack([image_io.enlarge(picture, tile) for picture in pictures]))
    frames = np.concatenate(strips, 2)
    image_io.write_animation(path, frames, durations=[80] * (len(frames) - 1) + [1000])
