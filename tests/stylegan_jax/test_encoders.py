# SPDX-License-Identifier: Apache-2.0
"""Encoders of whole images, through their converter: against golden values of PyTorch, and what `encode` promises.

Weights of the golden files and their images come by a rule, `golden_weights`. In float64 everything agrees to 1e-9;
golden images and gradients were stored as float32, where 1e-7 is asked for.
"""

import functools
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from convert import building, encoders
from stylegan_jax import stylegan3
from stylegan_jax.encoders import (
    MaskedEncoder,
    MaskedEncoderConfig,
    SingleHeadEncoder,
    SingleHeadEncoderConfig,
    StyleEncoder,
    StyleEncoderConfig,
    encode,
    encode_steps,
    encoding,
    fill_holes,
    landmark_transform,
    render,
)
from stylegan_jax.ops import pooling

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import golden_weights

TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
STORED = 1e-7  # for what was stored as float32
DTYPES = {"f64": np.float64, "f32": np.float32}
SLOW = pytest.mark.slow
# Compiling and running these networks of 24 residual units takes four times as long in float64.
PRECISIONS = pytest.mark.parametrize("precision", [pytest.param("f64", marks=SLOW), "f32"])


@functools.cache
def golden():
    with np.load(golden_weights.GOLDEN / "encoders.npz") as file:
        return dict(file)


@functools.cache
def read(name):
    """Returns a golden file as the converter reads it, and its arrays."""
    with tempfile.TemporaryDirectory() as folder:
        found = encoders.read_encoder(golden_weights.write_encoder(pathlib.Path(folder) / "encoder.pt", name))
        return found, found.arrays()


def built(name, dtype):
    """Returns an encoder that computes in `dtype`."""
    found, arrays = read(name)
    return found.build({key: array.astype(dtype) for key, array in arrays.items()})


def decoder(dtype):
    """Returns the decoder, which all golden files share.

    The reference divides modulated weights by sqrt(fan_in) before their energy is compared with 1e-8: so are these.
    """
    found, _ = read("restyle")
    arrays = {key: array.astype(dtype) for key, array in found.decoder.arrays().items()}
    for key, array in arrays.items():
        if key.endswith(("conv0/weight", "conv1/weight")):
            arrays[key] = array / np.sqrt(np.prod(array.shape[:3])).astype(dtype)
    return building.build(found.decoder, arrays)


def images(seed, shape, dtype):
    return last(golden_weights.image(seed, shape)).astype(dtype)


def last(array):
    """Returns `[..., c, h, w]` as `[..., h, w, c]`."""
    return np.moveaxis(np.asarray(array), -3, -1)


def check(ours, expected, limit):
    """Compares in units of the largest value."""
    assert np.shape(ours) == np.shape(expected)
    assert np.abs(np.asarray(ours, np.float64) - expected).max() / np.abs(expected).max() < limit


def jit(function):
    """Compiles with optimisation in float64, where unoptimised convolutions run for seconds."""
    options = {"xla_backend_optimization_level": 1} if jax.config.jax_enable_x64 else None
    return jax.jit(function, compiler_options=options)


@PRECISIONS
def test_psp(precision):
    """Latents, the maps of the pyramid, and the gradient by the images."""
    dtype, limit = DTYPES[precision], TOLERANCE[precision]
    with jax.enable_x64(precision == "f64"):
        graph, state = nnx.split(built("psp", dtype))

        @jit
        def run(state, x, weight):
            def compute(x):
                encoder = nnx.merge(graph, state)
                maps = encoder.maps(x)
                offsets = encoder.latents(maps)
                return (offsets * weight).sum(), (offsets, maps)

            return jax.value_and_grad(compute, has_aux=True)(x)

        weight = golden_weights.probe(303, (2, 10, 32)).astype(dtype)
        (_, (offsets, maps)), gradient = run(state, images(301, (2, 3, 32, 32), dtype), weight)
    assert offsets.dtype == dtype
    check(offsets, golden()["psp/delta"], limit)
    for ours, name in zip(maps, ("c3", "p2", "p1"), strict=True):
        check(ours, last(golden()[f"psp/{name}"]), limit)
    check(gradient, last(golden()["psp/grad_x"]), max(limit, STORED))


