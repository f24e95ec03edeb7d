# SPDX-License-Identifier: Apache-2.0
"""TensorFlow pickles: read without TensorFlow, recognised, what is wrong named, StyleGAN2 against reference outputs."""

import functools
import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import ConversionError, tensorflow, tensorflow_stylegan1
from convert.numpyfile import Array, DType, numpy_globals
from convert.tensorflow_files import TensorflowNetwork, flipped, is_tensorflow, recognise, tensorflow_globals
from convert.unpickle import Work, read_pickle
from stylegan_jax import parameters, stylegan1_tensorflow, stylegan2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
VARIABLES = json.loads((GOLDEN / "tf_variables.json").read_text())
FIXTURES = sorted(VARIABLES)
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
KINDS = {
    "generator": (stylegan2.Generator, stylegan2.GeneratorConfig),
    "discriminator": (stylegan2.Discriminator, stylegan2.DiscriminatorConfig),
}


def parse(data):
    """Returns the tree in the bytes of a pickle."""
    return read_pickle(memoryview(data), numpy_globals() | tensorflow_globals(), work=Work())[0]


def read(name):
    """Returns the tree of a fixture, read anew: what is in it may be changed."""
    return parse((GOLDEN / f"{name}.pkl").read_bytes())


def convert(tree, name, *, file_size=10**9):
    return tensorflow.read_network(recognise(tree), name, file_size=file_size)


def array(values):
    """Returns an array as a file would hold it."""
    values = np.asarray(values, np.float32)
    found, kind = Array(), DType("f4", False, True)
    found.set_state((1, values.shape, kind, False, memoryview(values.tobytes())))
    return found


def network(variables, *, components=(), arguments=(), version=4, function="G_main"):
    """Returns a network object with variables {name: shape, or number}."""
    stored = [(k, array(np.ones(v)) if isinstance(v, tuple) else v) for k, v in dict(variables).items()]
    state = {"version": version, "name": "G", "static_kwargs": dict(arguments), "build_func_name": function}
    found = TensorflowNetwork()
    found.set_state(state | {"variables": stored, "components": dict(components), "build_module_src": "x"})
    return found


def change(tree, place, name, value):
    """Puts a variable into a network of a tree (by index and component), or takes it away."""
    index, component = place
    inner = tree[index].components[component] if component else tree[index]
    state = {"version": inner.version, "name": inner.name, "static_kwargs": inner.arguments}
    state |= {"build_func_name": inner.function, "components": inner.components}
    kept = {k: v.value for k, v in inner.variables().items() if k in inner._own} | {name: value}
    changed = TensorflowNetwork()
    changed.set_state(state | {"variables": [(k, v) for k, v in kept.items() if v is not None]})
    if not component:
        return (*tree[:index], changed, *tree[index + 1 :])
    tree[index].components[component] = changed
    return tree


# Reading.


@pytest.mark.parametrize("name", FIXTURES)
def test_every_variable_is_read(name):
    """Names, shapes and the very bytes of all three networks are those that were written."""
    found = recognise(read(name))
    assert found.present == ["G", "D", "G_ema"]
    for key, expected in VARIABLES[name].items():
        values = {k: v.read() for k, v in found.networks[key].variables().items()}
        assert {k: list(v.shape) for k, v in values.items()} == {k: shape for k, (shape, _) in expected.items()}
        digests = {k: hashlib.sha256(v.tobytes()).hexdigest()[:16] for k, v in values.items()}
        assert digests == {k: digest for k, (_, digest) in expected.items()}


def test_what_is_tensorflow():
    """A tuple of network objects is one; other trees, and an empty tuple, are not."""
    whole = read("tf_ada_cond")
    assert is_tensorflow(whole) and is_tensorflow(whole[0])
    assert not any(map(is_tensorflow, ((), {}, (whole[0], 1), {"G": whole[0]}, None)))
    assert recognise(whole[2]).present == ["G_ema"] and recognise(whole[1]).present == ["D"]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"G": 1}, "holds a dict; expected the networks of a TensorFlow pickle"),
        ((network({}), network({})), "a tuple of 2 TensorFlow networks; expected three"),
        ((TensorflowNetwork(),) * 3, "has no state"),
        (network({"conv1/weight": (2, 2)}), "a TensorFlow network with 'conv1/weight'; expected one of StyleGAN1"),
    ],
)
def test_trees_of_other_kinds(tree, reason):
    with pytest.raises(ConversionError, match=reason):
        recognise(tree)


