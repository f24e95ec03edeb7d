# SPDX-License-Identifier: Apache-2.0
"""From a file of pSp, e4e or ReStyle to a checkpoint directory with a generator and its encoder."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import secrets
import shutil
from typing import TYPE_CHECKING

import numpy as np

from convert.building import W_STATISTICS
from convert.destination import check_destination
from convert.encoders import FORMAT, LICENCE, EncoderFile, read_encoder
from convert.errors import ConversionError, concerning

if TYPE_CHECKING:
    import stylegan_jax

NEAR = 1e-3  # of the largest value: how far two means of W of the same generator may lie apart


def convert_encoder(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    generator: str | os.PathLike[str] | None = None,
    allow_nonfinite: bool = False,
) -> stylegan_jax.Model:
    """Converts an encoder, with the generator that it belongs to, into a checkpoint directory of `stylegan_jax`.

    The whole file is checked before JAX computes anything and before anything is written.

    Args:
      source: a file of pSp, e4e, ReStyle or stylegan3-editing.
      destination: the directory to write; it appears complete or not at all.
      overwrite: replace a checkpoint that is already at `destination`.
      generator: a converted checkpoint, copied to take the place of the decoder in the file; needed for encoders of
        StyleGAN3, whose files do not describe their decoder.
      allow_nonfinite: accept NaN and infinite weights.

    Returns:
      The model that was written, its encoder in `encoder`.

    Raises:
      ConversionError: the file is damaged, hostile or of another kind, `generator` is missing or not the one that the
        encoder was trained for, or the destination exists or cannot be written. Lists every problem found.
    """
    check_destination(source, destination, overwrite=overwrite)
    destination = pathlib.Path(os.path.abspath(destination))
    with concerning(source):
        found = read_encoder(source)
        if generator is None and found.decoder is None:
            raise ConversionError(
                f"its decoder: {found.notes['decoder']}; name the converted generator (generator=, --generator)"
            )
        arrays = _arrays(found, with_decoder=generator is None, allow_nonfinite=allow_nonfinite)
        found = found.without_tensors()  # nothing refers to the file now: it is no longer mapped
    from stylegan_jax import checkpoint

    staging = destination.with_name(f".{destination.name}.partial-{secrets.token_hex(4)}")
    try:
        if generator is None:
            model = _decoder(found, arrays.pop("decoder"))
            checkpoint.save(staging, model)
        else:
            model = _attached(found, generator)
            shutil.copytree(os.path.abspath(generator), staging, ignore=shutil.ignore_patterns(checkpoint.ENCODER))
        return _add_encoder(staging, destination, model, found, arrays["encoder"])
    except (checkpoint.CheckpointError, OSError) as error:
        raise ConversionError(str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _arrays(found: EncoderFile, *, with_decoder: bool, allow_nonfinite: bool) -> dict[str, dict[str, np.ndarray]]:
    networks = {"encoder": found} | ({"decoder": found.decoder} if with_decoder else {})
    arrays, problems = {}, []
    for name, network in networks.items():
        try:
            arrays[name] = network.arrays(allow_nonfinite=allow_nonfinite)
        except ConversionError as error:
            problems.extend(f"{name}.{problem}" for problem in error.problems)
    if problems:
        raise ConversionError(*problems)
    return arrays


def _facts(found: EncoderFile) -> dict:
    facts = {"file": os.path.basename(found.path), "size": found.size, "sha256": found.sha256}
    return facts | {"format": FORMAT, "licence": LICENCE}


def _decoder(found: EncoderFile, arrays: dict[str, np.ndarray]) -> stylegan_jax.Model:
    import stylegan_jax
    from convert.building import build_generator, move_to_jax

    move_to_jax(arrays)
    network, statistics = build_generator(found.decoder, arrays)
    provenance = _facts(found) | {"networks": ["decoder"], "w_statistics": W_STATISTICS}
    return stylegan_jax.Model(network, w_statistics=statistics, provenance=provenance | found.decoder.notes())


def _attached(found: EncoderFile, generator: str | os.PathLike[str]) -> stylegan_jax.Model:
    """Returns the converted model at `generator`, if the encoder can belong to it."""
    from stylegan_jax import checkpoint, stylegan3

    path = os.path.abspath(generator)
    model = checkpoint.load(path)
    config = model.generator.config
    ours, theirs = (found.config["num_ws"], found.config["w_dim"]), (config.num_ws, config.w_dim)
    if ours != theirs:
        raise ConversionError(f"gives {ours[0]} latents of width {ours[1]}; the generator {path} takes {theirs}")
    if found.stylegan3 != isinstance(model.generator, stylegan3.Generator):
        family = "StyleGAN3" if found.stylegan3 else "StyleGAN2"
        raise ConversionError(f"is an encoder of a {family}; the generator {path} is of another family")
    if found.stylegan3:  # whose mean of W the file holds
        mean = np.asarray(model.generator.mapping.w_avg[...])
        apart = float(np.abs(mean - found.average[0]).max() / np.abs(found.average[0]).max())
        if apart > NEAR:
            raise ConversionError(
                f"was trained for another generator than {path}: its latent_avg differs from that one's mean of w by "
                f"{apart:.1e} of the largest value"
            )
    return model


def _add_encoder(
    staging: pathlib.Path,
    destination: pathlib.Path,
    model: stylegan_jax.Model,
    found: EncoderFile,
    arrays: dict[str, np.ndarray],
) -> stylegan_jax.Model:
    """Writes the encoder into the folder of its generator and moves this to its place."""
    from convert.building import move_to_jax
    from stylegan_jax import checkpoint

    content_hash = checkpoint.info(staging)["content_hash"]
    move_to_jax(arrays)
    encoder = found.build(arrays)
    provenance = {"generator": content_hash} | _facts(found) | {"options": found.options} | found.notes
    path = checkpoint.save_network(staging / checkpoint.ENCODER, encoder, provenance=provenance)
    encoder_hash = checkpoint.info(path)["content_hash"]
    checkpoint.replace_directory(staging, destination)
    return dataclasses.replace(model, content_hash=content_hash, encoder=encoder, encoder_hash=encoder_hash)
