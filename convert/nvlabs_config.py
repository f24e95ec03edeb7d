# SPDX-License-Identifier: Apache-2.0
"""What StyleGAN2 network an NVlabs module tree is: its configuration, read from its content.

Sizes come from the shapes of the tensors, what shapes do not tell (activation, clamp, architecture, taps) from the
attributes of the modules. Attributes that repeat a size must agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from convert.errors import ConversionError, shown
from convert.snapshot import Module
from convert.torchfile import Tensor

ARCHITECTURES = ("skip", "orig", "resnet")
# The gain that each activation gets by default; another one was set by hand, and our configuration has no place for it.
ACTIVATION_GAINS = {"linear": 1.0, "lrelu": math.sqrt(2), "relu": math.sqrt(2), "swish": math.sqrt(2)} | dict.fromkeys(
    ("tanh", "sigmoid", "elu", "selu", "softplus"), 1.0
)
DEFAULT_TAPS = (1, 3, 3, 1)
SEPARABLE_TAPS = 8  # filters with as many taps or more are stored as a vector
MOST_TAPS = 64


def generator_config(modules: Mapping[str, Module], tensors: Mapping[str, Tensor]) -> dict:
    """Returns the configuration of a StyleGAN2 generator as keyword arguments of `GeneratorConfig`."""
    resolutions = _resolutions(modules, "synthesis.b")
    last = resolutions[-1]
    blocks = [modules[f"synthesis.b{r}"] for r in resolutions]
    layers = [m for m in modules.values() if m.class_name == "SynthesisLayer"]
    clamped = layers + [m for m in modules.values() if m.class_name == "ToRGBLayer"]
    w_dim = _shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1]
    beta = modules["mapping"].attribute("w_avg_beta", (int, float)) if "mapping.w_avg" in tensors else None
    if beta is not None and not 0 <= beta <= 1:
        raise ConversionError(f"w_avg_beta is {shown(beta)}, expected a number from 0 to 1")
    config = {
        "w_dim": w_dim,
        "widths": tuple(_shape(tensors, f"synthesis.b{r}.conv1.weight", 4)[0] for r in resolutions),
        "image_channels": _shape(tensors, f"synthesis.b{last}.torgb.weight", 4)[0],
        **_mapping_config(modules, tensors, w_dim),
        "w_avg_beta": None if beta is None else float(beta),
        "architecture": _architecture(blocks),
        "activation": _activation(layers),
        "conv_clamp": _clamp(clamped),
        "use_noise": _same(layers, "use_noise", bool),
        "resample_filter": _taps(blocks),
    }
    num_ws = 2 * len(resolutions)
    facts = {key: config[key] for key in ("z_dim", "c_dim", "w_dim")}
    facts |= {"img_resolution": last, "img_channels": config["image_channels"], "num_ws": num_ws}
    _agree(modules[""], facts)
    return config


def discriminator_config(modules: Mapping[str, Module], tensors: Mapping[str, Tensor]) -> dict:
    """Returns the configuration of a StyleGAN2 discriminator as keyword arguments of `DiscriminatorConfig`."""
    resolutions = _resolutions(modules, "b")
    if len(resolutions) < 2:
        raise ConversionError("a discriminator of 4 pixels has no place for an image; expected 8 pixels or more")
    last = resolutions[-1]
    blocks = [modules[f"b{r}"] for r in resolutions[1:]]
    layers = [m for p, m in modules.items() if m.class_name == "Conv2dLayer" and not p.startswith("b4.")]
    layers = [m for m in layers if "bias" in m.tensors]  # the skip convolutions have neither bias nor activation
    epilogue = [m for p, m in modules.items() if p in ("b4.conv", "b4.fc", "b4.fromrgb")]
    deviation = modules.get("b4.mbstd")
    group = deviation and deviation.state.get("group_size")
    channels = deviation.attribute("num_channels", int) if deviation else 0
    if (group is not None and (type(group) is not int or group < 1)) or channels < 0:
        raise ConversionError(f"minibatch group size {shown(group)} and channels {shown(channels)} make no sense")
    config = {
        "c_dim": 0,
        "widths": (
            _shape(tensors, "b4.conv.weight", 4)[0],
            *(_shape(tensors, f"b{r}.conv0.weight", 4)[0] for r in resolutions[1:]),
        ),
        "image_channels": _shape(tensors, f"b{last}.fromrgb.weight", 4)[1],
        "architecture": _architecture([*blocks, modules["b4"]]),
        "activation": _activation(layers),
        "epilogue_activation": _activation(epilogue),
        # An input layer at 4 pixels, which only `skip` has, is never clamped.
        "conv_clamp": _clamp([*layers, modules["b4.conv"]] if "b4.conv" in modules else layers),
        "resample_filter": _taps(blocks),
        "minibatch_group_size": group,
        "minibatch_channels": channels,
    }
    if "mapping" in modules:
        cmap_dim = _shape(tensors, "b4.out.weight", 2)[0]
        config |= _mapping_config(modules, tensors, cmap_dim) | {"cmap_dim": cmap_dim}
        if config.pop("z_dim"):
            raise ConversionError("the discriminator's mapping takes latents; expected labels only")
    facts = {"c_dim": config["c_dim"], "img_resolution": last, "img_channels": config["image_channels"]}
    _agree(modules[""], facts)
    return config


def _mapping_config(modules: Mapping[str, Module], tensors: Mapping[str, Tensor], w_dim: int) -> dict:
    mapping = modules.get("mapping")
    if mapping is None:
        raise ConversionError("the mapping network is missing")
    count = 0
    while f"mapping.fc{count}" in modules:
        count += 1
    layers = [modules[f"mapping.fc{i}"] for i in range(count)]
    embed_features, c_dim = _shape(tensors, "mapping.embed.weight", 2) if "mapping.embed" in modules else (0, 0)
    inputs = _shape(tensors, "mapping.fc0.weight", 2)[1] if count else w_dim
    features = _shape(tensors, "mapping.fc0.weight", 2)[0] if count else w_dim
    _agree(mapping, {"z_dim": inputs - embed_features, "c_dim": c_dim, "w_dim": w_dim, "num_layers": count})
    return {
        "z_dim": inputs - embed_features,
        "c_dim": c_dim,
        "mapping_layers": count,
        "embed_features": embed_features if c_dim and embed_features != w_dim else None,
        "layer_features": features if features != w_dim else None,
        "mapping_activation": _activation(layers) if count else "lrelu",
        "mapping_lr_multiplier": _multiplier(layers) if count else 0.01,
    }


def _multiplier(layers: Sequence[Module]) -> float:
    value = _same(layers, "bias_gain", (int, float))
    if not 0 < value < 1e6:
        raise ConversionError(f"the learning-rate multiplier of the mapping is {shown(value)}, expected one above 0")
    return float(value)


def normalised(taps: Sequence[float]) -> np.ndarray:
    """Returns the filter [t, t] (from eight taps on: [t]) of the taps: their outer product divided by its sum."""
    vector = np.asarray(taps, np.float64)
    vector = vector / vector.sum()
    return (vector if len(vector) >= SEPARABLE_TAPS else np.outer(vector, vector)).astype(np.float32)


def check_constants(modules: Mapping[str, Module]) -> list[str]:
    """Returns one line for every layer whose gain, activation or clamp is not the one that our layers have built in."""
    problems = []
    for path, module in modules.items():
        weight = module.tensors.get("weight")
        if weight is None or len(weight.shape) < 2 or weight.size == 0:
            continue
        fan_in = weight.size // weight.shape[0]
        wanted = {}
        if module.class_name in ("SynthesisLayer", "Conv2dLayer"):
            activation = module.state.get("activation")
            wanted["act_gain"] = ACTIVATION_GAINS.get(activation if isinstance(activation, str) else "")
        if module.class_name in ("ToRGBLayer", "Conv2dLayer"):
            wanted["weight_gain"] = 1 / math.sqrt(fan_in)
        if module.class_name == "FullyConnectedLayer":
            multiplier = float(module.attribute("bias_gain", (int, float)))
            in_mapping = path.startswith("mapping.fc")
            wanted["weight_gain"] = multiplier / math.sqrt(fan_in)
            wanted["bias_gain"] = multiplier if in_mapping else 1.0
        if path.endswith((".affine", ".skip", ".embed", "b4.out")) and module.state.get("activation") != "linear":
            problems.append(f"{path} has activation {shown(module.state.get('activation'))}, expected 'linear'")
        if path.endswith((".skip", "b4.fromrgb")) and module.state.get("conv_clamp") is not None:
            problems.append(f"{path} has conv_clamp {shown(module.state['conv_clamp'])}, expected None")
        for name, value in wanted.items():
            found = float(module.attribute(name, (int, float)))
            if value is None or not math.isclose(found, value, rel_tol=1e-5):
                problems.append(f"{path} has {name} {shown(found)}, expected {shown(value)}")
    return problems


def _resolutions(modules: Mapping[str, Module], prefix: str) -> list[int]:
    resolutions = [4]
    while f"{prefix}{resolutions[-1] * 2}" in modules:
        resolutions.append(resolutions[-1] * 2)
    if f"{prefix}4" not in modules:
        raise ConversionError(f"the block {prefix}4 is missing")
    return resolutions


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors:
        raise ConversionError(f"{name} is missing, which tells the architecture")
    shape = tensors[name].shape
    if len(shape) != dimensions:
        raise ConversionError(f"{name} has shape {shown(shape)}, expected {dimensions} dimensions")
    return shape


def _same(modules: Sequence[Module], name: str, kind: type | tuple[type, ...]) -> object:
    values = {module.attribute(name, kind) for module in modules}
    if len(values) != 1:
        found = ", ".join(sorted(map(shown, values))) or "no layer at all"
        raise ConversionError(f"layers must share one {name}, found {found}")
    return values.pop()


def _architecture(blocks: Sequence[Module]) -> str:
    name = _same(blocks, "architecture", str)
    if name not in ARCHITECTURES:
        raise ConversionError(f"the architecture is {shown(name)}, expected one of {', '.join(ARCHITECTURES)}")
    return name


def _activation(layers: Sequence[Module]) -> str:
    name = _same(layers, "activation", str)
    if name not in ACTIVATION_GAINS:
        raise ConversionError(f"the activation is {shown(name)}, expected one of {', '.join(ACTIVATION_GAINS)}")
    return name


def _clamp(layers: Sequence[Module]) -> float | None:
    clamp = _same(layers, "conv_clamp", (int, float, type(None)))
    if clamp is not None and not 0 < clamp < math.inf:
        raise ConversionError(f"conv_clamp is {shown(clamp)}, expected a positive number or None")
    return None if clamp is None else float(clamp)


def _taps(blocks: Sequence[Module]) -> tuple[float, ...]:
    # Modules keep the constructor's arguments; without the argument the taps are the default ones.
    found = set()
    for block in blocks:
        arguments = block.attribute("_init_kwargs", dict)
        taps = arguments.get("resample_filter", DEFAULT_TAPS)
        numbers = isinstance(taps, list | tuple) and all(type(tap) in (int, float) for tap in taps)
        if not numbers or not 1 <= len(taps) <= MOST_TAPS or not all(abs(tap) < 1e6 for tap in taps) or not sum(taps):
            raise ConversionError(f"resample_filter is {shown(taps)}, expected a list of numbers with a sum")
        found.add(tuple(taps))
    if len(found) != 1:
        raise ConversionError("blocks must share one resample_filter")
    return found.pop()


def _agree(module: Module, facts: Mapping[str, int]) -> None:
    # A converted or pruned network may lack an attribute; one that is there must say what the tensors say.
    wrong = [name for name, value in facts.items() if module.state.get(name, value) not in (value, None)]
    if wrong:
        raise ConversionError(
            *(
                f"{module.class_name}.{name} is {shown(module.state[name])}, but the tensors say {facts[name]}"
                for name in wrong
            )
        )
