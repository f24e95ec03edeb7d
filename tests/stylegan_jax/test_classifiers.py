# SPDX-License-Identifier: Apache-2.0
"""Classifiers of attributes: against golden values of PyTorch, and by what they promise."""

import dataclasses
import functools
import pathlib
import sys
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert.classifiers import read_classifier
from convert.source import read_file
from stylegan_jax import classifiers, stylegan1
from stylegan_jax.classifiers import celebahq, resnet

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import golden_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
KINDS = {
    "resnet": (classifiers.AttributeResNet, classifiers.AttributeResNetConfig),
    "celebahq": (classifiers.CelebaHqClassifier, classifiers.CelebaHqConfig),
}
FILES = {"resnet": "attribute_resnet_narrow.pt", "celebahq": "celebahq_classifier_narrow.pkl"}
NARROW = {"resnet": (306, (2, 3, 64, 64)), "celebahq": (307, (3, 3, 32, 32))}  # seed and shape of the images
FULL = {"resnet": (121, (2, 3, 256, 256)), "celebahq": (122, (2, 3, 256, 256))}
SMILING = 31  # in CelebA's order


@functools.cache
def golden():
    with np.load(GOLDEN / "classifiers.npz") as file:
        return dict(file)


def last(array):
    """Returns `[n, c, h, w]` as `[n, h, w, c]`."""
    return np.moveaxis(np.asarray(array), 1, -1)


def differ(ours, expected):
    """Returns the largest difference in units of the largest value."""
    assert np.shape(ours) == np.shape(expected)
    return np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()


@functools.cache
def read(name):
    """Returns config and arrays of a narrow network."""
    file = read_file(GOLDEN / FILES[name])
    found = read_classifier(file.tree, file_size=file.size, attributes=None if name == "resnet" else ["smiling"])
    return found.config | ({"resolution": 64} if name == "resnet" else {}), found.arrays()


def narrow(name, dtype=np.float32, **options):
    kind, config = KINDS[name]
    settings, arrays = read(name)
    return kind.from_arrays(config(**settings | options), {key: array.astype(dtype) for key, array in arrays.items()})


@jax.jit
def asked(network, images):
    """Returns the loss of the golden file, what the network gives and its gradient by the images."""

    def run(x):
        logits = network.logits(x)
        if logits.ndim == 2:
            return jax.nn.softplus(logits).sum(), logits
        odds = logits[:, SMILING, 1] - logits[:, SMILING, 0]
        return classifiers.cross_entropy(odds, 1.0).mean(), logits

    (loss, logits), gradient = jax.value_and_grad(run, has_aux=True)(images)
    return loss, logits, gradient


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("resnet", np.float64),
        ("celebahq", np.float64),
        pytest.param("resnet", np.float32, marks=pytest.mark.slow),  # its values are those of `test_the_one_interface`
        ("celebahq", np.float32),
    ],
)
def test_narrow_networks_are_those_of_pytorch(name, dtype):
    """Logits, loss and gradient of the files in the layout of the published ones, and probabilities."""
    seed, shape = NARROW[name]
    expected = {key.split("/")[1]: value for key, value in golden().items() if key.startswith(f"{name}_narrow/")}
    tolerance = 1e-9 if dtype == np.float64 else 2e-5
    with jax.enable_x64(dtype == np.float64):
        loss, logits, gradient = asked(narrow(name, dtype), last(golden_weights.image(seed, shape)).astype(dtype))
        assert gradient.dtype == dtype
        if name == "resnet":
            assert differ(logits, expected["logits"]) < tolerance
            assert abs(float(loss) / expected["smile_loss"][0] - 1) < tolerance
        else:
            assert differ(logits, expected["logit"]) < tolerance
            present = jax.nn.sigmoid(-2 * logits)  # softmax([l, -l])[1]
            assert differ(present, expected["softmax"][:, 1:]) < tolerance
        # Gradients were stored as float32.
        assert differ(gradient, last(expected["grad_x"])) < max(tolerance, 1e-7)


