# SPDX-License-Identifier: Apache-2.0
"""Files of unknown kinds: every tensor is listed, and what the file probably is, with the reason."""

import pathlib

import pytest

from convert.description import SIGNATURES, TensorFact, guess, tensors
from convert.snapshot import Module, read_pickle_file
from convert.tensorflow_files import Variable
from convert.torch_legacy import is_torch_file, read_torch_file

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("name", "count", "kind"),
    [
        ("ros1_train_step6.model", 350, "a StyleGAN1 generator of rosinality's code"),
        ("ros2_train_zip.pt", 203, "a StyleGAN2 generator of rosinality's code"),
        ("sg2_odd.pkl", 173, "a StyleGAN2 generator of NVIDIA's torch code"),
        ("sg3_r.pkl", 265, "a StyleGAN3 generator"),
    ],
)
def test_files(name, count, kind):
    read = read_torch_file if is_torch_file(GOLDEN / name) else read_pickle_file
    facts = tensors(read(GOLDEN / name).tree)
    assert len(facts) == len({fact.name for fact in facts}) == count
    found, reason = guess(facts)
    assert found == kind and reason.startswith("it has ")
    assert {"float", "float32"} >= {fact.dtype for fact in facts}


def test_paths_of_a_tensorflow_pickle():
    facts = {fact.name: fact for fact in tensors(read_pickle_file(GOLDEN / "tf_ada_cond.pkl").tree)}
    assert len(facts) == 169 and facts["1.4x4/Conv/bias"].dtype == "float32"
    assert facts["2.synthesis/4x4/Const/const"].shape[2:] == (4, 4)


# Names as their publishers wrote them, whatever they are wrapped in.
@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ({"state_dict.encoder.input_layer.0.weight": (64, 3, 3, 3), "state_dict.encoder.styles.0.convs.0.weight": (1,),
          "state_dict.encoder.styles.0.linear.weight": (512, 512), "state_dict.decoder.convs.0.conv.weight": (1,)},
         "an encoder of pSp, e4e or ReStyle with its StyleGAN2 decoder"),
        ({"encoder.input_layer.0.weight": (64, 6, 3, 3), "encoder.styles.0.linear.weight": (512, 512)},
         "an encoder of pSp, e4e or ReStyle"),
        ({"encoder.conv1.weight": (64, 6, 7, 7), "encoder.styles.0.linear.weight": (512, 512)},
         "an encoder with the ResNet trunk of ReStyle"),
        ({"input_layer.0.weight": (64, 3, 3, 3), "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1)},
         "an identity network IR-SE50"),
        ({"lin0.model.1.weight": (1, 64, 1, 1), "lin4.model.1.weight": (1, 512, 1, 1)}, "the linear layers of LPIPS"),
        ({"module.Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3)}, "an Inception network for the Frechet distance"),
        ({"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 1, 1), "layer4.2.conv3.weight": (1,),
          "fc.weight": (80, 2048)}, "a ResNet-50 with 40 attributes"),
        ({"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 3, 3)}, "a ResNet"),
        ({"features.0.weight": (64, 3, 3, 3), "features.28.weight": (512, 512, 3, 3)}, "a VGG-16 or VGG-19"),
        ({"features.0.weight": (64, 3, 11, 11)}, "an AlexNet"),
        ({"features.3.squeeze.weight": (16, 64, 1, 1)}, "a SqueezeNet"),
        ({"netG.main.0.weight": (100, 512, 4, 4)}, "a DCGAN"),
        ({"G_ema.synthesis.b4.const": (512, 4, 4), "G_ema.mapping.fc0.weight": (512, 512)},
         "a StyleGAN2 generator of NVIDIA's torch code"),
        ({"b4.out.weight": (1, 512), "b8.conv0.weight": (1,)}, "a StyleGAN2 discriminator of NVIDIA's torch code"),
    ],
)  # fmt: skip
def test_kinds_are_told_by_names_and_shapes(names, kind):
    assert guess([TensorFact(name, shape, "float") for name, shape in names.items()])[0] == kind


def test_nothing_is_guessed_without_a_reason():
    assert guess([]) is None
    assert guess([TensorFact("classifier.weight", (10, 10), "float")]) is None
    assert guess([TensorFact("features.0.weight", (64, 3, 5, 5), "float")]) is None
    assert guess([TensorFact("unconv1.weight", (64, 3, 7, 7), "float")]) is None  # a name, not the end of one
    assert len({signature.kind for signature in SIGNATURES}) == len(SIGNATURES)


def test_the_walk_ends():
    """A file that holds itself, or one value twice at each of many levels."""
    shared = {}
    for _ in range(40):
        shared = {"a": shared, "b": shared}
    assert tensors(shared) == []
    number = Variable(0.5)
    facts = tensors({"k" * 10**6: {str(i): number for i in range(30_000)}})
    assert len(facts) == 20_000 and max(len(fact.name) for fact in facts) < 300
    tree = {"a": [1, "b"]}
    tree["a"].append(tree)
    module = Module("M", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    module.state["_modules"]["child"] = module
    assert tensors(tree) == tensors(module) == []