def state_of(**changes):
    state = {"version": 4, "name": "G", "static_kwargs": {}, "components": {}, "variables": []}
    return state | {"build_func_name": "G_main"} | changes


def nested(depth):
    found = network({"a": (1,)})
    for _ in range(depth):
        found = network({}, components={"x": found, "y": found})
    return found


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda: {"version": 4}, "a state of an unknown form"),
        (lambda: state_of(version=5), "a state of version 5; 2 to 4 are known"),
        (lambda: state_of(version=True), "a state of version True"),
        (lambda: state_of(static_kwargs={3: 4}), "arguments without names"),
        (lambda: state_of(components={"x": 3}), "components that are no networks"),
        (lambda: state_of(components={"x": TensorflowNetwork()}), "components that are no networks"),
        (lambda: state_of(components={"x": nested(2)}), "nests networks without end"),
        (lambda: state_of(components={str(i): network({}) for i in range(9)}), "nests networks without end"),
        (lambda: state_of(variables=[("a", 1.0), ("a", 2.0)]), "a variable of an unknown form"),
        (lambda: state_of(variables=[("a", "b")]), "a variable of an unknown form"),
        (lambda: state_of(variables=[("\x1b[2J", 1.0)]), "a variable of an unknown form"),
        (lambda: state_of(variables=[("a", 1.0, 2.0)]), "a variable of an unknown form"),
    ],
)
def test_states_of_other_forms(state, reason):
    with pytest.raises(ConversionError, match=reason):
        TensorflowNetwork().set_state(state())


def test_a_network_cannot_hold_itself_or_change():
    own = TensorflowNetwork()
    with pytest.raises(ConversionError, match="components that are no networks"):
        own.set_state(state_of(components={"x": own}))
    own.set_state(state_of())
    with pytest.raises(ConversionError, match="unknown form"):
        own.set_state(state_of())
    twice = network({"x/a": (1,)}, components={"x": network({"a": (1,)})})
    with pytest.raises(ConversionError, match="two variables 'x/a'"):
        twice.variables()


# Configuration and tables.


def test_configuration_is_inferred():
    generator = {
        "z_dim": 20,
        "c_dim": 0,
        "w_dim": 28,
        "mapping_layers": 4,
        "embed_features": None,
        "layer_features": None,
        "mapping_activation": "lrelu",
        "mapping_lr_multiplier": 0.01,
        "w_avg_beta": 0.995,
        "widths": (16, 16, 16, 12),
        "image_channels": 3,
        "architecture": "skip",
        "activation": "lrelu",
        "conv_clamp": None,
        "use_noise": True,
        "resample_filter": (1, 3, 3, 1),
    }
    discriminator = {key: generator[key] for key in ("c_dim", "widths", "image_channels", "activation", "conv_clamp")}
    discriminator |= {"architecture": "resnet", "epilogue_activation": "lrelu", "resample_filter": (1, 3, 3, 1)}
    discriminator |= {"minibatch_group_size": 4, "minibatch_channels": 1}
    ada = {"c_dim": 3, "conv_clamp": 256.0}
    labels = {"cmap_dim": 16, "mapping_layers": 2, "embed_features": None, "layer_features": None}
    labels |= {"mapping_activation": "lrelu", "mapping_lr_multiplier": 0.1}
    expected = {
        "tf_sg2_config_f": (generator, discriminator),
        "tf_sg2_Gorig_Dskip": (
            generator | {"architecture": "orig"},
            discriminator | {"architecture": "skip", "minibatch_group_size": 2},
        ),
        "tf_ada_cond": (generator | ada | {"w_avg_beta": 1.0}, discriminator | ada | labels),
    }
    for name, configs in expected.items():
        tree = read(name)
        for key, config in zip(("G_ema", "D"), configs, strict=True):
            found = convert(tree, key)
            assert found.config == config, (name, key)
            assert (found.family, found.resolution, found.has_average, found.notes()) == ("stylegan2", 32, True, {})
            assert found.values == sum(int(np.prod(shape)) for shape, _ in VARIABLES[name][key].values())


