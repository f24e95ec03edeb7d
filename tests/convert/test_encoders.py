# SPDX-License-Identifier: Apache-2.0
"""Files of pSp, e4e and ReStyle: what is read from them, what is refused, and the checkpoint that comes of them.

The files are those that torch wrote, narrow ones; their tensors come by a rule, `golden_weights.write_encoder`.
"""

import argparse
import collections
import functools
import pathlib
import re
import sys
from unittest import mock

import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from convert import ConversionError, encoders
from convert.encoders_conversion import convert_encoder
from convert.torch_legacy import read_torch_file
from stylegan_jax import checkpoint, stylegan3
from stylegan_jax.encoders import StyleEncoder, StyleEncoderConfig

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import checkpoint_files
import golden_weights
from checkpoint_files import Values

NAMES = tuple(name for name in golden_weights.ENCODER_SEEDS if not name.startswith("into"))
IRSE = {"trunk": "irse", "widths": (16, 20, 24, 32), "depths": (3, 4, 14, 3), "stem": 16, "reduction": 16, "w_dim": 32}
RESNET = {"trunk": "resnet", "widths": (12, 16, 20, 32), "depths": (3, 4, 6, 3), "w_dim": 32}
SIZE = {"size": (32, 32), "num_ws": 10, "image_channels": 3, "iterations": None}
LOOKING = {"image_channels": 6, "pyramid": False}
CONFIGS = {
    "psp": IRSE | SIZE | {"pyramid": True, "progressive": False},
    "e4e": IRSE | SIZE | {"pyramid": True, "progressive": True},
    "restyle": IRSE | SIZE | LOOKING | {"progressive": True, "iterations": 5},
    "resnet": RESNET | SIZE | LOOKING | {"progressive": False, "iterations": 5, "size": (24, 32)},  # cars
    "stylegan3": IRSE | SIZE | LOOKING | {"progressive": True, "iterations": 3, "num_ws": 16},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns {name: path} of all files."""
    folder = tmp_path_factory.mktemp("encoders")
    return {name: golden_weights.write_encoder(folder / f"{name}.pt", name) for name in NAMES}


TINY = dict(widths=(3, 4, 5, 6), depths=(1, 1, 1, 1), stem=3, reduction=2, styles=6, size=32)


@functools.cache
def restyle_state():
    """Returns the state dict of a tiny encoder of ReStyle, {name: array}, without a decoder."""
    shapes = golden_weights.encoder_shapes(**TINY, pyramid=False, channels=6)
    return {f"encoder.{k}": v for k, v in golden_weights.encoder_weights(1, shapes).items()}


@functools.cache
def small_state():
    """Returns a state dict of a tiny pSp file, {name: array}, its decoder of 16 pixels."""
    shapes = golden_weights.encoder_shapes(**TINY)
    state = {f"encoder.{k}": v for k, v in golden_weights.encoder_weights(1, shapes).items()}
    widths = (5, 4, 3)
    found = {"style.1.weight": (6, 6), "style.1.bias": (6,), "input.input": (1, 5, 4, 4)}

    def layer(name, inputs, outputs, kernel):
        found[f"{name}.conv.weight"] = (1, outputs, inputs, kernel, kernel)
        found[f"{name}.conv.modulation.weight"], found[f"{name}.conv.modulation.bias"] = (inputs, 6), (inputs,)
        if kernel == 1:
            found[f"{name}.bias"] = (1, 3, 1, 1)
        else:
            found[f"{name}.noise.weight"], found[f"{name}.activate.bias"] = (1,), (outputs,)

    layer("conv1", 5, 5, 3)
    layer("to_rgb1", 5, 3, 1)
    for i in range(2):
        layer(f"convs.{2 * i}", widths[i], widths[i + 1], 3)
        layer(f"convs.{2 * i + 1}", widths[i + 1], widths[i + 1], 3)
        layer(f"to_rgbs.{i}", widths[i + 1], 3, 1)
        found[f"convs.{2 * i}.conv.blur.kernel"] = found[f"to_rgbs.{i}.upsample.kernel"] = (4, 4)
    for i in range(5):
        size = 4 << (i + 1) // 2
        found[f"noises.noise_{i}"] = (1, 1, size, size)
    return state | {f"decoder.{k}": golden_weights.decoder_value(k, shape) for k, shape in found.items()}


OPTS = {"encoder_type": "GradualStyleEncoder", "start_from_latent_avg": True}
MEAN = np.linspace(-1, 1, 6, dtype=np.float32)


def small(state=None, opts=None, mean=MEAN, **changes):
    """Reads a tiny file; `changes` are other options, None for one that is not there."""
    options = {k: v for k, v in (OPTS | (opts or {}) | changes).items() if v is not None}
    return encoders.from_state_dict(small_state() if state is None else state, options, latent_avg=mean)


# What is read.


@pytest.mark.parametrize("name", NAMES)
def test_configuration_and_values(name, files):
    """Everything is told by options and shapes, and every tensor of the file comes out where it belongs."""
    file = read_torch_file(files[name])
    assert encoders.is_encoder(file.tree)
    found = encoders.read_encoder(files[name])
    assert found.config == CONFIGS[name] and found.sha256 == file.sha256
    assert found.options["encoder_type"] == file.tree["opts"]["encoder_type"]
    state = file.tree["state_dict"]
    assert (found.decoder is None, found.stylegan3, "decoder" in found.notes) == ((name == "stylegan3",) * 3)
    if found.decoder is not None:
        assert found.decoder.config["widths"] == (24, 24, 20, 16, 12) and found.decoder.has_average
        arrays = found.decoder.arrays()
        np.testing.assert_array_equal(arrays["mapping/w_avg"], golden_weights_mean())
        np.testing.assert_array_equal(
            arrays["synthesis/b64/conv1/noise_const"], state["decoder.noises.noise_8"].read()[0, 0]
        )
    arrays = found.arrays()
    np.testing.assert_array_equal(
        arrays["average"], np.broadcast_to(file.tree["latent_avg"].read(), arrays["average"].shape)
    )
    taken = sum(t.size for k, t in state.items() if k.startswith("encoder.") and t.shape)
    assert sum(a.size for a in arrays.values()) - arrays["average"].size == taken
    weight = state["encoder.styles.9.convs.0.weight"].read()
    np.testing.assert_array_equal(arrays["head9/conv0/weight"], weight.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(arrays["head9/linear/weight"], state["encoder.styles.9.linear.weight"].read().T)


def golden_weights_mean():
    with np.load(golden_weights.GOLDEN / "encoders.npz") as file:
        return file["latent_avg"]


def test_other_files_are_no_encoders():
    for tree in (None, {}, {"state_dict": 3}, {"state_dict": {"features.0.weight": 1}}, {"encoder": {}}):
        assert not encoders.is_encoder(tree)


def tree_of(state, **entries):
    """Returns what a file holds, for the writers of benchmarks/."""
    tensors = {k: Values(v.shape, v) for k, v in state.items()}
    return {"state_dict": collections.OrderedDict(tensors), "latent_avg": Values((6, 6), MEAN), **entries}


def save(path, tree, *, write=checkpoint_files.write_zip):
    """Writes a tree as torch does."""
    with mock.patch.dict(sys.modules, checkpoint_files.MODULES), open(path, "wb") as file:
        write(file, tree, np.random.default_rng(0))
    return path


@pytest.mark.parametrize("write", [checkpoint_files.write_zip, checkpoint_files.write_legacy])
def test_files_of_trainings(write, tmp_path):
    """Options in a namespace, some of them missing; the state of optimiser and discriminator is passed over."""
    state = {"state": {0: {"step": 7, "exp_avg": Values((3,))}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}
    training = {
        "global_step": 7,
        "best_val_loss": 0.25,
        "optimizer": state,
        "discriminator_optimizer_state_dict": state,
    }
    training["discriminator_state_dict"] = {"mlp.0.weight": Values((6, 6))}
    tree = tree_of(small_state(), opts=argparse.Namespace(**OPTS, exp_dir=pathlib.PurePosixPath("here")), **training)
    found = encoders.read_encoder(save(tmp_path / "encoder.pt", tree, write=write))
    assert found.config == small().config and found.config["num_ws"] == 6 and found.decoder.resolution == 16
    for key, array in small().arrays().items():
        np.testing.assert_array_equal(found.arrays()[key], array)
    assert found.options == OPTS


def test_latents_that_the_generator_does_not_take():
    """A generator of cars takes fewer latents than its encoder gives; of other images that is an error."""
    state = {
        k: v
        for k, v in small_state().items()
        if not re.match(r"decoder\.(convs\.[23]|to_rgbs\.1|noises\.noise_[34])", k)
    }
    found = small(state, dataset_type="cars_encode")
    assert found.config["num_ws"] == 4 and found.config["size"] == (24, 32) and "first 4" in found.notes["heads"]
    assert found.arrays()["average"].shape == (4, 6) and "head4/linear/weight" not in found.arrays()
    with pytest.raises(ConversionError, match="gives 6 latents, and its decoder takes 4"):
        small(state)


def test_means():
    """The mean of W is one for all latents, one for each, or not what the encoder starts from."""
    each = np.arange(36, dtype=np.float32).reshape(6, 6)
    np.testing.assert_array_equal(small(mean=each).average, each)
    assert small(mean=each).decoder.notes().keys() == {"w_avg"}  # the decoder has no mean of its own then
    np.testing.assert_array_equal(small(mean=MEAN[None]).average, np.tile(MEAN, (6, 1)))
    assert not small(start_from_latent_avg=False).average.any()
    assert not small(mean=None, start_from_latent_avg=None).average.any()


# What is refused.


def without(*names):
    return lambda state: [state.pop(name) for name in names]


def replaced(name, value):
    def change(state):
        state[name] = np.asarray(value, np.float32)

    return change


LINEAR = "encoder.styles.2.linear.weight"
BAD_STATES = {
    "missing": (without(LINEAR, "encoder.latlayer1.bias"), ["encoder.styles.2.linear.weight is missing"], 1),
    "two missing": (
        without("encoder.latlayer2.bias", "decoder.conv1.activate.bias"),
        ["encoder.latlayer2.bias is missing", "decoder.conv1.activate.bias is missing"],
        2,
    ),
    "misshapen": (
        replaced("encoder.styles.4.linear.weight", np.zeros((6, 7))),
        ["has shape (6, 7), expected (6, 6)"],
        1,
    ),
    "unexpected": (replaced("encoder.styles.2.extra", [1]), ["encoder.styles.2.extra is unexpected"], 1),
    "elsewhere": (replaced("face_pool.weight", [1]), ["'face_pool.weight' belongs to neither"], 1),
    "units": (replaced("encoder.body.120.res_layer.1.weight", [1]), ["has 121 units; at most 100"], 1),
    "heads": (replaced("encoder.styles.32.linear.bias", [1]), ["has 33 heads; at most 32"], 1),
    "latents": (
        lambda state: [state.pop(name) for name in [*state] if name.startswith("encoder.styles.5.")],
        ["gives 5 latents, and its decoder takes 6"],
        1,
    ),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_tensors_that_do_not_fit(case):
    """Every problem of encoder and decoder is listed at once."""
    change, messages, count = BAD_STATES[case]
    state = dict(small_state())
    change(state)
    with pytest.raises(ConversionError) as caught:
        small(state)
    for message in messages:
        assert message in str(caught.value)
    assert len(caught.value.problems) >= count


BAD_OPTIONS = {
    "no type": (dict(encoder_type=None), MEAN, "opts say encoder_type None; expected one of GradualStyleEncoder"),
    "type": (dict(encoder_type="\x1b[2JNew"), MEAN, "opts say encoder_type '.x1b"),
    "trunk": (dict(encoder_type="ResNetGradualStyleEncoder"), MEAN, "body.0.conv1.weight is missing"),
    "kind": (dict(encoder_type="BackboneEncoder"), MEAN, "encoder.latlayer1.bias is unexpected"),
    "no mean": ({}, None, "latent_avg is missing, and opts say that the encoder starts from it"),
    "long mean": ({}, np.zeros((5, 6), np.float32), r"latent_avg has shape \(5, 6\), expected \(6, 6\)"),
    "odd mean": ({}, np.zeros((1, 1, 6), np.float32), r"latent_avg has shape \(1, 1, 6\)"),
    "mean of NaN": ({}, np.full(6, np.nan, np.float32), "latent_avg holds NaN"),
    "mean of integers": ({}, np.zeros(6, np.int64), "latent_avg holds int64 elements"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_options_that_do_not_fit(case):
    opts, mean, message = BAD_OPTIONS[case]
    with pytest.raises(ConversionError, match=message):
        small(mean=mean, **opts)


def test_restyle_needs_a_mean():
    """Its loop begins there, whatever the options say."""
    state = restyle_state()
    opts = {"encoder_type": "BackboneEncoder", "start_from_latent_avg": False}
    assert encoders.from_state_dict(state, opts, latent_avg=MEAN).average.any()
    with pytest.raises(ConversionError, match="where the loop of ReStyle begins"):
        encoders.from_state_dict(state, opts)


BAD_FILES = {
    "another entry": ({"weights": 1}, {}, "'weights' is no entry of such a file"),
    "no tensor": ({}, {"encoder.styles.0.linear.weight": 3}, "in state_dict is 3, expected a tensor"),
    "no encoder": ({}, {"encoder.input_layer.0.weight": None}, "expected state_dict with an encoder, opts, latent_avg"),
    "mean": ({"latent_avg": "mean"}, {}, "latent_avg is 'mean', expected a tensor"),
    "options": ({"opts": [1]}, {}, "encoder_type None"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_do_not_fit(case, tmp_path):
    """What is wrong is told with the name of the file."""
    entries, tensors, message = BAD_FILES[case]
    tree = tree_of(small_state(), opts=OPTS)
    for name, value in tensors.items():
        tree["state_dict"][name] = value
        if value is None:
            del tree["state_dict"][name]
    save(tmp_path / "bad.pt", tree | entries)
    with pytest.raises(ConversionError, match=f"bad.pt: .*{re.escape(message)}"):
        encoders.read_encoder(tmp_path / "bad.pt")


# What is written.


def write_small(path, state=None, **options):
    return save(path, tree_of(small_state() if state is None else state, opts=OPTS | options))


def test_a_model_with_its_encoder(tmp_path):
    """Generator and encoder come in one folder, whole or not at all, and the encoder belongs to that generator."""
    source, path = write_small(tmp_path / "encoder.pt"), tmp_path / "converted"
    model = convert_encoder(source, path)
    found, facts = sg.load(path), sg.info(path / "encoder")["provenance"]
    assert isinstance(found.encoder, StyleEncoder) and found.encoder.config == StyleEncoderConfig(**small().config)
    assert (found.content_hash, found.encoder_hash) == (model.content_hash, model.encoder_hash)
    assert facts["generator"] == found.content_hash and facts["options"] == OPTS
    assert facts["sha256"] == found.provenance["sha256"] == read_torch_file(source).sha256
    assert "InsightFace" in facts["licence"] and found.w_statistics is not None
    np.testing.assert_array_equal(found.encoder.average[...], np.tile(MEAN, (6, 1)))
    np.testing.assert_array_equal(found.generator.mapping.w_avg[...], MEAN)
    with pytest.raises(ConversionError, match="exists already"):
        convert_encoder(source, path)
    other = checkpoint.save(tmp_path / "other", sg.Model(found.generator))
    checkpoint.replace_directory(path / "encoder", other / "encoder")
    own = sg.info(other)["content_hash"]
    with pytest.raises(sg.CheckpointError, match=f"{found.content_hash[:12]}, not of {own[:12]}"):
        sg.load(other)


def test_values_that_are_not_finite(tmp_path):
    """Nothing is written, and every tensor is named, of the encoder and of the decoder."""
    state = {k: v.copy() for k, v in small_state().items()}
    state["encoder.latlayer1.weight"][0, 0], state["decoder.conv1.activate.bias"][1] = np.nan, np.inf
    source = write_small(tmp_path / "bad.pt", state)
    with pytest.raises(ConversionError) as caught:
        convert_encoder(source, tmp_path / "converted")
    assert "encoder.latlayer1.weight holds 1 NaN" in str(caught.value) and "decoder.conv1.activate" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def save_generator(path, mean):
    config = stylegan3.GeneratorConfig(widths=(4,) * 4, resolution=16, z_dim=6, w_dim=6, num_critical=1, margin=2)
    generator = stylegan3.Generator(config, rngs=nnx.Rngs(0))
    generator.mapping.w_avg[...] = mean
    return checkpoint.save(path, sg.Model(generator))


def test_encoders_of_stylegan3(tmp_path):
    """They come to the generator that they were trained for, which the mean of W tells."""
    state = restyle_state() | {"decoder.synthesis.input.freqs": np.zeros((4, 2), np.float32)}
    source = write_small(tmp_path / "encoder.pt", state, encoder_type="ProgressiveBackboneEncoder")
    with pytest.raises(ConversionError, match="StyleGAN3, left out.*name the converted generator"):
        convert_encoder(source, tmp_path / "converted")
    generator = save_generator(tmp_path / "generator", MEAN)
    model = convert_encoder(source, tmp_path / "converted", generator=generator)
    found = sg.load(tmp_path / "converted")
    assert found.content_hash == sg.info(generator)["content_hash"] == model.content_hash
    assert found.encoder.config.iterations == 3 and not checkpoint.has_encoder(generator)
    convert_encoder(source, generator, generator=generator, overwrite=True)
    assert checkpoint.has_encoder(generator)
    refused = {
        "trained for another generator": (source, save_generator(tmp_path / "other", MEAN + 0.1)),
        "of a StyleGAN2; the generator .* is of another family": (write_small(tmp_path / "2.pt"), generator),
        "does not exist": (source, tmp_path / "missing"),
        r"gives 6 latents of width 6; the generator .* takes \(10, 128\)": (source, checkpoint.DEMO),
    }
    for message, (file, place) in refused.items():
        with pytest.raises(ConversionError, match=message):
            convert_encoder(file, tmp_path / "a", generator=place)
    assert not (tmp_path / "a").exists()
