# SPDX-License-Identifier: Apache-2.0
"""Hole PSNR on real portraits for several weights of the prior: how the default settings were chosen.

    python benchmarks/portraits.py --data faces64.npz --split tune --images 12 --starts 4 --steps 100

Settings are chosen on 'tune' only. Printed are medians over images: the start that the score selects, the median start,
and the best start by truth (an upper bound), inside the hole, and the selected start outside it.
"""

import time

import jax
import numpy as np
from absl import app, flags, logging

import inpaint
import stylegan_jax as sg
from inpaint import output, sample
from stylegan_jax import image_io
from stylegan_jax.training import data

_DATA = flags.DEFINE_string("data", None, "npz with images and split.", required=True)
_SPLIT = flags.DEFINE_enum("split", "tune", ["tune", "report"], "Which portraits.")
_GENERATOR = flags.DEFINE_string("generator", None, "Checkpoint directory; by default the demo generator.")
_IMAGES = flags.DEFINE_integer("images", 12, "Number of portraits.")
_STARTS = flags.DEFINE_integer("starts", 4, "Starts for every portrait.")
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of every start.")
_PRIOR = flags.DEFINE_list("prior", ["0.003", "0.01", "0.02", "0.03"], "Weights of the Mahalanobis prior.")
_NOISE = flags.DEFINE_list("noise", ["const"], "Noise modes of the search.")


def measure(model: sg.Model, truths: np.ndarray, known: np.ndarray, *, prior: float, noise: str) -> str:
    """Returns a line of results for portraits `[n, h, w, c]` behind one hole, `known` `[h, w]`."""
    mask = inpaint.operators.Mask.checked(known)
    problem = inpaint.Problem.stack([inpaint.Problem.observe(truth, mask) for truth in truths])
    method = inpaint.methods.latent_search(steps=_STEPS.value, mahalanobis=prior, noise=noise)
    began = time.perf_counter()
    result = inpaint.solve(model, problem, method, starts=_STARTS.value, key=jax.random.key(0))
    seconds = time.perf_counter() - began

    def psnrs(weight: np.ndarray) -> np.ndarray:
        pairs = zip(result.raw, truths, strict=True)
        return np.array([[output.psnr(raw, truth, weight) for raw in starts] for starts, truth in pairs])

    hole, outside = psnrs(1 - known), psnrs(known)
    chosen = np.arange(len(truths)), np.argmin(result.scores, axis=1)
    values = np.median(hole[chosen]), np.median(hole), np.median(hole.max(1)), np.median(outside[chosen])
    return "selected {:.1f}  median start {:.1f}  best by truth {:.1f}  known {:.1f} dB".format(*values) + (
        f"  {result.scores.size * method.steps / seconds:.0f} start-steps/s"
    )


def main(argv: list[str]) -> None:
    """Measures every setting on two holes."""
    logging.set_verbosity(logging.WARNING)
    model = sg.load(_GENERATOR.value)
    size = model.resolution
    truths = image_io.from_uint8(data.load_images(_DATA.value, resolution=size, split=_SPLIT.value)[: _IMAGES.value])
    lower = np.ones((size, size), np.float32)
    lower[size // 2 :] = 0
    for name, known in (("centre 25 %", sample.centre_hole(size)), ("lower half", lower)):
        for prior in _PRIOR.value:
            for noise in _NOISE.value:
                line = measure(model, truths, known, prior=float(prior), noise=noise)
                print(f"{name}  prior {prior}  noise {noise}  {line}", flush=True)


if __name__ == "__main__":
    app.run(main)
