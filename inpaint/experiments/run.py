# SPDX-License-Identifier: Apache-2.0
"""Running the units of a grid: restore, select, composite, measure."""

import pathlib
import time
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

import stylegan_jax as sg
from inpaint import config as _config
from inpaint import named_methods
from inpaint.experiments import pictures as _pictures
from inpaint.experiments.grid import Grid, NamedConfig, Unit, inputs_digest
from inpaint.experiments.measure import Restored, measure
from inpaint.experiments.pictures import Shown
from inpaint.experiments.records import Row
from inpaint.metrics.judge import LoadedJudge
from inpaint.problem import Problem
from inpaint.search.memory import default_chunk
from inpaint.search.method import Fill
from inpaint.search.produced import Inpainter
from inpaint.search.result import Result
from inpaint.search.scoring import score_starts
from inpaint.search.selection import select
from inpaint.search.solve import solve
from stylegan_jax import checkpoint, image_io

LARGEST_BATCH = 8  # images: what a kill can lose


class Runner:
    """Runs units on one generator; methods are built once, so equal shapes share their programs."""

    def __init__(
        self,
        model: sg.Model,
        judge: LoadedJudge,
        grid: Grid,
        *,
        networks: Mapping[str, nnx.Module] | None = None,
        metric_networks: Mapping[str, nnx.Module] | None = None,
        inpainters: Mapping[str, Inpainter | None] | None = None,
        training_images: np.ndarray | None = None,
        batch: int | None = None,
    ):
        """Builds every method of the grid.

        Args:
            model: the generator.
            judge: the judging network.
            grid: what will be run.
            networks: what objectives ask beside the model, by role; see `solve`.
            metric_networks: what else measures the results; see `measure`.
            inpainters: trained networks, by the labels of the methods that are such.
            training_images: `[n, h, w, c]` in [-1, 1], for methods that are fitted on them.
            batch: images restored together; by default what fills a chunk, 8 at most.

        Raises:
            ValueError: where a method's settings make no sense.
        """
        self.model, self.judge, self.grid, self.networks = model, judge, grid, networks
        self.metric_networks = metric_networks
        trained = inpainters or {}
        self.methods = {
            m.label: named_methods.build_method(m.config, images=training_images, inpainter=trained.get(m.label))
            for m in grid.methods
        }
        self.chunk = default_chunk(model.generator)
        self.batch = {m.label: batch or self._batch(m) for m in grid.methods}

    def _batch(self, method: NamedConfig) -> int:
        if isinstance(self.methods[method.label], Fill):
            return LARGEST_BATCH
        chunk, count = method.config.search.chunk or self.chunk, len(self.grid.portraits.names)
        largest = max(1, min(chunk // method.config.search.starts, LARGEST_BATCH, count))
        # Batches of equal size, since the last one is filled up.
        return -(-count // -(-count // largest))

    def evaluations(self, method: NamedConfig) -> tuple[int, int]:
        """Returns how often the generator will run for one image: alone, and with its gradient."""
        built, search = self.methods[method.label], method.config.search
        if isinstance(built, Fill):
            return 0, 0
        return built.evaluations(search.starts)

    def run(self, unit: Unit, *, pictures: pathlib.Path | None = None) -> list[Row]:
        """Restores the images of `unit` and returns their rows; composites are written below `pictures`, if given."""
        began, method, search = time.perf_counter(), self.methods[unit.method.label], unit.method.config.search
        fixed = isinstance(method, Fill)
        # The last batch is filled up by its last image, so that it runs the same programs.
        count, full = len(unit.index), len(unit.index) if fixed else self.batch[unit.method.label]
        index = [*unit.index, *[unit.index[-1]] * (full - count)]
        portraits = self.grid.portraits.take(index)
        truths = image_io.from_uint8(portraits.images)
        known = np.stack([self.grid.known(unit.mask, i) for i in index])
        problem = Problem.stack([self.grid.problem(unit.mask, i) for i in index])
        result = solve(
            self.model,
            problem,
            method,
            starts=search.starts,
            key=jax.random.key(unit.seed),
            networks=self.networks,
            image_ids=portraits.ids,
            chunk=min(search.chunk or self.chunk, full * search.starts),
        )
        scores = result.scores
        if method.steps:
            scores = score_starts(self.model, result, method, search.score, networks=self.networks)
        selection = select(result, keep=1, by=search.select, scores=scores)
        shown = self._kept(unit, result, truths, known, scores)
        composites = shown[:, 0]
        raw = selection.images[:, 0]
        restored = Restored(raw, composites, result.raw, truths, known, shown)
        figures = measure(restored, self.judge, networks=self.metric_networks)
        rows = []
        for i, figure in enumerate(figures[:count]):
            rows.append(
                {
                    "method": unit.method.label,
                    "mask": unit.mask.name,
                    "image": portraits.names[i],
                    "seed": unit.seed,
                    "image_id": int(portraits.ids[i]),
                    "inputs_sha256": inputs_digest(portraits.images[i], known[i]),
                    "hole_share": round(float(1 - known[i].mean()), 6),
                    "start": int(selection.starts[i, 0]),
                    "score": float(selection.scores[i, 0]) if np.isfinite(selection.scores[i, 0]) else None,
                    "frozen": int(result.frozen[i].sum()),
                    "substitute": named_methods.is_substitute(unit.method.config),
                    "metrics": figure,
                    "forwards": result.forwards,
                    "gradients": result.gradients,
                    "chunk": result.chunk,
                    "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
                    "versions": checkpoint.library_versions(),
                }
            )
        if pictures is not None:
            for i, row in enumerate(rows):
                given = np.asarray(problem.measurement[i])
                _pictures.write(pictures, row, Shown(shown[i], given if given.ndim == 3 else None, truths[i]))
        seconds = round((time.perf_counter() - began) / count, 3)
        return [row | {"seconds": seconds} for row in rows]

    def _kept(
        self, unit: Unit, result: Result, truths: np.ndarray, known: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Returns composites of a batch `[n, keep, h, w, c]`: the start selected by `scores` `[n, starts]`, and others
        as different as good ones get."""
        config, found = unit.method.config, []
        keep = min(config.search.keep, result.scores.shape[-1])
        first = select(result, keep=1, by=config.search.select, scores=scores).images
        raws = select(result, keep=keep, by="diverse", scores=scores).images
        # The rule of the method chooses the first; "diverse" begins with the best, which is the same by either rule.
        raws = np.concatenate([first, raws[:, 1:]], 1)
        if result.problem.operator.known is None:
            return np.clip(raws, -1, 1)
        for i, (images, truth, mask) in enumerate(zip(raws, truths, known, strict=True)):
            means = None if result.expected is None else result.expected[i]
            # One at a time: what is shown must not depend on how many are kept.
            found.append(np.stack([_config.composite(config, raw, truth, mask, means=means) for raw in images]))
        return np.stack(found)
