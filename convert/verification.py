# SPDX-License-Identifier: Apache-2.0
"""Does a checkpoint hold what its source file holds, and does it compute what the original tool computed?

Three comparisons: every tensor, bit for bit in float32; renders of fixed latents, from the source's arrays and from
the checkpoint; and, where the user has saved outputs of the original tool (`convert.reference` says how), those. A
deviation is the largest absolute difference, a relative one is that over the largest absolute value expected.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from convert.encoders import is_encoder
from convert.errors import MOST_SHOWN, ConversionError, concerning, shown
from convert.network import Network
from convert.reference import NOISE_MODES, Reference, read_reference
from convert.source import Source, from_file, read_file
from convert.standalone import Standalone, read_standalone, standalone_network

if TYPE_CHECKING:
    import stylegan_jax

SEED = 0
RENDERS = 2
RENDER_TOLERANCE = 1e-5  # equal arrays in the same program; but a GPU may sum in another order
REFERENCE_TOLERANCE = 1e-3  # the original may have computed in TF32 or half precision


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row: expected and found values of a group of tensors, or of outputs.

    Attributes:
      name: of the group, after the network's name in the file.
      tensors, values: how many were compared.
      differing: how many values are not equal bit for bit.
      absolute, relative: the largest deviations of a tensor; infinite where only one side is a number.
      tolerance: the largest relative deviation that counts as agreement; 0 asks for equal bits.
    """

    name: str
    tensors: int
    values: int
    differing: int
    absolute: float
    relative: float
    tolerance: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the two sides agree."""
        return self.differing == 0 or (self.tolerance > 0 and self.relative <= self.tolerance)


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
      source, checkpoint: as they were named.
      networks: names of the networks in the source that were compared.
      same_file: whether the source has the sha256 that the checkpoint's provenance names. Another file that holds the
        same values is no contradiction.
      tensors, renders, reference: the rows of the three comparisons.
      estimated: our names of arrays that the file does not hold; these are not compared.
      problems: everything that does not agree, one sentence each.
    """

    source: str
    checkpoint: str
    networks: tuple[str, ...]
    same_file: bool
    tensors: tuple[Comparison, ...]
    renders: tuple[Comparison, ...]
    reference: tuple[Comparison, ...]
    estimated: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing contradicts the conversion."""
        return not self.problems

    def report(self) -> str:
        """Returns the table as text, the verdict on its last line."""
        rows = (*self.tensors, *self.renders, *self.reference)
        width = max(len(row.name) for row in rows) if rows else 0
        remark = "is the file that was converted" if self.same_file else "is another file than the one converted"
        lines = [f"{self.source} {remark}", f"{'':{width}}  tensors        values  differing  deviation   relative"]
        lines += [
            f"{row.name:{width}}  {row.tensors:7}  {row.values:12,}  {row.differing:9,}  {row.absolute:9.2e}  "
            f"{row.relative:9.2e}{'' if row.agrees else '  DIFFERS'}"
            for row in rows
        ]
        if self.estimated:
            lines.append(f"not in the file, so estimated and not compared: {', '.join(self.estimated)}")
        lines += [f"problem: {problem}" for problem in self.problems[:MOST_SHOWN]]
        if len(self.problems) > MOST_SHOWN:
            lines.append(f"problem: and {len(self.problems) - MOST_SHOWN} more")
        compared = " and ".join(self.networks)
        verdict = f"all agree: {self.checkpoint} holds {compared} of {self.source}"
        count = len(self.problems)
        wrong = f"{self.checkpoint} DIFFERS from {compared} of {self.source}: {count} problem{'s' * (count > 1)}"
        return "\n".join([*lines, verdict if self.agrees else wrong])


def verify(
    source: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    *,
    reference: str | os.PathLike[str] | None = None,
    tolerance: float = REFERENCE_TOLERANCE,
    linear: str | os.PathLike[str] | None = None,
) -> Verification:
    """Compares a checkpoint with the file that it was converted from, tensor by tensor and by what both compute.

    Args:
      source: the file that was converted.
      checkpoint: the directory that `convert` wrote; its provenance tells which networks were taken.
      reference: an npz file of inputs and outputs that were saved from the original tool: `z` [n, z_dim] (or `ws`
        [n, num_ws, w_dim]), `c` [n, c_dim], `image` [n, c, h, w] or [n, h, w, c], `truncation_psi`, `noise_mode`
        (`const` or `none`); for the discriminator `d_image`, `d_c` and `logits` [m].
      tolerance: the largest relative deviation from those outputs that counts as agreement.
      linear: the file of LPIPS' own weights that was converted with a trunk. Of networks that stand alone every tensor
        is compared, and nothing else.

    Returns:
      All comparisons, and whether everything agrees.

    Raises:
      ConversionError: a file or checkpoint that cannot be read, was not converted, or a reference that does not fit
        this network or needs what the source does not hold. What can be compared and differs raises nothing.
    """
    if not 0 < tolerance < math.inf:
        raise ConversionError(f"tolerance must be a positive number, got {shown(tolerance)}")
    import stylegan_jax  # needs JAX, which comes after the arguments were found good

    if _stands_alone(checkpoint):
        if reference is not None:
            raise ConversionError("a reference belongs to generators and discriminators; leave it out for this file")
        return _verify_standalone(source, checkpoint, linear=linear)
    try:
        model = stylegan_jax.load(checkpoint)
    except stylegan_jax.CheckpointError as error:  # names the checkpoint itself
        raise ConversionError(str(error)) from error
    with concerning(source):
        file = read_file(source)
        if is_encoder(file.tree):
            raise ConversionError(
                "holds an encoder; those are not compared, only generators and networks that stand alone"
            )
        found = from_file(file)
        networks = _networks(found, model, os.fspath(checkpoint))
        rows, arrays, estimated, problems = _compare_networks(networks, model)
    given = None if reference is None else read_reference(reference, model)  # before what takes minutes
    outputs = []
    if given is not None:
        with concerning(reference):
            _check_comparable(given, model, estimated)
            outputs = compare_outputs(given, model, tolerance=tolerance)
    renders = [] if arrays is None else _compare_renders(networks, arrays, model)
    problems += [_described(row) for row in (*renders, *outputs) if not row.agrees]
    return Verification(
        source=os.fspath(source),
        checkpoint=os.fspath(checkpoint),
        networks=tuple(networks),
        same_file=found.sha256 == model.provenance.get("sha256"),
        tensors=tuple(rows),
        renders=tuple(renders),
        reference=tuple(outputs),
        estimated=tuple(estimated),
        problems=tuple(problems),
    )


def _stands_alone(checkpoint: str | os.PathLike[str]) -> bool:
    import stylegan_jax

    try:
        return "generator" not in stylegan_jax.info(checkpoint)["networks"]
    except stylegan_jax.CheckpointError as error:
        raise ConversionError(str(error)) from error


def _verify_standalone(
    source: str | os.PathLike[str], checkpoint: str | os.PathLike[str], *, linear: str | os.PathLike[str] | None
) -> Verification:
    from stylegan_jax import checkpoint as checkpoints

    facts = checkpoints.info(checkpoint)
    (name,) = facts["networks"]
    with concerning(source):
        file = read_file(source)
        if standalone_network(file.tree) is None:
            raise ConversionError(f"holds no network that stands alone, {checkpoint} a {name}")
        attributes = facts["networks"][name]["config"].get("attributes")
        found = read_standalone(file, linear=linear, attributes=attributes)
        expected = found.build()
    try:
        ours, _ = checkpoints.load_network(checkpoint, type(expected))
    except checkpoints.CheckpointError as error:
        raise ConversionError(str(error)) from error
    own = _Arrays(name, found, ours)
    rows = own.rows()
    return Verification(
        source=os.fspath(source),
        checkpoint=os.fspath(checkpoint),
        networks=(name,),
        same_file=file.sha256 == facts["provenance"].get("sha256"),
        tensors=tuple(rows),
        renders=(),
        reference=(),
        estimated=(),
        problems=(*(f"{name} {text}" for text in _different(expected.config, ours.config)), *own.problems),
    )


def compare(name: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, tolerance: float = 0.0) -> Comparison:
    """Returns the row `name` for pairs of expected and found arrays `[...]` of equal shapes."""
    tensors = values = differing = 0
    absolute = relative = 0.0
    for expected, found in pairs:
        expected, found = (np.ascontiguousarray(array, np.float32) for array in (expected, found))
        unequal = expected.view(np.uint32) != found.view(np.uint32)
        tensors, values, differing = tensors + 1, values + expected.size, differing + int(unequal.sum())
        if unequal.any():
            with np.errstate(all="ignore"):
                gap = np.abs(expected.astype(np.float64) - found)[unequal]
            gap = math.inf if np.isnan(gap).any() else float(gap.max())
            scale = float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected)))
            absolute = max(absolute, gap)
            relative = max(relative, gap / scale if scale else math.inf if gap else 0.0)
    return Comparison(name, tensors, values, differing, absolute, relative, tolerance)


def _together(name: str, rows: list[Comparison]) -> Comparison:
    counts = (sum(getattr(row, key) for row in rows) for key in ("tensors", "values", "differing"))
    return Comparison(name, *counts, max(row.absolute for row in rows), max(row.relative for row in rows))


def _described(row: Comparison) -> str:
    text = f"{row.name}: {row.differing:,} of {row.values:,} values differ, by {row.absolute:.2g} at most"
    limit = f", more than {row.tolerance:g}" if row.tolerance else ""
    return f"{text} (relative {row.relative:.2g}{limit})"


def _networks(found: Source, model: stylegan_jax.Model, checkpoint: str) -> dict[str, Network]:
    """Returns {name in the file: network} of the networks that the provenance names, their values not yet read."""
    names = model.provenance.get("networks")
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ConversionError("was not converted from a file: its provenance names no networks", source=checkpoint)
    missing = [name for name in names if name not in found.present]
    if missing:
        raise ConversionError(
            f"{', '.join(map(shown, missing))} is not there, of which {checkpoint} says that it was taken; the file "
            f"holds {', '.join(found.present) or 'no network'}"
        )
    # The step of a StyleGAN1 network is not in its file; the checkpoint has a block for every step up to it.
    step = len(model.generator.config.widths) - 1 if _family(model.generator) == "stylegan1" else None
    return {name: found.read(name, step) for name in names}


def _family(network: object) -> str:
    return type(network).__module__.rsplit(".", 1)[-1]


def _compare_networks(
    networks: Mapping[str, Network], model: stylegan_jax.Model
) -> tuple[list[Comparison], dict[str, dict[str, np.ndarray]] | None, list[str], list[str]]:
    """Returns the rows, {name: arrays to build} (None if some do not fit), names of estimated arrays, and problems."""
    rows, built, estimated, problems, fits = [], {}, [], [], True
    for kind in ("generator", "discriminator"):
        here = [name for name, network in networks.items() if network.kind == kind]
        ours = getattr(model, kind)
        if (ours is not None) != bool(here):
            fits = False
            problems.append(f"the checkpoint {f'lacks the {kind}' if here else f'has a {kind}'}, unlike its provenance")
            continue
        for name in here:
            network, different = networks[name], _different_configuration(networks[name], ours)
            problems += [f"{name} {text}" for text in different]
            own = _Arrays(name, network, ours)
            rows += own.rows()
            estimated += [f"{name} {key}" for key in own.estimated]
            problems += own.problems
            fits = fits and own.fits and not different
            built[name] = own.complete()
    return rows, built if fits else None, estimated, problems


def _different_configuration(network: Network, ours: object) -> list[str]:
    if _family(ours) != network.family:
        return [f"is a {network.family} network, the checkpoint holds one of {_family(ours)}"]
    return _different(type(ours.config)(**network.config), ours.config)


def _different(in_file: object, in_checkpoint: object) -> list[str]:
    expected, found = dataclasses.asdict(in_file), dataclasses.asdict(in_checkpoint)
    return [
        f"has {key} {shown(value)} in the file, {shown(found[key])} in the checkpoint"
        for key, value in expected.items()
        if found[key] != value
    ]


def _order(group: str) -> tuple[bool, int]:
    number = re.search(r"\d+", group)
    return group != "mapping", int(number[0]) if number else 0


class _Arrays:
    """The arrays of one network on both sides."""

    def __init__(self, name: str, network: Network | Standalone, ours: object):
        from stylegan_jax import parameters

        self.name = name
        self.expected = network.arrays(allow_nonfinite=True)
        self.found = {key: np.asarray(value) for key, value in parameters.to_arrays(ours).items()}
        noted = set(network.notes()) | (set() if network.kind != "generator" or network.has_average else {"w_avg"})
        self.estimated = [key for key in self.expected if key.rsplit("/", 1)[-1] in noted]
        expected, found = self.expected, self.found
        self.problems = [f"{name} {key} is missing in the checkpoint" for key in expected if key not in found]
        self.problems += [f"{name} {key} is not in the file" for key in found if key not in expected]
        self.common = [key for key in expected if key in found]
        for key in [key for key in self.common if expected[key].shape != found[key].shape]:
            self.common.remove(key)
            shapes = f"{shown(expected[key].shape)} in the file, {shown(found[key].shape)} in the checkpoint"
            self.problems.append(f"{name} {key} has shape {shapes}")
        self.fits = not self.problems

    def rows(self) -> list[Comparison]:
        """Returns a row for every group of tensors, and adds what differs to the problems."""
        groups: dict[str, list[str]] = {}
        for key in self.common:
            if key not in self.estimated:
                parts = key.split("/")
                groups.setdefault("/".join(parts[: 2 if parts[0] == "synthesis" else 1]), []).append(key)
        rows = []
        for group, keys in sorted(groups.items(), key=lambda item: _order(item[0])):
            single = [compare(f"{self.name} {key}", [(self.expected[key], self.found[key])]) for key in keys]
            self.problems += [_described(row) for row in single if not row.agrees]
            rows.append(_together(f"{self.name} {group}", single))
        return rows

    def complete(self) -> dict[str, np.ndarray]:
        """Returns the source's arrays with the estimated ones of the checkpoint: the same inputs for both renders."""
        return self.expected | {key: self.found[key] for key in self.estimated if key in self.found}


