# SPDX-License-Identifier: Apache-2.0
"""Files of classifiers: what becomes of them, and what is refused."""

import functools
import pathlib

import numpy as np
import pytest

from convert import ConversionError, classifiers
from convert.snapshot import read_pickle_file
from convert.source import read_file
from convert.tensorflow_files import Variable
from convert.torchfile import STORAGE_TYPES, Storage, Tensor
from stylegan_jax import classifiers as ours

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RESNET, PICKLE = GOLDEN / "attribute_resnet_narrow.pt", GOLDEN / "celebahq_classifier_narrow.pkl"
LARGE = 1 << 40  # bytes, for trees without a file


def tensor(values):
    """Returns what a reader gives for an array of a file."""
    array = np.array(values, np.float32, order="C")
    steps = tuple(int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim))
    storage = Storage(STORAGE_TYPES["torch.FloatStorage"], array.size, memoryview(array.tobytes()))
    return Tensor(storage, 0, array.shape, steps)


@functools.cache
def resnet_tensors():
    file = read_file(RESNET)
    state = file.tree["state_dict"]
    return {k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}


def pickled():
    """Returns the network of the pickle, read anew: tests change it."""
    return read_pickle_file(PICKLE).tree


@functools.cache
def port_tensors():
    """Returns the network of the pickle in the layout of the PyTorch port."""
    names = {"FromRGB_lod0": "fromrgb_lod0.conv", "4x4/Conv": "4x4.conv"}
    names |= {f"4x4/Dense{i}": f"4x4.dense{i}" for i in (0, 1)}
    names |= {f"{r}x{r}/Conv0": f"{r}x{r}.conv0" for r in (8, 16, 32)}
    names |= {f"{r}x{r}/Conv1_down": f"{r}x{r}.conv1" for r in (8, 16, 32)}
    found = {"lod_in": tensor(0)}
    for name, variable in pickled().variables().items():
        if name != "lod":
            layer, _, part = name.rpartition("/")
            array = variable.read()
            if part == "weight":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            kind = "conv" if array.ndim == 4 else "linear"
            found[f"{names[layer]}.{kind}.weight" if part == "weight" else f"{names[layer]}.wscale.b"] = tensor(array)
    return found


def read(tree, **options):
    return classifiers.read_classifier(tree, file_size=LARGE, **options)


def test_all_forms_fill_our_networks():
    """Configurations are inferred, every tensor has a place, and both forms of a network hold the same values."""
    found = read(read_file(RESNET).tree)
    assert (found.network, found.form) == ("attribute_resnet", "resnet")
    assert found.config == {"widths": (8, 12, 16, 24), "depths": (3, 4, 6, 3), "stem": 8}
    # That the arrays fill the network, the golden values show.
    assert {entry.source for entry in found.table} == set(found.tensors) == set(resnet_tensors())
    both = [read(pickled(), file_name="celebahq-classifier-01-smiling.pkl")]
    both.append(read({"epoch": 1, "valacc": 0.9, "state_dict": port_tensors()}, attributes=["SMILING"]))
    for found in both:
        assert found.network == "celebahq_classifier"
        blur = {"blur": False} if found.form == "tensorflow" else {}
        assert found.config == {"attributes": ("Smiling",), "widths": (16, 16, 16, 8)} | blur
        assert "DiffPure" in found.notes["present_sign"]
    first, second = (found.arrays() for found in both)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    built = both[0].build(first)
    assert isinstance(built, ours.CelebaHqClassifier) and built.attributes == ("Smiling",)


def test_names_of_published_files():
    """The attribute is that of the file's name, in CelebA's own spelling, or that of its number where it is known."""
    for name, expected in (
        ("celebahq-classifier-01-smiling.pkl", "Smiling"),
        ("/models/celebahq-classifier-05-5-o-clock-shadow.pkl", "5_o_Clock_Shadow"),
        ("celebahq-classifier-21-bags-under-eyes.pkl", "Bags_Under_Eyes"),
        ("celebahq-classifier-39.pkl", "Wearing_Necktie"),
        ("celebahq-classifier-07.pkl", None),
        ("celebahq-classifier-07-friendly.pkl", None),
        ("network.pkl", None),
    ):
        assert classifiers.recorded_attribute([name]) == expected
    assert classifiers.recorded_attribute(["network.pkl", "celebahq-classifier-00-male"]) == "Male"
    with pytest.raises(ConversionError, match="--attribute_name=Smiling says it"):
        read(pickled())
    with pytest.raises(ConversionError, match="classifies one attribute, but 2 names are given"):
        read(pickled(), attributes=["a", "b"])
    assert read(pickled(), attributes=["Friendly"], file_name="celebahq-classifier-00-male.pkl").config[
        "attributes"
    ] == ("Friendly",)


def test_other_numbers_of_attributes():
    """A ResNet of two outputs for each of the names that are given."""
    head = {"fc.weight": tensor(np.ones((4, 96), np.float32)), "fc.bias": tensor(np.ones(4, np.float32))}
    found = read(resnet_tensors() | head, attributes=["smiling", "Friendly"])
    assert found.config["attributes"] == ("Smiling", "Friendly")
    with pytest.raises(ConversionError, match="fc has 4 outputs, expected two for each of 40 attributes, 80"):
        read(resnet_tensors() | head)


def changed_pickle(*, variables=None, arguments=None):
    network = pickled()
    held = network.variables() | {k: Variable(v) if isinstance(v, float) else v for k, v in (variables or {}).items()}
    network.variables = lambda: {name: variable for name, variable in held.items() if variable is not None}
    network.arguments = network.arguments | (arguments or {})
    return network


