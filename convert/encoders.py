# SPDX-License-Identifier: Apache-2.0
"""Encoders of images into W+, from PyTorch files of pSp, e4e, ReStyle and "Third Time's the Charm?" (StyleGAN3).

A file holds a state dict of encoder and decoder, the options of the training, and the mean of W. What the encoder is
is told by the options, its sizes by shapes. The decoder is rosinality's StyleGAN2; of StyleGAN3 there is no complete
description in such a file, so its encoders are attached to a generator that was converted before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convert import rosinality
from convert.encoders_tables import COVERING, STYLE, TYPES, classes, encoder_table
from convert.errors import ConversionError, concerning, shown
from convert.network import Network, check_claims
from convert.perceptual import (
    COUNTER,
    MOST_UNITS,
    Tensors,
    Values,
    irse_config,
    size_of,
    transfer_checked,
)
from convert.rules import Entry, check_shapes
from convert.torch_legacy import read_torch_file
from convert.torchfile import Tensor

if TYPE_CHECKING:
    from flax import nnx

FORMAT = "encoder of pSp, e4e or ReStyle"
LICENCE = (
    "Written by the code of pSp, e4e, ReStyle or stylegan3-editing (MIT), whose authors give no licence of their own "
    "for the weights. Trunks began as ArcFace's (InsightFace: non-commercial research only) and decoders are mostly "
    "NVIDIA's StyleGAN (Nvidia Source Code License, non-commercial); converted weights keep these conditions."
)
# What else a training writes into its files.
TRAINING = (
    "global_step",
    "optimizer",
    "best_val_loss",
    "discriminator_state_dict",
    "discriminator_optimizer_state_dict",
)
# Options that say how the encoder is meant.
OPTIONS = (
    "encoder_type",
    "dataset_type",
    "start_from_latent_avg",
    "learn_in_w",
    "input_nc",
    "label_nc",
    "output_size",
    "stylegan_size",
    "n_iters_per_batch",
)
RESTYLE_CHANNELS = 6  # of an image and of its reconstruction
LOOKS, STYLEGAN3_LOOKS = 5, 3  # of ReStyle's encoders, as its inference scripts have them
MOST_HEADS = 32  # of a generator of 131072 pixels
LARGEST_OUTPUT = 1024  # pixels; that of files which do not say it


@dataclasses.dataclass(frozen=True, eq=False)
class EncoderFile:
    """A file that was read and found good, values still in it.

    Attributes:
      path, size, sha256: of the file.
      kind: module and class in `stylegan_jax.encoders`.
      config: arguments of that class's configuration.
      tensors: the encoder's, {name without prefix: tensor}.
      table: what becomes of them.
      average: the mean of W that the encoder's output is counted from, [num_ws, w_dim]; 0 where there is none.
      decoder: the StyleGAN2 generator in the file, or None.
      stylegan3: whether the decoder in the file is a StyleGAN3, which is not read.
      options: of the training, as far as they say how the encoder is meant.
      notes: what provenance should say.
    """

    path: str
    size: int
    sha256: str
    kind: tuple[str, str]
    config: dict[str, Any]
    tensors: Tensors
    table: tuple[Entry, ...]
    average: np.ndarray
    decoder: Network | None
    stylegan3: bool
    options: dict[str, Any]
    notes: dict[str, str]

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        return transfer_checked(self.tensors, self.table, allow_nonfinite=allow_nonfinite) | {"average": self.average}

    def build(self, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
        """Returns our encoder with `arrays` {our name: array [...]}."""
        network_class, config_class = classes(self.kind)
        return network_class.from_arrays(config_class(**self.config), arrays)

    def without_tensors(self) -> EncoderFile:
        """Returns what is known of the encoder when its file is no longer open."""
        decoder = self.decoder and self.decoder.without_tensors()
        return dataclasses.replace(self, tensors={}, decoder=decoder)


def is_encoder(tree: object) -> bool:
    """Returns whether what `read_torch_file` gave looks like a file of pSp, e4e or ReStyle."""
    tensors = tree.get("state_dict") if isinstance(tree, dict) else None
    marks = ("encoder.input_layer.0.weight", "encoder.conv1.weight")
    return isinstance(tensors, dict) and any(mark in tensors for mark in marks)


def read_encoder(path: str | os.PathLike[str]) -> EncoderFile:
    """Reads an encoder, and the decoder beside it, from a file of `torch.save`, zip or from before torch 1.6.

    Args:
      path: a file of pSp, e4e, ReStyle or stylegan3-editing.

    Returns:
      What it holds, names and shapes checked; values are read by `arrays`.

    Raises:
      ConversionError: a file that cannot be read, is none of these, or does not fit; lists every problem.
    """
    with concerning(path):
        file = read_torch_file(path)
        if not is_encoder(file.tree):
            held = ", ".join(map(shown, list(file.tree)[:8])) if isinstance(file.tree, dict) else shown(file.tree)
            raise ConversionError(f"holds {held or 'nothing'}; expected state_dict with an encoder, opts, latent_avg")
        return _read(file.tree, path=file.path, size=file.size, sha256=file.sha256)


def from_state_dict(
    state_dict: Mapping[str, np.ndarray], opts: Mapping[str, Any], *, latent_avg: np.ndarray | None = None
) -> EncoderFile:
    """Does what `read_encoder` does with what such a file holds in memory.

    Args:
      state_dict: {name with prefix `encoder.` or `decoder.`: array [...]}.
      opts: of the training; `encoder_type` must be there.
      latent_avg: [w_dim] or [num_ws, w_dim].

    Raises:
      ConversionError: names, shapes or options that do not fit.
    """
    tensors = {name: Values(np.asarray(array)) for name, array in state_dict.items()}
    tree = {"state_dict": tensors, "opts": dict(opts)}
    tree |= {} if latent_avg is None else {"latent_avg": Values(np.asarray(latent_avg))}
    return _read(tree, path="", size=sum(tensor.size for tensor in tensors.values()), sha256="")


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConversionError as error:
        problems.extend(error.problems)
    except ValueError as error:  # sizes that no encoder has
        problems.append(str(error))


def _read(tree: Mapping[str, Any], *, path: str, size: int, sha256: str) -> EncoderFile:
    problems = [
        f"{shown(name)} is no entry of such a file"
        for name in tree
        if name not in ("state_dict", "opts", "latent_avg", *TRAINING)
    ]
    state_dict, opts, latent_avg = tree["state_dict"], tree.get("opts"), tree.get("latent_avg")
    other = [n for n, t in state_dict.items() if not isinstance(n, str) or not isinstance(t, Tensor | Values)]
    if other:
        raise ConversionError(f"{shown(other[0])} in state_dict is {shown(state_dict[other[0]])}, expected a tensor")
    if latent_avg is not None and not isinstance(latent_avg, Tensor | Values):
        raise ConversionError(f"latent_avg is {shown(latent_avg)}, expected a tensor")
    check_claims(state_dict, file_size=size)
    opts = opts if isinstance(opts, dict) else {}
    name = opts.get("encoder_type")
    if name not in TYPES:
        raise ConversionError(f"opts say encoder_type {shown(name)}; expected one of {', '.join(TYPES)}")
    encoder, decoder = (
        {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
        for prefix in ("encoder.", "decoder.")
    )
    problems += [f"{shown(n)} belongs to neither encoder nor decoder" for n in state_dict if "coder." not in n[:8]]
    encoder = {n: t for n, t in encoder.items() if not (n.endswith(COUNTER) and t.shape == ())}
    notes: dict[str, str] = {}
    means = None
    with _collected(problems):
        means = _means(latent_avg, opts, problems)
    network = None
    with _collected(problems):
        network = _decoder(decoder, means, size, notes)
    stylegan3 = any(n.startswith("synthesis.") for n in decoder)
    config, table, average = {}, [], np.zeros((1, 1), np.float32)
    with _collected(problems):
        config, heads = _config(encoder, opts, network, means, stylegan3=stylegan3)
        table = encoder_table(TYPES[name][0], config, heads)
        unfit = check_shapes(encoder, {entry.source: entry.shape for entry in table})
        problems += [f"encoder.{problem}" for problem in unfit]
        average = _average(means, opts, config, heads)
        if heads > config["num_ws"]:
            notes["heads"] = f"{heads} in the file, of which the generator takes the first {config['num_ws']}"
    if problems:
        raise ConversionError(*problems)
    options = {key: opts[key] for key in OPTIONS if isinstance(opts.get(key), str | int | float | bool)}
    table = tuple(table)
    facts = dict(path=path, size=size, sha256=sha256, kind=TYPES[name][0], stylegan3=stylegan3)
    facts |= dict(config=config, tensors=encoder, table=table, average=average, decoder=network)
    return EncoderFile(**facts, options=options, notes=notes)


def _means(latent_avg: Tensor | Values | None, opts: Mapping[str, Any], problems: list[str]) -> np.ndarray | None:
    """Returns the mean of W `[1 or styles, w_dim]`, or None where the file has none."""
    if latent_avg is None:
        if opts.get("start_from_latent_avg"):
            problems.append("latent_avg is missing, and opts say that the encoder starts from it")
        return None
    shape = latent_avg.shape
    if len(shape) not in (1, 2) or not math.prod(shape):
        raise ConversionError(f"latent_avg has shape {shown(shape)}, expected (w_dim,) or (styles, w_dim)")
    try:
        means = latent_avg.read()
    except ConversionError as error:
        raise ConversionError(f"latent_avg {error}") from error
    if not np.isfinite(means).all():
        raise ConversionError("latent_avg holds NaN or infinite values")
    return means.reshape(-1, shape[-1])


def _decoder(tensors: Tensors, means: np.ndarray | None, size: int, notes: dict[str, str]) -> Network | None:
    if any(name.startswith("synthesis.") for name in tensors):
        notes["decoder"] = "StyleGAN3, left out: such a file does not say all of its settings"
        return None
    if not tensors:
        notes["decoder"] = "none in the file"
        return None
    average = None
    if means is not None and (means == means[:1]).all():
        average = Values(means[0])
    checkpoint = rosinality.Checkpoint({"G_ema": dict(tensors)}, average, None)
    try:
        return rosinality.read_network(checkpoint, "G_ema", file_size=size)
    except ConversionError as error:
        raise ConversionError(*(f"decoder.{problem}" for problem in error.problems)) from error


def _config(
    tensors: Tensors, opts: Mapping[str, Any], network: Network | None, means: np.ndarray | None, *, stylegan3: bool
) -> tuple[dict[str, Any], int]:
    """Returns the arguments of our configuration, and how many latents the encoder in the file gives."""
    kind, settings = TYPES[opts["encoder_type"]]
    config = settings | (_resnet_config(tensors) if settings["trunk"] == "resnet" else irse_config(tensors))
    taken = None if network is None else 2 * len(network.config["widths"])
    if kind == STYLE:
        found = (re.match(r"styles\.(\d{1,3})\.", name, re.ASCII) for name in tensors)
        heads = 1 + max((int(match[1]) for match in found if match), default=0)
        if heads > MOST_HEADS:
            raise ConversionError(f"has {heads} heads; at most {MOST_HEADS} are read")
        convolutions = itertools.takewhile(lambda i: f"styles.0.convs.{2 * i}.weight" in tensors, range(20))
        config["w_dim"] = size_of(tensors, "styles.0.linear.weight")
        size = 1 << len(list(convolutions)) + len(config["widths"])
    else:
        w_dim = None if network is None else network.config["w_dim"]
        heads = _single_head(config, tensors, w_dim, taken, opts, means)
        size = 256
    cars = str(opts.get("dataset_type", "")).startswith("cars")
    config["size"] = (3 * size // 4, size) if cars else (size, size)
    if taken is not None and heads != taken and not (cars and heads > taken):
        raise ConversionError(f"its encoder gives {heads} latents, and its decoder takes {taken}")
    if network is not None and network.config["w_dim"] != config["w_dim"]:
        raise ConversionError(
            f"its encoder gives latents of width {config['w_dim']}, and its decoder takes {network.config['w_dim']}"
        )
    config["num_ws"] = heads if taken is None else taken
    restyle = config["image_channels"] == RESTYLE_CHANNELS and opts.get("label_nc") != RESTYLE_CHANNELS
    config["iterations"] = (STYLEGAN3_LOOKS if stylegan3 else LOOKS) if restyle else None
    return config, heads


def _single_head(
    config: dict[str, Any],
    tensors: Tensors,
    w_dim: int | None,
    taken: int | None,
    opts: Mapping[str, Any],
    means: np.ndarray | None,
) -> int:
    """Completes the `config` of an encoder with one head; returns how many latents it gives."""
    outputs = size_of(tensors, "linear.weight")
    if not str(opts["encoder_type"]).endswith("IntoWPlus"):
        config["w_dim"] = outputs
        size = opts.get("output_size") or opts.get("stylegan_size") or LARGEST_OUTPUT
        if taken is None and not (type(size) is int and 8 <= size <= 1 << 16):
            raise ConversionError(f"opts say output_size {shown(size)}, expected that of the generator in pixels")
        return 2 * (size.bit_length() - 1) - 2 if taken is None else taken
    inputs, width = size_of(tensors, COVERING, axis=1), config["widths"][-1]
    config |= {"features": size_of(tensors, COVERING), "pool": math.isqrt(inputs // width)}
    config["w_dim"] = w_dim or (config["features"] if means is None else means.shape[1])
    if config["pool"] ** 2 * width != inputs or not config["pool"]:
        raise ConversionError(
            f"encoder.{COVERING} takes {inputs} values, expected those of a square map of {width} channels"
        )
    if outputs % config["w_dim"]:
        raise ConversionError(f"encoder.linear gives {outputs} values, no multiple of {config['w_dim']}")
    return outputs // config["w_dim"]


def _resnet_config(tensors: Tensors) -> dict[str, Any]:
    units = len(list(itertools.takewhile(lambda i: f"body.{i}.conv1.weight" in tensors, range(MOST_UNITS))))
    widths = [size_of(tensors, f"body.{i}.conv1.weight") for i in range(max(units, 1))]
    stages = [(width, len(list(units))) for width, units in itertools.groupby(widths)]
    return {
        "widths": tuple(width for width, _ in stages),
        "depths": tuple(depth for _, depth in stages),
        "image_channels": size_of(tensors, "conv1.weight", axis=1),
    }


def _average(means: np.ndarray | None, opts: Mapping[str, Any], config: Mapping[str, Any], heads: int) -> np.ndarray:
    """Returns what the encoder's output is counted from, `[num_ws, w_dim]`."""
    shape = config["num_ws"], config["w_dim"]
    if means is None:
        if config["iterations"] is not None:
            raise ConversionError("latent_avg is missing, where the loop of ReStyle begins")
        return np.zeros(shape, np.float32)
    if means.shape[0] not in (1, heads, shape[0]) or means.shape[1] != shape[1]:
        raise ConversionError(f"latent_avg has shape {shown(means.shape)}, expected {shown((heads, shape[1]))}")
    if config["iterations"] is None and not opts.get("start_from_latent_avg", True):
        return np.zeros(shape, np.float32)
    rows = means if means.shape[0] == 1 else means[: shape[0]]
    return np.array(np.broadcast_to(rows, shape), order="C")
