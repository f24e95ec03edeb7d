# SPDX-License-Identifier: Apache-2.0
"""What does it matter where a search begins? Quality against steps, for one start and for many with selection.

The question of the course brief: the same objective, optimiser and space from every initialisation. A start knows
nothing of its neighbours, so one search of many starts also tells what its first start alone would have given.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import metrics, named_methods
from inpaint.config import RestoreConfig
from inpaint.experiments.grid import Portraits, draw_mask
from inpaint.masks import Generator
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import image_io, rendering

INITIALISATIONS = ("mean", "random", "prescreen", "encoder")


class Figures(NamedTuple):
    """Of every portrait at every step shown, `[n, steps]`: hole PSNR of the render in dB, feature distance of the
    composite to the truth in the judging network's space."""

    hole_psnr: np.ndarray
    feature_distance: np.ndarray


class Compared(NamedTuple):
    """What an initialisation gives: its first start alone, and at every step the start of lowest objective."""

    first: Figures
    selected: Figures


def _beginning(config: RestoreConfig, name: str, model: sg.Model) -> tuple[RestoreConfig, inpaint.Method]:
    if name not in INITIALISATIONS:
        raise ValueError(f"unknown initialisation {name!r}; known: {', '.join(INITIALISATIONS)}")
    if name == "encoder" and model.encoder is None:
        raise ValueError("the generator has no encoder to begin with; leave it out, or name one (--encoder)")
    own = dataclasses.replace(config, search=dataclasses.replace(config.search, init=name))
    method = named_methods.build_method(own)
    if isinstance(method, inpaint.Fill):
        raise ValueError(f"the method {config.method} makes no search, so it begins nowhere")
    return own, method


class _Recorder:
    """Keeps the latents of all starts at certain steps, `{step: [images, starts, num_ws, w_dim]}`."""

    def __init__(self, steps: Sequence[int], images: int, starts: int):
        self.steps, self.shape, self.ws = steps, (images, starts), {}

    def __call__(self, watched: inpaint.Watched) -> None:
        if watched.step in self.steps:
            empty = np.zeros((*self.shape, *watched.ws.shape[1:]), np.float32)
            self.ws.setdefault(watched.step, empty)[watched.images, watched.starts] = watched.ws


_hole_psnr = jax.jit(jax.vmap(lambda raw, truth, known: metrics.psnr(raw, truth, 1 - known)))


def selected_starts(result: inpaint.Result, steps: Sequence[int]) -> np.ndarray:
    """Returns the start of lowest objective after so many `steps`, `[images, len(steps)]`, of a batch of problems."""
    # A trace holds the objective before each update; after the last one it is the score.
    objective = np.concatenate([result.traces, result.scores[..., None]], -1)[..., list(steps)]
    return np.argmin(np.where(np.isfinite(objective), objective, np.inf), axis=1)


def check_steps(steps: Sequence[int], length: int) -> None:
    """Raises ValueError unless `steps` rise from 0 at least to `length` at most."""
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 0 or steps[-1] > length:
        raise ValueError(f"the steps shown must rise from 0 at least to {length} at most, got {list(steps)}")


