# SPDX-License-Identifier: Apache-2.0
"""Degradations `y = A(x)` of one image `x` `[h, w, c]` in [-1, 1].

An operator is a pytree: its arrays may differ from image to image, its sizes and options are static. It has

- `operator(image) -> measurement`: deterministic and differentiable; of noise, the mean;
- `operator.surrogate(key, image)`: the same, but noise is drawn; what a search may compare with the measurement;
- `operator.simulate(key, image)`: the true degradation (a real JPEG file, real photons, real rounding), on the host
  where need be;
- `operator.adjoint(measurement)`: `[h, w, c]`, where `operator.linear`;
- `operator.random`: whether `simulate` needs a key;
- `operator.weight`: how much each value of the measurement counts, an array that broadcasts to it, 0 = not at all;
- `operator.known`: `[h, w]` in [0, 1], the pixels that the measurement shows as they are (1 = keep), or None where it
  shows none;
- `operator.rank`: how many axes one measurement has.

Measurements are `[h, w, c]` but for compressed sensing, whose are `[m]`, and copies, whose are `[count, h, w, c]`.
`parse` makes an operator from a text such as "downsample:4:bicubic+jpeg:10"; `KNOWN` says what there is, `LEVELS` names
five strengths of some.
"""

from inpaint.operators.blur import GaussianBlur, MotionBlur
from inpaint.operators.composition import Composition
from inpaint.operators.copies import Copies
from inpaint.operators.downsample import Downsample
from inpaint.operators.grayscale import Grayscale
from inpaint.operators.jpeg import Jpeg
from inpaint.operators.mask import Mask
from inpaint.operators.noise import GaussianNoise, PoissonBernoulli
from inpaint.operators.protocol import Operator
from inpaint.operators.quantise import Quantise
from inpaint.operators.sensing import DenseGaussian, PartialCirculant
from inpaint.operators.specs import KNOWN, LEVELS, parse

__all__ = [
    "KNOWN",
    "LEVELS",
    "Composition",
    "Copies",
    "DenseGaussian",
    "Downsample",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Jpeg",
    "Mask",
    "MotionBlur",
    "Operator",
    "PartialCirculant",
    "PoissonBernoulli",
    "Quantise",
    "parse",
]
