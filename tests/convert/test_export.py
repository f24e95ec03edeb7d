# SPDX-License-Identifier: Apache-2.0
"""Exporting: what was converted comes back bit for bit, under NVlabs' names, for readers that are not ours."""

import dataclasses
import json
import pathlib
import types

import numpy as np
import pytest
import safetensors.numpy

import convert
import stylegan_jax
from convert import nvlabs, stylegan3
from convert.rules import (
    Rule,
    constant_input,
    convolution,
    dense,
    dense_after_4x4,
    image,
    inverse,
    noise_map,
    restore,
    transfer,
    unchanged,
)
from convert.safetensors_file import write_safetensors
from convert.snapshot import network_tensors, read_snapshot
from convert.source import read_source
from convert.state_dict import LAYOUTS
from stylegan_jax import stylegan2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SNAPSHOTS = sorted(path.stem for path in GOLDEN.glob("sg[23]_*.pkl"))
NETWORKS = {"generator": "G_ema", "discriminator": "D"}


def read_back(path):
    """Returns the tensors of a safetensors file by another reader, and its metadata."""
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    return safetensors.numpy.load_file(path), metadata


@pytest.mark.parametrize(
    "transform", [unchanged, dense, convolution, image, dense_after_4x4, noise_map, constant_input]
)
def test_every_layout_has_its_inverse(transform):
    """Every change of layout is undone, with all axes of different lengths."""
    shapes = {dense: (5, 3), convolution: (5, 4, 3, 2), image: (5, 3, 2), dense_after_4x4: (5, 48)}
    shapes |= {noise_map: (1, 1, 3, 2), constant_input: (1, 5, 3, 2), unchanged: (4, 3)}
    array = np.arange(np.prod(shapes[transform])).reshape(shapes[transform])
    np.testing.assert_array_equal(inverse(transform)(transform(array)), array)


def originals(name, source):
    """Returns every tensor of a network in a snapshot, {name: array}, and the arguments that built it."""
    module = read_snapshot(GOLDEN / f"{name}.pkl").networks[source]
    return {key: tensor.read() for key, tensor in network_tensors(module).items()}, module.state["_init_kwargs"]


