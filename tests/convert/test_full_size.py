# SPDX-License-Identifier: Apache-2.0
"""The published sizes: every tensor that the original networks have, by name and shape, fills exactly one of ours."""

import gzip
import importlib
import json
import pathlib

import numpy as np
import pytest

import stylegan_jax as sg
from convert import rosinality
from convert.rules import assign
from convert.state_dict import LAYOUTS
from convert.torchfile import STORAGE_TYPES, Storage, Tensor
from stylegan_jax import parameters, stylegan3

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# Names and shapes that the original implementations give, in their names and layouts.
PUBLISHED = json.loads(gzip.decompress((GOLDEN / "full_size_specs.json.gz").read_bytes()))
# Resolution and channel_base of StyleGAN2's rows: the "paper" configurations of ADA halve it.
STYLEGAN2 = {
    "sg2_1024_config_f": (1024, 32768),
    "sg2_256_config_f": (256, 32768),
    "sg2_256_paper256": (256, 16384),
    "sg2_512_paper512": (512, 32768),
}
ROSINALITY = [name for name in PUBLISHED if name.startswith("rosinality")]
STYLEGAN3 = [name for name in PUBLISHED if name.startswith("sg3")]


def test_every_row_is_tested():
    assert sorted([*STYLEGAN2, *STYLEGAN3, *ROSINALITY]) == sorted(PUBLISHED)


def target(kind, config):
    """Returns {our name: shape} of a network, nothing of which is made."""
    family, name = kind.split(".")
    module = importlib.import_module(f"stylegan_jax.{family}")
    network, settings = getattr(module, name), getattr(module, f"{name}Config")
    return {name: tuple(array.shape) for name, array in parameters.abstract(network, settings(**config)).items()}


def filled(published, rules):
    """Returns {our name: shape} of what a table makes of tensors of these shapes."""
    found = {}
    for name, (rule, destination) in assign(published, rules).items():
        if destination is not None:
            shape = rule.transform(np.broadcast_to(np.float32(0), published[name])).shape
            assert found.setdefault(destination, shape) == shape
    return found


def check_nvlabs(kind, config, published):
    layout = LAYOUTS[kind.replace(".", " ").lower()]
    published = {name: tuple(shape) for name, shape in published.items()}
    assert layout.shapes(config) == published
    assert filled(published, layout.rules) == target(kind, config)


@pytest.mark.parametrize("name", STYLEGAN2)
def test_stylegan2(name):
    resolution, base = STYLEGAN2[name]
    widths = sg.channel_widths(resolution, channel_base=base)
    generator, discriminator = sg.GeneratorConfig(widths=widths), sg.DiscriminatorConfig(widths=widths)
    assert generator.num_ws == PUBLISHED[name]["num_ws"] and generator.resolution == resolution
    check_nvlabs("stylegan2.Generator", vars(generator), PUBLISHED[name]["G"])
    check_nvlabs("stylegan2.Discriminator", vars(discriminator), PUBLISHED[name]["D"])


@pytest.mark.parametrize("name", STYLEGAN3)
def test_stylegan3(name):
    _, kind, resolution, *rest = name.split("_")
    base, scale = (16384 if rest else 32768), (2 if kind == "r" else 1)
    widths = stylegan3.channel_widths(int(resolution), channel_base=base * scale, channel_max=512 * scale)
    kernel = dict(kernel=1, radial_filters=True) if kind == "r" else {}
    config = stylegan3.GeneratorConfig(widths=widths, resolution=int(resolution), **kernel)
    assert config.num_ws == PUBLISHED[name]["num_ws"]
    check_nvlabs("stylegan3.Generator", vars(config), PUBLISHED[name]["G"])


def shaped(shape):
    """Returns a tensor of this shape whose values take no room."""
    sizes = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    return Tensor(Storage(STORAGE_TYPES["torch.FloatStorage"], 0, memoryview(b"")), 0, tuple(shape), tuple(sizes))


@pytest.mark.parametrize("name", ROSINALITY)
@pytest.mark.parametrize("key", ["G_ema", "D"])
def test_rosinality(name, key):
    first, second = [k for k in PUBLISHED[name] if isinstance(PUBLISHED[name][k], dict)]
    published = PUBLISHED[name][first if key == "G_ema" else second]
    place = {"stylegan1": {"G_ema": "g_running", "D": "discriminator"}}.get(name.removeprefix("rosinality_"), {})
    tree = {place.get(key, "g_ema" if key == "G_ema" else "d"): {k: shaped(v) for k, v in published.items()}}
    step = 8 if name.endswith("stylegan1") else None
    network = rosinality.read_network(rosinality.recognise(tree), key, file_size=10**9, step=step)
    found = filled({k: tuple(v) for k, v in published.items()}, network.rules())
    expected = target(f"{network.family}.{network.kind.capitalize()}", network.config)
    assert found == {k: v for k, v in expected.items() if k not in network.generated}
    assert set(network.generated) <= set(expected)
