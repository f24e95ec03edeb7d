# SPDX-License-Identifier: Apache-2.0
"""Converts a StyleGAN checkpoint file into a checkpoint directory, checks the result, and exports it again.

python -m convert ffhq.pkl checkpoints/ffhq
python -m convert ffhq.pkl checkpoints/ffhq_raw --network=G --nodiscriminator
python -m convert stylegan-256px.model checkpoints/ffhq256 --step=6
python -m convert inspect ffhq.pkl
python -m convert verify ffhq.pkl checkpoints/ffhq --reference=outputs.npz
python -m convert export checkpoints/ffhq ffhq_G.safetensors
python -m convert export checkpoints/ffhq ffhq_D.safetensors --network=discriminator
python -m convert vgg16-397923af.pth checkpoints/lpips_vgg --linear=vgg.pth
python -m convert psp_ffhq_encode.pt checkpoints/ffhq_psp
python -m convert celebahq-classifier-01-smiling.pkl checkpoints/smiling

A file that has the name of a command is meant with a folder before it, as ./inspect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from absl import app, flags, logging

import convert
from convert.errors import shown
from convert.verification import REFERENCE_TOLERANCE

_NETWORK = flags.DEFINE_string(
    "network",
    None,
    "Converting: the generator to take, G_ema (the averaged one, taken by default) or G. Exporting: the network to "
    "write, generator (by default) or discriminator.",
)
_DISCRIMINATOR = flags.DEFINE_bool("discriminator", True, "Take the discriminator too, where there is one.")
_STEP = flags.DEFINE_integer(
    "step", None, "Last trained step of a StyleGAN1 file, of 4 << STEP pixels; found in the file where it is not given."
)
_LINEAR = flags.DEFINE_string(
    "linear", None, "LPIPS' own weights (vgg.pth, alex.pth or squeeze.pth) for the trunk that is converted."
)
_ATTRIBUTES = flags.DEFINE_list(
    "attribute_name", None, "What a classifier classifies, such as Smiling, where neither the file nor its name tells."
)
_GENERATOR = flags.DEFINE_string(
    "generator", None, "The converted generator that an encoder belongs to, where its file holds none (StyleGAN3)."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace a checkpoint (exporting: a safetensors file) that is already at the destination."
)
_ALLOW_NONFINITE = flags.DEFINE_bool("allow_nonfinite", False, "Accept NaN and infinite weights.")
_REFERENCE = flags.DEFINE_string(
    "reference",
    None,
    "Verifying: npz file of inputs and outputs of the original tool; docs/checkpoints.md has its keys.",
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    REFERENCE_TOLERANCE,
    "Verifying: the largest deviation from the reference, relative to its largest absolute value, that is agreement.",
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")

FAMILIES = {
    "dcgan": "DCGAN",
    "stylegan1": "StyleGAN1",
    "stylegan1_tensorflow": "StyleGAN1",
    "stylegan2": "StyleGAN2",
    "stylegan3": "StyleGAN3",
}
USAGE = (
    "usage: stylegan-convert SOURCE DESTINATION [--network=G_ema|G] [--linear=FILE] [--overwrite] | "
    "stylegan-convert inspect SOURCE | stylegan-convert verify SOURCE CHECKPOINT [--reference=OUTPUTS] | "
    "stylegan-convert export CHECKPOINT FILE [--network=generator|discriminator] [--overwrite]"
)


def _unknown(facts: dict) -> str:
    lines = [f"{facts['file']}: of no known family, {facts['size']:,} bytes, sha256 {facts['sha256']}"]
    lines.append(f"  cannot be converted: {facts['problem']}")
    if facts["guess"]:
        lines.append("  probably {}: {}".format(*facts["guess"]))
    lines += [f"  {shown(fact.name)} {list(fact.shape)} {fact.dtype}" for fact in facts["tensors"]]
    return "\n".join(lines)


def _alone(facts: dict) -> str:
    head = f"{facts['file']}: {facts['network']}, {facts['size']:,} bytes, sha256 {facts['sha256']}"
    if "problem" in facts:
        return f"{head}\n  cannot be converted: {facts['problem']}"
    config = ", ".join(f"{k}={v}" for k, v in facts["config"].items())
    lines = [head, f"  {facts['format']}", f"  {facts['values']:,} values; {config}"]
    lines += [f"  {name}: {note}" for name, note in facts["notes"].items()]
    return "\n".join([*lines, f"  licence: {facts['licence']}"])


def _report(facts: dict) -> str:
    if "tensors" in facts:
        return _unknown(facts)
    if "network" in facts:
        return _alone(facts)
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


def _convert(source: str, destination: str) -> int:
    made = convert.convert(
        source,
        destination,
        network=_NETWORK.value,
        discriminator=_DISCRIMINATOR.value,
        step=_STEP.value,
        linear=_LINEAR.value,
        attributes=_ATTRIBUTES.value,
        generator=_GENERATOR.value,
        overwrite=_OVERWRITE.value,
        allow_nonfinite=_ALLOW_NONFINITE.value,
    )
    import stylegan_jax  # is loaded by now; before, reading a file needs no JAX

    if isinstance(made, stylegan_jax.Model):
        networks = " and ".join((*made.provenance["networks"], *(["encoder"] if made.encoder else [])))
        print(f"{destination}: {networks} of {source}, {made.generator.resolution} px")
    else:
        print(f"{destination}: {stylegan_jax.info(destination)['provenance']['network']} of {source}")
    return 0


def _inspect(source: str) -> int:
    print(_report(convert.inspect(source, step=_STEP.value, attributes=_ATTRIBUTES.value)))
    return 0


def _verify(source: str, checkpoint: str) -> int:
    found = convert.verify(
        source, checkpoint, reference=_REFERENCE.value, tolerance=_TOLERANCE.value, linear=_LINEAR.value
    )
    print(found.report())
    return 0 if found.agrees else 1


def _export(checkpoint: str, file: str) -> int:
    network = _NETWORK.value or "generator"
    written = convert.export(checkpoint, file, network=network, overwrite=_OVERWRITE.value)
    facts = f"{len(written.shapes)} tensors, {written.values:,} values, for {written.class_name}"
    print(f"{file}: {network} of {checkpoint}, {facts}")
    return 0


# What each command takes after its name.
COMMANDS = {"inspect": (_inspect, 1), "verify": (_verify, 2), "export": (_export, 2)}


def _main(arguments: Sequence[str]) -> int:
    if not _DEBUG.value:
        logging.set_verbosity(logging.WARNING)  # JAX and orbax say much that is of no use here
    command, count, positional = _convert, 2, list(arguments[1:])
    if positional and positional[0] in COMMANDS:
        command, count = COMMANDS[positional.pop(0)]
    if len(positional) != count:
        print(USAGE, file=sys.stderr)
        return 1
    try:
        return command(*positional)
    except convert.ConversionError as error:
        if _DEBUG.value:
            raise
        print(f"stylegan-convert: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if _DEBUG.value:
            raise
        reason = f"unexpected {type(error).__name__}: {shown(str(error))}; --debug shows where, please report it"
        print(f"stylegan-convert: {positional[0]}: {reason}", file=sys.stderr)
    return 1


def run() -> None:
    """Runs the command line; the process ends with status 0, or 1 after one line on stderr."""
    app.run(_main)


if __name__ == "__main__":
    run()
