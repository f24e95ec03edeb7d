# SPDX-License-Identifier: Apache-2.0
"""Sound snapshots: every value arrives where it belongs, and a converted checkpoint computes what the original does."""

import hashlib
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convert
import stylegan_jax
from convert import stylegan3
from convert.nvlabs import read_network
from convert.snapshot import network_tensors, read_snapshot, walk
from inpaint.search.memory import default_chunk
from stylegan_jax import parameters

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("sg2_*.pkl"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Returns a function that converts a fixture once and gives (the model, the checkpoint's path)."""
    folder, done = tmp_path_factory.mktemp("checkpoints"), {}

    def convert_once(name: str) -> tuple[stylegan_jax.Model, pathlib.Path]:
        if name not in done:
            done[name] = convert.convert(GOLDEN / f"{name}.pkl", folder / name), folder / name
        return done[name]

    return convert_once


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_read_exactly(name):
    snapshot = read_snapshot(GOLDEN / f"{name}.pkl")
    expected = json.loads((GOLDEN / f"{name}.json").read_text())["tensors"]
    assert set(expected) == set(snapshot.present)
    for network, facts in expected.items():
        tensors = network_tensors(snapshot.networks[network])
        assert set(tensors) == set(facts)
        for key, fact in facts.items():
            array = tensors[key].read()
            assert list(array.shape) == fact["shape"] and array.dtype == np.float32 and fact["dtype"] == "float32"
            assert hashlib.sha256(array.tobytes()).hexdigest().startswith(fact["sha256"]), key
            assert np.isclose(array.sum(dtype=np.float64), fact["sum"], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_destination_is_filled(name, converted):
    # from_arrays is strict; that the stored values are those of the file is checked here, layout by layout.
    model, _ = converted(name)
    tensors = network_tensors(read_snapshot(GOLDEN / f"{name}.pkl").networks["G_ema"])
    arrays = parameters.to_arrays(model.generator)
    used = {key for key in tensors if not key.endswith("resample_filter")}
    assert len(used) + 1 == len(arrays)
    for key in used:
        ours = np.asarray(arrays[key.replace(".", "/")])
        if ours.ndim == 4:
            ours = ours.transpose(3, 2, 0, 1)
        elif ours.ndim == 3:
            ours = ours.transpose(2, 0, 1)
        elif ours.ndim == 2 and key.endswith("weight"):
            ours = ours.T
        np.testing.assert_array_equal(ours, tensors[key].read(), err_msg=key)
    assert model.w_statistics.mean.shape == (model.generator.config.w_dim,)
    assert model.discriminator is not None


@pytest.mark.parametrize("name", ["sg2_odd", "sg2_Gresnet_Dskip"])
def test_converted_checkpoint_computes_the_same(name, converted):
    model = stylegan_jax.load(converted(name)[1])
    run = jax.jit(lambda network, *inputs: network(*inputs))
    golden = np.load(GOLDEN / f"{name}.npz")
    labels = jnp.asarray(golden["in/c"]) if "in/c" in golden else None
    images = run(model.generator, jnp.asarray(golden["in/z"]), labels)
    reference = golden["f32/img_const"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images, reference, rtol=0, atol=2e-5 * np.abs(reference).max())
    labels = jnp.asarray(golden["in/cD"]) if "in/cD" in golden else None
    logits = run(model.discriminator, jnp.asarray(golden["in/imgD"].transpose(0, 2, 3, 1)), labels)
    np.testing.assert_allclose(logits, golden["f32/logits_imgD"][:, 0], rtol=2e-5, atol=2e-5)


def test_configuration_is_inferred():
    snapshot = read_snapshot(GOLDEN / "sg2_odd.pkl")
    generator = read_network(snapshot.networks["G_ema"], kind="generator", file_size=snapshot.size).config
    assert generator == {
        "z_dim": 20,
        "c_dim": 3,
        "w_dim": 28,
        "widths": (16, 16, 16, 12),
        "image_channels": 3,
        "mapping_layers": 3,
        "embed_features": 5,
        "layer_features": 9,
        "mapping_activation": "relu",
        "mapping_lr_multiplier": 0.1,
        "w_avg_beta": 0.995,
        "architecture": "skip",
        "activation": "relu",
        "conv_clamp": None,
        "use_noise": False,
        "resample_filter": (1, 3, 3, 1),
    }
    discriminator = read_network(snapshot.networks["D"], kind="discriminator", file_size=snapshot.size).config
    assert (discriminator["cmap_dim"], discriminator["minibatch_group_size"]) == (7, None)
    assert (discriminator["minibatch_channels"], discriminator["mapping_layers"]) == (2, 2)


def test_provenance_names_the_source(converted):
    source = GOLDEN / "sg2_base.pkl"
    facts = stylegan_jax.load(converted("sg2_base")[1]).provenance
    assert facts["file"] == "sg2_base.pkl" and facts["networks"] == ["G_ema", "D"]
    assert facts["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_existing_destination_stays_unless_overwritten(converted, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "photo.txt").write_text("precious")
    with pytest.raises(convert.ConversionError, match="exists already"):
        convert.convert(GOLDEN / "sg2_base.pkl", folder)
    with pytest.raises(convert.ConversionError, match="is no checkpoint"):
        convert.convert(GOLDEN / "sg2_base.pkl", folder, overwrite=True)
    assert (folder / "photo.txt").read_text() == "precious"
    path = tmp_path / "model"
    shutil.copytree(converted("sg2_1ch_clamp")[1], path)
    convert.convert(GOLDEN / "sg2_odd.pkl", path, overwrite=True)
    assert stylegan_jax.load(path).generator.config.c_dim == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "model"]


def test_inspect_describes_networks():
    facts = convert.inspect(GOLDEN / "sg2_odd.pkl")
    assert set(facts["networks"]) == {"G", "D", "G_ema"}
    assert facts["networks"]["G_ema"]["resolution"] == 32 and facts["networks"]["G_ema"]["config"]["c_dim"] == 3
    assert facts["training"]["use_labels"] is True and facts["size"] == (GOLDEN / "sg2_odd.pkl").stat().st_size
    assert "non-commercial" in facts["licence"]


def test_a_stylegan3_file_becomes_a_checkpoint(tmp_path):
    """What is written holds every array of the generator and the discriminator of StyleGAN2 beside it."""
    convert.convert(GOLDEN / "sg3_t.pkl", tmp_path / "model")
    model, snapshot = stylegan_jax.load(tmp_path / "model"), read_snapshot(GOLDEN / "sg3_t.pkl")
    expected = stylegan3.read_network(snapshot.networks["G_ema"], file_size=snapshot.size).arrays()
    found = parameters.to_arrays(model.generator)
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert model.discriminator.resolution == model.resolution == 32
    assert default_chunk(model.generator) >= 1


@pytest.mark.parametrize(
    ("path", "name", "value", "reason"),
    [
        ("synthesis.b8.conv1", "activation", "mish", "layers must share one activation, found 'lrelu', 'mish'"),
        ("synthesis.b8.conv1", "act_gain", 2.0, "synthesis.b8.conv1 has act_gain 2.0, expected 1.41"),
        ("synthesis.b8.torgb", "conv_clamp", 256, "layers must share one conv_clamp"),
        ("synthesis.b8", "architecture", "orig", "blocks|layers must share one architecture"),
        ("synthesis.b8.conv1.affine", "activation", "relu", "expected 'linear'"),
        ("mapping.fc1", "bias_gain", 0.5, "layers must share one bias_gain"),
        ("mapping", "w_avg_beta", 3, "w_avg_beta is 3"),
        ("", "img_resolution", 64, "Generator.img_resolution is 64, but the tensors say 32"),
        ("synthesis.b16", "_init_kwargs", {"resample_filter": [1, 1]}, "must share one resample_filter"),
        ("synthesis.b16", "_modules", {}, "missing"),
    ],
)
def test_contradictions_are_refused(path, name, value, reason):
    snapshot = read_snapshot(GOLDEN / "sg2_base.pkl")
    root = snapshot.networks["G_ema"]
    dict(walk(root))[path].state[name] = value
    with pytest.raises(convert.ConversionError, match=reason):
        read_network(root, kind="generator", file_size=snapshot.size).arrays()


def test_taps_that_the_filter_does_not_have_are_refused():
    snapshot = read_snapshot(GOLDEN / "sg2_base.pkl")
    root = snapshot.networks["D"]
    for path, module in walk(root):
        if path.startswith("b"):
            module.state["_init_kwargs"]["resample_filter"] = [1, 2, 2, 1]
    with pytest.raises(convert.ConversionError, match="does not have the taps"):
        read_network(root, kind="discriminator", file_size=snapshot.size).arrays()


def test_everything_wrong_is_reported_at_once():
    snapshot = read_snapshot(GOLDEN / "sg2_base.pkl")
    modules = dict(walk(snapshot.networks["G_ema"]))
    bias = modules["synthesis.b8.conv0"].state["_parameters"].pop("bias")
    modules["synthesis.b16.conv0"].state["_parameters"]["spare"] = bias
    modules["synthesis.b32.conv0"].state["_parameters"]["weight"] = bias
    with pytest.raises(convert.ConversionError) as caught:
        read_network(modules[""], kind="generator", file_size=snapshot.size)
    assert set(caught.value.problems) == {
        f"synthesis.b32.conv0.weight has shape {bias.shape}, expected (16, 32, 3, 3)",
        "synthesis.b8.conv0.bias is missing",
        "synthesis.b16.conv0.spare is unexpected",
    }
