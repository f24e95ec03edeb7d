# SPDX-License-Identifier: Apache-2.0
"""What studies on portraits with known truth have in common: their flags, the model and the portraits."""

from typing import NamedTuple

import jax
from absl import flags

import stylegan_jax as sg
from inpaint.experiments.grid import Portraits, load_portraits
from stylegan_jax import checkpoint

_DATA = flags.DEFINE_string("data", None, "Portraits: a folder, or an npz with uint8 images [n, h, w, c].")
_SPLIT = flags.DEFINE_string("split", None, "Take only the images of an npz whose 'split' is this, e.g. report.")
_LIMIT = flags.DEFINE_integer("limit", None, "Take so many portraits, evenly spaced.", lower_bound=1)
_GENERATOR = flags.DEFINE_string("generator", None, checkpoint.GENERATOR_HELP)
_ENCODER = flags.DEFINE_string("encoder", None, "Checkpoint of an encoder trained for the generator.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder for compiled programs (trusted input); off by default.")
SEED = flags.DEFINE_integer("seed", 0, "Of the searches, and of all else that is drawn.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what an earlier call left there.")


class Studied(NamedTuple):
    """The generator, with its encoder, and portraits of its size."""

    model: sg.Model
    portraits: Portraits

    @property
    def facts(self) -> dict[str, str | int | None]:
        """What stands beside every figure."""
        model = self.model
        hashes = {"generator": model.content_hash, "encoder": model.encoder_hash}
        return {"portraits": len(self.portraits.names), "seed": SEED.value} | hashes


def check(arguments: list[str]) -> None:
    """Raises ValueError where the command line is wrong by itself."""
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; all settings are flags")
    if not _DATA.value:
        raise ValueError("--data is needed: portraits whose truth is known")


def load() -> Studied:
    """Returns what the flags name."""
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    model = sg.load(_GENERATOR.value)
    if _ENCODER.value is not None:
        model = checkpoint.with_encoder(model, _ENCODER.value)
    return Studied(
        model, load_portraits(_DATA.value, resolution=model.resolution, split=_SPLIT.value, limit=_LIMIT.value)
    )
