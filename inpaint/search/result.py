# SPDX-License-Identifier: Apache-2.0
"""What a search tells while it runs, and what it found."""

import dataclasses
from typing import NamedTuple

import numpy as np

from inpaint.problem import Problem


class Progress(NamedTuple):
    """How far a search is: start-steps done and in all, and the lowest objective seen in the present chunk."""

    done: int
    total: int
    best: float


class Watched(NamedTuple):
    """Where the starts of the running chunk are after `step` steps: their image and start numbers `[n]`, and latents.

    `ws` is `[n, num_ws, w_dim]`; arrays are numpy.
    """

    step: int
    images: np.ndarray
    starts: np.ndarray
    ws: np.ndarray


@dataclasses.dataclass(frozen=True)
class Result:
    """What a search found; arrays are numpy, `[starts, ...]`, or `[images, starts, ...]` for a batch of problems.

    Attributes:
        problem: what was asked.
        ws: latents `[..., num_ws, w_dim]`, or None for a fill.
        variables: of the last phase's space, or None for a fill.
        raw: renders of the generator `[..., h, w, c]`, unclipped.
        scores: the last phase's objective, lower is better; infinite where it never was finite.
        terms: every term's weighted share of the score.
        traces: totals per step `[..., steps]`.
        frozen: starts stopped at a non-finite value.
        candidates: which of the drawn latents a start began with; its key is
            `fold_in(fold_in(key, image id), candidate)`. That of the attempt a after a frozen start is the frozen one's
            and `a * 2**24`.
        labels: class labels `[..., c_dim]` of a conditional generator, or None.
        chunk: starts run at once (in the end, where memory made it smaller on the way); with the device it makes a run
            repeatable bit for bit.
        forwards, gradients: for one image (of a batch: the mean), how often the generator ran alone and together with
            its gradient. A start counts until it stands still, though it may be carried along with its chunk; those
            that a cut ended and attempts that others replaced count too.
        attributes: probability `[...]` of every constrained attribute on the composite with the known pixels.
        steps: how many steps a start took before it stood still, `[...]`.
        expected: the means of blocks that a linear encoder expects, `[..., s, s, c]` without the axis of starts, where
            the objective asked for them, or None.
    """

    problem: Problem
    ws: np.ndarray | None
    variables: np.ndarray | None
    raw: np.ndarray
    scores: np.ndarray
    terms: dict[str, np.ndarray]
    traces: np.ndarray
    frozen: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray | None
    chunk: int
    forwards: int = 0
    gradients: int = 0
    attributes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    steps: np.ndarray | None = None
    expected: np.ndarray | None = None