@pytest.mark.parametrize("architecture", stylegan2.ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c_dim", [0, 2])
def test_tables_fill_our_networks(architecture, kind, c_dim):
    """Whatever the architecture, the table's variables become every array of ours, in its shape."""
    network_class, config_class = KINDS[kind]
    config = {"widths": (6, 5, 4), "image_channels": 2, "architecture": architecture, "c_dim": c_dim}
    config |= {"embed_features": 3, "layer_features": 7, "mapping_layers": 3, "resample_filter": (1, 2, 1)}
    generator = {"w_avg_beta": 0.9, "use_noise": c_dim == 0, "z_dim": 9, "w_dim": 8}
    config |= generator if kind == "generator" else {"minibatch_channels": 2, "cmap_dim": 8}
    tabulate = tensorflow.generator_table if kind == "generator" else tensorflow.discriminator_table
    table = tuple(tabulate(config, {}))
    stored = network({entry.source: entry.shape for entry in table}).variables()
    found = tensorflow.TensorflowModel("stylegan2", kind, config, stored, table).arrays()
    held = parameters.abstract(network_class, config_class(**config))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in held.items()}


def test_layouts():
    """A kernel of an up-convolution is turned around, a style's bias is 1 more, the rest lies as it did."""
    tree = read("tf_sg2_config_f")
    stored = {k: v.read() for k, v in recognise(tree).networks["G_ema"].variables().items()}
    found = convert(tree, "G_ema").arrays()
    up, second = ("synthesis/8x8/Conv0_up", "synthesis/b8/conv0"), ("synthesis/8x8/Conv1", "synthesis/b8/conv1")
    np.testing.assert_array_equal(found[f"{up[1]}/weight"], stored[f"{up[0]}/weight"][::-1, ::-1])
    np.testing.assert_array_equal(found[f"{second[1]}/weight"], stored[f"{second[0]}/weight"])
    np.testing.assert_array_equal(found[f"{up[1]}/affine/bias"], stored[f"{up[0]}/mod_bias"] + 1)
    np.testing.assert_array_equal(found[f"{up[1]}/noise_const"], stored["synthesis/noise1"][0, 0])
    np.testing.assert_array_equal(found[f"{second[1]}/noise_const"], stored["synthesis/noise2"][0, 0])
    assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in found.values())


G, D, SYNTHESIS, MAPPING = (0, None), (1, None), (0, "synthesis"), (0, "mapping")


@pytest.mark.parametrize(
    ("place", "name", "value", "reason"),
    [
        (SYNTHESIS, "8x8/Conv1/bias", None, "synthesis/8x8/Conv1/bias is missing"),
        (SYNTHESIS, "noise3", None, "synthesis/noise3 is missing"),
        (SYNTHESIS, "noise7", np.ones((1, 1, 4, 4)), "synthesis/noise7 is unexpected"),
        (SYNTHESIS, "8x8/Skip/weight", np.ones((1, 1, 16, 16)), "synthesis/8x8/Skip/weight is unexpected"),
        (SYNTHESIS, "16x16/ToRGB/bias", np.ones(4), r"ToRGB/bias has shape \(4,\), expected \(3,\)"),
        (SYNTHESIS, "16x16/ToRGB/bias", [1, np.inf, np.nan], "synthesis/16x16/ToRGB/bias holds 2 NaN or infinite"),
        (SYNTHESIS, "4x4/Conv/noise_strength", 3, "synthesis/4x4/Conv/noise_strength holds int64 elements"),
        (SYNTHESIS, "4x4/Conv/weight", np.ones((3, 3, 0, 16)), "synthesis/4x4/Conv/weight has shape"),
        (SYNTHESIS, "4x4/Const/const", np.ones((16, 4, 4)), "expected 4 dimensions"),
        (MAPPING, "Dense1/weight", None, "mapping_layers is 4, but the variables say 1"),
        (MAPPING, "LabelConcat/weight", np.ones((3, 20)), "takes labels as the first StyleGAN2 code did"),
        (G, "dlatent_avg", None, "dlatent_avg is missing"),
        (G, "lod", np.ones(2), r"lod has shape \(2,\), expected \(\)"),
        (D, "Output/bias", None, "Output/bias is missing"),
        (D, "32x32/FromRGB/weight", None, "32x32/FromRGB/weight is missing, which tells"),
        (D, "4x4/Conv/weight", np.ones((3, 3, 18, 16)), "mbstd_num_features is 1, but the variables say 2"),
        (D, "4x4/Dense1/weight", np.ones((3, 3)), "expected one of StyleGAN1 or StyleGAN2"),
    ],
)
def test_what_does_not_fit_is_named(place, name, value, reason):
    if not isinstance(value, int | None):
        value = array(value)
    tree = change(read("tf_sg2_config_f"), place, name, value)
    with pytest.raises(ConversionError, match=reason):
        convert(tree, "D" if place == D else "G").arrays()


