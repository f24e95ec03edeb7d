# SPDX-License-Identifier: Apache-2.0
"""Methods by networks that were trained to restore, with or without a search behind them."""

from inpaint.objective import Term
from inpaint.search import transforms
from inpaint.search.method import FeedForward, Phase
from inpaint.search.produced import Inpainter
from inpaint.search.schedule import adam, chained
from inpaint.terms import term
from stylegan_jax import latents


def learned(
    inpainter: Inpainter,
    *,
    name: str = "learned",
    steps: int = 0,
    lr: float = 0.01,
    mahalanobis: float = 0.0,
    guess_distance: float = 1.0,
    others: tuple[Term, ...] = (),
) -> FeedForward:
    """Returns restoration by a trained network: every start is a sample, which `steps` of a search go on from.

    The search moves latents in W+, and feature maps where the network replaces such, by Adam under NVlabs' schedule,
    minimising the squared error at known pixels `+ mahalanobis * |A^T (w - mean)|^2 / dim + guess_distance * sum_v
    |v - v_0|^2 / |v_0|^2` over latents and maps v, which were v_0 in the sample. It keeps its best step, and a sample
    stays as it is where no step meets the known pixels better.

    Args:
        inpainter: the network.
        name: of the method.
        steps: of the search; 0: none.
        lr: its largest learning rate. A sample is near its image already, so that it is small.
        mahalanobis, guess_distance: weights of the prior and of the distance to the sample (0: off).
        others: more terms of the objective.
    """
    if steps < 0:
        raise ValueError(f"the steps behind a learned inpainter must be at least 0, got {steps}")
    if not steps:
        return FeedForward(name, inpainter)
    prior = (term("mahalanobis", mahalanobis),) if mahalanobis else ()
    terms = (term("l2", 1.0), *prior, *others)
    optimizer = adam(lr, steps)
    if guess_distance:
        optimizer = chained(transforms.held(guess_distance), optimizer)
    phase = Phase(latents.WPLUS, steps, optimizer, terms, inpainter.noise, keep="best")
    return FeedForward(name, inpainter, phase)
