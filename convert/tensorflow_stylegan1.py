# SPDX-License-Identifier: Apache-2.0
"""StyleGAN1 in pickles of NVIDIA's TensorFlow code: configuration and tables for `stylegan_jax.stylegan1_tensorflow`.

Sizes come from the shapes of the variables, what shapes do not tell from the arguments, as in `convert.tensorflow`.
Networks with the defaults of the published ones are taken: scaled weights, styles with instance normalisation, noise,
a constant input, leaky ReLUs, the filter [1, 2, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

from convert.errors import ConversionError, shown
from convert.rules import Entry, Transform, constant_input, noise_map, unchanged
from convert.tensorflow_config import (
    Arguments,
    Variables,
    agree,
    axis,
    block_sizes,
    count_layers,
    generator_sizes,
    minibatch,
)
from convert.tensorflow_files import TensorflowNetwork, dense_4x4, flipped

# D_paper of the same code base (progressive growing) has the same variables, but does not blur.
DISCRIMINATOR = "D_basic"
BLUR = [1, 2, 1]
FUSED_FROM = 128  # pixels of an up-convolution from which one operation does it, where that is left to the code
NEVER = 1 << 62
NOTES = {
    "verification": "follows what was published of the architecture; no output of NVIDIA's own code was at hand to "
    "compare with"
}


def describe(
    network: TensorflowNetwork, variables: Variables, *, kind: str
) -> tuple[dict, dict[str, str], list[Entry]]:
    """Returns the arguments of our configuration of that kind, what provenance should say, and the table.

    Raises:
      ConversionError: arguments that are unknown, contradict the variables, or ask for something else than this
        architecture.
    """
    arguments = Arguments(network)
    arguments.choice("nonlinearity", "lrelu")
    arguments.choice("use_wscale", True)
    arguments.take("blur_filter", BLUR, lambda taps: isinstance(taps, list | tuple) and list(taps) == BLUR, str(BLUR))
    fused = arguments.choice("fused_scale", "auto", True, False)
    arguments.ignore("dtype")
    if kind == "discriminator":
        config, assumed = discriminator_config(network, variables, arguments)
        return config, NOTES | assumed, discriminator_table(config, variables)
    config = generator_config(variables, arguments)
    fused_from = FUSED_FROM if fused == "auto" else 0 if fused else NEVER
    return config, dict(NOTES), generator_table(config, variables, fused_from=fused_from)


def generator_config(variables: Variables, arguments: Arguments) -> dict:
    """Returns the arguments of our `GeneratorConfig`."""
    sizes, first = generator_sizes(variables)
    label, layers = "mapping/LabelConcat/weight", count_layers(variables, "mapping/Dense")
    c_dim, embedded = (axis(variables, label, i, 2) if label in variables else 0 for i in (0, 1))
    w_dim = axis(variables, "synthesis/4x4/Const/StyleMod/weight", 0, 2)
    inputs, features = (axis(variables, "mapping/Dense0/weight", i, 2) for i in (0, 1))
    if embedded >= inputs:
        raise ConversionError(f"{label} is as wide as {embedded}, but mapping/Dense0/weight takes {inputs} in all")
    config = {
        "z_dim": inputs - embedded,
        "c_dim": c_dim,
        "w_dim": w_dim,
        "mapping_layers": layers,
        "layer_features": features if layers > 1 and features != w_dim else None,
        "mapping_lr_multiplier": arguments.number("mapping_lrmul", 0.01, 1e-9, 1e6, optional=False),
        "widths": (first, *(axis(variables, f"synthesis/{r}x{r}/Conv1/weight", 3, 4) for r in sizes)),
        "image_channels": axis(variables, "synthesis/ToRGB_lod0/weight", 3, 4),
    }
    agree(arguments, config)
    arguments.agrees("latent_size", config["z_dim"], default=512)
    arguments.agrees("dlatent_size", w_dim, default=512)
    arguments.agrees("mapping_layers", layers, default=8)
    if layers > 1:
        arguments.agrees("mapping_fmaps", features)
    arguments.ignore("mapping_fmaps")
    arguments.choice("mapping_nonlinearity", "lrelu")
    for name, value in (("normalize_latents", True), ("use_styles", True), ("const_input_layer", True)):
        arguments.choice(name, value)
    for name, value in (("use_noise", True), ("use_pixel_norm", False), ("use_instance_norm", True)):
        arguments.choice(name, value)
    arguments.ignore("dlatent_avg_beta")  # how fast the mean of w moved
    arguments.finish()
    return config


def discriminator_config(
    network: TensorflowNetwork, variables: Variables, arguments: Arguments
) -> tuple[dict, dict[str, str]]:
    """Returns the arguments of our `DiscriminatorConfig`, and in words what was assumed of them."""
    if network.function != DISCRIMINATOR:
        raise ConversionError(
            f"not supported: the discriminator was built by {shown(network.function)}; those built by {DISCRIMINATOR} "
            "can be converted"
        )
    sizes, first = block_sizes(variables, "{0}x{0}/Conv0/weight"), axis(variables, "4x4/Conv/weight", 3, 4)
    channels = axis(variables, "4x4/Conv/weight", 2, 4) - first
    features, outputs = (axis(variables, "4x4/Dense1/weight", i, 2) for i in (0, 1))
    group, assumed = minibatch(arguments, network, channels)
    # One label has one output, as none has.
    labels = arguments.take("label_size", 0, lambda value: type(value) is int, "a number")
    labelled = outputs > 1 or labels == 1
    config = {
        "c_dim": outputs if labelled else 0,
        "widths": (first, *(axis(variables, f"{r}x{r}/Conv0/weight", 3, 4) for r in sizes)),
        "image_channels": axis(variables, "FromRGB_lod0/weight", 2, 4),
        "dense_features": features if features != first else None,
        "minibatch_group_size": group,
        "minibatch_channels": channels,
    }
    agree(arguments, config, resolution=32, channels=1)
    arguments.finish()
    return config, assumed


def check_grown(variables: Variables) -> None:
    """Raises `ConversionError` unless the network was saved at the end of growing, when its level of detail was 0.

    Before, its images were mixed with those of a smaller network inside it. Shapes must have been checked.
    """
    # That of the synthesis network is set from the one outside whenever the generator runs.
    name = next((name for name in ("lod", "synthesis/lod") if name in variables), None)
    value = 0.0 if name is None else float(variables[name].read())
    if not value <= 0:
        raise ConversionError(
            f"{name} is {value:g}: saved before the network had grown to its full size, which must be 0; later files "
            "of the same training can be converted"
        )


# Tables. What is dropped: the image layers of smaller sizes, which a network that has grown does not read, and the
# level of detail, which `check_grown` has seen to be 0.


def _layer(source: str, destination: str, shape: tuple[int, ...], transform: Transform = unchanged) -> list[Entry]:
    return [
        Entry(f"{source}/weight", shape, f"{destination}/weight", transform),
        Entry(f"{source}/bias", shape[-1:], f"{destination}/bias"),
    ]


def _smaller_images(variables: Variables, source: str, shapes: list[tuple[int, ...]]) -> list[Entry]:
    # A network that was trained at one size only has none.
    if f"{source}1/weight" not in variables:
        return []
    found = []
    for level, shape in enumerate(shapes, start=1):
        found += [
            Entry(f"{source}{level}/weight", shape, None),
            Entry(f"{source}{level}/bias", shape[-1:], None),
        ]
    return found


def generator_table(config: Mapping, variables: Variables, *, fused_from: int) -> list[Entry]:
    """Returns every variable that a generator of this configuration has; what is optional is looked up.

    Up-convolutions of at least `fused_from` pixels are transposed convolutions with the kernel as it is stored, smaller
    ones are convolutions of the doubled image; ours take all kernels as transposed convolutions do.
    """
    z_dim, w_dim, widths, colours = config["z_dim"], config["w_dim"], config["widths"], config["image_channels"]
    entries = [Entry(name, (), None) for name in ("lod", "synthesis/lod") if name in variables]
    entries.append(Entry("dlatent_avg", (w_dim,), "mapping/w_avg"))
    width = z_dim
    if config["c_dim"]:
        entries.append(Entry("mapping/LabelConcat/weight", (config["c_dim"], z_dim), "mapping/embed"))
        width += z_dim
    for index in range(config["mapping_layers"]):
        last = index == config["mapping_layers"] - 1
        features = w_dim if last else config["layer_features"] or w_dim
        entries += _layer(f"mapping/Dense{index}", f"mapping/fc{index}", (width, features))
        width = features

    def style(source: str, destination: str, width: int, number: int) -> None:
        size = 4 << number // 2
        entries.append(Entry(f"{source}/Noise/weight", (width,), f"{destination}/noise_strength"))
        entries.append(Entry(f"synthesis/noise{number}", (1, 1, size, size), f"{destination}/noise_const", noise_map))
        entries.append(Entry(f"{source}/bias", (width,), f"{destination}/bias"))
        entries.extend(_layer(f"{source}/StyleMod", f"{destination}/affine", (w_dim, 2 * width)))

    for index, width in enumerate(widths):
        size, below = 4 << index, widths[max(index - 1, 0)]
        source, block = f"synthesis/{size}x{size}", f"synthesis/b{size}"
        first, second = ("Conv0_up", "Conv1") if index else ("Const", "Conv")
        if index:
            transform = unchanged if size >= fused_from else flipped
            entries.append(Entry(f"{source}/{first}/weight", (3, 3, below, width), f"{block}/conv0/weight", transform))
        else:
            entries.append(Entry(f"{source}/{first}/const", (1, width, 4, 4), f"{block}/const", constant_input))
        style(f"{source}/{first}", f"{block}/style0", width, 2 * index)
        entries.append(Entry(f"{source}/{second}/weight", (3, 3, width, width), f"{block}/conv1/weight"))
        style(f"{source}/{second}", f"{block}/style1", width, 2 * index + 1)
    last = f"synthesis/b{2 << len(widths)}"
    entries += _layer("synthesis/ToRGB_lod0", f"{last}/torgb", (1, 1, widths[-1], colours))
    smaller = [(1, 1, width, colours) for width in widths[-2::-1]]
    return entries + _smaller_images(variables, "synthesis/ToRGB_lod", smaller)


def discriminator_table(config: Mapping, variables: Variables) -> list[Entry]:
    """Returns every variable that a discriminator of this configuration has; what is optional is looked up."""
    widths, colours = config["widths"], config["image_channels"]
    features = config["dense_features"] or widths[0]
    entries = [Entry("lod", (), None)] if "lod" in variables else []
    entries += _layer("FromRGB_lod0", "fromrgb", (1, 1, colours, widths[-1]))
    entries += _smaller_images(variables, "FromRGB_lod", [(1, 1, colours, width) for width in widths[-2::-1]])
    for index, width in enumerate(widths[1:], start=1):
        source, block = f"{4 << index}x{4 << index}", f"b{4 << index}"
        entries += _layer(f"{source}/Conv0", f"{block}/conv0", (3, 3, width, width))
        entries += _layer(f"{source}/Conv1_down", f"{block}/conv1", (3, 3, width, widths[index - 1]))
    entries += _layer("4x4/Conv", "b4/conv", (3, 3, widths[0] + config["minibatch_channels"], widths[0]))
    entries += _layer("4x4/Dense0", "b4/fc", (16 * widths[0], features), dense_4x4)
    return entries + _layer("4x4/Dense1", "b4/out", (features, max(config["c_dim"], 1)))
