# SPDX-License-Identifier: Apache-2.0
"""Converts a StyleGAN checkpoint file into a checkpoint directory, or says what is in one.

python -m convert ffhq.pkl checkpoints/ffhq
python -m convert ffhq.pkl checkpoints/ffhq_raw --network=G --nodiscriminator
python -m convert stylegan-256px.model checkpoints/ffhq256 --step=6
python -m convert inspect ffhq.pkl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import app, flags, logging

import convert
from convert.errors import shown

_NETWORK = flags.DEFINE_enum("network", "G_ema", ["G_ema", "G"], "The generator to take.")
_DISCRIMINATOR = flags.DEFINE_bool("discriminator", True, "Take the discriminator too, where there is one.")
_STEP = flags.DEFINE_integer(
    "step", None, "Last trained step of a StyleGAN1 file, of 4 << STEP pixels; found in the file where it is not given."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a checkpoint that is already at the destination.")
_ALLOW_NONFINITE = flags.DEFINE_bool("allow_nonfinite", False, "Accept NaN and infinite weights.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

FAMILIES = {"stylegan1": "StyleGAN1", "stylegan2": "StyleGAN2", "stylegan3": "StyleGAN3"}
USAGE = "usage: stylegan-convert SOURCE DESTINATION [--network=G_ema|G] [--overwrite] | stylegan-convert inspect SOURCE"


def _report(facts: dict) -> str:
    lines = [f"{facts['file']}: {facts['format']}, {facts['size']:,} bytes, sha256 {facts['sha256']}"]
    for name, network in facts["networks"].items():
        if network is None:
            lines.append(f"  {name}: None")
        elif "problem" in network:
            lines.append(f"  {name}: cannot be converted: {network['problem']}")
        else:
            config = network["config"]
            labels = f"{config['c_dim']} labels" if config.get("c_dim") else "no labels"
            family = FAMILIES[network["family"]]
            lines.append(f"  {name}: {family} {network['kind']}, {network['resolution']} px, {labels}")
            lines.append(f"    {network['values']:,} values; " + ", ".join(f"{k}={v}" for k, v in config.items()))
            lines += [f"    {name} {note}" for name, note in network["notes"].items()]
    training = facts["training"]
    lines.append("  training: " + (", ".join(f"{k}={v}" for k, v in training.items()) if training else "not recorded"))
    return "\n".join([*lines, f"  licence: {facts['licence']}"])


def _main(arguments: Sequence[str]) -> int:
    if not _DEBUG.value:
        logging.set_verbosity(logging.WARNING)  # JAX and orbax say much that is of no use here
    positional = list(arguments[1:])
    if len(positional) != 2:
        print(USAGE, file=sys.stderr)
        return 1
    source, destination = positional
    try:
        if source == "inspect":
            source = destination
            print(_report(convert.inspect(source, step=_STEP.value)))
        else:
            model = convert.convert(
                source,
                destination,
                network=_NETWORK.value,
                discriminator=_DISCRIMINATOR.value,
                step=_STEP.value,
                overwrite=_OVERWRITE.value,
                allow_nonfinite=_ALLOW_NONFINITE.value,
            )
            networks = " and ".join(model.provenance["networks"])
            print(f"{destination}: {networks} of {source}, {model.generator.resolution} px")
    except convert.ConversionError as error:
        if _DEBUG.value:
            raise
        print(f"stylegan-convert: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if _DEBUG.value:
            raise
        reason = f"unexpected {type(error).__name__}: {shown(str(error))}; --debug shows where, please report it"
        print(f"stylegan-convert: {source}: {reason}", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Runs the command line; the process ends with status 0, or 1 after one line on stderr."""
    app.run(_main)


if __name__ == "__main__":
    run()