def celebahq_weights():
    """Returns our arrays of the network of full width by the rule of the golden files, at run time scaled weights."""
    widths, arrays = (512, 512, 512, 512, 256, 128, 64), {}

    def draw(name, shape, spread):
        rng = np.random.Generator(np.random.PCG64(122 + zlib.crc32(name.encode())))
        return (spread * rng.standard_normal(shape)).astype(np.float32)

    def layer(source, ours, shape):
        kind = "conv" if len(shape) == 4 else "linear"
        weight = draw(f"{source}.{kind}.weight", shape, 1)
        if source == "4x4.dense0":
            weight = weight.reshape(len(weight), -1, 4, 4).transpose(0, 2, 3, 1).reshape(weight.shape)
        arrays[f"{ours}/weight"] = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        arrays[f"{ours}/bias"] = draw(f"{source}.wscale.b", shape[:1], 0.1)

    layer("fromrgb_lod0.conv", "fromrgb", (widths[-1], 3, 1, 1))
    for i, width in enumerate(widths[1:], 1):
        size = 4 << i
        layer(f"{size}x{size}.conv0", f"b{size}/conv0", (width, width, 3, 3))
        layer(f"{size}x{size}.conv1", f"b{size}/conv1", (widths[i - 1], width, 3, 3))
    layer("4x4.conv", "b4/conv", (512, 512, 3, 3))
    layer("4x4.dense0", "b4/fc", (512, 8192))
    layer("4x4.dense1", "b4/out", (1, 512))
    return arrays


def resnet_weights():
    """Returns our arrays of the network of full width by the rule of the golden files."""
    arrays = {}

    def normed(source, norm, ours, shape):
        arrays[f"{ours}/weight"] = golden_weights.draw(f"{source}.weight", shape, 121, 1.0).transpose(2, 3, 1, 0)
        parts = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
        for theirs, part in parts.items():
            array = golden_weights.draw(f"{norm}.{theirs}", shape[:1], 121, 1.0, norm=True)
            arrays[f"{ours}/norm/{part}"] = array

    normed("conv1", "bn1", "stem", (64, 3, 7, 7))
    before = 64
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for i in range(depth):
            source, ours = f"layer{stage}.{i}", f"stage{stage}_{i}"
            for k, shape in enumerate(((width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), 1):
                normed(f"{source}.conv{k}", f"{source}.bn{k}", f"{ours}/conv{k}", shape)
            if i == 0:
                shape = (4 * width, before, 1, 1)
                normed(f"{source}.downsample.0", f"{source}.downsample.1", f"{ours}/shortcut", shape)
            before = 4 * width
    arrays["head/weight"] = golden_weights.draw("fc.weight", (80, 2048), 121, 1.0).T
    arrays["head/bias"] = golden_weights.draw("fc.bias", (80,), 121, 1.0)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(KINDS))
def test_full_width(name, dtype):
    """Logits, loss and gradient at 256 pixels."""
    (seed, shape), (kind, config) = FULL[name], KINDS[name]
    arrays = resnet_weights() if name == "resnet" else celebahq_weights()
    options = {} if name == "resnet" else {"attributes": ("Smiling",)}
    expected = {key.split("/")[1]: value for key, value in golden().items() if key.startswith(f"{name}/")}
    tolerance = 1e-9 if dtype == np.float64 else 2e-5
    with jax.enable_x64(dtype == np.float64):
        network = kind.from_arrays(config(**options), {k: v.astype(dtype) for k, v in arrays.items()})
        images = last(golden_weights.image(seed, shape)).astype(dtype)
        logits = np.asarray(jax.jit(lambda network, x: network.logits(x))(network, images))
        loss, _, gradient = asked(network, images[:1])
        assert logits.dtype == dtype and differ(logits, expected["logits" if name == "resnet" else "logit"]) < tolerance
        stored = expected["smile_loss" if name == "resnet" else "softplus_loss"][0]
        assert abs(float(loss) / stored - 1) < tolerance
        blocks = np.asarray(gradient, np.float64).reshape(1, 16, 16, 16, 16, 3).sum((2, 4))
        pairs = (blocks, last(expected["grad_blocks16"])), (gradient[:, 128], last(expected["grad_row"]))
        for found, stored in pairs:
            # In float32 the activations near a kink change sides: 1e-2 in the largest value, less in the length.
            # The float64 gradient was stored as float32.
            gap = np.linalg.norm(np.asarray(found) - stored) / np.linalg.norm(stored)
            assert gap < (1e-6 if dtype == np.float64 else 1e-2)


# What every classifier promises.


def own_function(images):
    """Returns three logits `[n, 3]` of images `[n, 8, 8, 3]`."""
    return images.mean((1, 2)) * 2


CLASSIFIERS = {
    "resnet": lambda: narrow("resnet"),
    "celebahq": lambda: narrow("celebahq"),
    "function": lambda: classifiers.FunctionClassifier(
        own_function, classifiers.FunctionConfig(attributes=("Red", "Blue"), columns=(0, 2), resolution=8)
    ),
}


