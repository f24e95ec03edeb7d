# SPDX-License-Identifier: Apache-2.0
"""Image restoration in the latent space of a generator: problems, objectives, searches, selection, compositing."""

from inpaint import baselines, edit, losses, masks, methods, metrics, operators
from inpaint.blend import feathered, hard
from inpaint.framing import paste
from inpaint.objective import Term, attribute_term, hold_term, term
from inpaint.photograph import Photograph, Prepared, prepare, read_photograph
from inpaint.problem import Problem, read
from inpaint.search.initialise import Encoded, Given, Mean, Prescreened, RandomMapping
from inpaint.search.method import Fill, Method, Phase
from inpaint.search.result import Progress, Result, Watched
from inpaint.search.saved import SavedSearch
from inpaint.search.schedule import adam, warmup_cosine
from inpaint.search.selection import Selection, select
from inpaint.search.solve import solve

__all__ = [
    "Encoded",
    "Fill",
    "Given",
    "Mean",
    "Method",
    "Phase",
    "Photograph",
    "Prepared",
    "Prescreened",
    "Problem",
    "Progress",
    "RandomMapping",
    "Result",
    "SavedSearch",
    "Selection",
    "Term",
    "Watched",
    "adam",
    "attribute_term",
    "baselines",
    "edit",
    "feathered",
    "hard",
    "hold_term",
    "losses",
    "masks",
    "methods",
    "metrics",
    "operators",
    "paste",
    "prepare",
    "read",
    "read_photograph",
    "select",
    "solve",
    "term",
    "warmup_cosine",
]
