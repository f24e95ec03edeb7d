# SPDX-License-Identifier: Apache-2.0
"""What a network of a TensorFlow pickle is: its configuration, from the shapes of its variables and its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from convert.errors import ConversionError, shown
from convert.nvlabs_config import ACTIVATION_GAINS, ARCHITECTURES, DEFAULT_TAPS, MOST_TAPS
from convert.tensorflow_files import TensorflowNetwork, Variable

Variables = Mapping[str, Variable]
MOST_LAYERS = 64
GROUPS_OF_FOUR = ("D_basic", "D_stylegan2")

# Arguments that change nothing about a finished network run with its own weights: how it was trained, how it grew, in
# which precision it computed, defaults of a call, and widths, which the shapes tell.
WITHOUT_EFFECT = {
    "structure",
    "conditioning",
    "fused_modconv",
    "truncation_psi",
    "truncation_cutoff",
    "truncation_psi_val",
    "truncation_cutoff_val",
    "style_mixing_prob",
    "randomize_noise",
    "dlatent_broadcast",
    "num_fp16_res",
    "freeze_layers",
    "fmap_base",
    "fmap_max",
    "fmap_min",
    "fmap_decay",
}


class Arguments:
    """The arguments that a network was built with; whatever is not asked for must be without effect."""

    def __init__(self, network: TensorflowNetwork):
        self._given = network.arguments
        self._known = set(WITHOUT_EFFECT)
        self._problems: list[str] = []
        for name, inner in network.components.items():
            for key in network.arguments.keys() & inner.arguments.keys():
                if not _same(network.arguments[key], inner.arguments[key]):
                    self._problems.append(f"{name} was built with another {key} than the network around it")

    def take(self, name: str, default: object, accepts: Callable[[object], bool], expected: str) -> object:
        """Returns argument `name`, which is `expected` in words, or `default` where it was not given."""
        self._known.add(name)
        value = self._given.get(name, default)
        if not accepts(value):
            self._problems.append(f"{name} is {shown(value)}, expected {expected}")
            return default
        return value

    def choice(self, name: str, default: object, *others: object) -> object:
        """Returns argument `name`, one of `default` and `others`."""
        known = (default, *others)
        return self.take(name, default, lambda value: value in known, "one of " + ", ".join(map(str, known)))

    def number(self, name: str, default: float | None, low: float, high: float, *, optional: bool) -> float | None:
        """Returns argument `name` from `low` to `high`, or None where that is allowed."""

        def accepts(value: object) -> bool:
            if value is None:
                return optional
            return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

        value = self.take(name, default, accepts, f"a number from {low} to {high}{' or None' if optional else ''}")
        return None if value is None else float(value)

    def agrees(self, name: str, fact: int, *, default: int | None = None) -> None:
        """Notes a problem where argument `name` is not what the variables say; None leaves it to them."""
        self._known.add(name)
        value = self._given.get(name, default)
        if value is not None and (type(value) is not int or value != fact):
            self._problems.append(f"{name} is {shown(value)}, but the variables say {fact}")

    def note(self, problem: str) -> None:
        """Notes a problem."""
        self._problems.append(problem)

    def given(self, name: str) -> bool:
        """Returns whether argument `name` is there."""
        return name in self._given

    def ignore(self, *names: str) -> None:
        """Accepts arguments whatever they are."""
        self._known.update(names)

    def finish(self) -> None:
        """Raises `ConversionError` with everything that was wrong, unknown arguments included."""
        unknown = sorted(self._given.keys() - self._known)
        problems = [f"was built with the unknown argument {shown(name)}, which may change it" for name in unknown]
        if problems or self._problems:
            raise ConversionError(*problems, *self._problems)


def generator_config(network: TensorflowNetwork, variables: Variables) -> tuple[dict, dict[str, str]]:
    """Returns the arguments of our `GeneratorConfig`, and in words what was assumed of them."""
    _refuse_other_architectures(variables)
    arguments = Arguments(network)
    sizes, first = generator_sizes(variables)
    last = 4 << len(sizes)
    w_dim = axis(variables, "synthesis/4x4/Conv/mod_weight", 0, 2)
    config = {
        "w_dim": w_dim,
        "widths": (first, *(axis(variables, f"synthesis/{r}x{r}/Conv1/weight", 3, 4) for r in sizes)),
        "image_channels": axis(variables, f"synthesis/{last}x{last}/ToRGB/weight", 3, 4),
        **_mapping_config(variables, ("mapping/LabelEmbed", "mapping/Dense"), w_dim=w_dim),
        "mapping_activation": _activation(arguments, "mapping_nonlinearity"),
        "mapping_lr_multiplier": arguments.number("mapping_lrmul", 0.01, 1e-9, 1e6, optional=False),
        "architecture": arguments.choice("architecture", *ARCHITECTURES),
        "activation": _activation(arguments, "nonlinearity"),
        "conv_clamp": arguments.number("conv_clamp", None, 1e-9, 1e9, optional=True),
        "use_noise": arguments.choice("use_noise", True, False),
        "resample_filter": _taps(arguments),
    }
    # stylegan2 and its successor name it differently; a mean that is never moved has None.
    betas = ("w_avg_beta", "dlatent_avg_beta")
    beta = next((name for name in betas if arguments.given(name)), betas[0])
    arguments.ignore(*betas)
    value = arguments.number(beta, 0.995, 0, 1, optional=True)
    config["w_avg_beta"] = 1.0 if value is None else value
    agree(arguments, config)
    arguments.agrees("latent_size", config["z_dim"], default=512)
    arguments.agrees("dlatent_size", w_dim, default=512)
    arguments.agrees("mapping_layers", config["mapping_layers"], default=8)
    if config["mapping_layers"] > 1:
        arguments.agrees("mapping_fmaps", config["layer_features"] or w_dim)
    if config["c_dim"]:
        arguments.agrees("label_fmaps", config["embed_features"] or w_dim)
    arguments.ignore("mapping_fmaps", "label_fmaps")
    arguments.choice("synthesis_func", network_function(network, "synthesis"))
    arguments.choice("mapping_func", network_function(network, "mapping"))
    arguments.choice("normalize_latents", True)
    arguments.finish()
    return config, {}


def discriminator_config(network: TensorflowNetwork, variables: Variables) -> tuple[dict, dict[str, str]]:
    """Returns the arguments of our `DiscriminatorConfig`, and in words what was assumed of them."""
    _refuse_other_architectures(variables)
    arguments = Arguments(network)
    sizes = block_sizes(variables, "{0}x{0}/Conv0/weight")
    if not sizes:
        raise ConversionError("8x8/Conv0/weight is missing: expected a discriminator of 8 pixels or more")
    first = axis(variables, "4x4/Conv/weight", 3, 4)
    activation = _activation(arguments, "nonlinearity")
    channels = axis(variables, "4x4/Conv/weight", 2, 4) - first
    group, assumed = minibatch(arguments, network, channels)
    config = {
        "c_dim": 0,
        "widths": (first, *(axis(variables, f"{r}x{r}/Conv0/weight", 2, 4) for r in sizes)),
        "image_channels": axis(variables, f"{sizes[-1]}x{sizes[-1]}/FromRGB/weight", 2, 4),
        "architecture": arguments.choice("architecture", "resnet", "skip", "orig"),
        "activation": activation,
        "epilogue_activation": activation,
        "conv_clamp": arguments.number("conv_clamp", None, 1e-9, 1e9, optional=True),
        "resample_filter": _taps(arguments),
        "minibatch_group_size": group,
        "minibatch_channels": channels,
    }
    if "LabelEmbed/weight" in variables:
        cmap_dim = axis(variables, "Output/weight", 1, 2)
        config |= _mapping_config(variables, ("LabelEmbed", "Mapping"), w_dim=cmap_dim) | {"cmap_dim": cmap_dim}
        config["mapping_activation"] = activation
        config["mapping_lr_multiplier"] = arguments.number("mapping_lrmul", 0.1, 1e-9, 1e6, optional=False)
        if config.pop("z_dim"):
            raise ConversionError("the discriminator's mapping takes latents; expected labels only")
        arguments.agrees("mapping_layers", config["mapping_layers"], default=0)
        arguments.agrees("mapping_fmaps", cmap_dim)
    # Without labels there is no mapping, whatever was said of it.
    arguments.ignore("mapping_layers", "mapping_fmaps", "mapping_lrmul")
    agree(arguments, config)
    arguments.finish()
    return config, assumed


def axis(variables: Variables, name: str, index: int, dimensions: int) -> int:
    """Returns the size of axis `index` of variable `name`, which must have so many `dimensions`."""
    if name not in variables:
        raise ConversionError(f"{name} is missing, which tells the architecture")
    shape = variables[name].shape
    if len(shape) != dimensions or not 0 < shape[index] < 2**31:
        raise ConversionError(f"{name} has shape {shown(shape)}, expected {dimensions} dimensions, none empty")
    return shape[index]


def network_function(network: TensorflowNetwork, name: str) -> str:
    """Returns the name of the function that built component `name`, "" where there is none."""
    inner = network.components.get(name)
    return inner.function if inner else ""


def _same(first: object, second: object) -> bool:
    # Lists inside lists are not compared: shared ones could double at every level.
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        flat = not any(isinstance(item, list | tuple | dict) for item in (*first, *second))
        return flat and list(first) == list(second)
    return not isinstance(first, dict) and not isinstance(second, dict) and first == second


def block_sizes(variables: Variables, name: str) -> list[int]:
    """Returns the resolutions 8, 16, ... of which there is a variable `name`."""
    sizes = []
    while name.format(8 << len(sizes)) in variables and len(sizes) < MOST_LAYERS:
        sizes.append(8 << len(sizes))
    return sizes


def generator_sizes(variables: Variables) -> tuple[list[int], int]:
    """Returns the resolutions 8, 16, ... of a generator, and its channels at 4."""
    return block_sizes(variables, "synthesis/{0}x{0}/Conv1/weight"), axis(variables, "synthesis/4x4/Const/const", 1, 4)


def count_layers(variables: Variables, name: str) -> int:
    """Returns how many of the layers `name`0, `name`1, ... there are."""
    count = 0
    while f"{name}{count}/weight" in variables and count < MOST_LAYERS:
        count += 1
    return count


def _mapping_config(variables: Variables, sources: tuple[str, str], *, w_dim: int) -> dict:
    embed, layer = sources
    count = count_layers(variables, layer)
    c_dim, embedded = 0, 0
    if f"{embed}/weight" in variables:
        c_dim, embedded = (axis(variables, f"{embed}/weight", i, 2) for i in (0, 1))
    inputs, features = (axis(variables, f"{layer}0/weight", i, 2) if count else w_dim for i in (0, 1))
    return {
        "z_dim": inputs - embedded,
        "c_dim": c_dim,
        "mapping_layers": count,
        "embed_features": embedded if c_dim and embedded != w_dim else None,
        "layer_features": features if count > 1 and features != w_dim else None,
    }


def minibatch(arguments: Arguments, network: TensorflowNetwork, channels: int) -> tuple[int | None, dict[str, str]]:
    """Returns the group size of the minibatch deviation, which adds so many `channels`, and what was assumed of it."""
    # Where it is left to the code, stylegan and stylegan2 take groups of 4, stylegan2-ada the whole batch.
    default = 4 if network.function in GROUPS_OF_FOUR else None
    group = arguments.take(
        "mbstd_group_size",
        default,
        lambda value: value is None or (type(value) is int and 0 <= value < 2**31),
        "a number from 0 on or None",
    )
    if group is not None and group < 2:  # the code leaves the deviation out
        arguments.ignore("mbstd_num_features")
        if channels:
            arguments.note(f"mbstd_group_size is {group}, which adds no channel, but 4x4/Conv/weight takes {channels}")
        return 1, {}
    arguments.agrees("mbstd_num_features", channels, default=1)
    if arguments.given("mbstd_group_size"):
        return group, {}
    return group, {"minibatch_group_size": f"not in the file; {default or 'the whole batch'}, the code's own default"}


def agree(arguments: Arguments, config: Mapping, *, resolution: int = 1024, channels: int = 3) -> None:
    """Notes problems where arguments contradict the sizes of the images; `resolution`, `channels`: where not given."""
    arguments.agrees("resolution", 2 << len(config["widths"]), default=resolution)
    arguments.agrees("num_channels", config["image_channels"], default=channels)
    arguments.agrees("label_size", config["c_dim"], default=0)


def _activation(arguments: Arguments, name: str) -> str:
    return arguments.choice(name, "lrelu", *(known for known in ACTIVATION_GAINS if known != "lrelu"))


def _taps(arguments: Arguments) -> tuple[float, ...]:
    def accepts(value: object) -> bool:
        if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_TAPS:
            return False
        return all(type(tap) in (int, float) and abs(tap) < 1e6 for tap in value) and abs(sum(value)) > 1e-6

    return tuple(arguments.take("resample_kernel", list(DEFAULT_TAPS), accepts, "a list of numbers with a sum"))


def _refuse_other_architectures(variables: Variables) -> None:
    grown = sorted(name for name in variables if "RGB_lod" in name)
    if grown:
        raise ConversionError(
            f"not supported: {grown[0]} belongs to the StyleGAN2 configurations B to D, which grow step by step; "
            "E and F can be converted"
        )
    labels = sorted(name for name in variables if "LabelConcat" in name)
    if labels:
        raise ConversionError(
            f"not supported: {labels[0]} takes labels as the first StyleGAN2 code did; StyleGAN2-ADA's labels "
            "(LabelEmbed) can be converted"
        )