@pytest.mark.parametrize(
    ("index", "name", "value", "reason"),
    [
        (0, "style_wobble", 1.0, "the unknown argument 'style_wobble', which may change it"),
        (0, "architecture", "resnet", "8x8/Skip/weight is missing"),
        (0, "architecture", "flat", "architecture is 'flat', expected one of skip, orig, resnet"),
        (0, "resolution", 64, "resolution is 64, but the variables say 32"),
        (0, "label_size", 2, "label_size is 2, but the variables say 0"),
        (0, "mapping_fmaps", 20, "mapping_fmaps is 20, but the variables say 28"),
        (0, "nonlinearity", "sine", "nonlinearity is 'sine', expected one of lrelu"),
        (0, "mapping_lrmul", 0, "mapping_lrmul is 0, expected a number from"),
        (0, "conv_clamp", "much", "conv_clamp is 'much', expected a number from .* or None"),
        (0, "dlatent_avg_beta", 2.0, "dlatent_avg_beta is 2.0, expected a number from 0 to 1 or None"),
        (0, "resample_kernel", [1, -1], "resample_kernel is a list, expected a list of numbers with a sum"),
        (0, "resample_kernel", None, "resample_kernel is None"),
        (0, "normalize_latents", False, "normalize_latents is False, expected one of True"),
        (0, "synthesis_func", "other", "synthesis_func is 'other', expected one of G_synthesis_stylegan2"),
        (1, "mbstd_group_size", 1, "mbstd_group_size is 1, which adds no channel"),
        (1, "mbstd_group_size", -1, "mbstd_group_size is -1"),
        (1, "mbstd_num_features", 2, "mbstd_num_features is 2, but the variables say 1"),
        (1, "architecture", "orig", "Skip/weight is unexpected"),
    ],
)
def test_arguments_that_do_not_fit(index, name, value, reason):
    tree = read("tf_sg2_config_f")
    tree[index].arguments[name] = value
    with pytest.raises(ConversionError, match=reason):
        convert(tree, "GD"[index])


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("resample_kernel", [1, 2, 5, 3], "resample_filter", (1, 2, 5, 3)),
        ("mapping_nonlinearity", "relu", "mapping_activation", "relu"),
        ("nonlinearity", "swish", "activation", "swish"),
        ("mapping_lrmul", 0.5, "mapping_lr_multiplier", 0.5),
        ("conv_clamp", 128, "conv_clamp", 128.0),
        ("dlatent_avg_beta", 0.9, "w_avg_beta", 0.9),
        ("truncation_psi", 0.5, "w_avg_beta", 0.995),
    ],
)
def test_arguments_that_shapes_do_not_tell(name, value, key, expected):
    tree = read("tf_sg2_config_f")
    tree[2].arguments[name] = value
    found = convert(tree, "G_ema")
    assert found.config[key] == expected
    taps = np.asarray(found.config["resample_filter"])
    np.testing.assert_allclose(found.arrays()["synthesis/resample_filter"], np.outer(taps, taps) / taps.sum() ** 2)