def replaced(tensors, **changes):
    """Returns `tensors` with arrays put in, or left out where they are None; `__` stands for a dot."""
    named = {name.replace("__", "."): array for name, array in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if name not in named}
    return kept | {name: tensor(a) for name, a in named.items() if a is not None}


def zeros(*shape):
    return np.zeros(shape, np.float32)


DAMAGED = {
    "resnet missing": (
        lambda: replaced(resnet_tensors(), layer2__1__bn2__bias=None),
        r"layer2\.1\.bn2\.bias is missing",
    ),
    "resnet shape": (
        lambda: replaced(resnet_tensors(), layer3__0__conv2__weight=zeros(16, 16, 1, 1)),
        r"layer3\.0\.conv2\.weight has shape \(16, 16, 1, 1\), expected \(16, 16, 3, 3\)",
    ),
    "resnet extra": (lambda: replaced(resnet_tensors(), aux__weight=zeros(3)), r"aux\.weight is unexpected"),
    "resnet block": (
        lambda: replaced(resnet_tensors(), layer1__1__conv1__weight=None),
        r"layer1\.1\.conv2\.weight|layer1\.2\..* is unexpected",
    ),
    "resnet head": (lambda: replaced(resnet_tensors(), fc__weight=zeros(1000, 96)), "fc has 1000 outputs"),
    "resnet nan": (
        lambda: replaced(resnet_tensors(), fc__bias=np.full(80, np.nan, np.float32)),
        r"fc\.bias holds 80 NaN or infinite values of 80",
    ),
    "resnet variance": (
        lambda: replaced(resnet_tensors(), bn1__running_var=-np.ones(8, np.float32)),
        r"bn1\.running_var holds negative variances",
    ),
    "port missing": (
        lambda: replaced(port_tensors(), **{"8x8__conv1__wscale__b": None}),
        r"8x8\.conv1\.wscale\.b is missing",
    ),
    "port shape": (
        lambda: replaced(port_tensors(), **{"4x4__dense0__linear__weight": zeros(16, 99)}),
        r"4x4\.dense0\.linear\.weight has shape \(16, 99\), expected \(16, 256\)",
    ),
    "port extra": (lambda: replaced(port_tensors(), linear=zeros(2)), "linear is unexpected"),
    "port deviation": (
        lambda: replaced(port_tensors(), **{"4x4__conv__conv__weight": zeros(16, 17, 3, 3)}),
        "takes 17 channels of 16: with minibatch deviation, answers would depend on the other images",
    ),
    "port growing": (lambda: replaced(port_tensors(), lod_in=np.float32(1.5)), "lod_in is not 0: saved before"),
    "pickle missing": (
        lambda: changed_pickle(variables={"16x16/Conv0/bias": None}),
        "16x16/Conv0/bias is missing",
    ),
    "pickle shape": (
        lambda: changed_pickle(variables={"4x4/Dense1/bias": tensor(zeros(2))}),
        r"4x4/Dense1/bias has shape \(2,\), expected \(1,\)",
    ),
    "pickle extra": (
        lambda: changed_pickle(variables={"4x4/Dense2/bias": tensor(zeros(2))}),
        "4x4/Dense2/bias is unexpected",
    ),
    "pickle nan": (
        lambda: changed_pickle(variables={"4x4/Dense1/bias": tensor(np.full(1, np.inf, np.float32))}),
        "holds 1 NaN or infinite",
    ),
    "pickle deviation": (
        lambda: changed_pickle(variables={"4x4/Conv/weight": tensor(zeros(3, 3, 17, 16))}),
        "takes 17 channels of 16: with minibatch deviation, .* so this is a discriminator",
    ),
    "pickle group": (
        lambda: changed_pickle(arguments={"mbstd_group_size": 4}),
        "mbstd_group_size is 4, expected one of 0, 1",
    ),
    "pickle labels": (lambda: changed_pickle(arguments={"label_size": 3}), "label_size is 3, but the variables say 0"),
    "pickle filter": (lambda: changed_pickle(arguments={"blur_filter": [1, 3, 1]}), r"expected \[1, 2, 1\] or None"),
    "pickle unknown": (lambda: changed_pickle(arguments={"twist": 1}), "unknown argument 'twist'"),
    "pickle growing": (lambda: changed_pickle(variables={"lod": 2.0}), "lod is not 0"),
    "nothing": (lambda: {"weight": tensor(zeros(3))}, "is no classifier; expected state dict of a PyTorch ResNet-50"),
    "too large": (None, "claim more values than the file has bytes"),
}


@pytest.mark.parametrize("case", list(DAMAGED))
def test_what_does_not_fit_is_named(case):
    make, reason = DAMAGED[case]
    with pytest.raises(ConversionError, match=reason):
        if make is None:
            classifiers.read_classifier(resnet_tensors(), file_size=1000)
        else:
            tree = make()
            resnet = isinstance(tree, dict) and "fc.weight" in tree
            read(tree, attributes=None if resnet else ["Smiling"]).arrays()


def test_blur_is_read():
    """A filter that the pickle records is applied, and nothing is noted then."""
    found = read(changed_pickle(arguments={"blur_filter": [1, 2, 1]}), attributes=["Smiling"])
    assert found.config["blur"] is True and "blur" not in found.notes
    assert read(changed_pickle(arguments={"blur_filter": None}), attributes=["Smiling"]).config["blur"] is False


def test_every_problem_is_reported_at_once():
    tree = replaced(resnet_tensors(), bn1__bias=None, layer1__0__bn1__weight=zeros(3), more=zeros(1))
    with pytest.raises(ConversionError) as caught:
        read(tree)
    assert len(caught.value.problems) == 3
