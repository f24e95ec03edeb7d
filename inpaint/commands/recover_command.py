# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint recover`: recovers an image from what a degradation other than a hole has left of it.

    python -m inpaint recover --image small.png --degradation downsample:4
    python -m inpaint recover --image blurred.png --degradation blur:2+quantise --output out/sharp
    python -m inpaint recover --image clean.png --degradation noise:0.25 --simulate
    python -m inpaint recover --degradation circulant:0.04

The image file is the measurement itself, as large as the degradation leaves an image of the generator. With --simulate
it is a whole picture, whose largest central square is brought to the generator's size and degraded first, so that the
truth is known; without --image that is done with a sample portrait. Known pixels, where a degradation leaves any
(mask:MASK), stay in the result.

Settings come from flags, then `--config.search.NAME=VALUE`, then `--config FILE`, then the method's defaults. A folder
that is finished with equal settings and files is skipped.

Exit codes: 0 done, or done before; 1 nothing could be done, because of what stderr says in one line; 2 a flag or the
config is wrong; 130 interrupted.
"""

import dataclasses
import hashlib
import time
from typing import Any

import jax
import numpy as np
from absl import flags

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import measurement, named_methods, operators, output
from inpaint.commands import networks, report, search_flags
from inpaint.search.scoring import score_starts
from stylegan_jax import checkpoint, rendering

_DRAWN = 2**31 - 1  # folded into the seed's key for what a degradation draws; 0 stands for the image in the search

_IMAGE = flags.DEFINE_string("image", None, "Image file; by default a sample portrait, which is degraded first.")
_DEGRADATION = flags.DEFINE_string(
    "degradation",
    None,
    f"What was done to the image, several at once joined by +: {', '.join(operators.KNOWN)}; see docs/degradations.md.",
)
_SIMULATE = flags.DEFINE_bool("simulate", False, "The image file is whole: degrade it first, by --seed.")
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_METHOD = flags.DEFINE_enum(
    "method", None, list(named_methods.METHODS), "One that searches without an encoder; by default latent_search."
)
_OUTPUT = flags.DEFINE_string("output", "out/recover", "Folder for the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace earlier results in the output folder.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print results, warnings and errors only.")

_ENCODING = frozenset({"guess", "encoder"})  # roles that ask an encoder, which reads images with holes only


def _searching() -> list[str]:
    """Returns the names of the methods that search without an encoder."""
    built = {
        name: named_methods.build_method(named_methods.named(name))
        for name, x in named_methods.METHODS.items()
        if x.searches
    }
    return [name for name, method in built.items() if not _ENCODING & method.needs]


def _build(config: _config.RestoreConfig) -> inpaint.Method:
    named = named_methods.METHODS.get(config.method)
    why = "fills holes without a search"
    if named is None or named.searches:
        method = named_methods.build_method(config)
        if not _ENCODING & method.needs:
            return method
        why = "as it is set asks an encoder, which reads images with holes"
    raise ValueError(f"the method {config.method} {why}; those that recover are {', '.join(_searching())}")


def _digest(operator: operators.Operator) -> str:
    """Returns the sha256 of what an operator has drawn or read from files."""
    digest = hashlib.sha256()
    for array in jax.tree.leaves(operator):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _problem(model: sg.Model, levels: np.ndarray | None, key: jax.Array) -> tuple[inpaint.Problem, np.ndarray | None]:
    """Returns what is asked, and the truth `[h, w, c]` where it is known; `levels` `[h, w, 3]` are the file's."""
    size, channels, text = model.resolution, model.generator.config.image_channels, _DEGRADATION.value
    drawn, noise = jax.random.split(jax.random.fold_in(key, _DRAWN))
    operator = operators.parse(text, size=size, key=drawn, channels=channels)
    if levels is not None and not _SIMULATE.value:
        shape = measurement.shape_of(operator, size, channels)
        found = measurement.as_measurement(levels, shape, name=_IMAGE.value, degradation=text, size=size)
        return measurement.without_hidden(inpaint.Problem(operator, found)), None
    if levels is not None:
        truth = measurement.central_square(levels, size=size, channels=channels)
    else:
        from inpaint import sample  # scikit-image is slow to import, and only the sample needs it

        truth = measurement.with_channels(sample.portrait(size), channels)
    return measurement.without_hidden(inpaint.Problem.observe(truth, operator, key=noise)), truth


