# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 networks in NVlabs torch snapshots (of stylegan2-ada-pytorch and of the stylegan3 code): the tensors that a
configuration asks for, the table of names, and the arguments of the constructor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from convert.errors import ConversionError
from convert.network import Network, check_claims
from convert.nvlabs_config import DEFAULT_TAPS, check_constants, discriminator_config, generator_config, normalised
from convert.rules import Rule, check_shapes, convolution, dense, dense_after_4x4, image
from convert.snapshot import Module, network_tensors, walk

DEFAULT_FILTER = normalised(DEFAULT_TAPS)
GENERATOR_RULES = (
    Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/weight", dense),
    Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
    Rule(r"mapping\.w_avg", "mapping/w_avg"),
    Rule(r"synthesis\.b4\.const", "synthesis/b4/const", image),
    Rule(r"synthesis\.(b\d+)\.(conv[01]|torgb|skip)\.weight", r"synthesis/\1/\2/weight", convolution),
    Rule(r"synthesis\.(b\d+)\.(conv[01]|torgb)\.bias", r"synthesis/\1/\2/bias"),
    Rule(r"synthesis\.(b\d+)\.(conv[01])\.(noise_strength|noise_const)", r"synthesis/\1/\2/\3"),
    Rule(r"synthesis\.(b\d+)\.(conv[01]|torgb)\.affine\.weight", r"synthesis/\1/\2/affine/weight", dense),
    Rule(r"synthesis\.(b\d+)\.(conv[01]|torgb)\.affine\.bias", r"synthesis/\1/\2/affine/bias"),
    Rule(r"synthesis\.b\d+\.((conv0|skip)\.)?resample_filter", "synthesis/resample_filter", shared=True),
    # conv1 does not change the resolution: its filter is the default one whatever was configured, and never applied.
    Rule(r"synthesis\.b\d+\.conv1\.resample_filter", None, dropped=DEFAULT_FILTER),
)

DISCRIMINATOR_RULES = (
    Rule(r"mapping\.(embed|fc\d+)\.weight", r"mapping/\1/weight", dense),
    Rule(r"mapping\.(embed|fc\d+)\.bias", r"mapping/\1/bias"),
    Rule(r"(b\d+)\.(fromrgb|conv|conv[01]|skip)\.weight", r"\1/\2/weight", convolution),
    Rule(r"(b\d+)\.(fromrgb|conv|conv[01])\.bias", r"\1/\2/bias"),
    Rule(r"b4\.fc\.weight", "b4/fc/weight", dense_after_4x4),
    Rule(r"b4\.out\.weight", "b4/out/weight", dense),
    Rule(r"b4\.(fc|out)\.bias", r"b4/\1/bias"),
    Rule(r"b\d+\.((conv1|skip)\.)?resample_filter", "resample_filter", shared=True),
    # Layers that keep the resolution hold the default filter and never apply it.
    Rule(r"b\d+\.(fromrgb|conv0|conv)\.resample_filter", None, dropped=DEFAULT_FILTER),
)