def study(
    model: sg.Model,
    portraits: Portraits,
    mask: Generator,
    config: RestoreConfig,
    judge: LoadedJudge,
    *,
    initialisations: Sequence[str],
    steps: Sequence[int],
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Compared]:
    """Restores all portraits from every initialisation.

    Args:
        model: generator, with an encoder where it is among the initialisations.
        portraits: with known truth, at the generator's size.
        mask: of the hole; its masks have seed 0.
        config: method and search; `search.init` is replaced.
        judge: of the feature distance.
        initialisations: values of `search.init`.
        steps: at which the search is looked at, rising, from 0 (where it begins) to its length.
        report: called with a line after every search.

    Returns:
        What every initialisation gave, by its name.

    Raises:
        ValueError: for unsuitable steps or settings.
    """
    check_steps(steps, config.search.steps)
    settings = {name: _beginning(config, name, model) for name in initialisations}
    images = image_io.from_uint8(portraits.images)
    known = np.stack([draw_mask(mask, int(i), model.resolution, seed=0) for i in portraits.ids])
    problem = inpaint.Problem.stack(
        [inpaint.Problem.observe(x, inpaint.operators.Mask.checked(k)) for x, k in zip(images, known, strict=True)]
    )
    found = {}
    for name, (own, method) in settings.items():
        # Device calls end where a step is shown, in phases that begin anywhere.
        every = int(np.gcd.reduce([*steps, *np.cumsum([phase.steps for phase in method.phases])]))
        recorder = _Recorder(steps, len(images), own.search.starts)
        result = inpaint.solve(
            model,
            problem,
            method,
            starts=own.search.starts,
            key=jax.random.key(own.search.seed),
            image_ids=portraits.ids.tolist(),
            chunk=own.search.chunk or None,
            steps_per_call=None if jax.default_backend() == "cpu" else every,
            watch=recorder,
            watch_every=every,
        )
        chosen = selected_starts(result, steps)

        def figures(choice: np.ndarray, ws: dict = recorder.ws, own: RestoreConfig = own) -> Figures:
            rows = [
                _figures(model, own, judge, ws[step][np.arange(len(images)), choice[:, k]], images, known)
                for k, step in enumerate(steps)
            ]
            return Figures(*(np.stack(x, 1) for x in zip(*rows, strict=True)))

        found[name] = Compared(figures(np.zeros_like(chosen)), figures(chosen))
        medians = [np.median(x.hole_psnr[:, -1]) for x in found[name]]
        report(f"{name}: hole PSNR {medians[0]:.2f} dB from one start, {medians[1]:.2f} dB selected")
    return found


def _figures(
    model: sg.Model, config: RestoreConfig, judge: LoadedJudge, ws: np.ndarray, images: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    raw = rendering.render(model, ws, noise=config.search.noise)
    shown = np.stack([_config.composite(config, r, x, k) for r, x, k in zip(raw, images, known, strict=True)])
    psnr = _hole_psnr(jnp.asarray(raw), jnp.asarray(images), jnp.asarray(known))
    return np.asarray(psnr), judge.compare(np.clip(shown, -1, 1), images)[0]


def table(found: dict[str, Compared], steps: Sequence[int], starts: int) -> str:
    """Returns the medians over portraits as a Markdown table: a row for every initialisation and number of starts."""
    lines = ["| begins | starts | " + " | ".join(f"{step} steps" for step in steps) + " |"]
    lines += ["|---" * (2 + len(steps)) + "|"]
    for name, compared in found.items():
        for count, figures in ((1, compared.first), (starts, compared.selected)):
            cells = [
                f"{np.median(figures.hole_psnr[:, k]):.2f} ({np.median(figures.feature_distance[:, k]):.3f})"
                for k in range(len(steps))
            ]
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw_curves(path: str, found: dict[str, Compared], steps: Sequence[int], starts: int) -> None:
    """Draws medians against steps into the file `path`: hole PSNR at the left, feature distance at the right; dashed
    lines are of one start, solid ones of the selected among `starts`.

    Raises:
        ImportError: without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    headings = (("hole_psnr", "hole PSNR, dB"), ("feature_distance", "feature distance"))
    for panel, (field, heading) in zip(axes, headings, strict=True):
        for number, (name, compared) in enumerate(found.items()):
            for count, figures, line in ((1, compared.first, "--"), (starts, compared.selected, "-")):
                medians = np.median(getattr(figures, field), axis=0)
                panel.plot(steps, medians, line, color=f"C{number}", marker="o", ms=3, label=f"{name}, {count}")
        panel.set(xlabel="steps", ylabel=heading)
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=100, format="png")
    pyplot.close(figure)