@SLOW
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_psp_through_its_decoder(precision):
    """What the decoder makes of the latents, and the gradient of the reconstruction's error through both."""
    dtype, limit = DTYPES[precision], max(TOLERANCE[precision], STORED)
    with jax.enable_x64(precision == "f64"):
        (graph, state), (render_graph, render_state) = (nnx.split(n) for n in (built("psp", dtype), decoder(dtype)))

        @jit
        def run(state, render_state, x, target):
            def compute(x):
                encoder = nnx.merge(graph, state)
                made = nnx.merge(render_graph, render_state).synthesis(encoder.average[...][None] + encoder(x))
                small = pooling.adaptive_average_pool(made, (32, 32))
                return jnp.square(small - target).mean(), (made, small)

            return jax.value_and_grad(compute, has_aux=True)(x)

        x = images(301, (2, 3, 32, 32), dtype)
        (_, (made, small)), gradient = run(state, render_state, x, x)
    for ours, name in ((made, "image"), (small, "image_pooled"), (gradient, "grad_x_recon")):
        check(ours, last(golden()[f"psp/{name}"]), limit)


@SLOW
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_images_of_other_proportions(precision):
    """Cars are 192 x 256: heads halve until one pixel is left."""
    with jax.enable_x64(precision == "f64"):
        graph, state = nnx.split(built("psp", DTYPES[precision]))
        x = images(302, (1, 3, 24, 32), DTYPES[precision])
        ours = jit(lambda state, x: nnx.merge(graph, state)(x))(state, x)
    check(ours, golden()["psp/delta_rect"], TOLERANCE[precision])


@PRECISIONS
def test_e4e_in_stages(precision):
    """Latents while offsets were being added one by one, and after training."""
    dtype = DTYPES[precision]
    with jax.enable_x64(precision == "f64"):
        graph, state = nnx.split(built("e4e", dtype))

        @jit
        def run(state, x):
            encoder = nnx.merge(graph, state)
            maps = encoder.maps(x)
            return [encoder.latents(maps, stage=stage) for stage in (0, 3, None)]

        found = run(state, images(301, (2, 3, 32, 32), dtype))
    for ours, stage in zip(found, (0, 3, 18), strict=True):
        check(ours, golden()[f"e4e/delta_stage{stage}"], TOLERANCE[precision])


@SLOW
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_e4e_through_its_decoder(precision):
    """The gradient of the latents, and the image."""
    dtype, limit = DTYPES[precision], max(TOLERANCE[precision], STORED)
    with jax.enable_x64(precision == "f64"):
        graph, state = nnx.split(built("e4e", dtype))
        render_graph, render_state = nnx.split(decoder(dtype))

        @jit
        def run(state, render_state, x, weight):
            def compute(x):
                encoder = nnx.merge(graph, state)
                ws = encoder.average[...][None] + encoder(x)
                return (ws * weight).sum(), ws

            (_, ws), gradient = jax.value_and_grad(compute, has_aux=True)(x)
            return nnx.merge(render_graph, render_state).synthesis(ws[:1]), gradient

        weight = golden_weights.probe(303, (2, 10, 32)).astype(dtype)
        made, gradient = run(state, render_state, images(301, (2, 3, 32, 32), dtype), weight)
    check(made, last(golden()["e4e/image"]), limit)
    check(gradient, last(golden()["e4e/grad_x"]), limit)


@PRECISIONS
def test_restyle(precision):
    """Latents after every look."""
    dtype, limit = DTYPES[precision], TOLERANCE[precision]
    with jax.enable_x64(precision == "f64"):
        encoder, generator = built("restyle", dtype), decoder(dtype)
        assert encoder.config.iterations == 5
        x = images(301, (2, 3, 32, 32), dtype)
        ws = encode_steps(encoder, x, generator=generator, iterations=3)
    assert ws.dtype == dtype
    check(ws, golden()["restyle/latents"], limit)


@SLOW
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_images_of_restyle(precision):
    """The image of the mean, with which the first look compares, and those after every look."""
    dtype, limit = DTYPES[precision], TOLERANCE[precision]
    with jax.enable_x64(precision == "f64"):
        mean = np.broadcast_to(golden()["latent_avg"], (1, 10, 32))
        every = np.concatenate([mean, golden()["restyle/latents"].reshape(-1, 10, 32)]).astype(dtype)
        made = render(decoder(dtype), every)
        small = pooling.adaptive_average_pool(made[:1], (32, 32))
    check(small[0], last(golden()["restyle/avg_image"]), limit)
    thinned = made[1:, ::2, ::2].reshape(2, 3, 32, 32, 3)
    check(thinned, last(golden()["restyle/images"]), max(limit, STORED))


