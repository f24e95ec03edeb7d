# SPDX-License-Identifier: Apache-2.0
"""Recovery of images that the generator can make: what the score selects, against the truth.

    python benchmarks/recovery.py --output benchmarks/results/recovery.json

Images are `G(mapping(z))` of fixed `z`, the hole is the central quarter, every image has 16 starts. Reported is the
PSNR inside the hole (clipped render, range 2) of the start with the lowest objective, the median over images and the
worst, and beside it the best start by truth, as an upper bound.
"""

import time

import jax
import measured
import numpy as np
from absl import app, flags, logging

import inpaint
import stylegan_jax as sg
from inpaint import output, sample

_GENERATOR = flags.DEFINE_string("generator", None, "Checkpoint directory; by default the demo generator.")
_IMAGES = flags.DEFINE_integer("images", 20, "Number of images.")
_STARTS = flags.DEFINE_integer("starts", 16, "Starts for every image.")
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of every start.")
_PRIOR = flags.DEFINE_list("prior", ["0", "0.001"], "Weights of the Mahalanobis prior.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")


def recover(model: sg.Model, truths: np.ndarray, *, space: str, prior: float) -> dict[str, float]:
    """Returns hole PSNRs (dB) over all `truths` `[n, h, w, c]` for one space and one weight of the prior."""
    known = sample.centre_hole(model.resolution)
    mask = inpaint.operators.Mask.checked(known)
    problem = inpaint.Problem.stack([inpaint.Problem.observe(truth, mask) for truth in truths])
    method = inpaint.methods.latent_search(space=space, steps=_STEPS.value, mahalanobis=prior)
    began = time.perf_counter()
    result = inpaint.solve(model, problem, method, starts=_STARTS.value, key=jax.random.key(1))
    seconds = time.perf_counter() - began
    hole = np.array([output.psnr(starts, truth, 1 - known) for starts, truth in zip(result.raw, truths, strict=True)])
    selected = hole[np.arange(len(truths)), np.argmin(result.scores, axis=1)]
    return {
        "space": space,
        "mahalanobis": prior,
        "selected_median": float(np.median(selected)),
        "selected_worst": float(selected.min()),
        "median_start": float(np.median(hole)),
        "best_by_truth_median": float(np.median(hole.max(1))),
        "start_steps_per_second": result.scores.size * method.steps / seconds,
    }


def main(argv: list[str]) -> None:
    """Measures W and W+ and writes the results."""
    logging.set_verbosity(logging.WARNING)
    model = sg.load(_GENERATOR.value)
    z = jax.random.normal(jax.random.key(0), (_IMAGES.value, model.generator.config.z_dim))
    truths = np.clip(np.asarray(jax.jit(lambda g, z: g(z))(model.generator, z)), -1, 1)
    rows = []
    for space in ("w", "w+"):
        for prior in _PRIOR.value:
            row = recover(model, truths, space=space, prior=float(prior))
            rows.append(row)
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    found = {"generator": model.content_hash, "images": _IMAGES.value, "starts": _STARTS.value, "steps": _STEPS.value}
    measured.write(_OUTPUT.value, found | {"rows": rows})


if __name__ == "__main__":
    app.run(main)
