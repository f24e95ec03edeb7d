# SPDX-License-Identifier: Apache-2.0
"""Networks that stand alone, from file to checkpoint and back: what is written, compared, described and refused."""

import hashlib
import pathlib
import shutil
import sys

import numpy as np
import pytest

import convert
import stylegan_jax
from convert import ConversionError, perceptual, standalone
from stylegan_jax import checkpoint, classifiers, parameters
from stylegan_jax.features import alexnet, arcface, lpips, vgg

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import golden_weights
from test_dcgan import generator, save
from test_encoders import write_small

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RESNET, PICKLE = GOLDEN / "attribute_resnet_narrow.pt", GOLDEN / "celebahq_classifier_narrow.pkl"
WIDTHS = {"vgg16": (4, 6, 6, 8, 8), "alexnet": (4, 6, 8, 6, 6)}


def trunk(network):
    return golden_weights.weights(network, golden_weights.shapes(network, WIDTHS[network]))


def face():
    shapes = golden_weights.arcface_shapes(widths=(6, 8), depths=(2, 1), stem=6, size=8, embedding=5, reduction=2)
    return golden_weights.weights("arcface", shapes)


def heads(widths):
    return {f"lin{i}.model.1.weight": np.full((1, w, 1, 1), 0.5 + i, np.float32) for i, w in enumerate(widths)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder of files as they are published."""
    path = tmp_path_factory.mktemp("published")
    for network in WIDTHS:
        save(path / f"{network}.pth", trunk(network))
    save(path / "model_ir_se50.pth", face())
    save(path / "alex.pth", heads(WIDTHS["alexnet"]))
    shutil.copy(RESNET, path / "attribute_predictor.pt")
    shutil.copy(PICKLE, path / "celebahq-classifier-01-smiling.pkl")
    shutil.copy(PICKLE, path / "renamed.pkl")
    return path


# File, options, class of what is written, and what its licence says.
FILES = {
    "vgg16.pth": ({}, vgg.Vgg, "CC BY 4.0"),
    "alexnet.pth": ({"linear": "alex.pth"}, lpips.Lpips, "BSD-2-Clause"),
    "model_ir_se50.pth": ({}, arcface.ArcFace, "non-commercial research only"),
    "attribute_predictor.pt": ({}, classifiers.AttributeResNet, "MIT"),
    "celebahq-classifier-01-smiling.pkl": ({}, classifiers.CelebaHqClassifier, "CC BY-NC 4.0"),
}


def located(options, folder):
    return {key: folder / value if key == "linear" else value for key, value in options.items()}


SLOW = ("attribute_predictor.pt",)  # 270 arrays, written and built four times


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FILES])
def test_a_file_becomes_a_checkpoint(name, folder, tmp_path):
    """What is written loads as the network, knows its origin, and agrees with the file bit for bit."""
    options, kind, licence = FILES[name]
    options, source = located(options, folder), folder / name
    made = convert.convert(source, tmp_path / "network", **options)
    loaded, _ = checkpoint.load_network(tmp_path / "network", kind)
    ours, stored = parameters.to_arrays(made), parameters.to_arrays(loaded)
    assert ours.keys() == stored.keys() and all(np.array_equal(stored[key], array) for key, array in ours.items())
    assert isinstance(made, kind) and loaded.config == made.config
    facts = stylegan_jax.info(tmp_path / "network")["provenance"]
    assert (facts["file"], facts["size"]) == (name, source.stat().st_size)
    assert facts["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest() and licence in facts["licence"]
    if "linear" in options:
        assert facts["linear"]["file"] == "alex.pth" and "BSD-3-Clause" in facts["licence"]
    if "classifier" in name:
        assert loaded.attributes == ("Smiling",) and "DiffPure" in facts["present_sign"]
    given = {key: value for key, value in options.items() if key == "linear"}
    found = convert.verify(source, tmp_path / "network", **given)
    assert found.agrees and found.same_file and sum(row.tensors for row in found.tensors) == len(ours)


def test_differences_are_found(folder, tmp_path):
    """Another file of the same kind, another network, and what has no place here."""
    state = trunk("alexnet")
    state["features.3.bias"] = state["features.3.bias"] + 1
    convert.convert(folder / "alexnet.pth", tmp_path / "network")
    found = convert.verify(save(tmp_path / "other.pth", state), tmp_path / "network")
    assert not found.agrees and not found.same_file
    assert found.problems == ("alexnet conv2/bias: 6 of 6 values differ, by 1 at most (relative 0.89)",)
    for source, options, reason in (
        ("vgg16.pth", {}, "a Vgg is needed"),
        ("alexnet.pth", {"reference": "outputs.npz"}, "a reference belongs to generators and discriminators"),
        ("alexnet.pth", {"linear": folder / "alex.pth"}, "a Lpips is needed"),
    ):
        with pytest.raises(ConversionError, match=reason):
            convert.verify(folder / source, tmp_path / "network", **options)
    with pytest.raises(ConversionError, match="holds no network that stands alone"):
        convert.verify(save(tmp_path / "dcgan.pth", generator()), tmp_path / "network")


REFUSED = {
    "network": ("vgg16.pth", {"network": "G"}, "VGG-16 .*to which --network cannot be applied"),
    "several": ("renamed.pkl", {"discriminator": False, "step": 3}, "--nodiscriminator and --step cannot be applied"),
    "nonfinite": ("vgg16.pth", {"allow_nonfinite": True}, "--allow_nonfinite cannot be applied"),
    "generator": ("vgg16.pth", {"generator": "ffhq"}, "--generator cannot be applied"),
    "attribute": (
        "vgg16.pth",
        {"attributes": ["a"]},
        "--attribute_name belongs to classifiers; this file holds VGG-16",
    ),
    "linear": ("attribute_predictor.pt", {"linear": "alex.pth"}, "--linear belongs to trunks of LPIPS"),
    "trunk": ("model_ir_se50.pth", {"linear": "alex.pth"}, "alex.pth: is meant for a trunk of vgg16"),
    "heads": ("vgg16.pth", {"linear": "alex.pth"}, r"alex\.pth: .*has shape"),
    "alone": ("alex.pth", {}, "LPIPS' own weights; they need a trunk, and are given as `linear`"),
    "unnamed": ("renamed.pkl", {}, "--attribute_name=Smiling says it"),
    "others": ("dcgan.pth", {"linear": "alex.pth"}, "to which --linear cannot be applied"),
    "damaged": ("damaged.pth", {}, r"features\.3\.bias is missing"),
    "nan": ("nan.pth", {}, r"features\.3\.bias holds 6 NaN or infinite values of 6$"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_refused(case, folder, tmp_path):
    """One error, named after the file, and nothing written."""
    name, options, reason = REFUSED[case]
    state = trunk("alexnet")
    made = {
        "dcgan.pth": generator(),
        "damaged.pth": {key: array for key, array in state.items() if key != "features.3.bias"},
        "nan.pth": state | {"features.3.bias": np.full(6, np.nan, np.float32)},
    }
    source = save(tmp_path / name, made[name]) if name in made else folder / name
    with pytest.raises(ConversionError, match=reason) as caught:
        convert.convert(source, tmp_path / "network", **located(options, folder))
    assert caught.value.source and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ([name] if name in made else [])


def test_overwriting(folder, tmp_path):
    """As for models: only when told to, only a checkpoint, and never what is being read."""
    place = tmp_path / "network"
    convert.convert(folder / "alexnet.pth", place)
    with pytest.raises(ConversionError, match="exists already"):
        convert.convert(folder / "vgg16.pth", place)
    inside = shutil.copy(folder / "alex.pth", place / "alex.pth")
    with pytest.raises(ConversionError, match="holds the source itself"):
        convert.convert(folder / "alexnet.pth", place, linear=inside, overwrite=True)
    convert.convert(folder / "vgg16.pth", place, overwrite=True)
    assert isinstance(checkpoint.load_network(place, vgg.Vgg)[0], vgg.Vgg)
    with pytest.raises(checkpoint.CheckpointError, match="a AlexNet is needed"):
        checkpoint.load_network(place, alexnet.AlexNet)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConversionError, match="is no checkpoint"):
        convert.convert(folder / "vgg16.pth", tmp_path / "mine", overwrite=True)


def test_inspect(folder):
    """What the file is, its licence and settings; or why it cannot be converted."""
    facts = convert.inspect(folder / "vgg16.pth")
    assert facts["network"] == "VGG-16 without its classifier" and facts["config"]["widths"] == WIDTHS["vgg16"]
    assert facts["values"] == sum(array.size for array in trunk("vgg16").values()) and "BSD-3" in facts["licence"]
    facts = convert.inspect(folder / "celebahq-classifier-01-smiling.pkl")
    assert facts["network"] == "CelebA-HQ classifier of Smiling" and "blur" in facts["notes"]
    assert "--attribute_name" in convert.inspect(folder / "renamed.pkl")["problem"]
    assert convert.inspect(folder / "renamed.pkl", attributes=["Young"])["network"].endswith("of Young")
    facts = convert.inspect(folder / "alex.pth")
    assert facts["network"] == "LPIPS' own weights" and "they need a trunk" in facts["problem"]


def test_commands(folder, run_commands):
    """The command line: one line each, and 1 where something is refused."""
    cases = [
        ["alexnet.pth", "networks/lpips", "--linear=alex.pth"],
        ["verify", "alexnet.pth", "networks/lpips", "--linear=alex.pth"],
        ["renamed.pkl", "networks/young", "--attribute_name=young"],
        ["inspect", "attribute_predictor.pt"],
        ["inspect", "alex.pth"],
        ["vgg16.pth", "networks/vgg", "--network=G"],
    ]
    lpips_done, verified, young, resnet, alone, refused = run_commands("convert", cases, folder)
    assert lpips_done == [0, "networks/lpips: LPIPS of alexnet.pth\n", ""]
    assert verified[0] == 0 and verified[1].splitlines()[-1].startswith("all agree: networks/lpips holds lpips of")
    assert young == [0, "networks/young: CelebA-HQ classifier of Young of renamed.pkl\n", ""]
    assert resnet[0] == 0 and "licence: Anycost GAN" in resnet[1] and "classifier of 40 attributes" in resnet[1]
    assert alone[0] == 0 and "cannot be converted: holds LPIPS' own weights" in alone[1]
    assert refused[0] == 1 and refused[2].count("\n") == 1 and "leave that out" in refused[2]
    assert not (folder / "networks" / "vgg").exists()


def test_encoders_take_their_own_way(folder, tmp_path):
    """A file of an encoder becomes a model with its encoder; it is described, and not compared."""
    source = write_small(tmp_path / "encoder.pt")
    facts = convert.inspect(source)
    assert facts["network"] == "encoder of pSp, e4e or ReStyle" and "StyleEncoder" in facts["format"]
    for options, reason in (
        ({"network": "G"}, "--network cannot"),
        ({"linear": folder / "alex.pth"}, "--linear cannot"),
    ):
        with pytest.raises(ConversionError, match=rf"encoder\.pt: holds an encoder, to which {reason}"):
            convert.convert(source, tmp_path / "model", **options)
    with pytest.raises(ConversionError, match="--generator cannot be applied"):
        convert.convert(save(tmp_path / "dcgan.pth", generator()), tmp_path / "model", generator=tmp_path)
    model = convert.convert(source, tmp_path / "model")
    assert model.encoder is not None and stylegan_jax.load(tmp_path / "model").encoder_hash == model.encoder_hash
    with pytest.raises(ConversionError, match="holds an encoder; those are not compared"):
        convert.verify(source, tmp_path / "model")


def test_every_network_has_its_words():
    """Title and licence of everything that can be read."""
    assert set(perceptual.CLASSES) <= set(standalone.TITLES)
    assert set(perceptual.CLASSES) - {"lpips"} <= set(standalone.LICENCES)