CASES = {  # golden values, and the seed and shape of their images
    "resnet": ("delta", 304, (2, 6, 32, 32)),
    "stylegan3": ("delta", 304, (2, 6, 32, 32)),
    "intow": ("w", 301, (2, 3, 32, 32)),
    "intowplus": ("w", 301, (2, 3, 32, 32)),
}


def single_head(name, dtype):
    """Returns the encoder with one head of this name."""
    styles = 10 if name == "intowplus" else None
    shapes = golden_weights.single_head_shapes(**golden_weights.NARROW, styles=styles)
    state = golden_weights.encoder_weights(golden_weights.ENCODER_SEEDS[name], shapes)
    opts = {"encoder_type": f"BackboneEncoderUsingLastLayerInto{'WPlus' if styles else 'W'}", "output_size": 64}
    found = encoders.from_state_dict({f"encoder.{key}": array for key, array in state.items()}, opts)
    assert found.config["num_ws"] == 10 and found.config["w_dim"] == 32
    return found.build({key: array.astype(dtype) for key, array in found.arrays().items()})


DEFAULT = [("resnet", "f32")]
OTHERS = [(name, precision) for name in CASES for precision in TOLERANCE if (name, precision) not in DEFAULT]


@pytest.mark.parametrize(("name", "precision"), [*DEFAULT, *(pytest.param(*case, marks=SLOW) for case in OTHERS)])
def test_other_encoders(name, precision):
    """ResNet-34 as the trunk, six channels and sixteen latents over StyleGAN3, and encoders with one head."""
    key, seed, shape = CASES[name]
    dtype, expected = DTYPES[precision], golden()[f"{name}/{key}"]
    with jax.enable_x64(precision == "f64"):
        encoder = single_head(name, dtype) if name.startswith("into") else built(name, dtype)
        graph, state = nnx.split(encoder)
        ours = jit(lambda state, x: nnx.merge(graph, state)(x))(state, images(seed, shape, dtype))
    if name == "intow":  # the same latent for all layers
        np.testing.assert_array_equal(ours, np.repeat(ours[:, :1], 10, axis=1))
        ours = ours[:, 0]
    check(ours, expected, TOLERANCE[precision])


# At full width: 267 and 186 million weights. Activations near a kink change sides in float32, so gradients are compared
# in the L2 norm there (golden_aux saw 1e-2 in the largest value).

FULL = {"psp": "GradualStyleEncoder", "e4e": "Encoder4Editing", "stylegan3": "ProgressiveBackboneEncoder"}


@SLOW
@pytest.mark.parametrize("name", FULL)
def test_full_width(name):
    """Latents and the gradient by a 256-pixel image, float32."""
    over3, seed = name == "stylegan3", golden_weights.FULL_SEEDS[name]
    options = {"styles": 16, "pyramid": False, "channels": 6} if over3 else {"styles": 18}
    shapes = golden_weights.encoder_shapes(**golden_weights.FULL, size=256, **options)
    state = {f"encoder.{k}": v for k, v in golden_weights.encoder_weights(seed, shapes).items()}
    mean = np.zeros(512, np.float32)
    found = encoders.from_state_dict(state, {"encoder_type": FULL[name]}, latent_avg=mean)
    del state
    graph, state = nnx.split(found.build(found.arrays()))
    x = images(seed, (1, 6 if over3 else 3, 256, 256), np.float32)
    expected = {key: golden()[f"full/{name}/{key}"] for key in ("w", "grad_block", "grad_row")}

    @jit
    def run(state, x, weight):
        def compute(x):
            ws = nnx.merge(graph, state)(x)
            return (ws * weight).sum(), ws

        return jax.value_and_grad(compute, has_aux=True)(x)

    (_, ws), gradient = run(state, x, golden_weights.probe(seed + 1, expected["w"].shape))
    check(ws, expected["w"], 2e-5)
    blocks = np.asarray(gradient, np.float64).reshape(1, 64, 4, 64, 4, -1).sum((2, 4))
    for ours, key in ((blocks, "grad_block"), (np.asarray(gradient)[:, 128], "grad_row")):
        theirs = last(expected[key]) if key == "grad_block" else np.moveaxis(expected[key], 1, 2)
        assert np.linalg.norm(ours - theirs) < 1e-2 * np.linalg.norm(theirs)


