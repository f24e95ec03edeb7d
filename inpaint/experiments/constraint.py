# SPDX-License-Identifier: Apache-2.0
"""Is a semantic constraint obeyed? Judged by a second classifier, which the search never saw.

The same portraits are restored without constraint and with opposite targets; what is kept is judged as people would see
it, on the composite.
"""

import dataclasses
from collections.abc import Callable, Mapping

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
from stylegan_jax import classifiers, image_io

FREE = "free"  # the name of the search without a constraint
_psnr = jax.jit(jax.vmap(metrics.psnr))


@dataclasses.dataclass(frozen=True)
class Constrained:
    """What one target gave, for `n` portraits, the selected start of each.

    Attributes:
        composites: `[n, h, w, c]`, clipped to [-1, 1].
        known_psnr: of the raw render on the known pixels, `[n]`.
        asked, judged: probability of the attribute by the search's classifier and by the second one, `[n]`.
    """

    composites: np.ndarray
    known_psnr: np.ndarray
    asked: np.ndarray
    judged: np.ndarray

    def obeyed(self, target: float) -> np.ndarray:
        """Returns whether the second classifier sees what was wanted, bool `[n]`."""
        return self.judged > 0.5 if target > 0.5 else self.judged <= 0.5


@jax.jit
def _probability(classifier: classifiers.Classifier, images: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(classifier(images))


def probability(classifier: classifiers.Classifier, images: np.ndarray, attribute: str) -> np.ndarray:
    """Returns the probability `[n]` of `attribute` in `images` `[n, h, w, 3]` in [-1, 1]."""
    column = classifiers.attribute_index(classifier, attribute)
    return np.asarray(_probability(classifier, jnp.asarray(images)))[:, column]


def constrained(config: RestoreConfig, attribute: str, target: float | None) -> RestoreConfig:
    """Returns a copy of `config` with the constraint, or without any for None."""
    wanted = () if target is None else (f"{attribute}={target:g}",)
    return dataclasses.replace(config, search=dataclasses.replace(config.search, attributes=wanted))


def study(
    model: sg.Model,
    portraits: Portraits,
    mask: Generator,
    config: RestoreConfig,
    *,
    attribute: str,
    asked: classifiers.Classifier,
    judging: classifiers.Classifier,
    targets: Mapping[str, float | None],
    mask_seed: int = 0,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Constrained]:
    """Restores all portraits for every target.

    Args:
        model: generator, with its encoder where the config's method begins with one.
        portraits: with known truth, at the generator's size.
        mask: of the hole.
        config: method and search; its attributes are replaced.
        attribute: its name, for both classifiers.
        asked: the classifier that the search asks.
        judging: the one that it never sees.
        targets: probability wanted by name; None for no constraint.
        mask_seed: of the masks.
        report: called with a line after every search.

    Returns:
        What every target gave, by its name.
    """
    size = model.resolution
    images = image_io.from_uint8(portraits.images)
    known = np.stack([draw_mask(mask, int(i), size, seed=mask_seed) for i in portraits.ids])
    problem = inpaint.Problem.stack(
        [inpaint.Problem.observe(x, inpaint.operators.Mask.checked(k)) for x, k in zip(images, known, strict=True)]
    )
    found = {}
    for name, target in targets.items():
        own = constrained(config, attribute, target)
        result = inpaint.solve(
            model,
            problem,
            named_methods.build_method(own),
            starts=own.search.starts,
            key=jax.random.key(own.search.seed),
            networks=None if target is None else {"classifier": asked},
            image_ids=portraits.ids.tolist(),
            chunk=own.search.chunk or None,
        )
        raw = inpaint.select(result, keep=1, by=own.search.select).images[:, 0]
        shown = np.stack([_config.composite(own, r, x, k) for r, x, k in zip(raw, images, known, strict=True)])
        shown = np.clip(shown, -1, 1)
        found[name] = Constrained(
            composites=shown,
            known_psnr=np.asarray(_psnr(jnp.asarray(raw), jnp.asarray(images), jnp.asarray(known))),
            asked=probability(asked, shown, attribute),
            judged=probability(judging, shown, attribute),
        )
        report(f"{name}: {100 * np.mean(found[name].judged > 0.5):.0f} % judged to have {attribute}")
    return found


def blind_sheet(
    holes: np.ndarray, found: Mapping[str, Constrained], *, seed: int, tile: int = 128
) -> tuple[np.ndarray, list[list[str]]]:
    """Returns a sheet with one row for each person, the results in shuffled order, and the key to it.

    Args:
        holes: what was shown to the search `[n, h, w, c]`.
        found: of `study`, for the same people.
        seed: of the order.
        tile: pixels that an image is enlarged to.

    Returns:
        uint8 `[n * (tile + 20), (1 + targets) * tile, 3]`, and for each row the names in their order.
    """
    rng, rows, key = np.random.default_rng(seed), [], []
    for i, hole in enumerate(holes):
        order = [list(found)[j] for j in rng.permutation(len(found))]
        pictures = [("input", hole)] + [(chr(ord("A") + k), found[name].composites[i]) for k, name in enumerate(order)]
        rows.append(np.concatenate([image_io.labelled(image_io.enlarge(x, tile), text) for text, x in pictures], 1))
        key.append(order)
    return np.concatenate(rows), key
