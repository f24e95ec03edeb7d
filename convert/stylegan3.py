# SPDX-License-Identifier: Apache-2.0
"""StyleGAN3 generators in NVlabs torch snapshots: configuration, tensors, table of names, arguments of the constructor.

The discriminator of such a snapshot is one of StyleGAN2. Sizes come from the shapes of the tensors, the rest from the
constructor's arguments that modules keep; what a layer says of itself must follow from both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from convert.errors import ConversionError, shown
from convert.network import Network, check_claims
from convert.numpyfile import Array
from convert.nvlabs import channel_arguments
from convert.rules import Rule, check_shapes, convolution, dense
from convert.snapshot import Module, network_tensors, walk
from convert.torchfile import Tensor

RULES = (
    Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/weight", dense),
    Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
    Rule(r"mapping\.w_avg", "mapping/w_avg"),
    Rule(r"synthesis\.input\.(freqs|phases|transform)", r"synthesis/input/\1"),
    Rule(r"synthesis\.input\.weight", "synthesis/input/weight", dense),
    Rule(r"synthesis\.(L\d+_\d+_\d+)\.weight", r"synthesis/\1/weight", convolution),
    Rule(r"synthesis\.(L\d+_\d+_\d+)\.(bias|magnitude_ema|up_filter|down_filter)", r"synthesis/\1/\2"),
    Rule(r"synthesis\.(input|L\d+_\d+_\d+)\.affine\.weight", r"synthesis/\1/affine/weight", dense),
    Rule(r"synthesis\.(input|L\d+_\d+_\d+)\.affine\.bias", r"synthesis/\1/affine/bias"),
)
LARGEST_RESOLUTION = 1 << 14
# Constructor arguments of the synthesis network: their names there, ours, and the values without the argument.
ARGUMENTS = {
    "first_cutoff": ("first_cutoff", 2.0),
    "first_stopband": ("first_stopband", 2**2.1),
    "last_stopband_rel": ("last_stopband", 2**0.3),
    "conv_kernel": ("kernel", 3),
    "filter_size": ("filter_size", 6),
    "lrelu_upsampling": ("lrelu_upsampling", 2),
    "use_radial_filters": ("radial_filters", False),
}
_LAYER = re.compile(r"synthesis\.(L(\d{1,4})_\d{1,8}_\d{1,8})", re.ASCII)


class Stylegan3Network(Network):
    """A StyleGAN3 generator of a snapshot."""

    @property
    def resolution(self) -> int:
        """Height and width of images in pixels."""
        return self.config["resolution"]

    def rules(self) -> tuple[Rule, ...]:
        """Returns the table."""
        return RULES


def is_stylegan3(root: Module) -> bool:
    """Returns whether a module tree is a StyleGAN3 generator; the class names are those of StyleGAN2."""
    return "synthesis.input" in dict(walk(root)) or any(
        name.endswith(".magnitude_ema") for name in network_tensors(root)
    )


def read_network(root: Module, *, file_size: int) -> Network:
    """Reads the configuration of a StyleGAN3 generator and checks every name and shape.

    Args:
      root: the `Generator` module.
      file_size: bytes in the file: no network can hold more values than that.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: contradictions, or tensors that are missing, unexpected or misshapen.
    """
    modules, tensors = dict(walk(root)), network_tensors(root)
    missing = [name for name in ("mapping", "synthesis", "synthesis.input") if name not in modules]
    if missing:
        raise ConversionError(f"a StyleGAN3 {root.class_name} without {', '.join(missing)}")
    check_claims(tensors, file_size=file_size)
    config = generator_config(modules, tensors)
    layers = layer_attributes(config)
    problems = check_shapes(tensors, generator_shapes(config, layers)) + _contradictions(modules, config, layers)
    if problems:
        raise ConversionError(*problems)
    return Stylegan3Network("stylegan3", "generator", config, tensors)


def generator_config(modules: Mapping[str, Module], tensors: Mapping[str, Tensor]) -> dict:
    """Returns the configuration of a StyleGAN3 generator as keyword arguments of `GeneratorConfig`."""
    synthesis = modules["synthesis"]
    found = {int(match[2]): path for path in modules if (match := _LAYER.fullmatch(path))}
    if not found or sorted(found) != list(range(len(found))):
        raise ConversionError(f"layers must be numbered from 0 on, found {shown(sorted(found))}")
    paths = [found[i] for i in range(len(found))]
    clamp = modules[paths[0]].attribute("conv_clamp", (int, float, type(None)))
    channels = [_shape(tensors, f"{path}.weight", 4)[0] for path in paths]
    config = {
        "widths": tuple(channels[:-1]),
        "image_channels": channels[-1],
        "resolution": synthesis.attribute("img_resolution", int),
        "w_dim": _shape(tensors, "synthesis.input.affine.weight", 2)[1],
        "num_critical": synthesis.attribute("num_critical", int),
        "margin": synthesis.attribute("margin_size", int),
        "output_scale": synthesis.attribute("output_scale", (int, float)),
        "conv_clamp": clamp,
        **_arguments(synthesis),
        **_mapping_config(modules, tensors),
    }
    _check_ranges(config)
    config["output_scale"] = float(config["output_scale"])
    config["conv_clamp"] = None if clamp is None else float(clamp)
    return config


def _check_ranges(config: Mapping) -> None:
    resolution, critical = config["resolution"], config["num_critical"]
    if not 4 <= resolution <= LARGEST_RESOLUTION or resolution & (resolution - 1):
        raise ConversionError(f"img_resolution is {shown(resolution)}, expected a power of two")
    if not 0 <= critical < len(config["widths"]):
        raise ConversionError(f"num_critical is {shown(critical)} of {len(config['widths'])} layers")
    ranges = {
        "output_scale": (1e-6, 1e6),
        "conv_clamp": (1e-6, 1e6),
        "first_cutoff": (0.5, resolution / 2),
        "first_stopband": (0.5, resolution),
        "last_stopband": (1, 16),
        "margin": (0, 1024),
        "kernel": (1, 15),
        "filter_size": (1, 64),
        "lrelu_upsampling": (1, 16),
    }
    wrong = [
        name for name, (low, high) in ranges.items() if config[name] is not None and not low <= config[name] <= high
    ]
    if wrong:
        raise ConversionError(*(f"{name} is {shown(config[name])}, expected {ranges[name]}" for name in wrong))
    if config["kernel"] % 2 == 0:
        raise ConversionError(f"conv_kernel is {config['kernel']}, expected an odd number")


def _arguments(synthesis: Module) -> dict:
    given = synthesis.attribute("_init_kwargs", dict)
    config = {}
    for source, (ours, default) in ARGUMENTS.items():
        value = given.get(source, default)
        if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, int | float):
            raise ConversionError(f"{source} is {shown(value)}, expected a value like {default}")
        if not 0 <= value < 1e6:
            raise ConversionError(f"{source} is {shown(value)}, expected a positive number")
        if isinstance(default, int) and value != int(value):
            raise ConversionError(f"{source} is {shown(value)}, expected a whole number")
        config[ours] = type(default)(value)
    return config


def _mapping_config(modules: Mapping[str, Module], tensors: Mapping[str, Tensor]) -> dict:
    count = 0
    while f"mapping.fc{count}" in modules:
        count += 1
    if not count:
        raise ConversionError("the mapping network has no layers")
    embedded, c_dim = _shape(tensors, "mapping.embed.weight", 2) if "mapping.embed" in modules else (0, 0)
    multiplier = modules["mapping.fc0"].attribute("bias_gain", (int, float))
    if not 0 < multiplier < 1e6:
        raise ConversionError(f"the learning-rate multiplier of the mapping is {shown(multiplier)}")
    beta = modules["mapping"].attribute("w_avg_beta", (int, float)) if "mapping.w_avg" in tensors else None
    if beta is not None and not 0 <= beta <= 1:
        raise ConversionError(f"w_avg_beta is {shown(beta)}, expected a number from 0 to 1")
    z_dim = _shape(tensors, "mapping.fc0.weight", 2)[1] - embedded
    if z_dim < 1:
        raise ConversionError(f"the mapping network has {z_dim} inputs beside the {embedded} of the label")
    return {
        "z_dim": z_dim,
        "c_dim": c_dim,
        "mapping_layers": count,
        "mapping_lr_multiplier": float(multiplier),
        "w_avg_beta": None if beta is None else float(beta),
    }


def layer_attributes(config: Mapping) -> dict[str, dict[str, float]]:
    """Returns what follows from a configuration for every layer: {layer name: {attribute there: value}}."""
    count = len(config["widths"])
    last = config["resolution"] / 2
    exponents = np.minimum(np.arange(count + 1) / (count - config["num_critical"]), 1)
    cutoffs = config["first_cutoff"] * (last / config["first_cutoff"]) ** exponents
    stopbands = config["first_stopband"] * (last * config["last_stopband"] / config["first_stopband"]) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, config["resolution"]))))
    sizes = rates + 2 * config["margin"]
    sizes[-2:] = config["resolution"]
    columns = {
        "channels": np.array([*config["widths"], config["image_channels"]], float),
        "size": sizes,
        "sampling_rate": rates,
        "cutoff": cutoffs,
        "half_width": np.maximum(stopbands, rates / 2) - cutoffs,
    }
    layers = {}
    for i in range(count + 1):
        pairs = {f"in_{key}": float(column[max(i - 1, 0)]) for key, column in columns.items()}
        pairs |= {f"out_{key}": float(column[i]) for key, column in columns.items()}
        final = i == count
        middle = max(pairs["in_sampling_rate"], pairs["out_sampling_rate"])
        middle *= 1 if final else config["lrelu_upsampling"]
        for side, other in (("up", "in"), ("down", "out")):
            factor = middle / pairs[f"{other}_sampling_rate"]
            pairs[f"{side}_factor"] = factor
            pairs[f"{side}_taps"] = factor * config["filter_size"] if factor > 1 and not final else 1
        pairs["conv_kernel"] = 1 if final else config["kernel"]
        pairs["down_radial"] = config["radial_filters"] and i < count - config["num_critical"]
        name = f"L{i}_{int(pairs['out_size'])}_{int(pairs['out_channels'])}"
        layers[name] = pairs | {"is_torgb": final, "conv_clamp": config["conv_clamp"]}
    return layers


def generator_shapes(config: Mapping, layers: Mapping[str, Mapping]) -> dict[str, tuple[int, ...]]:
    """Returns every tensor that a generator of this configuration has in a file: {source name: shape}."""
    w_dim, first = config["w_dim"], config["widths"][0]
    width = config["z_dim"] + (w_dim if config["c_dim"] else 0)
    shapes: dict[str, tuple[int, ...]] = {} if config["w_avg_beta"] is None else {"mapping.w_avg": (w_dim,)}
    if config["c_dim"]:
        shapes |= {"mapping.embed.weight": (w_dim, config["c_dim"]), "mapping.embed.bias": (w_dim,)}
    for i in range(config["mapping_layers"]):
        shapes |= {f"mapping.fc{i}.weight": (w_dim, width if i == 0 else w_dim), f"mapping.fc{i}.bias": (w_dim,)}
    shapes |= {"synthesis.input.freqs": (first, 2), "synthesis.input.phases": (first,)}
    shapes |= {"synthesis.input.transform": (3, 3), "synthesis.input.weight": (first, first)}
    affine = {"synthesis.input": 4} | {f"synthesis.{name}": int(x["in_channels"]) for name, x in layers.items()}
    for path, features in affine.items():
        shapes |= {f"{path}.affine.weight": (features, w_dim), f"{path}.affine.bias": (features,)}
    for name, layer in layers.items():
        outputs, kernel = int(layer["out_channels"]), layer["conv_kernel"]
        shapes[f"synthesis.{name}.weight"] = (outputs, int(layer["in_channels"]), kernel, kernel)
        shapes[f"synthesis.{name}.bias"] = (outputs,)
        shapes[f"synthesis.{name}.magnitude_ema"] = ()
        up, down = int(layer["up_taps"]), int(layer["down_taps"])
        if up > 1:
            shapes[f"synthesis.{name}.up_filter"] = (up,)
        if down > 1:
            shapes[f"synthesis.{name}.down_filter"] = (down, down) if layer["down_radial"] else (down,)
    return shapes


def generator_arguments(config: Mapping) -> dict:
    """Returns the arguments of `training.networks_stylegan3.Generator` of the stylegan3 code for our `GeneratorConfig`.

    Raises:
      ConversionError: no arguments give this network.
    """
    if config["w_avg_beta"] is None:
        raise ConversionError("holds no mean of w, which NVlabs' StyleGAN3 code always has")
    layers = layer_attributes(config)
    widths, cutoffs = config["widths"], [layer["out_cutoff"] for layer in layers.values()][:-1]
    # Widths are min(channel_base / 2 / cutoff, channel_max), rounded, ties to even.
    bounds = [
        (math.ceil(cutoff * (2 * width - 1) + 1e-9), math.floor(cutoff * (2 * width + 1) - 1e-9))
        for width, cutoff in zip(widths, cutoffs, strict=True)
    ]
    mapping = {"num_layers": config["mapping_layers"], "lr_multiplier": config["mapping_lr_multiplier"]}
    layer_counts = {"num_layers": len(widths), "num_critical": config["num_critical"], "margin_size": config["margin"]}
    return {
        **{name: config[name] for name in ("z_dim", "c_dim", "w_dim", "output_scale", "conv_clamp")},
        "img_resolution": config["resolution"],
        "img_channels": config["image_channels"],
        "mapping_kwargs": mapping | {"w_avg_beta": config["w_avg_beta"]},
        **channel_arguments(widths, bounds),
        **layer_counts,
        **{theirs: config[ours] for theirs, (ours, _) in ARGUMENTS.items()},
    }


def _contradictions(modules: Mapping[str, Module], config: Mapping, layers: Mapping[str, Mapping]) -> list[str]:
    """Returns one line for every attribute that differs from what configuration and shapes imply."""
    first = next(iter(layers.values()))
    expected: dict[str, dict] = {f"synthesis.{name}": dict(attributes) for name, attributes in layers.items()}
    network = {key: config[key] for key in ("w_dim", "z_dim", "c_dim")} | {"num_ws": len(layers) + 1}
    image = {"img_resolution": config["resolution"], "img_channels": config["image_channels"]}
    expected[""] = network | image
    expected["mapping"] = network | {"num_layers": config["mapping_layers"]}
    expected["synthesis"] = image | {"num_layers": len(layers) - 1, "num_ws": len(layers) + 1}
    expected["synthesis.input"] = {
        "channels": first["in_channels"],
        "size": first["in_size"],
        "sampling_rate": first["in_sampling_rate"],
        "bandwidth": first["in_cutoff"],
    }
    for path, module in modules.items():
        if module.class_name == "FullyConnectedLayer" and "weight" in module.tensors:
            weight, mapped = module.tensors["weight"], path.startswith("mapping.fc")
            multiplier = config["mapping_lr_multiplier"] if mapped else 1.0
            gain = multiplier / math.sqrt(max(weight.shape[-1] if weight.shape else 1, 1))
            expected[path] = {"weight_gain": gain, "bias_gain": multiplier}
            expected[path]["activation"] = "lrelu" if mapped else "linear"
    problems = []
    for path, attributes in expected.items():
        state = modules[path].state if path in modules else {}
        for name, value in attributes.items():
            if name in state and not _equal(state[name], value):
                problems.append(f"{path or 'the generator'} has {name} {shown(state[name])}, expected {shown(value)}")
    return problems


def _equal(found: object, value: object) -> bool:
    if isinstance(found, Array):  # sizes are stored as (width, height)
        return found.shape == (2,) and all(_equal(float(number), value) for number in found.read())
    if isinstance(value, str | type(None)) or isinstance(found, str | type(None)):
        return type(found) is type(value) and found == value
    if not isinstance(found, int | float) or not abs(found) < 1e12:
        return False
    return math.isclose(found, value, rel_tol=1e-6)


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors or len(tensors[name].shape) != dimensions:
        state = f"has shape {shown(tensors[name].shape)}" if name in tensors else "is missing"
        raise ConversionError(f"{name} {state}, expected {dimensions} dimensions")
    return tensors[name].shape