@pytest.mark.parametrize(("function", "group"), [("D_stylegan2", 4), ("D_main", None)])
def test_the_group_size_that_is_left_to_the_code(function, group):
    """Files of the first code, which took groups of 4, often do not say so; provenance does."""
    tree = read("tf_sg2_config_f")
    del tree[1].arguments["mbstd_group_size"]
    tree[1].function = function
    found = convert(tree, "D")
    assert found.config["minibatch_group_size"] == group
    assert str(group or "the whole batch") in found.notes()["minibatch_group_size"]


def test_inner_arguments_must_agree():
    tree = read("tf_sg2_config_f")
    tree[0].components["synthesis"].arguments["resolution"] = 16
    tree[0].components["mapping"].arguments["latent_size"] = [[1]]
    with pytest.raises(ConversionError) as caught:
        convert(tree, "G")
    assert sorted(caught.value.problems) == [
        f"{inner} was built with another {key} than the network around it"
        for inner, key in (("mapping", "latent_size"), ("synthesis", "resolution"))
    ]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("tf_version3", "whose state has version 3; StyleGAN2's own code writes version 4"),
        ("tf_unknown_kwarg", "the unknown argument 'style_wobble'"),
        ("tf_config_d_torgb_lod", "synthesis/ToRGB_lod0/bias belongs to the StyleGAN2 configurations B to D"),
    ],
)
def test_bad_files(file, reason):
    tree = parse((GOLDEN / "bad" / f"{file}.pkl").read_bytes())
    with pytest.raises(ConversionError, match=reason):
        convert(tree, "G_ema")


def test_requests_that_cannot_be_met():
    tree = read("tf_sg2_config_f")
    with pytest.raises(ConversionError, match="more values than the file has bytes"):
        convert(tree, "G", file_size=1000)
    with pytest.raises(ConversionError, match="G is not there; the file holds D"):
        convert(tree[1], "G")
    with pytest.raises(ConversionError, match="G is a discriminator"):
        convert((tree[1], tree[0], tree[2]), "G")


# StyleGAN1; what a converted one computes is compared in tests/stylegan_jax/test_stylegan1_tensorflow.py.

STYLEGAN1_GENERATOR = {
    "": {"lod": 0.0, "dlatent_avg": (7,)},
    "synthesis": {
        "lod": 3.0,  # left from growing; the one outside counts
        **{f"noise{i}": (1, 1, size, size) for i, size in enumerate((4, 4, 8, 8))},
        "4x4/Const/const": (1, 6, 4, 4),
        "4x4/Conv/weight": (3, 3, 6, 6),
        "8x8/Conv0_up/weight": (3, 3, 6, 5),
        "8x8/Conv1/weight": (3, 3, 5, 5),
        **{
            f"{layer}/{name}": shape
            for layer, width in (("4x4/Const", 6), ("4x4/Conv", 6), ("8x8/Conv0_up", 5), ("8x8/Conv1", 5))
            for name, shape in {
                "Noise/weight": (width,),
                "bias": (width,),
                "StyleMod/weight": (7, 2 * width),
                "StyleMod/bias": (2 * width,),
            }.items()
        },
        "ToRGB_lod0/weight": (1, 1, 5, 3),
        "ToRGB_lod0/bias": (3,),
        "ToRGB_lod1/weight": (1, 1, 6, 3),
        "ToRGB_lod1/bias": (3,),
    },
    "mapping": {"Dense0/weight": (9, 4), "Dense0/bias": (4,), "Dense1/weight": (4, 7), "Dense1/bias": (7,)},
}
STYLEGAN1_DISCRIMINATOR = {
    "lod": 0.0,
    **{
        f"{layer}/{name}": shape
        for layer, kernel in {
            "FromRGB_lod0": (1, 1, 3, 5),
            "FromRGB_lod1": (1, 1, 3, 6),
            "8x8/Conv0": (3, 3, 5, 5),
            "8x8/Conv1_down": (3, 3, 5, 6),
            "4x4/Conv": (3, 3, 7, 6),
            "4x4/Dense0": (96, 8),
            "4x4/Dense1": (8, 1),
        }.items()
        for name, shape in (("weight", kernel), ("bias", kernel[-1:]))
    },
}
STYLEGAN1_ARGUMENTS = {"resolution": 8, "num_channels": 3, "label_size": 0}
STYLEGAN1_MAPPING = {"latent_size": 9, "dlatent_size": 7, "mapping_layers": 2, "mapping_fmaps": 4}


