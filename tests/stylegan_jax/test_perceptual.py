# SPDX-License-Identifier: Apache-2.0
"""Networks that compare images, through their converters: against golden values of PyTorch, and sums in numpy."""

import functools
import itertools
import pathlib
import pickle
import struct
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import ConversionError, perceptual
from stylegan_jax import parameters
from stylegan_jax.features import alexnet, arcface, inception, irse, lpips, squeezenet, vgg

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import golden_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SHORT = {"vgg16": "vgg", "alexnet": "alex", "squeezenet": "squeeze"}
NARROW = {
    "vgg16": (4, 6, 6, 8, 8),
    "vgg19": (4, 6, 6, 8, 8),
    "alexnet": (4, 6, 8, 6, 6),
    "squeezenet": (4, 8, 8, 16, 16, 24, 24, 32, 32),
}
NARROW_FACE = dict(widths=(6, 8), depths=(2, 1), stem=6, size=8, embedding=5, reduction=2)


@functools.cache
def golden():
    with np.load(GOLDEN / "perceptual.npz") as file:
        return dict(file)


@functools.cache
def pair():
    """Returns the two images `[1, 64, 64, 3]` of the golden distances."""
    return last(golden_weights.image(201, (2, 3, 64, 64))[:1]), last(golden()["in1"])


@functools.cache
def linear(trunk):
    """Returns LPIPS' own weights, trained ones: their licence is LICENSE-lpips.txt, beside them."""
    with np.load(GOLDEN / "lpips_lin_v01.npz") as file:
        prefix = f"{SHORT[trunk]}/"
        return {name.removeprefix(prefix): file[name] for name in file if name.startswith(prefix)}


@functools.cache
def read(network, *, heads=False):
    """Returns a trunk of full width, or LPIPS over it."""
    weights = golden_weights.weights(network, golden_weights.shapes(network))
    return perceptual.from_state_dict(weights, linear=linear(network) if heads else None)


def built(found, dtype):
    """Returns a network that computes in `dtype`, as (definition, weights)."""
    arrays = {name: array.astype(dtype) for name, array in found.arrays.items()}
    return nnx.split(perceptual.Perceptual(found.network, found.config, arrays).build())


def last(array):
    """Returns `[n, c, h, w]` as `[n, h, w, c]`."""
    return np.moveaxis(np.asarray(array), 1, -1)


def differ(ours, expected):
    """Returns the largest difference in units of the largest value."""
    assert np.shape(ours) == np.shape(expected)
    return np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()


@functools.partial(jax.jit, static_argnums=0)
def compared(definition, weights, image0, image1):
    """Returns distance, parts, map and the gradient by `image0` `[1, h, w, 3]`."""

    def run(x):
        network = nnx.merge(definition, weights)
        features, others = network.features(x), network.features(image1)
        parts = network.layers(features, others)
        return parts.sum(), (parts, network.spatial(features, others, x.shape[1:3]))

    (distance, others), gradient = jax.value_and_grad(run, has_aux=True)(image0)
    return distance, *others, gradient


@functools.partial(jax.jit, static_argnums=0)
def distances(definition, weights, image0, image1):
    """Returns distance, unweighted distance, and that of vectors, `[1]` each."""
    network = nnx.merge(definition, weights)
    vectors = network.vectors(image0) - network.vectors(image1)
    features = network.features(image0), network.features(image1)
    plain = [jnp.square(x - y).sum(-1).mean((1, 2)) for x, y in zip(*features, strict=True)]
    return network.distance(image0, image1), sum(plain), jnp.square(vectors).sum(1)


def check_compared(trunk, dtype, value_tolerance, gradient_tolerance):
    expected = golden()
    images = [image.astype(dtype) for image in pair()]
    distance, parts, spatial, gradient = compared(*built(read(trunk, heads=True), dtype), *images)
    assert gradient.dtype == dtype
    assert differ(distance, expected[f"{trunk}/distance"][0]) < value_tolerance
    assert differ(parts, expected[f"{trunk}/per_layer"]) < value_tolerance
    # These two were stored as float32.
    assert differ(spatial, expected[f"{trunk}/spatial"][:, 0]) < max(value_tolerance, 1e-7)
    assert differ(gradient, last(expected[f"{trunk}/grad_in0"])) < max(gradient_tolerance, 1e-7)


