# SPDX-License-Identifier: Apache-2.0
"""Image restoration in the latent space of a generator: problems, objectives, searches, selection, compositing."""

from inpaint import losses, methods, operators
from inpaint.blend import feathered, hard
from inpaint.objective import Term, term
from inpaint.problem import Problem, read
from inpaint.search.initialise import Mean, Prescreened, RandomMapping
from inpaint.search.method import Method, Phase
from inpaint.search.schedule import adam, warmup_cosine
from inpaint.search.selection import Selection, select
from inpaint.search.solve import Progress, Result, solve

__all__ = [
    "Mean",
    "Method",
    "Phase",
    "Prescreened",
    "Problem",
    "Progress",
    "RandomMapping",
    "Result",
    "Selection",
    "Term",
    "adam",
    "feathered",
    "hard",
    "losses",
    "methods",
    "operators",
    "read",
    "select",
    "solve",
    "term",
    "warmup_cosine",
]