@functools.partial(jax.jit, static_argnames="name")
def answered(classifier, images, name):
    return classifier(images), classifiers.log_odds(classifier, images, name)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_the_one_interface(name):
    """Names, size, log-odds by name, images that do not know of each other; the values are the golden ones."""
    classifier = CLASSIFIERS[name]()
    assert isinstance(classifier, classifiers.Classifier)
    size, asked_for = classifier.resolution, classifier.attributes[-1]
    seed, shape = NARROW.get(name, (1, (2, 3, size, size)))
    images = last(golden_weights.image(seed, shape))
    odds, by_name = answered(classifier, images, asked_for.upper())
    assert odds.shape == (len(images), len(classifier.attributes)) and odds.dtype == np.float32
    np.testing.assert_array_equal(by_name, odds[:, -1])
    turned, _ = answered(classifier, images[::-1], asked_for.upper())
    assert differ(turned[::-1], odds) < 1e-6
    expected = {
        "resnet": lambda: np.diff(golden()["resnet_narrow/logits"])[..., 0],
        "celebahq": lambda: -2 * golden()["celebahq_narrow/logit"],
        "function": lambda: 2 * images.mean((1, 2))[:, ::2],
    }
    assert differ(odds, expected[name]()) < 2e-5
    with pytest.raises(ValueError, match=r"images must be \[n, h, w, 3\]"):
        classifier(images[0])


def test_polarity():
    """By default the second class of Anycost GAN's pairs means present, and a negative logit of NVIDIA's networks."""
    pairs = np.array([[[1.0, 4.0], [2.0, 1.5]]])
    resnet = classifiers.AttributeResNetConfig(attributes=("a", "b"))
    celebahq = classifiers.CelebaHqConfig(attributes=("Smiling",))
    for call, config, logits, expected in (
        (classifiers.AttributeResNet.__call__, resnet, pairs, [[3.0, -0.5]]),
        (classifiers.CelebaHqClassifier.__call__, celebahq, np.array([[-1.5]]), [[3.0]]),
    ):
        for sign in (1, -1):
            changed = dataclasses.replace(config, present_sign=sign * config.present_sign)
            network = types.SimpleNamespace(config=changed, logits=lambda images, logits=logits: logits)
            np.testing.assert_array_equal(call(network, None), sign * np.array(expected))


def test_images_are_resized_as_the_authors_do():
    """Corners stay corners for one, means over blocks for the other, and nothing happens to images that fit."""
    ramp = np.broadcast_to(np.linspace(-1, 1, 40, dtype=np.float32)[:, None, None], (1, 40, 30, 3))
    resized = resnet.fit(jnp.asarray(ramp), 256)
    np.testing.assert_allclose(resized[0, :, 5, 1], np.linspace(-1, 1, 256), atol=1e-6)
    images = last(golden_weights.image(5, (1, 3, 24, 24)))
    blocks = images.reshape(1, 8, 3, 8, 3, 3).mean((2, 4))
    np.testing.assert_allclose(celebahq.shrink(jnp.asarray(images), 8), blocks, atol=1e-6)
    other = celebahq.shrink(jnp.asarray(images[:, :20]), 8)
    np.testing.assert_array_equal(other, jax.image.resize(images[:, :20], (1, 8, 8, 3), "linear", antialias=True))
    assert other.shape == (1, 8, 8, 3) and celebahq.shrink(jnp.asarray(images[:, :4, :4]), 8).shape == (1, 8, 8, 3)
    for same in (resnet.fit(images, 24), celebahq.shrink(images, 24)):
        np.testing.assert_allclose(same, images, atol=1e-7)


def test_blur_is_applied():
    """With blur a halving convolution is that of StyleGAN1's discriminator, without it that of the plain mean."""
    layer = celebahq.HalvingConv(3, 4, blur=False, rngs=nnx.Rngs(0))
    x = jnp.asarray(last(golden_weights.image(6, (1, 3, 8, 8))))
    whole = stylegan1.EqualConv.__call__(layer, x)
    np.testing.assert_allclose(layer(x), whole.reshape(1, 4, 2, 4, 2, 4).mean((2, 4)), atol=1e-5)
    layer.blur = True
    np.testing.assert_array_equal(layer(x), layer.down(x))


def test_a_convolution_of_stride_two(x64):
    """Of the kernels that a ResNet has, against windows in numpy."""
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 3))
    for k in (3, 7):
        weight = np.random.default_rng(k).normal(size=(k, k, 3, 5))
        padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))[:, ::2, ::2]
        expected = np.einsum("nhwcij,ijco->nhwo", windows, weight)
        np.testing.assert_allclose(resnet.halve(jnp.asarray(x), jnp.asarray(weight)), expected, atol=1e-12)


