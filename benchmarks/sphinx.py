# SPDX-License-Identifier: Apache-2.0
"""SPHInX beside a plain search in W+: images out of the generator's domain, unseen draws, few measurements.

    python benchmarks/sphinx.py --data faces64.npz --steps 1000 --output benchmarks/results/sphinx.json

Photographs of scikit-image that show no face are fitted whole, by every method in equally many steps from one start.
Reported are the PSNR of the result, that of 16 renders with draws that the search never saw, and how much these differ
(standard deviation of a pixel, images in [-1, 1]). Then portraits of --data ('report') are recovered from 1 % of
compressed measurements: PSNR of the whole image, its feature distance from the truth as the judging network sees it,
and beside them those of the generator's mean image. Images of every row are written as a sheet beside the JSON.
"""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import measured
import numpy as np
import skimage.data
from absl import app, flags, logging

import inpaint
import stylegan_jax as sg
from inpaint import measurement, operators
from inpaint.edit import redraw
from inpaint.metrics.judge import LoadedJudge
from inpaint.search import schedule
from inpaint.search.method import Method, Phase
from inpaint.search.transforms import by_part
from stylegan_jax import checkpoint, image_io, latents
from stylegan_jax.heads import StyleHead
from stylegan_jax.joint import Content, Joint
from stylegan_jax.training import data

_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_DATA = flags.DEFINE_string("data", None, "Portraits, an npz with 'report'; without, no compressed sensing.")
_STEPS = flags.DEFINE_integer("steps", 1000, "Steps of every search.")
_LR = flags.DEFINE_float("lr", 0.003, "Of the heads; published 0.001 for 5,000 steps.")
_METHODS = flags.DEFINE_list("methods", None, "Some of the methods, by name; by default all.")
_PORTRAITS = flags.DEFINE_integer("portraits", 4, "For compressed sensing.")
_RATIO = flags.DEFINE_float("ratio", 0.01, "Measurements for every value of the image.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")

PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "hubble_deep_field")
DRAWS = 16


@dataclasses.dataclass(frozen=True)
class FixedHead(StyleHead):
    """A style head that sees one draw at all steps: what SPHInX is without its regularisation."""

    def to_inputs(self, host: latents.Host, v) -> latents.Inputs:
        return super().to_inputs(host._replace(key=jax.random.key(0)), v)


def methods(steps: int, lr: float) -> dict[str, Method]:
    """Returns the methods that are compared, by name."""
    l2 = (inpaint.term("l2"),)
    sphinx = inpaint.methods.sphinx(steps=steps, lr=lr, feature_weight=0.0, noise_maps=False)
    plain = Phase(latents.WPLUS, steps, schedule.adam(0.05, steps), l2)
    rate = schedule.adam(0.05, steps)
    content = Phase(Joint(latents.WPLUS, (Content(),)), steps, by_part(rate, {}), l2)
    fixed = dataclasses.replace(sphinx.phases[0], space=FixedHead(), optimizer=schedule.adam(lr, steps))
    head = inpaint.methods.sphinx(steps=steps, lr=lr, feature_weight=0.0, noise_maps=False, content=False)
    return {
        "W+": Method("w+", (plain,), inpaint.Mean()),
        "W+ and content": Method("content", (content,), inpaint.Mean()),
        "style head": head,
        "style head, one draw": Method("fixed", (fixed,), inpaint.RandomMapping()),
        "SPHInX": sphinx,
    }


