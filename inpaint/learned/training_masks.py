# SPDX-License-Identifier: Apache-2.0
"""Masks of training batches, drawn on the fly, which depend on seed and step alone."""

import concurrent.futures

import jax
import numpy as np

from inpaint import masks


class TrainingMasks:
    """Draws the masks of one step while the step before it runs.

    Args:
        specs: mask generators (`inpaint.masks.parse`) with their area bands, such as "brush:0-1" or "strokes:0.1-0.5";
            each mask is drawn by one of them, with equal chances, and mirrored half of the time.
        size: height and width.
        batch: masks of one step.
        seed: of everything random.

    Raises:
        ValueError: for no generator, or an unknown one.
    """

    def __init__(self, specs: tuple[str, ...], *, size: int, batch: int, seed: int):
        if not specs:
            raise ValueError(f"training needs generators of masks; known: {', '.join(masks.KNOWN)}")
        self.generators = [masks.parse(text) for text in specs]
        self.size, self.batch, self.seed = size, batch, seed
        self._ahead: tuple[int, concurrent.futures.Future] | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor(1)

    def draw(self, step: int) -> np.ndarray:
        """Returns the masks of one step, float32 `[batch, size, size]`, 1 = keep."""
        rng = np.random.default_rng((self.seed, 5, step))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 5), step)
        chosen, flips, found = rng.integers(len(self.generators), size=self.batch), rng.random(self.batch), []
        for i, (which, flip) in enumerate(zip(chosen, flips, strict=True)):
            known = self.generators[which](jax.random.fold_in(key, i), self.size)
            found.append(known[:, ::-1] if flip < 0.5 else known)
        return np.stack(found).astype(np.float32)

    def at(self, step: int) -> np.ndarray:
        """Returns what `draw` does, `[batch, size, size]`, and begins with the step after it."""
        ahead, self._ahead = self._ahead, (step + 1, self._pool.submit(self.draw, step + 1))
        return ahead[1].result() if ahead is not None and ahead[0] == step else self.draw(step)