# What holds for every encoder; tiny ones.

TINY = dict(widths=(4, 5, 6), depths=(1, 1, 1), size=(16, 16), num_ws=4, w_dim=6)
KINDS = {
    "pyramid": (StyleEncoder, StyleEncoderConfig(**TINY, stem=4, reduction=2)),
    "progressive": (StyleEncoder, StyleEncoderConfig(**TINY, stem=4, reduction=2, progressive=True)),
    "resnet": (StyleEncoder, StyleEncoderConfig(**TINY, trunk="resnet", pyramid=False)),
    "w": (SingleHeadEncoder, SingleHeadEncoderConfig(**TINY, stem=4, reduction=0)),
    "w plus": (SingleHeadEncoder, SingleHeadEncoderConfig(**TINY, stem=4, reduction=2, pool=2, features=5)),
    "masked": (MaskedEncoder, MaskedEncoderConfig(widths=(4, 4, 4), num_ws=4, w_dim=6, features=5)),
    "restyle": (
        StyleEncoder,
        StyleEncoderConfig(**TINY, trunk="resnet", pyramid=False, image_channels=6, iterations=3, progressive=True),
    ),
}
KNOWN = np.ones((2, 16, 16), np.float32)
KNOWN[:, 5:12, 3:9] = 0


@functools.cache
def make(name):
    """Returns a tiny encoder with random weights, and its mean of W."""
    kind, config = KINDS[name]
    encoder = kind(config, rngs=nnx.Rngs(0))
    if name == "masked":
        encoder.out.weight[...] = jax.random.normal(jax.random.key(0), encoder.out.weight.shape)
    else:
        encoder.average[...] = jax.random.normal(jax.random.key(1), (4, 6))
    return encoder


@functools.cache
def make_generator(family):
    if family == "stylegan2":
        config = sg.GeneratorConfig(widths=(4, 4), z_dim=6, w_dim=6, mapping_layers=1)
        return sg.Generator(config, rngs=nnx.Rngs(0))
    config = stylegan3.GeneratorConfig(widths=(4, 4), resolution=16, z_dim=6, w_dim=6, num_critical=1, margin=2)
    return stylegan3.Generator(config, rngs=nnx.Rngs(0))


def arguments(name):
    return {"generator": make_generator("stylegan2")} if name == "restyle" else {}


@pytest.mark.parametrize("name", ["w", "w plus", "masked", "restyle"])
def test_what_is_hidden_is_not_seen(name):
    """Hidden pixels change nothing, known ones and the mask do, and images of a batch know nothing of each other."""
    encoder, x = make(name), images(1, (2, 3, 16, 16), np.float32)
    ws = encode(encoder, x, known=KNOWN, **arguments(name))
    assert ws.shape == (2, 4, 6) and ws.dtype == np.float32
    hidden = np.where(KNOWN[..., None] > 0, x, np.float32(np.nan))
    np.testing.assert_array_equal(encode(encoder, hidden, known=KNOWN, **arguments(name)), ws)
    others = [encode(encoder, image, known=mask, **arguments(name)) for image, mask in ((-x, KNOWN), (x, KNOWN**0))]
    assert min(np.abs(other - ws).max() for other in others) > 1e-3
    replaced = encode(encoder, np.stack([x[0], -x[1]]), known=np.stack([KNOWN[0], KNOWN[1] ** 0]), **arguments(name))
    np.testing.assert_allclose(replaced[0], ws[0], rtol=0, atol=2e-6 * np.abs(ws).max())


@pytest.mark.parametrize("name", ["progressive", "masked"])
def test_encode_adds_the_mean_and_resizes(name):
    """`encode` gives what the encoder gives for the prepared image, and the mean of W more."""
    encoder = make(name)
    x = images(2, (2, 3, 16, 16) if name == "masked" else (2, 3, 40, 40), np.float32)
    if name == "masked":
        np.testing.assert_array_equal(encode(encoder, x), jax.jit(lambda e, x: e(x, np.ones_like(KNOWN)))(encoder, x))
        return
    small = encoding.prepared(jnp.asarray(x), encoder.config)
    assert small.shape == (2, 16, 16, 3)
    expected = jax.jit(lambda e, x: e.average[...][None] + e(x))(encoder, small)
    np.testing.assert_allclose(encode(encoder, x), expected, atol=1e-5)