def photographs(size: int) -> np.ndarray:
    """Returns the central squares of the photographs, `[n, size, size, 3]` in [-1, 1]."""
    return np.stack(
        [measurement.central_square(getattr(skimage.data, n)(), size=size, channels=3) for n in PHOTOGRAPHS]
    )


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the PSNR of clipped images `[..., h, w, c]`, range 2."""
    error = np.square(np.clip(images, -1, 1) - truth).mean((-3, -2, -1))
    return 10 * np.log10(4 / np.maximum(error, 1e-12))


def run(model: sg.Model, method: Method, problems: list, truths: np.ndarray) -> tuple[dict, np.ndarray]:
    """Returns the figures of a method over all problems, and its renders."""
    began = time.perf_counter()
    result = inpaint.solve(model, inpaint.Problem.stack(problems), method, starts=1, key=jax.random.key(0))
    seconds, raw, phase = time.perf_counter() - began, result.raw[:, 0], method.phases[-1]
    row = {"psnr": psnr(raw, truths).tolist(), "seconds": round(seconds, 1), "gradients": result.gradients}
    space = phase.space
    if isinstance(space, FixedHead):
        space = StyleHead(space.encoder, space.decoder)
    draws = np.stack(
        [
            np.asarray(redraw(jax.random.key(1), model.generator, space, v, count=DRAWS, noise=phase.noise))
            for v in (jax.tree.map(lambda x, i=i: jnp.asarray(x[i, 0]), result.variables) for i in range(len(raw)))
        ]
    )
    unseen = psnr(draws, truths[:, None])
    row |= {"unseen_mean": unseen.mean(1).tolist(), "unseen_worst": unseen.min(1).tolist()}
    row["deviation"] = draws.std(1).mean((1, 2, 3)).tolist()
    return row, raw


def main(argv: list[str]) -> None:
    """Runs everything and writes the results."""
    logging.set_verbosity(logging.WARNING)
    model, judge = sg.load(_GENERATOR.value), LoadedJudge()
    size, compared = model.resolution, methods(_STEPS.value, _LR.value)
    compared = {name: x for name, x in compared.items() if _METHODS.value is None or name in _METHODS.value}
    truths, rows, sheets = photographs(size), [], {"photographs": [], "sensing": []}
    whole = [inpaint.Problem.observe(x, operators.Mask(jnp.ones((size, size)))) for x in truths]
    sheets["photographs"].append(truths)
    for name, method in compared.items():
        row, raw = run(model, method, whole, truths)
        rows.append({"task": "photographs", "method": name} | row)
        sheets["photographs"].append(raw)
        print(_line(rows[-1]), flush=True)
    if _DATA.value:
        images = data.load_images(_DATA.value, resolution=size, split="report")[:: 140 // _PORTRAITS.value]
        faces = image_io.from_uint8(images[: _PORTRAITS.value])
        keys = jax.random.split(jax.random.key(2), len(faces))
        sensed = [
            inpaint.Problem.observe(x, operators.PartialCirculant.draw(k, x.shape, ratio=_RATIO.value), key=k)
            for x, k in zip(faces, keys, strict=True)
        ]
        mean = np.asarray(
            model.generator.synthesis(jnp.tile(model.w_statistics.mean, (1, model.generator.config.num_ws, 1)))
        )
        sheets["sensing"] += [faces, np.repeat(mean, len(faces), 0)]
        rows.append({"task": "sensing", "method": "mean of W"} | _against(judge, sheets["sensing"][1], faces))
        print(_line(rows[-1]), flush=True)
        for name in [name for name in ("W+", "style head", "SPHInX") if name in compared]:
            row, raw = run(model, compared[name], sensed, faces)
            rows.append({"task": "sensing", "method": name} | row | _against(judge, raw, faces))
            sheets["sensing"].append(raw)
            print(_line(rows[-1]), flush=True)
    if _OUTPUT.value:
        _write(pathlib.Path(_OUTPUT.value), model, rows, sheets)


def _against(judge: LoadedJudge, images: np.ndarray, truths: np.ndarray) -> dict:
    distances = judge.compare(np.clip(images, -1, 1), truths)[0]
    return {"psnr": psnr(images, truths).tolist(), "feature_distance": [float(x) for x in distances]}


def _line(row: dict) -> str:
    numbers = {k: np.round(np.mean(v), 4) for k, v in row.items() if k not in ("task", "method")}
    return f"{row['task']}, {row['method']}: " + ", ".join(f"{k} {v:g}" for k, v in numbers.items())


def _write(path: pathlib.Path, model: sg.Model, rows: list[dict], sheets: dict[str, list[np.ndarray]]) -> None:
    found = {
        "generator": model.content_hash,
        "steps": _STEPS.value,
        "lr": _LR.value,
        "photographs": PHOTOGRAPHS,
        "rows": rows,
    }
    measured.write(path, found)
    for name, images in sheets.items():
        if images:
            grid = np.concatenate([np.concatenate(list(np.clip(row, -1, 1)), 1) for row in images], 0)
            image_io.write_image(
                path.with_name(f"{path.stem}_{name}.png"), image_io.to_uint8(grid.repeat(2, 0).repeat(2, 1))
            )


if __name__ == "__main__":
    app.run(main)
