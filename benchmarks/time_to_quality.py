# SPDX-License-Identifier: Apache-2.0
"""Seconds until a method's best-fitting start reaches a hole PSNR, on images whose truth is known.

    python benchmarks/time_to_quality.py --data faces64.npz --split report --limit 4 --methods encoder_search,brief

For every image the search is run twice, and the second run is watched: compilation is left out, and so is what the
watching takes. At every look the start that meets the known pixels best stands for the method (which cannot see the
truth). Methods whose latents alone do not give their images are timed to their end only.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import measured
import numpy as np
from absl import app, flags, logging
from flax import nnx

import inpaint
import stylegan_jax as sg
from inpaint import masks, metrics, named_methods
from inpaint.search.result import Watched
from stylegan_jax import checkpoint, image_io
from stylegan_jax.training import data

_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_DATA = flags.DEFINE_string("data", None, "Images: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this.")
_LIMIT = flags.DEFINE_integer("limit", 4, "Images.")
_MASK = flags.DEFINE_string("mask", "centre", "Mask, see `python -m inpaint mask`.")
_METHODS = flags.DEFINE_list("methods", ["encoder_search", "latent_search", "brief"], "Methods by name.")
_STARTS = flags.DEFINE_integer("starts", 4, "Starts of every image.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps, in place of every method's own.")
_LEVELS = flags.DEFINE_list("levels", ["16", "18", "20"], "Hole PSNR in dB.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")


@dataclasses.dataclass
class Watch:
    """Notes, at every look, the seconds of the search so far and the hole PSNR of the start that fits best."""

    model: sg.Model
    truth: np.ndarray
    known: np.ndarray

    def __post_init__(self):
        graph, self.state = nnx.split(self.model.generator.synthesis)
        hole = 1 - jnp.asarray(self.known)

        def look(state: Any, ws: jax.Array) -> jax.Array:
            renders = nnx.merge(graph, state)(ws, noise="none")
            fit = jax.vmap(lambda x: metrics.psnr(x, self.truth, 1 - hole))(renders)
            return metrics.psnr(renders[jnp.argmax(fit)], self.truth, hole)

        self.look, self.seen, self.paused, self.began = jax.jit(look), [], 0.0, time.perf_counter()

    def __call__(self, watched: Watched) -> None:
        now = time.perf_counter()
        self.seen.append((now - self.began - self.paused, float(self.look(self.state, jnp.asarray(watched.ws)))))
        self.paused += time.perf_counter() - now


def run(model: sg.Model, method: inpaint.Method, truth: np.ndarray, known: np.ndarray) -> list[tuple[float, float]]:
    """Returns (seconds, hole PSNR) along one search."""
    problem = inpaint.Problem.observe(truth, inpaint.operators.Mask.checked(known))
    options = dict(starts=_STARTS.value, key=jax.random.key(0))
    watched = method.rendered_with is not None
    for _ in range(2):
        watch = Watch(model, truth, known)
        looks = dict(watch=watch, watch_every=max(1, method.steps // 50)) if watched else {}
        result = inpaint.solve(model, problem, method, **options, **looks)
    seconds = time.perf_counter() - watch.began - watch.paused
    best = inpaint.select(result, keep=1)
    return [*watch.seen, (seconds, float(metrics.psnr(jnp.asarray(best.images[0]), truth, 1 - jnp.asarray(known))))]


def reached(curve: list[tuple[float, float]], level: float) -> float:
    """Returns the seconds at which the PSNR was first at least `level`, or infinity."""
    return next((seconds for seconds, psnr in curve if psnr >= level), float("inf"))


def main(argv: list[str]) -> None:
    """Measures every method and writes the results."""
    logging.set_verbosity(logging.WARNING)
    model, levels = sg.load(_GENERATOR.value), [float(x) for x in _LEVELS.value]
    images = data.load_images(_DATA.value, resolution=model.resolution, split=_SPLIT.value)[: _LIMIT.value]
    truths = image_io.from_uint8(images)
    known = np.asarray(masks.parse(_MASK.value)(jax.random.key(0), model.resolution), np.float32)
    rows = []
    for name in _METHODS.value:
        config = named_methods.named(name)
        if _STEPS.value:
            config.search.steps = _STEPS.value
        method = named_methods.build_method(config)
        curves = [run(model, method, truth, known) for truth in truths]
        times = {f"{level:g} dB": [reached(curve, level) for curve in curves] for level in levels}
        row = {
            "method": name,
            "steps": method.steps,
            "seconds_to": {
                key: None if np.isinf(np.median(x)) else round(float(np.median(x)), 2) for key, x in times.items()
            },
            "seconds": round(float(np.median([curve[-1][0] for curve in curves])), 2),
            "hole_psnr": round(float(np.median([curve[-1][1] for curve in curves])), 2),
        }
        rows.append(row)
        print(row, flush=True)
    found = {"generator": model.content_hash, "mask": _MASK.value, "images": len(truths), "starts": _STARTS.value}
    measured.write(_OUTPUT.value, found | {"rows": rows})


if __name__ == "__main__":
    app.run(main)