def stylegan1(version=3, *, function="D_basic", given=None, generator=None, synthesis=None, mapping=None, d=None):
    """Returns a tree (G, D, Gs), with arguments `given`, and variables put in (or None: left out) by component."""

    def merged(variables, changes):
        return {k: v for k, v in (variables | (changes or {})).items() if v is not None}

    def build(variables, changes, *, function, arguments, components=()):
        variables = merged(variables, changes)
        return network(
            variables, version=version, function=function, arguments=arguments | (given or {}), components=components
        )

    outer, arguments = STYLEGAN1_GENERATOR[""], STYLEGAN1_ARGUMENTS | STYLEGAN1_MAPPING
    changes = {"synthesis": synthesis, "mapping": mapping}
    parts = {
        name: build(STYLEGAN1_GENERATOR[name], changes[name], function=f"G_{name}", arguments=arguments)
        for name in changes
    }
    whole = build(outer, generator, function="G_style", arguments=arguments, components=parts)
    return whole, build(STYLEGAN1_DISCRIMINATOR, d, function=function, arguments=STYLEGAN1_ARGUMENTS), whole


@pytest.mark.parametrize("version", [2, 3, 4])
def test_stylegan1_is_described(version):
    """Sizes are inferred, every variable is accounted for, and those that are taken fill our networks."""
    tree = stylegan1(version)
    expected = {
        "generator": {
            "z_dim": 9,
            "c_dim": 0,
            "w_dim": 7,
            "mapping_layers": 2,
            "layer_features": 4,
            "mapping_lr_multiplier": 0.01,
            "widths": (6, 5),
            "image_channels": 3,
        },
        "discriminator": {
            "c_dim": 0,
            "widths": (6, 5),
            "image_channels": 3,
            "dense_features": 8,
            "minibatch_group_size": 4,
            "minibatch_channels": 1,
        },
    }
    for key, kind in (("G_ema", "generator"), ("D", "discriminator")):
        found = convert(tree, key)
        assert (found.family, found.kind, found.resolution) == ("stylegan1_tensorflow", kind, 8)
        assert found.config == expected[kind] and found.has_average
        assert "no output of NVIDIA's own code" in found.notes()["verification"]
        assert {entry.source for entry in found.table} == set(found.tensors)
        config = getattr(stylegan1_tensorflow, f"{kind.capitalize()}Config")(**found.config)
        held = parameters.abstract(getattr(stylegan1_tensorflow, kind.capitalize()), config)
        assert {k: v.shape for k, v in found.arrays().items()} == {k: v.shape for k, v in held.items()}


def test_stylegan1_that_was_never_grown():
    """One trained at a single size has no image layers of others, and may lack a level of detail."""
    without = {f"ToRGB_lod1/{part}": None for part in ("weight", "bias")}
    tree = stylegan1(generator={"lod": None}, synthesis=without | {"lod": 0.0})
    assert convert(tree, "G").arrays().keys() == convert(stylegan1(), "G").arrays().keys()


