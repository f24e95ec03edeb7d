# SPDX-License-Identifier: Apache-2.0
"""What determines a hierarchical inpainter beside its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import stylegan_jax as sg
from stylegan_jax.joint import Features

LARGEST = 256  # pixels that the encoder sees; larger images are averaged down, as for pSp
CONTEXTS = ("previous", "all", "none")
STAGES = ("single", "two", "latents")
# The rows of the paper's table 2 beside its own method, by the settings in which they differ from it.
ABLATION = {
    "divinversion_latents": {"stages": "latents", "context": "none"},
    "hierarchical_latents": {"stages": "latents"},
    "divinversion": {"stages": "two", "context": "none"},
    "hierarchical_two": {"stages": "two"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalConfig:
    """Settings of the networks; `for_generator` fills in those that follow from the generator.

    What the paper leaves open is marked "open", with why its default is what it is.

    Attributes:
        resolution, image_channels, num_ws, w_dim: of the generator.
        entering: layer whose incoming feature map is replaced. Open: the paper names the resolution only; between the
            two convolutions of that block, as the same group's StyleRes does.
        feature_channels: of that map.
        size: pixels that the encoder sees, the generator's up to 256.
        backbone: "psp" (IR-SE units and a feature pyramid, as published) or "residual" (blocks of StyleGAN2's
            discriminator: without stored moments, so that it trains from nothing).
        widths: channels of its stages: of "psp" at 1/2, 1/4, 1/8 and 1/16 of `size`, of "residual" at 1/16, 1/8, 1/4,
            1/2 and all of it.
        depths, stem, reduction: of "psp", see `stylegan_jax.features.irse.IrseConfig`.
        heads: "convolutional" (pSp's, one for every style, reading the level of its resolution) or "dense" (two dense
            layers behind the coarsest map, for small networks).
        head_width: channels in heads. Open: 28 heads of 512 or 14 wider ones; here one head of pSp's width for each
            style, whose last layer gives both codes.
        code_dim: length of each of the two codes of a style; published: w_dim.
        context: which earlier output styles the mixing network of a style reads: "previous", "all" or "none". Open:
            the text says "the styles determined thus far", its numbers allow one; "none" is DivInversion's parallel
            mixing.
        hidden: width of the mixing networks; published: w_dim.
        start: what output styles are counted from: "mean", the mean of W (open; pSp does so), or "encoder", what the
            encoder in the generator's folder says of the masked image, a warm start for small budgets that the paper
            does not have.
        stages: "single" (published), "two" (DivInversion: a second encoder reads the first result), or "latents" (no
            feature map is replaced: the first stage alone).
        skip_widths: channels of the skip encoder at the replaced map's resolution, a half and a quarter of it.
        skip_from: "generator": what the skip encoder adds to the map that it replaces, which a new network leaves as it
            is; "zero": the whole map. Open; both can say the same.
        second_widths: channels of the second encoder at 1/4, 1/2 and all of `size`.
        noise: what the generator's noise inputs get, "const" or "none". Open.
    """

    resolution: int
    image_channels: int = 3
    num_ws: int
    w_dim: int
    entering: str
    feature_channels: int
    size: int
    backbone: str = "psp"
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    stem: int = 64
    reduction: int = 16
    heads: str = "convolutional"
    head_width: int = 512
    code_dim: int = 512
    context: str = "previous"
    hidden: int = 512
    start: str = "mean"
    stages: str = "single"
    skip_widths: tuple[int, ...] = (512, 512, 512)
    skip_from: str = "generator"
    second_widths: tuple[int, ...] = (128, 64, 32)
    noise: str = "const"

    def __post_init__(self):
        named = {
            "backbone": ("psp", "residual"),
            "heads": ("convolutional", "dense"),
            "context": CONTEXTS,
            "start": ("mean", "encoder"),
            "stages": STAGES,
            "skip_from": ("generator", "zero"),
            "noise": ("const", "none"),
        }
        for name, known in named.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        counts = {"widths": 4 if self.backbone == "psp" else 5, "skip_widths": 3, "second_widths": 3}
        for name, count in counts.items():
            given = getattr(self, name)
            if len(given) != count or min(given) < 1:
                raise ValueError(f"{name} must be {count} positive numbers, got {given}")
        if self.size < 16 or self.resolution % self.size:
            raise ValueError(f"size must be from 16 on and divide {self.resolution}, got {self.size}")

    @classmethod
    def for_generator(cls, config: Any, options: Mapping[str, Any]) -> "HierarchicalConfig":
        """Returns the settings for a StyleGAN2 generator of settings `config`, with `options` of this class by name.

        Widths that follow from w_dim are those published unless `options` give them, above 0.

        Raises:
            ValueError: for another family, labels, or options that make no sense.
        """
        if not isinstance(config, sg.GeneratorConfig) or config.c_dim:
            raise ValueError("a hierarchical inpainter is made for a StyleGAN2 generator without labels")
        size = min(config.resolution, LARGEST)
        tap = size // 4
        if tap < 4:
            raise ValueError(f"the generator must make images of 16 px or more, got {config.resolution}")
        follows = {"head_width": config.w_dim, "code_dim": config.w_dim, "hidden": config.w_dim}
        return cls(
            resolution=config.resolution,
            image_channels=config.image_channels,
            num_ws=config.num_ws,
            w_dim=config.w_dim,
            entering=f"b{tap}/conv1",
            feature_channels=config.widths[tap.bit_length() - 3],
            size=size,
            **(follows | {name: value for name, value in options.items() if value or name not in follows}),
        )

    @property
    def part(self) -> Features:
        """The replaced map as a part of a latent space."""
        return Features(self.entering)
