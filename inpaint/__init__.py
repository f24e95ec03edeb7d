# SPDX-License-Identifier: Apache-2.0
"""Image restoration in the latent space of a generator: problems, objectives, searches, selection, compositing."""

from inpaint import baselines, edit, losses, masks, methods, metrics, operators
from inpaint.blend import carried, feathered, hard, harmonised, poisson
from inpaint.framing import paste
from inpaint.objective import Term
from inpaint.photograph import Photograph, Prepared, prepare, read_photograph
from inpaint.problem import Problem, read
from inpaint.search.halving import SuccessiveHalving
from inpaint.search.initialise import Encoded, Given, Mean, Prescreened, RandomMapping, Uniform
from inpaint.search.method import FeedForward, Fill, Method, Phase
from inpaint.search.produced import Inpainter, Produced
from inpaint.search.result import Progress, Result, Watched
from inpaint.search.saved import SavedSearch
from inpaint.search.schedule import adam, warmup_cosine
from inpaint.search.selection import Selection, select
from inpaint.search.solve import solve
from inpaint.search.stopping import Below, Plateau
from inpaint.terms import attribute_term, hold_term, term

__all__ = [
    "Below",
    "Encoded",
    "FeedForward",
    "Fill",
    "Given",
    "Inpainter",
    "Mean",
    "Method",
    "Phase",
    "Photograph",
    "Plateau",
    "Prepared",
    "Prescreened",
    "Problem",
    "Produced",
    "Progress",
    "RandomMapping",
    "Result",
    "SavedSearch",
    "Selection",
    "SuccessiveHalving",
    "Term",
    "Uniform",
    "Watched",
    "adam",
    "attribute_term",
    "baselines",
    "carried",
    "edit",
    "feathered",
    "hard",
    "harmonised",
    "hold_term",
    "losses",
    "masks",
    "methods",
    "metrics",
    "operators",
    "paste",
    "poisson",
    "prepare",
    "read",
    "read_photograph",
    "select",
    "solve",
    "term",
    "warmup_cosine",
]