def _settings(
    config: _config.RestoreConfig, method: inpaint.Method, model: sg.Model, problem: inpaint.Problem, hashes: dict
) -> dict[str, Any]:
    """Returns what decides the result, for `config.json`."""
    return {
        "image": "sample portrait" if _IMAGE.value is None else _IMAGE.value,
        "checkpoint": _GENERATOR.value,
        "inputs": {
            "image_sha256": None if _IMAGE.value is None else checkpoint.file_sha256(_IMAGE.value),
            "operator_sha256": _digest(problem.operator),
        },
        "options": {
            "degradation": _DEGRADATION.value,
            "simulate": _SIMULATE.value or _IMAGE.value is None,
            "networks": hashes,
            "generator_config": dataclasses.asdict(model.generator.config),
        },
        "measurement": list(problem.measurement.shape),
        "method": method.name,
        "config": dataclasses.asdict(config),
    }


def _say(text: str) -> None:
    if not _QUIET.value:
        print(text, flush=True)


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DEGRADATION.value:
        raise ValueError(f"--degradation is needed, such as downsample:4; known: {', '.join(operators.KNOWN)}")
    config = search_flags.resolve(_METHOD.value, default=lambda: "latent_search")
    method = _build(config)
    folder = output.check_folder(_OUTPUT.value)
    # Before the model is loaded, so that a wrong file is told at once.
    levels = None if _IMAGE.value is None else measurement.read_levels(_IMAGE.value)
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model = networks.load_generator(_GENERATOR.value)
    asked = networks.load(method.needs, method.attributes)
    key = jax.random.key(config.search.seed)
    problem, truth = _problem(model, levels, key)
    settings = _settings(config, method, model, problem, asked.hashes)
    if not _OVERWRITE.value and output.finished(folder, settings, model.content_hash):
        report.print_skipped(folder)
        return 0
    for line in report.introduction(config, method, model, _GENERATOR.value):
        _say(line)
    what = "degraded by" if truth is not None else "is a measurement of"
    _say(f"image      {settings['image']}, {what} {_DEGRADATION.value}")
    _recover(folder, config, method, model, problem, truth, asked.found, settings)
    return 0


def _recover(folder, config, method, model, problem, truth, found, settings) -> None:
    """Searches, writes the folder, and prints what came of it."""
    search, began = config.search, time.perf_counter()
    display = report.Display(1, quiet=_QUIET.value, log=report.Log(None))
    result = inpaint.solve(
        model,
        problem,
        method,
        starts=search.starts,
        key=jax.random.key(search.seed),
        networks=found,
        chunk=search.chunk or None,
        progress=display.search(1, "image"),
    )
    seconds = time.perf_counter() - began
    scores = score_starts(model, result, method, search.score, networks=found)
    selection = inpaint.select(result, keep=search.keep, by=search.select, scores=scores)
    noise = method.rendered_with
    # What is written must be what the stored latents give when they are rendered again, to the last bit.
    raw = selection.images if noise is None else rendering.render(model, selection.ws, noise=noise)
    figures = {"measured_psnr": np.asarray(measurement.psnr(problem, result.raw))}
    if truth is not None:
        shown = _shown(config, problem, result.raw)
        figures["truth_psnr"] = output.psnr(shown, truth, np.ones(truth.shape[:2], np.float32))
    device, best = jax.devices()[0], {name: float(x[selection.starts[0]]) for name, x in figures.items()}
    output.write_recovery(
        folder,
        model=model,
        truth=truth,
        result=result,
        selection=selection,
        recovered=_shown(config, problem, raw),
        raw=raw,
        figures=figures,
        noise=noise,
        settings=settings | {"seconds": round(seconds, 2), "device": f"{device.platform} {device.device_kind}"},
    )
    rate = report.speed(search.starts, method.steps, seconds)
    met = f"measurement met at {best['measured_psnr']:.1f} dB"
    met += f", truth at {best['truth_psnr']:.1f} dB" if truth is not None else ""
    print(f"done       {seconds:.1f} s with compilation{rate}; {met}")
    warnings = report.frozen_warning(result)
    if not problem.operator.random and problem.operator.rank == 3:
        # Noise is met by nothing, and sums over the image have another scale.
        warnings += report.poor_warning(best["measured_psnr"], "what was measured")
    for warning in warnings:
        print(f"warning    {warning}")
    last = len(selection.starts)
    print(f"results    {folder}/contact_sheet.png, recovered_1.png .. recovered_{last}.png, {output.SCORES}")


def _shown(config: _config.RestoreConfig, problem: inpaint.Problem, raw: np.ndarray) -> np.ndarray:
    """Returns results `[n, h, w, c]` of renders, with the measurement's pixels where it shows any as they are."""
    known = problem.operator.known
    if known is None:
        return np.clip(raw, -1, 1)
    return _config.composite(config, raw, np.asarray(problem.measurement), np.asarray(known))
