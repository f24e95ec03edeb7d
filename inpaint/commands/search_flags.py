# SPDX-License-Identifier: Apache-2.0
"""The flags that say how large a search is, and the settings that they give together with --config."""

import pathlib
from collections.abc import Callable, Iterable

from absl import flags
from ml_collections import config_flags

from inpaint import config as _config
from inpaint import default_config, named_methods
from inpaint.commands import networks
from stylegan_jax import command_line

_STARTS = flags.DEFINE_integer("starts", None, "Latents optimised, or samples of a learned inpainter (--samples).")
flags.DEFINE_alias("samples", "starts")
_KEEP = flags.DEFINE_integer("keep", None, "Results kept.")
_STEPS = flags.DEFINE_integer("steps", None, "Optimisation steps.")
_REFINE = flags.DEFINE_integer(
    "refine", None, "Steps of a search that goes on from each sample of a learned inpainter; 0: none.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", None, "Of everything random.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", str(pathlib.Path(default_config.__file__)), "Config file with get_config() returning a RestoreConfig."
)


def resolve(
    method: str | None, *, default: Callable[[], str], others: Iterable[flags.FlagHolder] = ()
) -> _config.RestoreConfig:
    """Returns the settings of a call: a flag beats --config.x, which beats the config file or the method's defaults.

    Args:
        method: what --method says.
        default: returns the method's name where nothing says one.
        others: flags that are settings of the search, by their own names, beside those of this module.

    Raises:
        ValueError: where they make no sense, or exclude each other.
    """
    config = command_line.typed_config(_CONFIG.value, _config.RestoreConfig, field="search")
    own_file = not flags.FLAGS["config"].using_default_value
    if own_file and method is not None:
        raise ValueError("--method and --config exclude each other; a config file names its method itself")
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    if not own_file and "method" not in overrides:
        config = _config.apply_overrides(named_methods.named(method or default()), overrides)
    for flag in (_STARTS, _KEEP, _STEPS, _SEED, *others):
        if flag.value is not None:
            setattr(config.search, flag.name, flag.value)
    if _REFINE.value is not None:
        if config.method in named_methods.METHODS and not named_methods.METHODS[config.method].needs_network:
            raise ValueError(f"--refine goes on from a learned inpainter, and {config.method} is none; see --steps")
        config.search.steps = _REFINE.value
    networks.constrain(config)
    if _KEEP.value is None:
        config.search.keep = min(config.search.keep, config.search.starts)
    return config
