# SPDX-License-Identifier: Apache-2.0
"""What becomes of a result when its input is disturbed a little: the first question of the course brief.

Every image is restored as it is, and again after each disturbance; what is compared is what a person would be shown,
the composite, in the pixels that are hidden both times. The change of the latents is `|w' - w| / |sigma|`, root mean
squares of their difference and of W's standard deviations: about 1.4 for two independent draws. Images are `[h, w, c]`
in [-1, 1], masks `known` `[h, w]`.

| disturbance | what changes |
|---|---|
| `repeat` | nothing: the floor of all others |
| `rounding` | every value by up to 1e-6, far below a level of a file: the floor of a search that amplifies rounding |
| `seed` | the seed of the search: the floor of anything that another start would give |
| `shifted N` | image and hole move N pixels to the right; what comes in at the left is not known |
| `dilated N`, `eroded N` | the hole grows or shrinks by N pixels to all sides |
| `moved N` | the hole moves N pixels to the right over the same image |
"""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inpaint
import stylegan_jax as sg
from inpaint import config as _config
from inpaint import holes, metrics, named_methods
from inpaint.experiments import pictures as _pictures
from inpaint.experiments.grid import NamedConfig, Portraits, draw_mask, inputs_digest
from inpaint.experiments.pictures import Shown
from inpaint.experiments.records import Identity, Records, Row, fingerprint
from inpaint.masks import Generator
from inpaint.metrics.judge import LoadedJudge
from inpaint.operators import Mask
from inpaint.search.memory import default_chunk
from stylegan_jax import checkpoint, image_io

ROUNDING = 1e-6
AT_ONCE = 8  # images: what a kill can lose


class Disturbance(NamedTuple):
    """A disturbance by its `name`: how far image and hole move (pixels to the right), by how much the hole grows
    (shrinks, where negative) and moves, the largest change of a value, and by how much the seed grows."""

    name: str
    shift: int = 0
    grown: int = 0
    moved: int = 0
    rounding: float = 0.0
    seed: int = 0


DISTURBANCES = (
    Disturbance("repeat"),
    Disturbance("rounding", rounding=ROUNDING),
    Disturbance("seed", seed=1),
    *(Disturbance(f"shifted {n}", shift=n) for n in (1, 2, 4, 8)),
    *(Disturbance(f"dilated {n}", grown=n) for n in (1, 2, 4)),
    *(Disturbance(f"eroded {n}", grown=-n) for n in (1, 2, 4)),
    *(Disturbance(f"moved {n}", moved=n) for n in (1, 2, 4, 8)),
)


def moved(array: np.ndarray, pixels: int, *, fill: float) -> np.ndarray:
    """Returns `[h, w, ...]` moved to the right (to the left, where `pixels` is negative), `fill` where nothing was."""
    found = np.roll(array, pixels, axis=1)
    if pixels > 0:
        found[:, :pixels] = fill
    elif pixels < 0:
        found[:, pixels:] = fill
    return found


