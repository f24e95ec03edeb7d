# SPDX-License-Identifier: Apache-2.0
"""The flags that say what an objective asks for beside the measurement, the networks that answer, and the generator."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
from absl import flags
from flax import nnx

import stylegan_jax as sg
from inpaint.config import RestoreConfig
from inpaint.learned import inpainters
from inpaint.named_methods import METHODS, learned_options, takes_features
from inpaint.objective import ROLES
from inpaint.search.produced import Inpainter
from stylegan_jax import checkpoint, classifiers
from stylegan_jax.features import ArcFace, Lpips

_ATTRIBUTE = flags.DEFINE_multi_string(
    "attribute",
    None,
    "Semantic constraint, NAME=1 (present) or NAME=0 (absent), or NAME=TARGET:WEIGHT; may be given more than once.",
)
_TERMS = flags.DEFINE_list("terms", None, "More terms of the objective, as name=weight,name=weight.")
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Checkpoint of the classifier that --attribute asks; by default the demo one (teeth_visible)."
)
_PERCEPTUAL = flags.DEFINE_string("perceptual", None, "Checkpoint of LPIPS, for the term lpips.")
_IDENTITY = flags.DEFINE_string("identity", None, "Checkpoint of ArcFace, for the term identity.")

_KINDS = {
    "classifier": (_CLASSIFIER, classifiers.StoredClassifier),
    "perceptual": (_PERCEPTUAL, Lpips),
    "identity": (_IDENTITY, ArcFace),
}


class Networks(NamedTuple):
    """Networks by role, and the content hash of each."""

    found: dict[str, nnx.Module]
    hashes: dict[str, str]


def constrain(config: RestoreConfig) -> None:
    """Sets in `config` what --attribute and --terms ask for, and who compares features; raises ValueError where its
    method has no objective."""
    method = METHODS.get(config.method)
    for flag in (_ATTRIBUTE, _TERMS):
        if flag.value is not None and method is not None and not method.searches:
            raise ValueError(f"--{flag.name} constrains a search, and the method {config.method} makes none")
    if _ATTRIBUTE.value is not None:
        config.search.attributes = tuple(_ATTRIBUTE.value)
    if _TERMS.value is not None:
        config.search.terms = tuple(_TERMS.value)
    if takes_features(config) and config.search.features == "auto":
        config.search.features = "discriminator_features" if _PERCEPTUAL.value is None else "lpips"


def load(needs: Iterable[str], attributes: Iterable[str]) -> Networks:
    """Returns the networks that `needs` names and no generator's checkpoint holds.

    Raises:
        ValueError: where one is needed and not named, named and not needed, of another kind, or where the classifier
            does not know one of `attributes`.
    """
    found, hashes = {}, {}
    for role, (flag, kinds) in _KINDS.items():
        path = flag.value
        if path is None and role == "classifier":
            path = checkpoint.CLASSIFIER
        if role not in needs:
            if flag.value is not None:
                raise ValueError(f"--{flag.name} is given, but nothing in the objective asks for it")
        elif path is None:
            raise ValueError(f"the objective needs the role {role!r}: {ROLES[role]}")
        else:
            found[role], hashes[role] = checkpoint.load_network(path, kinds)
    for name in attributes:
        classifiers.attribute_index(found["classifier"], name)
    return Networks(found, hashes)


def load_inpainter(config: RestoreConfig, model: sg.Model) -> tuple[Inpainter | None, dict[str, str]]:
    """Returns the trained network that a method is, or None for another, and its content hash by the method's name.

    Raises:
        ValueError: where it is missing, or of another generator.
    """
    if not METHODS[config.method].needs_network:
        return None, {}
    options = learned_options(config)
    found, digest = inpainters.load(config.method, model, path=config.network or None)
    if config.method == inpainters.PATHWISE:
        found = found.varied(**{name: _number(options, name) for name in options})
    if "distance" in options:
        found = found.at_distance(_number(options, "distance"))
    if "along" in options:
        found.check_direction(direction(config)[0])
    return found, {config.method: digest}


def _number(options: Mapping[str, str], name: str) -> float:
    try:
        return float(options[name])
    except ValueError:
        raise ValueError(f"the option {name} must be a number, got {options[name]!r}") from None


def direction(config: RestoreConfig) -> tuple[int, float] | None:
    """Returns the direction that results are to be shown along, and how far at most, or None where none is asked for.

    Raises:
        ValueError: for options that are no numbers.
    """
    options = learned_options(config) if METHODS[config.method].needs_network else {}
    if "along" not in options:
        if "reach" in options:
            raise ValueError("the option reach says how far along goes, which is not asked for")
        return None
    if not options["along"].isdecimal():
        raise ValueError(f"the option along must be a direction's number, from 0, got {options['along']!r}")
    return int(options["along"]), _number({"reach": "2"} | options, "reach")


def load_generator(path: str | None, *, bfloat16_from: int | None = None) -> sg.Model:
    """Returns the model at `path` (see `stylegan_jax.load`), with statistics of W also where none are stored.

    Raises:
        ValueError: where it cannot be loaded, or its images are no pictures of files.
    """
    model = sg.load(path, bfloat16_from=bfloat16_from)
    channels = model.generator.config.image_channels
    if channels not in (1, 3):
        raise ValueError(f"the generator makes images of {channels} channels; only 1 and 3 can be read from files")
    if model.w_statistics is None:
        statistics = sg.estimate_w_statistics(jax.random.key(0), model.generator)
        model = dataclasses.replace(model, w_statistics=statistics)
    return model
