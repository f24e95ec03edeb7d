# SPDX-License-Identifier: Apache-2.0
"""Studies by name: what `evaluate --study NAME` asks where its flags say nothing else.

A study is a question and a grid that answers it; `{method}` in its methods stands for the method that is studied.
Those of kind "grid" run as any evaluation does; the others have a computation of their own in this package.
"""

import dataclasses
from collections.abc import Mapping

LEVELS = ("XS", "S", "M", "L", "XL")
WITHOUT = "no regulariser"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: of the study.
        question: what it answers.
        kind: "grid", "robustness", "initialisation", "semantics" or "papers".
        methods: as `evaluate --methods` takes them.
        masks, degradations: as its flags take them.
        against: label of the method that the others are compared with.
        trade_off: figures (x, y) of the report that are drawn against each other.
        along_masks: figures that are drawn over masks.
    """

    name: str
    question: str
    kind: str = "grid"
    methods: tuple[str, ...] = ("{method}",)
    masks: tuple[str, ...] = ("centre",)
    degradations: tuple[str, ...] = ()
    against: str | None = None
    trade_off: tuple[str, str] | None = None
    along_masks: tuple[str, ...] = ()

    def texts(self, method: str) -> tuple[str, ...]:
        """Returns the methods of the study of `method`."""
        return tuple(text.replace("{method}", method) for text in self.methods)


def _varied(settings: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{label}={{method}}{'+' if change else ''}{change}" for label, change in settings.items())


_PLAIN = "search.mahalanobis=0.0"


def _term(text: str) -> str:
    return f"{_PLAIN}+search.terms=('{text}',)"


_REGULARISERS = {
    WITHOUT: _PLAIN,
    "prior of W 0.005": "search.mahalanobis=0.005",
    "prior of W 0.02": "search.mahalanobis=0.02",
    "prior of W 0.1": "search.mahalanobis=0.1",
    "gradient 0.1": _term("gradient=0.1"),
    "laplacian 0.1": _term("laplacian=0.1"),
    "high band 0.01": _term("high_band=0.01"),
    "critic 0.02": _term("critic=0.02"),
    "adversarial 0.02": _term("adversarial=0.02"),
    "discriminator features 0.05": _term("discriminator_features=0.05"),
}
_QUALITY = _REGULARISERS | {
    "10 steps": f"{_PLAIN}+search.steps=10",
    "30 steps": f"{_PLAIN}+search.steps=30",
    "Z": f"{_PLAIN}+search.space=z",
    "W": f"{_PLAIN}+search.space=w",
    "all steps in W+": f"{_PLAIN}+search.coarse_share=0.0",
    "styles S": f"{_PLAIN}+search.space=s",
}
_WEIGHTS = {WITHOUT: _PLAIN} | {f"prior of W {w}": f"search.mahalanobis={w}" for w in (0.002, 0.01, 0.05, 0.2, 1.0)}

_ALL = (
    Study(
        "methods",
        "Which method restores best, and at what price?",
        methods=(
            "{method}",
            "brief",
            "style_deltas",
            "style_space",
            "robust_unsupervised",
            "improved_embedding",
            "pulse",
        )
        + ("intermediate_layers", "biharmonic"),
        masks=("centre", "strokes:0.2-0.3"),
        against="{method}",
        trade_off=("seconds", "feature_distance"),
    ),
    Study(
        "quality",
        "Is the hole's inside regular, noisy or blurred, and which regulariser lowers blur without costing fidelity?",
        methods=_varied(_QUALITY),
        against=WITHOUT,
        trade_off=("composite_hole_psnr", "laplacian_ratio"),
    ),
    Study(
        "regularisation",
        "What does the weight of the prior buy, and what does it cost?",
        methods=_varied(_WEIGHTS),
        masks=("centre", "lower_half"),
        against=WITHOUT,
        trade_off=("known_psnr", "feature_distance"),
    ),
    Study(
        "diversity",
        "How different are the results that are kept, and what do more starts cost in fidelity?",
        methods=_varied({f"{n} starts": f"search.starts={n}+search.keep={min(n, 4)}" for n in (2, 4, 8, 16)}),
        masks=("lower_half",),
        against="4 starts",
        trade_off=("kept_distance", "feature_distance"),
    ),
    Study(
        "degradations",
        "How far does the search carry when more than a hole is to be undone?",
        methods=("{method}", "robust_unsupervised"),
        masks=(),
        degradations=("downsample:4", "blur:2", "noise:0.25", "jpeg:10")
        + tuple(f"downsample:{x}+poisson:{x}+jpeg:{x}" for x in LEVELS),
        against="{method}",
        along_masks=("feature_distance", "hole_psnr"),
    ),
    Study(
        "initialisation",
        "What does it matter where a search begins?",
        kind="initialisation",
        methods=("{method}+search.coarse_share=0.0+search.noise=none",),
        against=None,
        along_masks=("hole_psnr", "feature_distance"),
    ),
    Study(
        "robustness",
        "What happens to the result if the image is shifted a bit, or the hole changed slightly?",
        kind="robustness",
        methods=("{method}", "brief"),
        against="{method}",
        along_masks=("change_psnr", "change_distance", "latent_change", "known_psnr"),
    ),
    Study(
        "semantics",
        "Is a semantic constraint obeyed, in the eyes of a classifier that the search never asked?",
        kind="semantics",
        masks=("mouth",),
        against="free",
    ),
    Study(
        "papers",
        "How do our figures stand beside those that the papers print?",
        kind="papers",
        masks=(),
    ),
)
STUDIES = {study.name: study for study in _ALL}