def _compare_renders(
    networks: Mapping[str, Network], arrays: Mapping[str, Mapping[str, np.ndarray]], model: stylegan_jax.Model
) -> list[Comparison]:
    import jax

    from convert.building import build
    from stylegan_jax import latents

    built = {network.kind: build(network, arrays[name]) for name, network in networks.items()}
    original = dataclasses.replace(model, generator=built["generator"], discriminator=built.get("discriminator"))
    config = model.generator.config
    z_key, c_key = jax.random.split(jax.random.key(SEED))
    z = np.asarray(jax.random.normal(z_key, (RENDERS, config.z_dim)))
    c = latents.random_labels(c_key, config.c_dim, RENDERS)
    modes = NOISE_MODES if model.generator.synthesis.noise_shapes() else NOISE_MODES[:1]
    rows, images = [], None
    for mode in modes:
        given = Reference(z=z, c=c, noise_mode=mode)
        expected = _images(original, given)
        images = expected if images is None else images
        name = f"images, noise {mode}" if len(modes) > 1 else "images"
        rows.append(compare(name, [(expected, _images(model, given))], tolerance=RENDER_TOLERANCE))
    if original.discriminator is not None:
        expected, found = (_logits(m, images, c) for m in (original, model))
        rows.append(compare("logits", [(expected, found)], tolerance=RENDER_TOLERANCE))
    return rows