class TorchNetwork(Network):
    """A StyleGAN2 network of a snapshot."""

    def rules(self) -> tuple[Rule, ...]:
        """Returns the table of its kind."""
        return GENERATOR_RULES if self.kind == "generator" else DISCRIMINATOR_RULES

    def arrays(self, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
        """Returns {our name: float32 array}; raises `ConversionError` with everything that is wrong."""
        arrays = super().arrays(allow_nonfinite=allow_nonfinite)
        name = "synthesis/resample_filter" if self.kind == "generator" else "resample_filter"
        wanted = normalised(self.config["resample_filter"])
        # Loose enough for a filter stored in half precision; another set of taps differs by far more.
        if not np.allclose(arrays[name], wanted, rtol=2e-3, atol=1e-6):
            taps = self.config["resample_filter"]
            raise ConversionError(f"the resampling filter does not have the taps {taps} that the modules name")
        return arrays


def read_network(root: Module, *, kind: str, file_size: int) -> Network:
    """Finds out what network a module tree is and checks every name and shape.

    Args:
      root: the `Generator` or `Discriminator` module.
      kind: `generator` or `discriminator`.
      file_size: bytes in the file: no network can hold more values than that.

    Returns:
      The network, its values not yet read.

    Raises:
      ConversionError: another kind of network, contradictions, or tensors that are missing, unexpected or misshapen.
    """
    modules = dict(walk(root))
    tensors = network_tensors(root)
    wanted = {"generator": "synthesis", "discriminator": "b4"}[kind]
    if wanted not in modules:
        raise ConversionError(f"a {root.class_name} without {wanted}: expected a StyleGAN2 {kind}")
    check_claims(tensors, file_size=file_size)
    describe, shapes = {
        "generator": (generator_config, generator_shapes),
        "discriminator": (discriminator_config, discriminator_shapes),
    }[kind]
    config = describe(modules, tensors)
    problems = check_shapes(tensors, shapes(config)) + check_constants(modules)
    if problems:
        raise ConversionError(*problems)
    return TorchNetwork("stylegan2", kind, config, tensors)


def generator_shapes(config: Mapping) -> dict[str, tuple[int, ...]]:
    """Returns every tensor that a generator of this configuration has in a file: {source name: shape}."""
    w_dim, widths, colours = config["w_dim"], config["widths"], config["image_channels"]
    filter_shape = normalised(config["resample_filter"]).shape
    default_shape = DEFAULT_FILTER.shape
    shapes = _mapping_shapes(config, w_dim)
    if config["w_avg_beta"] is not None:
        shapes["mapping.w_avg"] = (w_dim,)

    def modulated(name: str, inputs: int, outputs: int, size: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, size, size)
        shapes[f"{name}.bias"] = (outputs,)
        shapes[f"{name}.affine.weight"] = (inputs, w_dim)
        shapes[f"{name}.affine.bias"] = (inputs,)

    for index, width in enumerate(widths):
        resolution, below = 4 << index, widths[max(index - 1, 0)]
        block = f"synthesis.b{resolution}"
        shapes[f"{block}.resample_filter"] = filter_shape
        convolutions = {"conv1": (width, default_shape)}
        if index == 0:
            shapes[f"{block}.const"] = (width, 4, 4)
        else:
            convolutions["conv0"] = (below, filter_shape)
            if config["architecture"] == "resnet":
                shapes[f"{block}.skip.weight"] = (width, below, 1, 1)
                shapes[f"{block}.skip.resample_filter"] = filter_shape
        for name, (inputs, own_filter) in convolutions.items():
            modulated(f"{block}.{name}", inputs, width, 3)
            shapes[f"{block}.{name}.resample_filter"] = own_filter
            if config["use_noise"]:
                shapes[f"{block}.{name}.noise_strength"] = ()
                shapes[f"{block}.{name}.noise_const"] = (resolution, resolution)
        if config["architecture"] == "skip" or index == len(widths) - 1:
            modulated(f"{block}.torgb", width, colours, 1)
    return shapes


def discriminator_shapes(config: Mapping) -> dict[str, tuple[int, ...]]:
    """Returns every tensor that a discriminator of this configuration has in a file: {source name: shape}."""
    widths, colours = config["widths"], config["image_channels"]
    filter_shape = normalised(config["resample_filter"]).shape
    default_shape = DEFAULT_FILTER.shape
    conditional = config["c_dim"] > 0
    cmap_dim = config.get("cmap_dim") or widths[0]
    shapes = _mapping_shapes({**config, "z_dim": 0}, cmap_dim) if conditional else {}

    def convolve(name: str, inputs: int, outputs: int, size: int, own_filter: tuple, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, size, size)
        shapes[f"{name}.resample_filter"] = own_filter
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    for index, width in enumerate(widths):
        block = f"b{4 << index}"
        if config["architecture"] == "skip" or index == len(widths) - 1:
            convolve(f"{block}.fromrgb", colours, width, 1, default_shape)
        if index == 0:
            convolve("b4.conv", width + config["minibatch_channels"], width, 3, default_shape)
            continue
        shapes[f"{block}.resample_filter"] = filter_shape
        convolve(f"{block}.conv0", width, width, 3, default_shape)
        convolve(f"{block}.conv1", width, widths[index - 1], 3, filter_shape)
        if config["architecture"] == "resnet":
            convolve(f"{block}.skip", width, widths[index - 1], 1, filter_shape, bias=False)
    outputs = cmap_dim if conditional else 1
    shapes |= {"b4.fc.weight": (widths[0], widths[0] * 16), "b4.fc.bias": (widths[0],)}
    shapes |= {"b4.out.weight": (outputs, widths[0]), "b4.out.bias": (outputs,)}
    return shapes


def _mapping_shapes(config: Mapping, w_dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    width, count = config["z_dim"], config["mapping_layers"]
    if config["c_dim"]:
        embedded = config["embed_features"] or w_dim
        shapes |= {"mapping.embed.weight": (embedded, config["c_dim"]), "mapping.embed.bias": (embedded,)}
        width += embedded
    for index in range(count):
        features = w_dim if index == count - 1 else config["layer_features"] or w_dim
        shapes |= {f"mapping.fc{index}.weight": (features, width), f"mapping.fc{index}.bias": (features,)}
        width = features
    return shapes


def generator_arguments(config: Mapping) -> dict:
    """Returns the arguments of `training.networks.Generator` in stylegan2-ada-pytorch for our `GeneratorConfig`.

    Raises:
      ConversionError: no arguments give these widths.
    """
    mapping = _mapping_arguments(config) | {"w_avg_beta": config["w_avg_beta"]}
    own = {name: config[name] for name in ("architecture", "conv_clamp", "use_noise", "activation")}
    synthesis = _channel_arguments(config["widths"]) | own | {"resample_filter": list(config["resample_filter"])}
    latents = {name: config[name] for name in ("z_dim", "c_dim", "w_dim")}
    return latents | _image_arguments(config) | {"mapping_kwargs": mapping, "synthesis_kwargs": synthesis}


def discriminator_arguments(config: Mapping) -> dict:
    """Returns the arguments of `training.networks.Discriminator` there for our `DiscriminatorConfig`.

    Raises:
      ConversionError: no arguments give these widths.
    """
    block = {"activation": config["activation"], "resample_filter": list(config["resample_filter"])}
    epilogue = {
        "mbstd_group_size": config["minibatch_group_size"],
        "mbstd_num_channels": config["minibatch_channels"],
        "activation": config["epilogue_activation"],
    }
    own = {name: config[name] for name in ("c_dim", "architecture", "conv_clamp", "cmap_dim")}
    own |= _image_arguments(config) | _channel_arguments(config["widths"])
    mapping = _mapping_arguments(config) if config["c_dim"] else {}
    return own | {"block_kwargs": block, "mapping_kwargs": mapping, "epilogue_kwargs": epilogue}


def _image_arguments(config: Mapping) -> dict:
    return {"img_resolution": 2 << len(config["widths"]), "img_channels": config["image_channels"]}


def _mapping_arguments(config: Mapping) -> dict:
    own = {name: config[name] for name in ("embed_features", "layer_features")}
    named = {
        "num_layers": "mapping_layers",
        "activation": "mapping_activation",
        "lr_multiplier": "mapping_lr_multiplier",
    }
    return own | {theirs: config[ours] for theirs, ours in named.items()}


def _channel_arguments(widths: tuple[int, ...]) -> dict:
    sizes = [4 << index for index in range(len(widths))]  # widths are min(channel_base // size, channel_max)
    bounds = [(width * size, (width + 1) * size - 1) for width, size in zip(widths, sizes, strict=True)]
    return channel_arguments(widths, bounds)


def channel_arguments(widths: tuple[int, ...], bounds: Iterable[tuple[int, int]]) -> dict:
    """Returns `channel_base` and `channel_max` of a network with these widths, and that no block is in half precision.

    Args:
      widths: of all blocks or layers.
      bounds: the least and largest base that give each width; a width of `channel_max` has no largest one.

    Raises:
      ConversionError: no base gives these widths.
    """
    most = max(widths)
    low, high = 1, None
    for width, (least, largest) in zip(widths, bounds, strict=True):
        low = max(low, least)
        if width < most:
            high = largest if high is None else min(high, largest)
    if high is not None and high < low:
        raise ConversionError(
            f"widths {', '.join(map(str, widths))} are not what any channel_base and channel_max give in NVlabs' code, "
            "so it cannot build this network"
        )
    # People take round numbers, so the roundest is the likeliest.
    base = 1 << (low - 1).bit_length()
    if high is not None:
        base = next(b for k in range(high.bit_length(), -1, -1) if low <= (b := high >> k << k))
    return {"channel_base": base, "channel_max": most, "num_fp16_res": 0}
