# SPDX-License-Identifier: Apache-2.0
"""What rosinality's networks hold: for each of the four kinds, the configuration and the table of its tensors.

Sizes come from the shapes of a few tensors; the table that follows from them names every tensor there must be.
StyleGAN2 has one form. StyleGAN1 networks have all blocks from 4 to (usually) 1024 pixels, of which training reached
some step; the up- and down-convolutions of the large blocks are stored in a layout of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from convert.errors import ConversionError, shown
from convert.nvlabs_config import normalised
from convert.rules import Entry, Transform, constant_input, convolution, dense, dense_after_4x4, noise_map, unchanged
from convert.torchfile import Tensor

TAPS = (1, 3, 3, 1)
FILTER = normalised(TAPS)
BLUR = normalised((1, 2, 1))
AVERAGE = "latent_avg"
W_AVG_BETA = 0.995  # of our own training, should it go on; the files know of no running mean of w
MOST_LAYERS = 64

Tensors = Mapping[str, Tensor]


class Description(NamedTuple):
    """A network: keyword arguments of our configuration class, its tensors, and our names of arrays it lacks."""

    config: dict
    entries: list[Entry]
    generated: list[str]


# Layouts.


def vector(array: np.ndarray) -> np.ndarray:
    """Turns [1, c, 1, 1] into [c]."""
    return array.reshape(-1)


def scalar(array: np.ndarray) -> np.ndarray:
    """Turns [1] into []."""
    return array.reshape(())


def modulated(weight: np.ndarray) -> np.ndarray:
    """Turns [1, out, in, kh, kw] into [kh, kw, in, out]."""
    return convolution(weight[0])


def transposed(weight: np.ndarray) -> np.ndarray:
    """Turns the [in, out, kh, kw] of a transposed convolution into [kh, kw, in, out]."""
    return weight.transpose(2, 3, 0, 1)


def flipped(weight: np.ndarray) -> np.ndarray:
    """Turns the [out, in, kh, kw] of a convolution into the [kh, kw, in, out] of the transposed one (both flipped)."""
    return convolution(weight)[::-1, ::-1]


def dense_4x4(weight: np.ndarray) -> np.ndarray:
    """Turns the [out, in, 4, 4] of a convolution of a whole 4x4 map into [4 * 4 * in, out]."""
    return dense_after_4x4(weight.reshape(len(weight), -1))


def without_gain(taps: np.ndarray) -> np.ndarray:
    """Turns a filter [t, t] with the gain 4 of an up-convolution into one of sum 1."""
    return taps / 4


# Sizes.


def _axis(tensors: Tensors, name: str, axis: int, dimensions: int) -> int:
    if name not in tensors:
        raise ConversionError(f"{name} is missing, which tells the architecture")
    shape = tensors[name].shape
    if len(shape) != dimensions or not 0 < shape[axis] < 2**31:
        raise ConversionError(f"{name} has shape {shown(shape)}, expected {dimensions} dimensions, none empty")
    return shape[axis]


def _count(tensors: Tensors, name: Callable[[int], str]) -> int:
    count = 0
    while name(count) in tensors:
        count += 1
        if count > MOST_LAYERS:
            raise ConversionError(f"{name(count)}: more layers of this kind than any known network has")
    return count


def _dense(source: str, destination: str, inputs: int, outputs: int, *, weight: str = "weight") -> list[Entry]:
    return [
        Entry(f"{source}.{weight}", (outputs, inputs), f"{destination}/weight", dense),
        Entry(f"{source}.bias", (outputs,), f"{destination}/bias"),
    ]


def _mapping(tensors: Tensors, name: Callable[[int], str], *, weight: str) -> tuple[dict, list[Entry]]:
    count, z_dim = _count(tensors, lambda i: f"{name(i)}.{weight}"), _axis(tensors, f"{name(0)}.{weight}", 1, 2)
    entries = [e for i in range(count) for e in _dense(name(i), f"mapping/fc{i}", z_dim, z_dim, weight=weight)]
    return {"z_dim": z_dim, "mapping_layers": count}, entries


# StyleGAN2.


def stylegan2_generator(tensors: Tensors) -> Description:
    """Returns what a StyleGAN2 generator is; `latent_avg` is the mean of w, noise maps are missing in old files."""
    config, entries = _mapping(tensors, lambda i: f"style.{i + 1}", weight="weight")
    blocks = _count(tensors, lambda i: f"to_rgbs.{i}.conv.weight")
    sources = ["input.input", *(f"convs.{2 * i}.conv.weight" for i in range(blocks))]
    widths = tuple(_axis(tensors, source, 1, 5 if i else 4) for i, source in enumerate(sources))
    if not blocks:
        raise ConversionError("to_rgbs.0.conv.weight is missing: expected a generator of 8 pixels or more")
    w_dim = config["z_dim"]
    colours = _axis(tensors, "to_rgb1.conv.weight", 1, 5)
    has_noise = any(name.startswith("noises.") for name in tensors)
    generated = [] if AVERAGE in tensors else ["mapping/w_avg"]
    if AVERAGE in tensors:
        entries.append(Entry(AVERAGE, (w_dim,), "mapping/w_avg"))

    def layer(source: str, destination: str, inputs: int, outputs: int, kernel: int) -> None:
        entries.append(
            Entry(f"{source}.weight", (1, outputs, inputs, kernel, kernel), f"{destination}/weight", modulated)
        )
        entries.extend(_dense(f"{source}.modulation", f"{destination}/affine", w_dim, inputs))

    def styled(source: str, destination: str, inputs: int, outputs: int, noise: int, size: int) -> None:
        layer(f"{source}.conv", destination, inputs, outputs, 3)
        entries.append(Entry(f"{source}.noise.weight", (1,), f"{destination}/noise_strength", scalar))
        entries.append(Entry(f"{source}.activate.bias", (outputs,), f"{destination}/bias"))
        stored = Entry(f"noises.noise_{noise}", (1, 1, size, size), f"{destination}/noise_const", noise_map)
        entries.append(stored) if has_noise else generated.append(stored.destination)

    def to_rgb(source: str, block: str, width: int) -> None:
        layer(f"{source}.conv", f"{block}/torgb", width, colours, 1)
        entries.append(Entry(f"{source}.bias", (1, colours, 1, 1), f"{block}/torgb/bias", vector))

    def resampling(source: str) -> None:
        entries.append(Entry(source, (4, 4), "synthesis/resample_filter", without_gain, True, 4 * FILTER))

    entries.append(Entry("input.input", (1, widths[0], 4, 4), "synthesis/b4/const", constant_input))
    styled("conv1", "synthesis/b4/conv1", widths[0], widths[0], 0, 4)
    to_rgb("to_rgb1", "synthesis/b4", widths[0])
    for i in range(blocks):
        size, block = 8 << i, f"synthesis/b{8 << i}"
        styled(f"convs.{2 * i}", f"{block}/conv0", widths[i], widths[i + 1], 2 * i + 1, size)
        resampling(f"convs.{2 * i}.conv.blur.kernel")
        styled(f"convs.{2 * i + 1}", f"{block}/conv1", widths[i + 1], widths[i + 1], 2 * i + 2, size)
        to_rgb(f"to_rgbs.{i}", block, widths[i + 1])
        resampling(f"to_rgbs.{i}.upsample.kernel")
    config |= {"w_dim": w_dim, "widths": widths, "image_channels": colours, "w_avg_beta": W_AVG_BETA}
    return Description(config | {"architecture": "skip", "resample_filter": TAPS}, entries, generated)


def stylegan2_discriminator(tensors: Tensors) -> Description:
    """Returns what a StyleGAN2 discriminator is: residual, minibatch deviation in groups of 4."""
    top, colours = (_axis(tensors, "convs.0.0.weight", axis, 4) for axis in (0, 1))
    blocks = _count(tensors, lambda i: f"convs.{i + 1}.conv1.0.weight")
    below = [_axis(tensors, f"convs.{i + 1}.conv2.1.weight", 0, 4) for i in range(blocks)]
    widths = tuple(reversed([top, *below]))
    entries: list[Entry] = []

    def convolve(source: str, destination: str, inputs: int, outputs: int, kernel: int, bias: str | None) -> None:
        entries.append(
            Entry(f"{source}.weight", (outputs, inputs, kernel, kernel), f"{destination}/weight", convolution)
        )
        if bias:
            entries.append(Entry(f"{bias}.bias", (outputs,), f"{destination}/bias"))

    def resampling(source: str) -> None:
        entries.append(Entry(source, (4, 4), "resample_filter", unchanged, True, FILTER))

    convolve("convs.0.0", f"b{4 << blocks}/fromrgb", colours, top, 1, "convs.0.1")
    for i in range(blocks):
        source, block = f"convs.{i + 1}", f"b{4 << (blocks - i)}"
        width, narrow = widths[blocks - i], widths[blocks - i - 1]
        convolve(f"{source}.conv1.0", f"{block}/conv0", width, width, 3, f"{source}.conv1.1")
        convolve(f"{source}.conv2.1", f"{block}/conv1", width, narrow, 3, f"{source}.conv2.2")
        convolve(f"{source}.skip.1", f"{block}/skip", width, narrow, 1, None)
        resampling(f"{source}.conv2.0.kernel")
        resampling(f"{source}.skip.0.kernel")
    convolve("final_conv.0", "b4/conv", widths[0] + 1, widths[0], 3, "final_conv.1")
    width = widths[0]
    entries.append(Entry("final_linear.0.weight", (width, 16 * width), "b4/fc/weight", dense_after_4x4))
    entries.append(Entry("final_linear.0.bias", (width,), "b4/fc/bias"))
    entries += _dense("final_linear.1", "b4/out", width, 1)
    config = {"widths": widths, "image_channels": colours, "architecture": "resnet", "resample_filter": TAPS}
    return Description(config | {"minibatch_group_size": 4, "minibatch_channels": 1}, entries, [])


# StyleGAN1. Its equalised layers keep what they scale under `weight_orig`.


def _blur(source: str, width: int) -> list[Entry]:
    # weight_flip is what the code base filters gradients with.
    return [
        Entry(f"{source}.{name}", (width, 1, 3, 3), None, constant=BLUR[None, None])
        for name in ("weight", "weight_flip")
    ]


def _equal(
    source: str, destination: str, shape: tuple[int, int, int, int], transform: Transform = convolution
) -> list[Entry]:
    return [
        Entry(f"{source}.conv.weight_orig", shape, f"{destination}/weight", transform),
        Entry(f"{source}.conv.bias", (shape[0],), f"{destination}/bias"),
    ]


def _trained_step(tensors: Tensors, biases: list[str], step: int | None) -> int:
    """Returns the last step that was trained; `biases` are those of the image layers, from 4 pixels up."""
    if step is None:
        # They start at zero, and none but those of the steps that were reached are ever used.
        used = [i for i, name in enumerate(biases) if name in tensors and tensors[name].read().any()]
        return used[-1] if used else len(biases) - 1
    if not 0 <= step < len(biases):
        raise ConversionError(
            f"step must be from 0 to {len(biases) - 1} ({2 << len(biases)} pixels), got {shown(step)}"
        )
    return step


def _up_to(entries: list[Entry], resolution: int) -> list[Entry]:
    """Returns the entries with those of larger blocks dropped: they were never trained."""
    place = re.compile(r"(?:synthesis/)?b(\d+)/")

    def kept(entry: Entry) -> Entry:
        found = place.match(entry.destination or "")
        return dataclasses.replace(entry, destination=None) if found and int(found[1]) > resolution else entry

    return [kept(entry) for entry in entries]


def stylegan1_generator(tensors: Tensors, *, step: int | None = None) -> Description:
    """Returns what a StyleGAN1 generator is, up to the block of `step` (None: the last one that was trained)."""
    config, entries = _mapping(tensors, lambda i: f"style.{2 * i + 1}.linear", weight="weight_orig")
    w_dim, root = config["z_dim"], "generator.progression"
    count = _count(tensors, lambda i: f"{root}.{i}.noise1.weight_orig")
    widths = tuple(_axis(tensors, f"{root}.{i}.noise1.weight_orig", 1, 4) for i in range(count))
    colours = _axis(tensors, "generator.to_rgb.0.conv.weight_orig", 0, 4)
    fused = [i for i in range(count) if f"{root}.{i}.conv1.0.weight" in tensors]
    if fused and fused != list(range(fused[0], count)):
        raise ConversionError(f"blocks {fused} of {count} are fused; expected all from some block on")
    last = _trained_step(tensors, [f"generator.to_rgb.{i}.conv.bias" for i in range(count)], step)
    for i, width in enumerate(widths):
        source, block = f"{root}.{i}", f"synthesis/b{4 << i}"
        if i == 0:
            entries.append(Entry(f"{source}.conv1.input", (1, width, 4, 4), f"{block}/const", constant_input))
        elif i in fused:
            shape = (widths[i - 1], width, 3, 3)
            entries.append(Entry(f"{source}.conv1.0.weight", shape, f"{block}/conv0/weight", transposed))
            entries.append(Entry(f"{source}.conv1.0.bias", (width,), f"{block}/conv0/bias"))
            entries += _blur(f"{source}.conv1.1", width)
        else:
            entries += _equal(f"{source}.conv1.1", f"{block}/conv0", (width, widths[i - 1], 3, 3), flipped)
            entries += _blur(f"{source}.conv1.2", width)
        entries += _equal(f"{source}.conv2", f"{block}/conv1", (width, width, 3, 3))
        for j in (0, 1):
            noise = Entry(
                f"{source}.noise{j + 1}.weight_orig", (1, width, 1, 1), f"{block}/style{j}/noise_strength", vector
            )
            entries.append(noise)
            style = f"{source}.adain{j + 1}.style.linear"
            entries += _dense(style, f"{block}/style{j}/affine", w_dim, 2 * width, weight="weight_orig")
        entries += _equal(f"generator.to_rgb.{i}", f"{block}/torgb", (colours, width, 1, 1))
    config |= {"widths": widths[: last + 1], "image_channels": colours}
    config["quarter_from"] = 4 << (fused[0] if fused else count)
    generated = ["mapping/w_avg", *(f"synthesis/b{4 << i}/noise_const" for i in range(last + 1))]
    return Description(config, _up_to(entries, 4 << last), generated)


def stylegan1_discriminator(tensors: Tensors, *, step: int | None = None) -> Description:
    """Returns what a StyleGAN1 discriminator is, up to the block of `step` (None: the last one that was trained)."""
    count = _count(tensors, lambda i: f"progression.{i}.conv1.0.conv.weight_orig")
    activated = "from_rgb.0.0.conv.weight_orig" in tensors
    sources = [f"from_rgb.{count - 1 - i}{'.0' if activated else ''}" for i in range(count)]  # from 4 pixels up
    widths = tuple(_axis(tensors, f"{source}.conv.weight_orig", 0, 4) for source in sources)
    colours = _axis(tensors, f"{sources[0]}.conv.weight_orig", 1, 4)
    last = _trained_step(tensors, [f"{source}.conv.bias" for source in sources], step)
    entries: list[Entry] = []
    for i, width in enumerate(widths):
        source, block = f"progression.{count - 1 - i}", f"b{4 << i}"
        entries += _equal(sources[i], f"{block}/fromrgb", (width, colours, 1, 1))
        if i == 0:
            entries += _equal(f"{source}.conv1.0", "b4/conv", (width, width + 1, 3, 3))
            entries += _equal(f"{source}.conv2.0", "b4/fc", (width, width, 4, 4), dense_4x4)
            continue
        narrow = widths[i - 1]
        entries += _equal(f"{source}.conv1.0", f"{block}/conv0", (narrow, width, 3, 3))
        entries += _blur(f"{source}.conv2.0", narrow)
        if f"{source}.conv2.1.weight" in tensors:  # fused; computes the same
            shape = (narrow, narrow, 3, 3)
            entries.append(Entry(f"{source}.conv2.1.weight", shape, f"{block}/conv1/weight", convolution))
            entries.append(Entry(f"{source}.conv2.1.bias", (narrow,), f"{block}/conv1/bias"))
        else:
            entries += _equal(f"{source}.conv2.1", f"{block}/conv1", (narrow, narrow, 3, 3))
    entries += _dense("linear.linear", "b4/out", widths[0], 1, weight="weight_orig")
    config = {"widths": widths[: last + 1], "image_channels": colours, "from_rgb_activation": activated}
    return Description(config, _up_to(entries, 4 << last), [])