@functools.cache
def _programs() -> tuple[Callable, Callable]:
    """Returns compiled functions (generator, z, c, psi) -> ws and (discriminator, images, c) -> logits, made once."""
    import jax

    map_latents = jax.jit(lambda network, z, c, psi: network.map(z, c, truncation_psi=psi), static_argnames="psi")
    return map_latents, jax.jit(lambda network, images, c: network(images, c))


def _images(model: stylegan_jax.Model, given: Reference) -> np.ndarray:
    """Returns images [n, h, w, c] of latents and labels under a truncation and noise mode."""
    import jax

    from stylegan_jax import rendering

    ws = given.ws
    with jax.default_matmul_precision("highest"):  # on a GPU the default may be TF32
        if ws is None:
            ws = np.asarray(_programs()[0](model.generator, given.z, given.c, psi=given.truncation_psi))
        return rendering.render(model, ws, noise=given.noise_mode)


def _logits(model: stylegan_jax.Model, images: np.ndarray, c: np.ndarray | None) -> np.ndarray:
    """Returns logits [n] of images [n, h, w, c] as one batch, in which samples may meet."""
    import jax

    with jax.default_matmul_precision("highest"):
        return np.asarray(_programs()[1](model.discriminator, images, c))


def _check_comparable(given: Reference, model: stylegan_jax.Model, estimated: list[str]) -> None:
    ends = {name.rsplit("/", 1)[-1] for name in estimated}
    truncated = given.image is not None and given.truncation_psi != 1.0
    if truncated and ("w_avg" in ends or getattr(model.generator.config, "w_avg_beta", 0.0) is None):
        raise ConversionError("truncation_psi needs the mean of w, which the source does not hold; use outputs without")
    noisy = given.image is not None and given.noise_mode == "const"
    if noisy and "noise_const" in ends:
        raise ConversionError("noise_mode 'const' needs noise maps, which the source does not hold; use 'none'")


def compare_outputs(
    given: Reference, model: stylegan_jax.Model, *, tolerance: float = REFERENCE_TOLERANCE
) -> list[Comparison]:
    """Returns a row for the images and one for the logits of a reference, as far as it has them.

    Args:
      given: inputs and expected outputs.
      model: what computes them now.
      tolerance: the largest relative deviation that counts as agreement.

    Raises:
      ConversionError: inputs that these networks do not take.
    """
    rows = []
    try:
        if given.image is not None:
            rows.append(compare("reference image", [(given.image, _images(model, given))], tolerance=tolerance))
        if given.logits is not None:
            found = _logits(model, given.d_image, given.d_c)
            rows.append(compare("reference logits", [(given.logits, found)], tolerance=tolerance))
    except ValueError as error:  # a truncation that this family lacks, or a batch that its groups do not divide
        raise ConversionError(f"cannot be computed: {error}") from error
    return rows