def test_stages_of_a_progressive_encoder():
    """Latents beyond the stage are the first one."""
    encoder, x = make("progressive"), images(3, (1, 3, 16, 16), np.float32)
    offsets = [encode(encoder, x, stage=stage) - encoder.average[...][None] for stage in (2, None)]
    same = [[bool(np.allclose(o[:, i], o[:, 0], atol=1e-6)) for i in range(4)] for o in offsets]
    assert same == [[True, False, False, True], [True, False, False, False]]


REFUSED = {
    "iterations": ("pyramid", dict(iterations=2), "iterations are for ReStyle's"),
    "masked stage": ("masked", dict(stage=1), "stage for e4e's"),
    "stage": ("pyramid", dict(stage=1), "for progressive encoders"),
    "one head": ("w", dict(stage=1), "for progressive encoders"),
    "no generator": ("restyle", {}, "give `generator`"),
    "no look": ("restyle", dict(generator="stylegan2", iterations=0), "at least 1, got 0"),
    "channels": ("pyramid", dict(channels=6), r"must be \[n, h, w, 3\], got \[1, 16, 16, 6\]"),
    "mask": ("pyramid", dict(known=KNOWN), r"known \[n, h, w\], got \[1, 16, 16, 3\] and \[2, 16, 16\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    """Options that an encoder does not have, and images of another kind."""
    name, options, message = REFUSED[case]
    options = dict(options)
    x = np.zeros((1, 16, 16, options.pop("channels", 3)), np.float32)
    if "generator" in options:
        options["generator"] = make_generator(options["generator"])
    with pytest.raises(ValueError, match=message):
        encode(make(name), x, **options)


CONFIGS = {
    "trunk": (dict(trunk="vgg"), "trunk must be one of irse, resnet"),
    "size": (dict(size=(20, 20)), "power of two and at least 16"),
    "small": (dict(size=(8, 8)), "power of two and at least 16"),
    "stages": (dict(widths=(4, 4), depths=(1, 1)), "three stages or more, got 2"),
    "channels": (dict(iterations=2), "as many channels"),
    "latents": (dict(num_ws=0), "must be positive"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_make_no_network(case):
    changes, message = CONFIGS[case]
    with pytest.raises(ValueError, match=message):
        StyleEncoderConfig(**(TINY | changes))


def test_images_larger_than_the_encoder():
    """Heads would not come down to one pixel."""
    with pytest.raises(ValueError, match="at most 16 pixels, got .*`encode` resizes them"):
        make("pyramid")(jnp.zeros((1, 32, 32, 3)))


def rendered_by_hand(generator, ws):
    """Returns images of StyleGAN3 with the transform that it holds, whatever it is."""
    return jax.jit(lambda generator, ws: generator.synthesis(ws))(generator, ws)


@pytest.mark.parametrize("family", ["stylegan2", "stylegan3"])
def test_restyle_looks_at_what_it_made(family):
    """The loop is `ws + encoder([x, pool(G(ws))])` from the mean of W; StyleGAN3 is upright, whatever it holds."""
    encoder, x, generator = make("restyle"), images(4, (2, 3, 16, 16), np.float32), make_generator(family)
    look = jax.jit(lambda encoder, x: encoder(x))
    ws = jnp.broadcast_to(encoder.average[...][None], (2, 4, 6))
    expected = []
    for _ in range(3):
        made = jnp.repeat(jnp.repeat(rendered_by_hand(generator, ws), 16 // generator.resolution, 1), 2, 2)
        made = made[:, :, : 16 if generator.resolution == 8 else 32]
        seen = made if generator.resolution == 8 else pooling.adaptive_average_pool(made, (16, 16))
        ws = ws + look(encoder, jnp.concatenate([x, seen], -1))
        expected.append(ws)
    if family == "stylegan3":
        generator = nnx.clone(generator)
        generator.synthesis.input.transform[...] = landmark_transform(30, (0.1, 0))
    steps = encode_steps(encoder, x, generator=generator)
    limit = 2e-5 * np.abs(ws).max()
    np.testing.assert_allclose(steps, np.stack(expected, 1), rtol=0, atol=limit)
    np.testing.assert_array_equal(encode(encoder, x, generator=generator, iterations=3), steps[:, -1])


def test_landmark_transforms():
    """The last image is moved to where the face was: by one transform, or by one for each; the generator stays."""
    generator, ws = make_generator("stylegan3"), jax.random.normal(jax.random.key(0), (2, 4, 6))
    upright, moved = np.eye(3), landmark_transform(20, (0.1, -0.2))
    turn, shift = np.deg2rad(20), [0.1, -0.2]
    forward = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(moved @ [*(forward @ [0.3, 0.4] + shift), 1], [0.3, 0.4, 1], atol=1e-12)
    plain, both = render(generator, ws), render(generator, ws, landmark_transform=jnp.asarray(moved))
    each = render(generator, ws, landmark_transform=jnp.asarray(np.stack([upright, moved])))
    np.testing.assert_allclose(each[0], plain[0], atol=1e-5)
    np.testing.assert_allclose(each[1], both[1], atol=1e-5)
    assert np.abs(both - plain).max() > 1e-2
    np.testing.assert_array_equal(generator.synthesis.input.transform[...], upright)
    other = nnx.clone(generator)
    other.synthesis.input.transform[...] = moved
    np.testing.assert_allclose(rendered_by_hand(other, ws), both, atol=1e-5)
    with pytest.raises(ValueError, match=r"must be \[3, 3\] or \[2, 3, 3\], got \(2, 3\)"):
        render(generator, ws, landmark_transform=jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="of StyleGAN3 only"):
        render(make_generator("stylegan2"), ws, landmark_transform=jnp.eye(3))


def test_cars_are_cropped():
    """Of a square image an encoder of 3 : 4 sees the middle rows; an image of these proportions it sees whole."""
    x = images(5, (1, 3, 64, 64), np.float32)
    config = StyleEncoderConfig(**(TINY | dict(size=(12, 16))))
    np.testing.assert_array_equal(encoding.framed(x, config.size), x[:, 8:56])
    np.testing.assert_array_equal(encoding.framed(x[:, :48], config.size), x[:, :48])
    found = encoding.prepared(jnp.asarray(x), config)
    assert found.shape == (1, 12, 16, 3)
    np.testing.assert_allclose(found, encoding.prepared(jnp.asarray(x[:, 8:56]), config), atol=1e-6)


# Sizes and holes.


def test_changes_of_size(x64):
    """Pooling, interpolation between corners and antialiased interpolation are PyTorch's."""
    levels = {key[7:]: array for key, array in golden().items() if key.startswith("resize/")}
    x = jnp.asarray(levels.pop("image") / 255.0)[None, :, :, None]
    config = StyleEncoderConfig(**(TINY | dict(image_channels=1, size=(32, 32))))
    for name, expected in levels.items():
        if name.startswith("antialias"):
            config = StyleEncoderConfig(**(TINY | dict(image_channels=1, size=(24, 32))))
            ours = jax.image.resize(x, (1, *expected.shape, 1), "linear", antialias=True)
            square = encoding.prepared(x[:, :, :90], config)  # 90 x 90 are cropped to 67 rows
            np.testing.assert_allclose(
                square, jax.image.resize(x[:, 11:78, :90], (1, 24, 32, 1), "linear", antialias=True)
            )
        else:
            change = pooling.resize_corners if name.startswith("bilinear") else pooling.adaptive_average_pool
            ours = change(x, expected.shape)
        check(ours[0, :, :, 0], expected, STORED)  # computed and stored as float32
    assert len(levels) == 4


def test_filled_holes():
    """Known pixels stay; holes get colours from within the range of what surrounds them, near ones before far ones."""
    x = images(6, (2, 3, 21, 16), np.float32)
    known = np.ones((2, 21, 16), np.float32)
    known[0, 4:15, 5:12], known[1] = 0, 0
    fill = jax.jit(fill_holes)
    found = np.asarray(fill(x, known))
    np.testing.assert_array_equal(found[0][known[0] > 0], x[0][known[0] > 0])
    np.testing.assert_array_equal(found[1], 0)
    inside = found[0][known[0] == 0]
    assert inside.min() >= x[0][known[0] > 0].min() - 1e-6 and inside.max() <= x[0][known[0] > 0].max() + 1e-6
    np.testing.assert_allclose(fill(np.full_like(x, 0.3), known)[0], 0.3, atol=1e-6)
    sides = np.broadcast_to(np.where(np.arange(16) < 8, -1.0, 1.0)[:, None], x.shape).astype(np.float32)
    row = np.asarray(fill(sides, known))[0, 9, :, 0]
    assert row[5] < -0.3 and row[11] > 0.3