def test_a_module_is_plugged_in():
    """Its weights are weights of the classifier; columns are chosen, signs turned, sizes brought to its own."""
    module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

    class Network(nnx.Module):
        def __init__(self):
            self.layer = module

        def __call__(self, images):
            return self.layer(images[:, 0, 0])

    config = classifiers.FunctionConfig(attributes=("A", "B"), columns=(3, 1), resolution=2, present_sign=-1)
    classifier = classifiers.FunctionClassifier(Network(), config)
    images = jnp.asarray(last(golden_weights.image(7, (3, 3, 2, 2))))
    expected = -module(images[:, 0, 0])[:, jnp.asarray([3, 1])]
    np.testing.assert_allclose(answered(classifier, images, "A")[0], expected, rtol=1e-6)
    assert jax.tree.leaves(nnx.state(classifier))
    gradient = jax.grad(lambda c: classifiers.log_odds(c, images, "b").sum(), allow_int=True)(classifier)
    assert float(jnp.abs(gradient.function.layer.kernel[...][:, 1]).max()) > 0
    one = classifiers.FunctionConfig(attributes=("A",), resolution=4)
    single = classifiers.FunctionClassifier(lambda x: x.mean((1, 2, 3)), one)
    assert single(images).shape == (3, 1)
    for outputs in (jnp.zeros((3, 2)), jnp.zeros((3, 1, 1))):
        wrong = classifiers.FunctionClassifier(lambda x, outputs=outputs: outputs, one)
        with pytest.raises(ValueError, match=r"must return logits \[n, 1\]"):
            wrong(images)


def test_names_of_attributes():
    """Upper and lower case are one; an unknown name gets the nearest ones."""
    assert len(classifiers.CELEBA) == 40 and classifiers.CELEBA[SMILING] == "Smiling"
    known = types.SimpleNamespace(attributes=classifiers.CELEBA)
    assert classifiers.attribute_index(known, "wearing_HAT") == 35
    with pytest.raises(ValueError, match="no attribute 'Smile'; perhaps Smiling"):
        classifiers.attribute_index(known, "Smile")
    with pytest.raises(ValueError, match="no attribute 'zzz'; there are A, B"):
        classifiers.attribute_index(types.SimpleNamespace(attributes=("A", "B")), "zzz")


def test_cross_entropy():
    """That of a Bernoulli variable, finite for any log-odds, with the gradient sigmoid(l) - target."""
    odds = jnp.asarray([-3.0, 0.0, 0.5, 40.0, -200.0])
    present = 1 / (1 + np.exp(-np.asarray(odds[:3], np.float64)))
    for target in (0.0, 0.3, 1):
        expected = -target * np.log(present) - (1 - target) * np.log(1 - present)
        np.testing.assert_allclose(classifiers.cross_entropy(odds, target)[:3], expected, rtol=1e-5)
        gradient = jax.grad(lambda x, t=target: classifiers.cross_entropy(x, t).sum())(odds)
        np.testing.assert_allclose(gradient, jax.nn.sigmoid(odds) - target, atol=1e-6)
    np.testing.assert_array_equal(classifiers.cross_entropy(odds, jnp.ones(5))[3:], [0, 200])
    with pytest.raises(ValueError, match=r"target must be from 0 \(absent\) to 1 \(present\), got 1.5"):
        classifiers.cross_entropy(odds, 1.5)


WRONG = {
    "no attribute": (lambda: classifiers.AttributeResNetConfig(attributes=()), "at least one, got none"),
    "twice": (lambda: classifiers.AttributeResNetConfig(attributes=("a", "A")), "must be different names"),
    "depths": (lambda: classifiers.AttributeResNetConfig(depths=(1,)), "must be as many"),
    "odd size": (lambda: classifiers.AttributeResNetConfig(resolution=100), "multiple of 32, got 100"),
    "sign": (lambda: classifiers.AttributeResNetConfig(present_sign=0), r"present_sign must be 1 .* or -1"),
    "two": (lambda: classifiers.CelebaHqConfig(attributes=("a", "b")), "answers one attribute, got a, b"),
    "widths": (lambda: classifiers.CelebaHqConfig(attributes=("a",), widths=()), "must hold the channels"),
    "columns": (
        lambda: classifiers.FunctionConfig(attributes=("a",), resolution=8, columns=(1, 2)),
        "one number from 0 on for each of 1 attributes",
    ),
    "resolution": (lambda: classifiers.FunctionConfig(attributes=("a",), resolution=0), "must be positive, got 0"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_settings_are_refused(case):
    make, reason = WRONG[case]
    with pytest.raises(ValueError, match=reason):
        make()