def disturb(image: np.ndarray, known: np.ndarray, how: Disturbance, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns image `[h, w, c]` and known `[h, w]` after a disturbance.

    Args:
        image: in [-1, 1].
        known: 1 = keep.
        how: the disturbance.
        seed: of the changes at the level of rounding.
    """
    if how.shift:
        return moved(image, how.shift, fill=0.0), moved(known, how.shift, fill=0.0)
    if how.grown or how.moved:
        return image, moved(holes.grown(known, how.grown), how.moved, fill=1.0)
    if how.rounding:
        noise = np.random.default_rng(seed).uniform(-how.rounding, how.rounding, image.shape)
        return (image + noise).astype(image.dtype), known
    return image, known


class _Restored(NamedTuple):
    """Results of a batch in the frame of the untouched images: composites `[n, h, w, c]`, latents `[n, num_ws, w_dim]`
    or None, known PSNR, hole PSNR and deviation over starts `[n]`, and what was hidden `[n, h, w]`."""

    composites: np.ndarray
    ws: np.ndarray | None
    known_psnr: np.ndarray
    hole_psnr: np.ndarray
    start_deviation: np.ndarray
    hidden: np.ndarray


_psnr = jax.jit(jax.vmap(metrics.psnr))
_deviation = jax.jit(jax.vmap(metrics.pixel_deviation))


class Study:
    """The study of one generator on portraits with known truth."""

    def __init__(
        self,
        model: sg.Model,
        judge: LoadedJudge,
        portraits: Portraits,
        mask: Generator,
        *,
        mask_seed: int,
        networks: Any,
    ):
        """Draws the masks.

        Args:
            model: the generator.
            judge: of the feature distance.
            portraits: at its size.
            mask: of the hole.
            mask_seed: of the masks.
            networks: what objectives ask beside the model, by role.
        """
        self.model, self.judge, self.portraits, self.networks = model, judge, portraits, networks
        self.images = image_io.from_uint8(portraits.images)
        self.known = np.stack([draw_mask(mask, int(i), model.resolution, seed=mask_seed) for i in portraits.ids])
        self.chunk = default_chunk(model.generator)
        statistics = model.w_statistics
        if statistics is None:
            statistics = sg.estimate_w_statistics(jax.random.key(0), model.generator)
        self.deviation = float(np.sqrt(np.mean(np.diagonal(np.asarray(statistics.covariance)))))

    def _restore(self, method: NamedConfig, built: Any, how: Disturbance, index: Sequence[int], seed: int) -> _Restored:
        config, ids = method.config, self.portraits.ids[list(index)]
        pairs = [disturb(self.images[i], self.known[i], how, seed=int(self.portraits.ids[i])) for i in index]
        problem = inpaint.Problem.stack([inpaint.Problem.observe(x, Mask.checked(k)) for x, k in pairs])
        result = inpaint.solve(
            self.model,
            problem,
            built,
            starts=config.search.starts,
            key=jax.random.key(seed + how.seed),
            networks=self.networks,
            image_ids=ids.tolist(),
            # Told beforehand, so that nothing is measured anew for every disturbance.
            chunk=config.search.chunk or min(self.chunk, len(index) * config.search.starts),
        )
        selection = inpaint.select(result, keep=1, by=config.search.select)
        raw = selection.images[:, 0]
        images, known = (np.stack(part) for part in zip(*pairs, strict=True))
        expected = [None] * len(raw) if result.expected is None else result.expected
        shown = [
            _config.composite(config, r, x, k, means=m) for r, x, k, m in zip(raw, images, known, expected, strict=True)
        ]
        spread = np.full(len(index), np.nan)
        if result.raw.shape[1] > 1:
            deviation = np.asarray(_deviation(jnp.asarray(result.raw)))
            spread = (deviation * (1 - known)).sum((1, 2)) / (1 - known).sum((1, 2))
        # A pixel that has left the image is hidden in neither; one that came in is no part of the untouched frame.
        hidden = np.stack([moved(1 - k, -how.shift, fill=0.0) for k in known])
        inside = np.stack([moved(np.ones_like(k), how.shift, fill=0.0) for k in known])
        return _Restored(
            np.stack([moved(np.clip(x, -1, 1), -how.shift, fill=0.0) for x in shown]),
            None if selection.ws is None else selection.ws[:, 0],
            np.asarray(_psnr(*map(jnp.asarray, (raw, images, known)))),
            np.asarray(_psnr(*map(jnp.asarray, (raw, images, (1 - known) * inside)))),
            spread,
            hidden,
        )

    def _compare(self, base: _Restored, other: _Restored) -> list[dict[str, float | None]]:
        common = base.hidden * other.hidden
        theirs = np.where(common[..., None] > 0, other.composites, base.composites)
        distance = self.judge.compare(theirs, base.composites)[0]
        figures = {
            "change_psnr": np.asarray(_psnr(*map(jnp.asarray, (theirs, base.composites, common)))),
            "change_distance": distance,
            "known_psnr": other.known_psnr,
            "hole_psnr": other.hole_psnr,
            "start_deviation": other.start_deviation,
        }
        if base.ws is not None and other.ws is not None:
            figures["latent_change"] = np.sqrt(np.mean(np.square(other.ws - base.ws), axis=(1, 2))) / self.deviation
        some = common.sum((1, 2)) > 0
        for name in ("change_psnr", "change_distance"):
            figures[name] = np.where(some, figures[name], np.nan)
        return [
            {name: float(f"{v[i]:.6g}") if np.isfinite(v[i]) else None for name, v in figures.items()}
            for i in range(len(common))
        ]

    def _fitting(self, index: Sequence[int], disturbances: Iterable[Disturbance]) -> list[Disturbance]:
        """Returns those that leave hidden and known pixels in every image."""

        def fits(how: Disturbance) -> bool:
            masks = [disturb(self.images[i], self.known[i], how, seed=0)[1] for i in index]
            return all(k.any() and k.min() < 1 for k in masks)

        return [how for how in disturbances if fits(how)]

    def run(
        self,
        method: NamedConfig,
        *,
        seed: int,
        records: Records,
        settings: dict[str, Any],
        disturbances: Sequence[Disturbance] = DISTURBANCES,
        pictures: pathlib.Path | None = None,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Restores all portraits by one method after every disturbance; a row for each goes to `records`.

        Batches of images that are finished are skipped.

        Args:
            method: with its settings.
            seed: of the searches.
            records: of the folder.
            settings: all that decides the rows of this method.
            disturbances: what is done.
            pictures: folder for pictures, if any.
            report: called with a line after every batch.
        """
        built, count = named_methods.build_method(method.config), len(self.portraits.names)
        for first in range(0, count, AT_ONCE):
            index = list(range(first, min(first + AT_ONCE, count)))
            fitting = self._fitting(index, disturbances)
            if all(self._finished(method, how, i, seed, records, settings) for how in fitting for i in index):
                continue
            base = self._restore(method, built, Disturbance("undisturbed"), index, seed)
            rows = []
            for how in fitting:
                other = self._restore(method, built, how, index, seed)
                for i, figures in zip(index, self._compare(base, other), strict=True):
                    rows.append(self._row(method, how, i, seed, figures))
                    if pictures is not None:
                        shown = Shown(other.composites[i - first][None], self._given(how, i), self.images[i])
                        _pictures.write(pictures, rows[-1], shown)
            records.append(rows, settings)
            report(f"{method.label}: {index[-1] + 1} of {count} images, {len(fitting)} disturbances")

    def _given(self, how: Disturbance, i: int) -> np.ndarray:
        image, known = disturb(self.images[i], self.known[i], how, seed=0)
        return moved(image * known[..., None], -how.shift, fill=0.0)

    def _finished(self, method, how, i: int, seed: int, records: Records, settings: dict[str, Any]) -> bool:
        digest = inputs_digest(self.portraits.images[i], self.known[i])
        wanted = Identity(method.label, how.name, self.portraits.names[i], seed)
        return records.finished(wanted, fingerprint(settings), digest)

    def _row(self, method: NamedConfig, how: Disturbance, i: int, seed: int, figures: dict[str, float | None]) -> Row:
        known = disturb(self.images[i], self.known[i], how, seed=0)[1]
        return {
            "method": method.label,
            "mask": how.name,
            "image": self.portraits.names[i],
            "seed": seed,
            "image_id": int(self.portraits.ids[i]),
            "inputs_sha256": inputs_digest(self.portraits.images[i], self.known[i]),
            "hole_share": round(float(1 - known.mean()), 6),
            "metrics": figures,
            "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
            "versions": checkpoint.library_versions(),
        }