def test_lpips_of_vgg_in_float64(x64):
    """Distance, its parts, the map and the gradient are those of the paper's code."""
    check_compared("vgg16", np.float64, 1e-9, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["alexnet", "vgg16"])
def test_lpips_in_float32(trunk):
    check_compared(trunk, np.float32, 2e-5, 2e-5)


@pytest.mark.slow
def test_lpips_of_alexnet_in_float64(x64):
    """The gradient of a convolution with stride 4 takes XLA's CPU code 20 s in float64."""
    check_compared("alexnet", np.float64, 1e-9, 1e-7)


@pytest.mark.parametrize("trunk", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_other_forms_of_lpips(trunk, x64):
    """Vectors have the distance as their squared length; weights of 1 give the baseline."""
    expected, (definition, weights) = golden(), built(read(trunk, heads=True), np.float64)
    whole, plain, squared = distances(definition, weights, *(image.astype(np.float64) for image in pair()))
    assert differ(whole, expected[f"{trunk}/distance"]) < 1e-9
    assert differ(plain, expected[f"{trunk}/baseline"]) < 1e-9
    assert differ(squared, expected[f"{trunk}/distance_flat"]) < 1e-9


@pytest.mark.parametrize("trunk", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_odd_sizes_in_float32(trunk):
    """Pools leave out the rows and columns that fill no window."""
    definition, weights = built(read(trunk, heads=True), np.float32)
    odd = (last(golden_weights.image(seed, (1, 3, 71, 90))) for seed in (203, 204))
    distance = jax.jit(lambda weights, x, y: nnx.merge(definition, weights).distance(x, y))(weights, *odd)
    assert distance.dtype == np.float32
    assert differ(distance, golden()[f"{trunk}/distance_odd"]) < 2e-5


@pytest.mark.parametrize("network", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_features_of_trunks(network, x64):
    """Every feature has the golden mean and corner."""
    images = golden_weights.image(golden_weights.SEEDS[network], (1, 3, 224, 224), 0, 255).astype(np.float64)
    definition, weights = built(read(network), np.float64)
    taps = [name.split("mean_")[1] for name in golden() if name.startswith(f"{network}/mean_")]

    @jax.jit
    def run(weights, images):
        return nnx.merge(definition, weights)(vgg.imagenet(images), taps)

    found = run(weights, last(images) / 127.5 - 1)
    assert set(found) == set(taps) and len(taps) == 5
    for tap, features in found.items():
        assert differ(features.mean((1, 2)), golden()[f"{network}/mean_{tap}"]) < 1e-9
        assert differ(features[:, :6, :6, :4], last(golden()[f"{network}/patch_{tap}"])) < 1e-9


# Sums in numpy, in PyTorch's layout and with PyTorch's names: what has no golden values in the default tests.


def convolved(x, state, name, *, stride=1, padding=0):
    weight = state[f"{name}.weight"].astype(np.float64)
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    bias = state.get(f"{name}.bias", np.zeros(len(weight)))
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


def pooled(x, window, stride, *, ceil=False):
    """Returns the largest values of windows, of which the last may reach beyond the map."""
    rounded = np.ceil if ceil else np.floor
    rows, columns = (int(rounded((size - window) / stride)) + 1 for size in x.shape[2:])
    y = np.empty((*x.shape[:2], rows, columns))
    for i, j in itertools.product(range(rows), range(columns)):
        y[:, :, i, j] = x[:, :, i * stride : i * stride + window, j * stride : j * stride + window].max((2, 3))
    return y


def relu(x):
    return np.maximum(x, 0)


def squeezenet_features(state, x):
    found = [relu(convolved(x, state, "features.0", stride=2))]
    for index in golden_weights.FIRES:
        x = pooled(found[-1], 3, 2, ceil=True) if index in (3, 6, 9) else found[-1]
        x = relu(convolved(x, state, f"features.{index}.squeeze"))
        wide = [convolved(x, state, f"features.{index}.expand{k}x{k}", padding=k // 2) for k in (1, 3)]
        found.append(relu(np.concatenate(wide, 1)))
    return found


def vgg19_features(state, x):
    found, indices = [], [int(name.split(".")[1]) for name in state if name.endswith("weight")]
    for before, index in zip([-2, *indices], indices, strict=False):
        x = pooled(x, 2, 2) if index - before == 3 else x
        x = relu(convolved(x, state, f"features.{index}", padding=1))
        found.append(x)
    return found


def test_vgg19_against_numpy(x64):
    """Every feature of a narrow trunk, for sizes that pools do not divide."""
    state = narrow("vgg19")
    x = golden_weights.image(3, (1, 3, 37, 44)).astype(np.float64)
    definition, weights = built(perceptual.from_state_dict(state), np.float64)
    taps = vgg.VGG19.taps
    found = jax.jit(lambda weights, x: nnx.merge(definition, weights)(x, taps))(weights, last(x))
    for tap, expected in zip(taps, vgg19_features(state, x), strict=True):
        assert differ(found[tap], last(expected)) < 1e-9


@pytest.mark.slow
def test_lpips_of_squeezenet_against_numpy(x64):
    """Every feature of a narrow trunk, for sizes that pools do not divide, and the distance over seven of them."""
    state, heads = narrow("squeezenet"), narrow_heads("squeezenet")
    definition, weights = built(perceptual.from_state_dict(state, linear=heads), np.float64)
    images = golden_weights.image(4, (2, 3, 35, 40)).astype(np.float64)
    shift, scale = (v.astype(np.float64)[:, None, None] for v in (lpips.SHIFT, lpips.SCALE))
    scaled = (images - shift) / scale
    expected = squeezenet_features(state, scaled)

    @jax.jit
    def run(weights, scaled, images):
        network = nnx.merge(definition, weights)
        return network.trunk(scaled, squeezenet.NAMES), network.distance(images[:1], images[1:])

    found, distance = run(weights, last(scaled), last(images))
    for tap, theirs in zip(squeezenet.NAMES, expected, strict=True):
        assert differ(found[tap], last(theirs)) < 1e-9
    total = 0
    for i, x in enumerate(expected[k] for k in (0, 2, 4, 5, 6, 7, 8)):
        x = x / (np.sqrt(np.square(x).sum(1, keepdims=True)) + 1e-10)
        total += (np.square(x[0] - x[1]) * heads[f"lin{i}.model.1.weight"][0]).sum(0).mean()
    assert differ(distance, np.array([total])) < 1e-9


def test_gradient_where_all_features_are_zero():
    """Units have length 1, or 0 where there is nothing; the gradient there is 0, not infinite."""
    x = jnp.asarray([[[[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]]])
    ours, pull = jax.vjp(jax.jit(lpips.unit), x)
    np.testing.assert_allclose(ours[0, 0, :2], [[0.6, 0.8], [0, 0]], rtol=1e-6)
    gradient = pull(jnp.ones_like(x))[0]
    assert np.isfinite(gradient).all() and not np.any(gradient[0, 0, 1])
    np.testing.assert_allclose(gradient[0, 0, 0], [(1 - 0.84) / 5, (1 - 1.12) / 5], rtol=1e-5)


def face_features(state, x, depths, reduction):
    """Returns embeddings of IR-SE with stages of these depths, by the equations."""

    def norm(x, name):
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def prelu(x, name):
        return np.where(x > 0, x, x * state[f"{name}.weight"].astype(np.float64)[:, None, None])

    x = prelu(norm(convolved(x, state, "input_layer.0", padding=1), "input_layer.1"), "input_layer.2")
    firsts = {0, *itertools.accumulate(depths)}
    for i in range(sum(depths)):
        name, stride = f"body.{i}.res_layer", 2 if i in firsts else 1
        shortcut = x[:, :, ::stride, ::stride]
        if f"body.{i}.shortcut_layer.0.weight" in state:
            shortcut = convolved(x, state, f"body.{i}.shortcut_layer.0", stride=stride)
            shortcut = norm(shortcut, f"body.{i}.shortcut_layer.1")
        x = prelu(convolved(norm(x, f"{name}.0"), state, f"{name}.1", padding=1), f"{name}.2")
        x = norm(convolved(x, state, f"{name}.3", stride=stride, padding=1), f"{name}.4")
        gate = convolved(relu(convolved(x.mean((2, 3), keepdims=True), state, f"{name}.5.fc1")), state, f"{name}.5.fc2")
        x = shortcut + x / (1 + np.exp(-gate))
    x = norm(x, "output_layer.0").reshape(len(x), -1)
    x = x @ state["output_layer.3.weight"].T.astype(np.float64) + state["output_layer.3.bias"]
    x = norm(x[:, :, None, None], "output_layer.4")[:, :, 0, 0]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@functools.cache
def narrow_face():
    return golden_weights.weights("arcface", golden_weights.arcface_shapes(**NARROW_FACE))


def test_arcface_against_numpy(x64):
    """Embeddings of a narrow network, counters of its normalisation ignored; its trunk gives what encoders read."""
    state = narrow_face()
    found = perceptual.from_state_dict(state | {"input_layer.1.num_batches_tracked": np.array(7)})
    assert found.config == {k: v for k, v in NARROW_FACE.items() if k != "size"} | {"resolution": 8}
    x = golden_weights.image(5, (2, 3, 8, 8)).astype(np.float64)
    definition, weights = built(found, np.float64)
    ours = jax.jit(lambda w, x: nnx.merge(definition, w)(x))(weights, last(x))
    assert differ(ours, face_features(state, x, NARROW_FACE["depths"], 2)) < 1e-9
    np.testing.assert_allclose(arcface.identity_distance(ours, ours), 0, atol=1e-12)
    assert irse.IrseConfig().stage_ends == (2, 6, 20, 23)


def test_face_crop(x64):
    """The crop is averaged over whole pixels, in windows that overlap."""
    x = golden_weights.image(111, (3, 3, 256, 256))[:1].astype(np.float64)
    assert differ(arcface.face_crop(last(x))[0, 50], golden()["arcface/pooled_row"].T) < 1e-9


@pytest.mark.slow
def test_arcface_at_full_width(x64):
    """Embeddings of three images, and the gradient of the identity loss through crop and network."""
    state = golden_weights.weights("arcface", golden_weights.arcface_shapes())
    definition, weights = built(perceptual.from_state_dict(state), np.float64)
    x = last(golden_weights.image(111, (3, 3, 256, 256))).astype(np.float64)
    embedding = golden()["arcface/embedding"]

    @jax.jit
    def run(weights, x):
        network = nnx.merge(definition, weights)

        def loss(first):
            ours = network(arcface.face_crop(first))
            return arcface.identity_distance(ours, embedding[1:2])[0], ours

        return jax.value_and_grad(loss, has_aux=True)(x)

    (_, ours), gradient = run(weights, x[:1])
    assert differ(ours, embedding[:1]) < 1e-9
    assert differ(gradient[:, 128], np.moveaxis(golden()["arcface/grad_row"], 1, -1)) < 1e-7  # stored as float32


def inception_shapes(*, narrower=1, classes=1008):
    """Returns {PyTorch's name: shape} of FID's network, its listing stored with the golden values."""
    found = {}
    for line in golden()["inception/kernels"]:
        name, *sizes = line.split()
        outputs, inputs, rows, columns = map(int, sizes)
        shape = (outputs // narrower, inputs if inputs == 3 else inputs // narrower, rows, columns)
        found |= {f"{name}.conv.weight": shape, **golden_weights.norm_shapes(f"{name}.bn", shape[0])}
    return found | {"fc.weight": (classes, 2048 // narrower), "fc.bias": (classes,)}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 2e-5)])
def test_inception_at_full_width(dtype, tolerance, x64):
    """Features, logits and the mean of every map; names and shapes of weights are part of what the values depend on."""
    expected = {name.removeprefix("inception/"): array for name, array in golden().items() if name[:4] == "ince"}
    state = golden_weights.weights("inception", inception_shapes())
    definition, weights = built(perceptual.from_state_dict(state), dtype)

    @jax.jit
    def run(weights, images):
        network = nnx.merge(definition, weights)
        features = network(images)
        return features, network.logits(features), network.maps(images)

    images = golden_weights.image(141, (2, 3, 96, 80), 0, 1)[:1].astype(dtype)
    features, logits, maps = run(weights, 2 * inception.resize(last(images)) - 1)
    assert features.dtype == dtype and differ(features, expected["pool3"]) < tolerance
    assert differ(logits, expected["logits"]) < tolerance and len(maps) == 13
    for name, array in maps.items():
        golden_name = {"pool1": "pool64", "pool2": "pool192"}.get(name, name)
        assert differ(array.mean((1, 2)), expected[f"mean_{golden_name}"]) < tolerance
    images = np.round(golden_weights.image(142, (1, 3, 120, 100), 0, 255)).astype(dtype)
    features, _, _ = run(weights, inception.from_bytes(inception.resize_tensorflow(last(images))))
    assert differ(features, expected["tf1_pool3"]) < tolerance


def test_inception_resamples_as_its_originals(x64):
    """The corner of TensorFlow's image is golden; both kinds reproduce a ramp, and clamp at its ends."""
    images = last(np.round(golden_weights.image(142, (1, 3, 120, 100), 0, 255))).astype(np.float64)
    corner = inception.resize_tensorflow(images)[:, :8, :8]
    assert differ(corner, last(golden()["inception/tf1_resized_corner"])) < 1e-9
    ramp = np.broadcast_to(np.arange(40.0)[:, None, None], (1, 40, 30, 1))
    i = np.arange(299)
    for resample, place in (
        (inception.resize, (i + 0.5) * 40 / 299 - 0.5),
        (inception.resize_tensorflow, i * 40 / 299),
    ):
        np.testing.assert_allclose(resample(ramp)[0, :, 7, 0], np.clip(place, 0, 39), atol=1e-12)
    np.testing.assert_array_equal(inception.from_bytes(np.array([[[[0.0, 128.0, 192.0]]]])), [[[[-1, 0, 0.5]]]])


@pytest.mark.slow
def test_inception_is_read(tmp_path):
    """A narrow network from a file; torchvision's own network, which has more, is refused."""
    state = golden_weights.weights("inception", inception_shapes(narrower=16, classes=7))
    counters = {"Mixed_5b.branch1x1.bn.num_batches_tracked": np.array(1, np.int64)}
    found = perceptual.read_perceptual(save(tmp_path / "inception.pth", state | counters))
    assert found.config == {"narrower": 16, "classes": 7}
    name = "Mixed_6b.branch7x7_2.conv.weight"
    np.testing.assert_array_equal(found.arrays[name.replace(".", "/")], state[name].transpose(2, 3, 1, 0))
    with pytest.raises(ConversionError, match=r"AuxLogits\.fc\.bias is unexpected"):
        perceptual.from_state_dict(state | {"AuxLogits.fc.bias": np.zeros(7, np.float32)})
    with pytest.raises(ConversionError, match="narrower must divide all widths"):
        perceptual.from_state_dict(state | {"Conv2d_1a_3x3.conv.weight": np.ones((5, 3, 3, 3), np.float32)})


@pytest.mark.slow
def test_maps_of_inception_have_the_published_sizes():
    """All sizes at 299 pixels, and the smallest image that leaves one pixel."""
    network = nnx.eval_shape(lambda: inception.Inception(inception.InceptionConfig(), rngs=nnx.Rngs(0)))

    def shapes(size):
        maps = nnx.eval_shape(lambda n, x: n.maps(x), network, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
        return {name: array.shape[1:] for name, array in maps.items()}

    full = shapes(299)
    assert full["pool1"] == (73, 73, 64) and full["pool2"] == (35, 35, 192) and full["Mixed_5b"] == (35, 35, 256)
    assert full["Mixed_6e"] == (17, 17, 768) and full["Mixed_7a"] == (8, 8, 1280) and full["Mixed_7c"] == (8, 8, 2048)
    assert shapes(inception.SMALLEST)["Mixed_7c"] == (1, 1, 2048)
    with pytest.raises(ValueError, match=f"at least {inception.SMALLEST} rows"):
        shapes(inception.SMALLEST - 1)


# Files as torch.save writes them, and what is wrong with them.


def opcodes(state, *, legacy):
    """Returns the pickle of a state dict whose tensors lie in storages "0", "1", ..."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def integers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    def tensor(array, key):
        kind = {"f": b"FloatStorage", "i": b"LongStorage"}[array.dtype.kind]
        storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cuda:0")
        storage += b"J" + struct.pack("<i", array.size) + (b"N" if legacy else b"") + b"tQ"
        steps = integers(int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim))
        rest = b"K\0" + integers(array.shape) + steps + b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"

    items = (text(name) + tensor(array, str(i)) + b"s" for i, (name, array) in enumerate(state.items()))
    return b"\x80\x02ccollections\nOrderedDict\n)R" + b"".join(items) + b"."


def save(path, state, *, legacy=False):
    """Writes a state dict as a zip archive, or as it was before torch 1.6."""
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", opcodes(state, legacy=False))
            for i, array in enumerate(state.values()):
                archive.writestr(f"archive/data/{i}", array.tobytes())
        return path
    heads = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    data = b"".join(pickle.dumps(head, 2) for head in heads) + opcodes(state, legacy=True)
    data += pickle.dumps([str(i) for i in range(len(state))], 2)
    path.write_bytes(data + b"".join(struct.pack("<q", array.size) + array.tobytes() for array in state.values()))
    return path


def narrow(network):
    return golden_weights.weights(network, golden_weights.shapes(network, NARROW[network]))


@functools.cache
def narrow_heads(network):
    config = lpips.LpipsConfig(trunk=network, widths=NARROW[network])
    widths = config.trunk_config.taps
    shapes = {f"lin{i}.model.1.weight": (1, widths[tap], 1, 1) for i, tap in enumerate(config.taps)}
    return {name: np.abs(array) for name, array in golden_weights.weights(network, shapes).items()}


@pytest.mark.parametrize("network", list(NARROW))
def test_files_are_what_state_dicts_are(network, tmp_path):
    """Both formats; a classifier is left out; LPIPS' weights come from a second file."""
    state = narrow(network)
    index = 1 if network == "squeezenet" else 6
    classifier = {f"classifier.{index}.weight": np.ones((7, 5), np.float32)}
    expected = perceptual.from_state_dict(state)
    assert expected.network == network and expected.config["widths"] == NARROW[network]
    for legacy in (False, True):
        found = perceptual.read_perceptual(save(tmp_path / "trunk.pth", state | classifier, legacy=legacy))
        assert (found.network, found.config) == (network, expected.config)
        assert found.arrays.keys() == expected.arrays.keys()
        assert all(np.array_equal(found.arrays[name], array) for name, array in expected.arrays.items())
    if network == "vgg19":
        with pytest.raises(ConversionError, match="meant for a trunk of vgg16, alexnet, squeezenet, but that is vgg19"):
            perceptual.from_state_dict(state, linear=narrow_heads("vgg16"))
        return
    heads = narrow_heads(network)
    both = perceptual.read_perceptual(tmp_path / "trunk.pth", linear=save(tmp_path / "lin.pth", heads))
    assert (both.network, both.config) == ("lpips", {"trunk": network, "widths": NARROW[network]})
    network = both.build()
    assert isinstance(network, lpips.Lpips)
    np.testing.assert_array_equal(network.head0[...], heads["lin0.model.1.weight"].ravel())
    assert read("alexnet", heads=True).config == {"trunk": "alexnet", "widths": None}


def test_file_of_arcface(tmp_path):
    """Counters of integers are left out, the old format and another place of the tensors change nothing."""
    state = narrow_face() | {"body.0.res_layer.0.num_batches_tracked": np.array(3, np.int64)}
    found = perceptual.read_perceptual(save(tmp_path / "face.pth", state, legacy=True))
    expected = perceptual.from_state_dict(narrow_face())
    assert found.config == expected.config
    assert all(np.array_equal(found.arrays[name], array) for name, array in expected.arrays.items())


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


BAD = {
    "missing": (lambda: without(narrow("alexnet"), "features.8.bias"), r"features\.8\.bias is missing"),
    "missing first": (lambda: without(narrow("vgg16"), "features.0.weight"), r"features\.0\.weight is missing"),
    "unexpected": (lambda: narrow("vgg16") | {"features.1.weight": np.ones(3)}, r"features\.1\.weight is unexpected"),
    "other layer": (
        lambda: narrow("alexnet") | {"classifier.0.weight": np.ones((2, 2))},
        r"classifier\.0\.weight is unexpected",
    ),
    "shape": (
        lambda: narrow("alexnet") | {"features.3.weight": np.ones((6, 4, 3, 3), np.float32)},
        r"features\.3\.weight has shape \(6, 4, 3, 3\), expected \(6, 4, 5, 5\)",
    ),
    "axes": (lambda: narrow("alexnet") | {"features.0.weight": np.float32(1)}, r"shape \(\), expected more axes"),
    "not finite": (
        lambda: narrow("alexnet") | {"features.0.bias": np.full(4, np.nan, np.float32)},
        r"features\.0\.bias holds 4 NaN or infinite",
    ),
    "integers": (
        lambda: narrow("alexnet") | {"features.0.bias": np.zeros(4, np.int64)},
        r"features\.0\.bias holds (LongStorage|int64) elements",
    ),
    "odd fire": (
        lambda: narrow("squeezenet") | {"features.3.expand3x3.weight": np.ones((3, 1, 3, 3), np.float32)},
        "multiples of 8",
    ),
    "map": (
        lambda: narrow_face() | {"output_layer.3.weight": np.ones((5, 3 * 8), np.float32)},
        "expected those of a square map of 8 channels",
    ),
    "unit": (lambda: without(narrow_face(), "body.1.res_layer.1.weight"), r"body\.1\.res_layer\.1\.weight is missing"),
    "nothing known": (lambda: {"weight": np.ones(3, np.float32)}, "holds 'weight'; expected the state dict of one of"),
    "no trunk": (lambda: narrow_heads("alexnet"), "given as `linear`"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_does_not_fit_is_refused(case, tmp_path):
    """From memory and from a file, with the name of the tensor, and of the file."""
    make, reason = BAD[case]
    state = {name: np.asarray(array) for name, array in make().items()}
    with pytest.raises(ConversionError, match=reason):
        perceptual.from_state_dict(state)
    state = {n: a if a.dtype.kind == "i" else a.astype(np.float32) for n, a in state.items()}
    with pytest.raises(ConversionError, match=rf"bad\.pth: .*{reason}"):
        perceptual.read_perceptual(save(tmp_path / "bad.pth", state))


def test_wrong_linear_weights_are_refused():
    """Those of another trunk, and negative ones, whose vectors would have no root."""
    for other, reason in (("squeezenet", r"lin5\.model\.1\.weight is unexpected"), ("alexnet", "has shape")):
        with pytest.raises(ConversionError, match=reason):
            perceptual.from_state_dict(narrow("vgg16"), linear=narrow_heads(other))
    negative = {name: -array for name, array in narrow_heads("alexnet").items()}
    with pytest.raises(ConversionError, match="lin4.model.1.weight holds negative weights"):
        perceptual.from_state_dict(narrow("alexnet"), linear=negative)


def test_no_state_dict_is_refused(tmp_path):
    """Another file, and a pickle of something else."""
    (tmp_path / "text").write_text("no checkpoint")
    with pytest.raises(ConversionError, match="text: begins with the bytes"):
        perceptual.read_perceptual(tmp_path / "text")
    for value, reason in (([1, 2], "holds a list"), ({"state_dict": {"a": 1}}, "'a' is 1")):
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
        with pytest.raises(ConversionError, match=f"other.pth: {reason}"):
            perceptual.read_perceptual(tmp_path / "other.pth")


# What the networks refuse.

SMALLEST = [
    (vgg.Vgg, vgg.VGG16, "relu5_3", 16),
    (alexnet.AlexNet, alexnet.AlexNetConfig(), "relu1", 7),
    (alexnet.AlexNet, alexnet.AlexNetConfig(), "relu2", 15),
    (alexnet.AlexNet, alexnet.AlexNetConfig(), "relu5", 31),
    (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig(), "relu1", 3),
    (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig(), "fire2", 5),
    (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig(), "fire5", 9),
    (squeezenet.SqueezeNet, squeezenet.SqueezeNetConfig(), "fire6", 17),
]


@pytest.mark.parametrize(("kind", "config", "tap", "smallest"), SMALLEST)
def test_smallest_image(kind, config, tap, smallest):
    """The smallest image gives a map of one pixel, a smaller one is refused, unknown names too."""
    network = nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0)))

    def shape(size, name=tap):
        return nnx.eval_shape(lambda n, x: n(x, [name]), network, jax.ShapeDtypeStruct((1, size, size, 3), "float32"))

    assert shape(smallest)[tap].shape == (1, 1, 1, config.taps[tap])
    with pytest.raises(ValueError, match=f"at least {smallest} rows and columns"):
        shape(smallest - 1)
    with pytest.raises(ValueError, match="no feature relu9"):
        shape(smallest, "relu9")


def test_wrong_arguments_are_refused():
    """Configs that make no network, and images that do not fit."""
    for make, reason in (
        (lambda: vgg.VggConfig(widths=(1, 2)), "as many and positive"),
        (lambda: alexnet.AlexNetConfig(widths=(1,)), "5 positive numbers"),
        (lambda: squeezenet.SqueezeNetConfig(widths=(4,) * 9), "multiples of 8"),
        (lambda: lpips.LpipsConfig(trunk="vgg"), "trunk must be one of vgg16"),
        (lambda: irse.IrseConfig(reduction=65), "at most the smallest width"),
        (lambda: arcface.ArcFaceConfig(resolution=100), "multiple of 16"),
        (lambda: inception.InceptionConfig(narrower=3), "1, 2, 4, 8 or 16"),
        (lambda: arcface.face_crop(jnp.zeros((1, 4, 5, 3))), "face_crop: images must be"),
    ):
        with pytest.raises(ValueError, match=reason):
            make()
    face = perceptual.from_state_dict(narrow_face()).build()
    with pytest.raises(ValueError, match=r"faces must be \[n, 8, 8, 3\]"):
        face(jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(ValueError, match="units must be numbers from 0 to 2"):
        face.trunk(jnp.zeros((1, 8, 8, 3)), (3,))
    both = perceptual.from_state_dict(narrow("alexnet"), linear=narrow_heads("alexnet")).build()
    with pytest.raises(ValueError, match="compares images of one size"):
        both.distance(jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 32, 40, 3)))


def test_names_of_arrays():
    """Flat names say what an array is; a network is rebuilt from them."""
    names = parameters.abstract(lpips.Lpips, lpips.LpipsConfig())
    assert {"trunk/conv1_1/weight", "trunk/conv5_3/bias", "head0", "head4"} <= set(names)
    arrays = perceptual.from_state_dict(narrow_face()).arrays
    assert arrays["dense/weight"].shape == (2, 2, 8, 5) and "trunk/unit2/shortcut_conv/weight" in arrays
