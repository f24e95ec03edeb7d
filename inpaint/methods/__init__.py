# SPDX-License-Identifier: Apache-2.0
"""Restoration methods: functions that return a `Method`; `METHODS` finds them by name.

Each keeps its source's objective, schedule and space; what deviates, and why, is in its docstring. Those with
`features` want LPIPS, whose weights do not come with the library; `"discriminator_features"` stands in for it, and is
not the published objective. `learned` wraps a trained network, and so is none of `METHODS`.
"""

from inpaint.methods.heads import attribute_walk, pivotal_tuning, sphinx
from inpaint.methods.layers import intermediate_layers, multi_code, pulse, robust_unsupervised
from inpaint.methods.learned import learned
from inpaint.methods.projection import (
    Shake,
    brgm,
    improved_embedding,
    in_domain,
    projector,
    split_steps,
    style_deltas,
    style_space,
)
from inpaint.methods.search import brief, encoder_search, latent_search
from inpaint.methods.semantic import dcgan_completion, filipovski

__all__ = [
    "METHODS",
    "Shake",
    "attribute_walk",
    "brgm",
    "brief",
    "dcgan_completion",
    "encoder_search",
    "filipovski",
    "improved_embedding",
    "in_domain",
    "intermediate_layers",
    "latent_search",
    "learned",
    "multi_code",
    "pivotal_tuning",
    "projector",
    "pulse",
    "robust_unsupervised",
    "sphinx",
    "split_steps",
    "style_deltas",
    "style_space",
]

METHODS = {
    method.__name__: method
    for method in (
        latent_search,
        encoder_search,
        brief,
        filipovski,
        dcgan_completion,
        projector,
        brgm,
        improved_embedding,
        in_domain,
        style_deltas,
        style_space,
        robust_unsupervised,
        pulse,
        intermediate_layers,
        multi_code,
        pivotal_tuning,
        sphinx,
    )
}