def assert_same(found, original):
    """Says that names, shapes and bits are equal."""
    assert set(found) == set(original)
    for key, array in original.items():
        assert found[key].dtype == np.float32 and found[key].shape == array.shape, key
        assert found[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_every_table_reads_backwards(name):
    """Every tensor of every network comes back from the arrays read, and the arguments are those that built it."""
    found = read_source(GOLDEN / f"{name}.pkl")
    for source in found.present:
        network = found.read(source, None)
        layout = LAYOUTS[f"{network.family} {network.kind}"]
        configs = getattr(stylegan_jax, network.family)
        config_class = getattr(configs, f"{network.kind.capitalize()}Config")
        config = dataclasses.asdict(config_class(**network.config))
        original, arguments = originals(name, source)
        assert_same(dict(restore(network.arrays(), layout.shapes(config), layout.rules)), original)
        assert_contains(layout.arguments(config), arguments)


@pytest.mark.parametrize("name", ["sg2_odd", "sg3_r"])
def test_the_original_comes_back(name, tmp_path):
    """Converted and exported, every tensor of both networks equals the snapshot's, and the file says what it is."""
    convert.convert(GOLDEN / f"{name}.pkl", tmp_path / "model")
    for network, source in NETWORKS.items():
        file = tmp_path / f"{source}.safetensors"
        written = convert.export(tmp_path / "model", file, network=network)
        original, arguments = originals(name, source)
        found, metadata = read_back(file)
        assert_same(found, original)
        assert written.values == sum(array.size for array in original.values())
        assert metadata["format"] == "pt" and json.loads(metadata["provenance"])["networks"] == ["G_ema", "D"]
        assert metadata["class"] == written.class_name and "non-commercial" in metadata["licence"]
        assert_contains(json.loads(metadata["init_kwargs"]), arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["D.safetensors", "G_ema.safetensors", "model"]


# Arguments that change neither tensors nor, in float32, what is computed from them at the end of training.
NOT_KEPT = ("num_fp16_res", "magnitude_ema_beta", "freeze_layers", "fp16_channels_last")


def assert_contains(found, expected, place=""):
    """Says that every constructor argument `expected` that matters is in `found` with the same value."""
    flat = {**found.get("synthesis_kwargs", {}), **found}
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_contains(flat if key == "synthesis_kwargs" else found[key], value, f"{place}{key}.")
        elif key not in NOT_KEPT:
            value = list(value) if isinstance(value, tuple) else value
            assert flat[key] == value, f"{place}{key}"


@pytest.mark.parametrize("name", ["tf_sg2_config_f.pkl", "ros2_train_zip.pt"])
def test_networks_of_other_code_are_expressible(name, tmp_path):
    """What came from TensorFlow or rosinality goes out in NVlabs' names, and their converter takes it back the same."""
    convert.convert(GOLDEN / name, tmp_path / "model")
    model = stylegan_jax.load(tmp_path / "model")
    for network in NETWORKS:
        convert.export(tmp_path / "model", tmp_path / network, network=network)
        found, _ = read_back(tmp_path / network)
        tensors = {key: types.SimpleNamespace(read=lambda a=array: a) for key, array in found.items()}
        rules = nvlabs.GENERATOR_RULES if network == "generator" else nvlabs.DISCRIMINATOR_RULES
        ours = stylegan_jax.parameters.to_arrays(getattr(model, network))
        back = transfer(tensors, rules)
        assert set(back) == set(ours)
        for key, array in ours.items():
            np.testing.assert_array_equal(back[key], array, err_msg=key)


def test_published_widths_give_published_arguments():
    """The channel arguments found for NVIDIA's own widths are NVIDIA's, for every resolution where they show."""
    for resolution in (64, 256, 1024):
        for base in (16384, 32768):
            config = dataclasses.asdict(
                stylegan2.GeneratorConfig(widths=stylegan2.channel_widths(resolution, channel_base=base))
            )
            found = nvlabs.generator_arguments(config)["synthesis_kwargs"]
            assert stylegan2.channel_widths(resolution, channel_base=found["channel_base"]) == config["widths"]
            assert (found["channel_base"], found["channel_max"]) == (base, 512) or resolution == 64
        for scale in (1, 2):
            widths = stylegan_jax.stylegan3.channel_widths(
                resolution, channel_base=32768 * scale, channel_max=512 * scale
            )
            config = stylegan_jax.stylegan3.GeneratorConfig(widths=widths, resolution=resolution)
            found = stylegan3.generator_arguments(dataclasses.asdict(config))
            options = {key: found[key] for key in ("channel_base", "channel_max")}
            assert stylegan_jax.stylegan3.channel_widths(resolution, **options) == widths
            assert options == {"channel_base": 32768 * scale, "channel_max": 512 * scale} or resolution == 64
    odd = dataclasses.asdict(stylegan2.GeneratorConfig(widths=(16, 32, 8)))
    with pytest.raises(convert.ConversionError, match="widths 16, 32, 8 are not"):
        nvlabs.generator_arguments(odd)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The path of a checkpoint of 8 pixels."""
    path = tmp_path_factory.mktemp("tiny") / "model"
    convert.convert(GOLDEN / "bad" / "ok_tiny.pkl", path)
    return str(path)


def test_the_command_exports(tiny, tmp_path, run_commands):
    """One file for each network; what is there stays unless it is such a file and --overwrite is given."""
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    commands = [
        ["export", tiny, "out/G.safetensors"],
        ["export", tiny, "out/G.safetensors"],
        ["export", tiny, "out/G.safetensors", "--overwrite", "--network=discriminator"],
        ["export", tiny, "photo.jpg", "--overwrite"],
        ["export", tiny, "H.safetensors", "--network=G_ema"],
        [str(GOLDEN / "bad" / "ok_tiny.pkl"), "elsewhere", "--network=generator"],
    ]
    done = run_commands("convert", commands, tmp_path)
    assert [code for code, _, _ in done] == [0, 1, 0, 1, 1, 1]
    assert done[0][1].startswith(f"out/G.safetensors: generator of {tiny}, ")
    assert "training.networks.Discriminator" in done[2][1]
    reasons = ["", "exists already", "", "is no safetensors file", "generator or discriminator, got 'G_ema'"]
    reasons += ["G_ema or G, got 'generator'"]
    for reason, (_, out, error) in zip(reasons, done, strict=True):
        assert reason in error and bool(out) != bool(error) and error.count("\n") == bool(error), error
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photo.jpg"]
    tensors, metadata = read_back(tmp_path / "out" / "G.safetensors")
    assert "b4.fc.weight" in tensors and metadata["network"] == "discriminator"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["G.safetensors"]


def test_what_has_no_place_there_is_refused(tiny, tmp_path):
    """StyleGAN1, networks and checkpoints that do not exist, places that cannot be written: each says so."""
    stylegan1 = tmp_path / "stylegan1"
    convert.convert(GOLDEN / "ros1_train_step6.model", stylegan1, step=1, discriminator=False)
    (tmp_path / "file").write_text("a file")
    cases = {
        "a stylegan1 generator has no place in NVlabs' torch modules": (stylegan1, "S.safetensors", "generator"),
        "holds no discriminator": (stylegan1, "S.safetensors", "discriminator"),
        "nothing does not exist": (tmp_path / "nothing", "N.safetensors", "generator"),
        "cannot be written": (tiny, "file/G.safetensors", "generator"),
        "network must be": (tiny, "G.safetensors", "G"),
    }
    for reason, (checkpoint, file, network) in cases.items():
        with pytest.raises(convert.ConversionError, match=reason):
            convert.export(checkpoint, tmp_path / file, network=network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "stylegan1"]


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    """Other readers take scalars, empty arrays and text; a tensor that fails on the way leaves nothing behind."""
    arrays = {"a.scalar": np.float32(3), "ä": np.arange(6, dtype=np.float32).reshape(2, 3).T, "none": np.zeros((0, 2))}
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    write_safetensors(tmp_path / "good", arrays.items(), shapes=shapes, metadata={"format": "pt", "q": '"\n'})
    found, metadata = read_back(tmp_path / "good")
    assert metadata == {"format": "pt", "q": '"\n'} and set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    content = (tmp_path / "good").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and len(content) == 8 + length + 4 * 7

    def failing():
        yield "a.scalar", np.float32(4)
        raise convert.ConversionError("cannot be read")

    for options in (dict(), dict(overwrite=True)):
        with pytest.raises(convert.ConversionError):
            write_safetensors(tmp_path / "good", failing(), shapes=shapes, metadata={}, **options)
    assert (tmp_path / "good").read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_a_table_read_backwards_is_strict():
    """Names without a rule, without values, without a place, and shapes that differ are all found."""
    rules = [Rule(r"(fc\d)\.weight", r"\1/weight", dense), Rule("taps", None, dropped=np.ones(4)), Rule("lod", None)]
    weight = np.arange(6.0).reshape(2, 3)
    found = dict(restore({"fc0/weight": weight}, {"taps": (4,), "fc0.weight": (3, 2)}, rules))
    assert list(found) == ["taps", "fc0.weight"] and found["taps"].dtype == np.float32
    np.testing.assert_array_equal(found["fc0.weight"], weight.T)
    bad = {
        "matches no rules": ({"fc0/weight": weight}, {"other": ()}),
        "values are not known": ({}, {"lod": ()}),
        "needs fc1/weight": ({}, {"fc1.weight": (3, 2)}),
        "no place": ({"fc0/weight": weight}, {"taps": (4,)}),
        "expected": ({"fc0/weight": weight}, {"fc0.weight": (2, 3)}),
    }
    for reason, (arrays, shapes) in bad.items():
        with pytest.raises(convert.ConversionError, match=reason):
            list(restore(arrays, shapes, rules))