def test_stylegan1_kernels_that_are_turned():
    """Up-convolutions below 128 pixels are convolutions of the doubled image, unless the arguments say otherwise."""
    config = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "mapping_layers": 1, "layer_features": None, "image_channels": 3}
    config |= {"widths": (2,) * 7}
    turned = {
        entry.source: entry.transform is flipped
        for entry in tensorflow_stylegan1.generator_table(config, {}, fused_from=tensorflow_stylegan1.FUSED_FROM)
        if "Conv0_up/weight" in entry.source
    }
    assert turned == {f"synthesis/{r}x{r}/Conv0_up/weight": r < 128 for r in (8, 16, 32, 64, 128, 256)}
    for fused, expected in (("auto", True), (True, False), (False, True)):
        table = convert(stylegan1(given={"fused_scale": fused}), "G").table
        assert [e.transform is flipped for e in table if e.source.endswith("Conv0_up/weight")] == [expected]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(synthesis={"8x8/Conv1/bias": None}), "synthesis/8x8/Conv1/bias is missing"),
        (dict(synthesis={"noise3": None}), "synthesis/noise3 is missing"),
        (dict(synthesis={"noise4": (1, 1, 8, 8)}), "synthesis/noise4 is unexpected"),
        (dict(synthesis={"ToRGB_lod2/bias": (3,)}), "synthesis/ToRGB_lod2/bias is unexpected"),
        (dict(synthesis={"ToRGB_lod1/bias": None}), "synthesis/ToRGB_lod1/bias is missing"),
        (dict(synthesis={"8x8/Conv1/StyleMod/bias": (5,)}), r"StyleMod/bias has shape \(5,\), expected \(10,\)"),
        (dict(generator={"dlatent_avg": None}), "dlatent_avg is missing"),
        (dict(generator={"lod": 1.5}), "lod is 1.5: saved before the network had grown"),
        (dict(generator={"lod": None}), "synthesis/lod is 3: saved before the network had grown"),
        (dict(mapping={"LabelConcat/weight": (2, 9)}), "mapping/LabelConcat/weight is as wide as 9"),
        (dict(mapping={"LabelConcat/weight": (2, 4)}), "label_size is 0, but the variables say 2"),
        (dict(mapping={"Dense0/weight": None}), "mapping/Dense0/weight is missing, which tells"),
        (dict(given={"resolution": 16}), "resolution is 16, but the variables say 8"),
        (dict(given={"mapping_fmaps": 5}), "mapping_fmaps is 5, but the variables say 4"),
        (dict(given={"latent_size": 5}), "latent_size is 5, but the variables say 9"),
        (dict(given={"blur_filter": None}), r"blur_filter is None, expected \[1, 2, 1\]"),
        (dict(given={"fused_scale": "maybe"}), "fused_scale is 'maybe', expected one of auto, True, False"),
        (dict(given={"nonlinearity": "relu"}), "nonlinearity is 'relu', expected one of lrelu"),
        (dict(given={"use_noise": False}), "use_noise is False, expected one of True"),
        (dict(given={"use_pixel_norm": True}), "use_pixel_norm is True, expected one of False"),
        (dict(given={"style_wobble": 1}), "the unknown argument 'style_wobble'"),
        (dict(d={"lod": 2.0}), "lod is 2: saved before the network had grown"),
        (dict(d={"FromRGB_lod2/bias": (6,)}), "FromRGB_lod2/bias is unexpected"),
        (dict(d={"4x4/Dense0/weight": (96, 6)}), "4x4/Dense0/weight has shape"),
        (dict(d={"4x4/Conv/weight": (3, 3, 8, 6)}), "mbstd_num_features is 1, but the variables say 2"),
        (dict(d={"4x4/Dense1/weight": (8, 2), "4x4/Dense1/bias": (2,)}), "label_size is 0, but the variables say 2"),
        (dict(function="D_paper"), "the discriminator was built by 'D_paper'; those built by D_basic can"),
    ],
)
def test_stylegan1_that_does_not_fit(changes, reason):
    key = "D" if changes.keys() & {"d", "function"} else "G_ema"
    with pytest.raises(ConversionError, match=reason):
        convert(stylegan1(**changes), key).arrays()


# What a converted StyleGAN2 computes.


