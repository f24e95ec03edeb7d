# SPDX-License-Identifier: Apache-2.0
"""`python -m inpaint restore`: restores the hole of one image in several ways.

    python -m inpaint restore
    python -m inpaint restore --image photo.png --mask hole.png --generator checkpoints/ffhq --output out/photo

Without arguments: a sample portrait, a central hole, the demo generator. Settings come from flags, then
`--config.search.NAME=VALUE`, then `--config FILE`, then the defaults.
"""

import dataclasses
import pathlib
import sys
import time

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import default_config, output
from stylegan_jax import command_line, image_io, rendering

_IMAGE = flags.DEFINE_string("image", None, "Square image file; by default a sample portrait.")
_MASK = flags.DEFINE_string("mask", None, "Mask file of the same size; by default (sample only) a central hole.")
_POLARITY = flags.DEFINE_enum(
    "mask_polarity", "white_hole", image_io.MASK_POLARITIES, "Which colour of the mask is to be restored."
)
_GENERATOR = flags.DEFINE_string("generator", None, "Checkpoint directory; by default the demo generator.")
_STARTS = flags.DEFINE_integer("starts", None, "Latents optimised at once.")
_KEEP = flags.DEFINE_integer("keep", None, "Results kept.")
_STEPS = flags.DEFINE_integer("steps", None, "Optimisation steps.")
_SEED = flags.DEFINE_integer("seed", None, "Of everything random.")
_SPACE = flags.DEFINE_string("space", None, "Latent space searched: z, w or w+.")
_INIT = flags.DEFINE_string("init", None, "Where starts begin: prescreen, random or mean.")
_LABEL = flags.DEFINE_integer("label", None, "Class for a conditional generator; by default every start draws one.")
_OUTPUT = flags.DEFINE_string("output", "out/restore", "Folder for the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier restoration in the output folder.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
_QUIET = flags.DEFINE_bool("quiet", False, "Print the result only.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(pathlib.Path(default_config.__file__)), "Config file with get_config() returning a RestoreConfig."
)


def _resolved() -> _config.RestoreConfig:
    config = command_line.typed_config(_CONFIG.value, _config.RestoreConfig, field="search")
    for flag in (_STARTS, _KEEP, _STEPS, _SEED, _SPACE, _INIT):
        if flag.value is not None:
            setattr(config.search, flag.name, flag.value)
    if _KEEP.value is None:
        config.search.keep = min(config.search.keep, config.search.starts)
    return config


def _read(model: sg.Model) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    """Returns image, known, truth (where known) and a name for the report."""
    size, channels = model.resolution, model.generator.config.image_channels
    if channels not in (1, 3):
        raise ValueError(f"the generator makes images of {channels} channels; only 1 and 3 can be read from files")
    if _IMAGE.value is None:
        if _MASK.value is not None:
            raise ValueError("--mask needs --image")
        from inpaint import sample  # scikit-image is slow to import, and only the sample needs it

        image, known, name = sample.portrait(size), sample.centre_hole(size), "sample portrait"
        truth = image
    else:
        if _MASK.value is None:
            raise ValueError("--image needs --mask, an image whose white pixels are to be restored")
        image, known = inpaint.read(_IMAGE.value, mask=_MASK.value, size=size, polarity=_POLARITY.value)
        name, truth = _IMAGE.value, None
    if channels == 1:
        image = image.mean(-1, keepdims=True)
        truth = None if truth is None else image
    return image, known, truth, name


def _label(model: sg.Model) -> np.ndarray | None:
    c_dim = model.generator.config.c_dim
    if _LABEL.value is None:
        return None
    if not 0 <= _LABEL.value < c_dim:
        what = f"0 to {c_dim - 1}" if c_dim else "left out: the generator is not conditional"
        raise ValueError(f"--label must be {what}, got {_LABEL.value}")
    return np.eye(c_dim, dtype=np.float32)[_LABEL.value]


class _ProgressLine:
    """Prints how far the search is: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self):
        self.shown, self.first = 0.0, None

    def __call__(self, progress: inpaint.Progress) -> None:
        now = time.perf_counter()
        # The first report ends the compilation, which would spoil speed and ETA.
        if self.first is None:
            self.first = now, progress.done
        terminal = sys.stdout.isatty()
        if now - self.shown < (0.2 if terminal else 5) and progress.done < progress.total:
            return
        self.shown = now
        speed = (progress.done - self.first[1]) / max(now - self.first[0], 1e-9)
        eta = f"{(progress.total - progress.done) / speed:.0f} s left" if speed else "compiled"
        line = f"  {progress.done}/{progress.total} start-steps  {speed:.0f}/s  {eta}  best {progress.best:.5f}"
        print(f"\r{line}   " if terminal else line, end="" if terminal else "\n", flush=True)
        if terminal and progress.done >= progress.total:
            print()


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    config = _resolved()
    search = config.search
    if config.composite not in ("feathered", "hard"):
        raise ValueError(f"unknown composite {config.composite!r}; known: feathered, hard")
    method = _config.build_method(search)
    folder = output.check_folder(_OUTPUT.value, overwrite=_OVERWRITE.value)
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model = sg.load(_GENERATOR.value)
    image, known, truth, name = _read(model)
    problem = inpaint.Problem.observe(image, inpaint.operators.Mask.checked(known))
    say = (lambda text: None) if _QUIET.value else (lambda text: print(text, flush=True))
    device = jax.devices()[0]
    say(f"device     {device.platform} ({device.device_kind}), jax {jax.__version__}")
    say(f"generator  {_GENERATOR.value or 'demo'}, {model.resolution} px, {(model.content_hash or '')[:12]}")
    meaning = "white" if _POLARITY.value == "white_hole" else "black"
    say(f"image      {name}; hole {100 * (1 - known).mean():.1f} % of it ({meaning} in the mask is restored)")
    say(f"search     {search.starts} starts x {method.steps} steps in {search.space}, seed {search.seed}")
    began = time.perf_counter()
    result = inpaint.solve(
        model,
        problem,
        method,
        starts=search.starts,
        key=jax.random.key(search.seed),
        label=_label(model),
        chunk=search.chunk or None,
        progress=None if _QUIET.value else _ProgressLine(),
    )
    seconds = time.perf_counter() - began
    selection = inpaint.select(result, keep=search.keep, by=search.select)
    # What is written must be what the stored latents give when they are rendered again, to the last bit.
    raw = rendering.render(model, selection.ws, noise=search.noise)
    blend = inpaint.hard if config.composite == "hard" else inpaint.feathered
    options = {} if config.composite == "hard" else {"sigma": config.feather}
    restored = np.asarray(blend(raw, image, known, **options))
    output.write_restoration(
        folder,
        model=model,
        image=image,
        known=known,
        truth=truth,
        result=result,
        selection=selection,
        raw=raw,
        restored=restored,
        settings={
            "image": name,
            "mask": _MASK.value,
            "mask_polarity": _POLARITY.value,
            "method": method.name,
            "config": dataclasses.asdict(config),
            "device": f"{device.platform} {device.device_kind}",
            "seconds": round(seconds, 2),
        },
    )
    _summarise(result, selection, image, known, seconds, method.steps, folder)
    return 0


def _summarise(result, selection, image, known, seconds, steps, folder) -> None:
    frozen = int(result.frozen.sum())
    if frozen:
        print(f"warning    {frozen} of {len(result.frozen)} starts met non-finite values and were stopped")
    fit = output.psnr(selection.images[0], image, known)
    speed = len(result.scores) * steps / seconds
    print(f"done       {seconds:.1f} s with compilation, {speed:.0f} start-steps/s; known pixels met at {fit:.1f} dB")
    if fit < 15:
        print("warning    the generator cannot show the known pixels well: is the image aligned as its training data?")
    kept = len(selection.starts)
    print(f"results    {folder}/contact_sheet.png, restored_1.png .. restored_{kept}.png, {output.SCORES}")