@functools.cache
def read_golden(name):
    """Returns the inputs and outputs of a fixture by their keys."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def load(name, key, dtype):
    """Returns a converted network in `dtype`."""
    found = convert(read(name), key)
    network_class, config_class = KINDS[found.kind]
    arrays = {k: np.asarray(v, dtype) for k, v in found.arrays().items()}
    return network_class.from_arrays(config_class(**found.config), arrays)


def jit(function):
    """Compiles with optimisation in float64, where unoptimised convolutions run for seconds."""
    optimised = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})
    plain = jax.jit(function)
    return lambda *args: (optimised if jax.config.jax_enable_x64 else plain)(*args)


@jit
def map_and_pull_back(generator, z, c, cotangent):
    """Returns `ws` at three truncations, and the cotangent of `ws` without truncation pulled back to `z`."""
    ws, pull_back = jax.vjp(lambda z: generator.map(z, c), z)
    cut = generator.map(z, c, truncation_psi=0.7, truncation_cutoff=3)
    return (ws, generator.map(z, c, truncation_psi=0.7), cut), pull_back(cotangent)[0]


@jit
def synthesise(generator, ws, noise, weight):
    """Returns images, and the gradient of `mean(images * weight)` by `ws`."""

    def loss(ws):
        image = generator.synthesis(ws, noise=noise)
        return jnp.mean(image * weight), image

    (_, image), gradient = jax.value_and_grad(loss, has_aux=True)(ws)
    return image, gradient


@jit
def discriminate(discriminator, images, c):
    """Returns logits, and the gradient of their sum by the images."""

    def loss(images):
        logits = discriminator(images, c)
        return jnp.sum(logits), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(images)
    return logits, gradient


def logits_of(discriminator, images, c):
    """Returns logits `[n]` of up to 4 images, by the program that was compiled for 4.

    Every image comes several times in a row, so that each group holds all of them equally often: the deviation within
    it is that of the images alone.
    """
    times = 4 // len(images)
    repeated = [None if x is None else np.repeat(np.asarray(x), times, axis=0) for x in (images, c)]
    return discriminate(discriminator, *repeated)[0][::times]


def to_nchw(image):
    return np.moveaxis(np.asarray(image), -1, 1)


def to_nhwc(image):
    return np.moveaxis(np.asarray(image), 1, -1)


def outputs_of(name, dtype):
    """Returns everything that a fixture holds, by key."""
    inputs = {k[3:]: v.astype(dtype) for k, v in read_golden(name).items() if k.startswith("in/")}
    generator, discriminator = (load(name, key, dtype) for key in ("G_ema", "D"))
    z, c, wplus, weight = inputs["z"], inputs.get("c"), inputs["wplus"], to_nhwc(inputs["R"])
    const = {k: jnp.repeat(v, len(z), axis=0) for k, v in generator.synthesis.noise_maps("const", 1, dtype).items()}
    none = {k: jnp.zeros_like(v) for k, v in const.items()}
    mapped, _ = map_and_pull_back(generator, z, c, np.zeros_like(wplus))
    outputs = dict(zip(("ws", "ws_psi0.7", "ws_psi0.7_cutoff3"), mapped, strict=True))
    image, by_ws = synthesise(generator, mapped[0], const, weight)
    outputs |= {"img_const": to_nchw(image), "grad_z": map_and_pull_back(generator, z, c, by_ws)[1]}
    outputs["img_psi0.7_const"] = to_nchw(synthesise(generator, mapped[1], const, weight)[0])
    given, outputs["grad_wplus"] = synthesise(generator, wplus, const, weight)
    outputs["img_wplus_const"] = to_nchw(given)
    outputs["img_wplus_none"] = to_nchw(synthesise(generator, wplus, none, weight)[0])
    real, labels = to_nhwc(inputs["imgD"]), inputs.get("cD")
    logits, gradient = discriminate(discriminator, real, labels)
    outputs |= {"logits_imgD": logits[:, None], "grad_imgD": to_nchw(gradient)}
    outputs["r1_imgD"] = np.sum(np.square(np.asarray(gradient)), axis=(1, 2, 3))
    outputs["logits_imgD_single0"] = logits_of(discriminator, real[:1], None if labels is None else labels[:1])[:, None]
    outputs["logits_img_const"] = logits_of(discriminator, image, c)[:, None]
    return {key: np.asarray(value) for key, value in outputs.items()}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", FIXTURES)
def test_reference_outputs(name, precision, strict_types):
    """Every key that the fixture holds is computed and equal."""
    dtype = {"f64": np.float64, "f32": np.float32}[precision]
    with jax.enable_x64(precision == "f64"):
        outputs, golden = outputs_of(name, dtype), read_golden(name)
    held = {k[4:] for k in golden if k.startswith(f"{precision}/")}
    assert held - set(outputs) == set() and len(held) >= 12
    for key in held:
        expected = golden[f"{precision}/{key}"]
        assert outputs[key].shape == expected.shape, key
        error = np.abs(outputs[key].astype(np.float64) - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE[precision], f"{key}: {error:.1e}"
