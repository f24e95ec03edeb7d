# SPDX-License-Identifier: Apache-2.0
"""The ways into a StyleGAN2: styles, feature maps, noise, labels, precision, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import parameters

CONFIG = dict(widths=(6, 5, 4), z_dim=5, w_dim=7, mapping_layers=2)
FEATURES = ("b4/conv1", "b8", "b16", "b16/conv1", "b16/torgb")


def lively(network):
    """Fills what starts at 0 (biases, noise strengths) with values, so that it takes part in the tests."""
    graph, state = nnx.split(network)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    leaves = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


@functools.cache
def generator():
    return lively(sg.Generator(sg.GeneratorConfig(**CONFIG), rngs=nnx.Rngs(0)))


@functools.cache
def latents():
    return jax.random.normal(jax.random.key(1), (2, 6, 7))


@jax.jit
def steered(generator, ws, chosen, given, factors):
    """Returns images and maps with every map of FEATURES replaced where chosen, and scaled: one program for all."""

    def make(name):
        return lambda x: jnp.where(chosen[name], given[name], x) * factors[name]

    return generator.synthesis.forward(ws, features={name: make(name) for name in FEATURES})


def steer(maps=None, *, replace=(), double=()):
    """Runs `steered`; `maps` are the replacements."""
    shapes = {"b4/conv1": (4, 4, 6), "b8": (4, 4, 6), "b16": (8, 8, 5), "b16/conv1": (16, 16, 4)}
    shapes["b16/torgb"] = shapes["b16/conv1"]
    given = {name: jnp.zeros((2, *shapes[name])) if maps is None else maps[name] for name in FEATURES}
    chosen = {name: jnp.asarray(name in replace) for name in FEATURES}
    factors = {name: jnp.asarray(2.0 if name in double else 1.0) for name in FEATURES}
    return steered(generator(), latents(), chosen, given, factors)


@functools.cache
def reference():
    """Returns images and maps of the latents with nothing replaced."""
    return steer()


def assert_close(image, expected):
    """Asserts equality within the rounding of another compiled program, the limit of the parity tests."""
    assert np.abs(image - expected).max() < 2e-5 * np.abs(expected).max()


def test_styles_replace_latents():
    """The styles of some latents give their image without the latents, exactly."""
    styles = generator().synthesis.styles(latents())
    assert list(styles) == [
        "b4/conv1", "b4/torgb", "b8/conv0", "b8/conv1", "b8/torgb", "b16/conv0", "b16/conv1", "b16/torgb",
    ]  # fmt: skip
    assert [styles[k].shape[1] for k in styles] == [6, 6, 6, 5, 5, 5, 4, 4]
    assert_close(jax.jit(lambda g, styles: g.synthesis(styles=styles))(generator(), styles), reference()[0])


def test_partial_styles_override_latents():
    """One layer's style from another latent changes the image from that layer on, and equals editing that w."""
    other = latents().at[:, 5].add(1.0)  # index 5 feeds only b16/torgb: the last w
    styles = generator().synthesis.styles(other)
    run = jax.jit(lambda g, ws, styles: g.synthesis(ws, styles=styles))
    image = run(generator(), latents(), {"b16/torgb": styles["b16/torgb"]})
    assert np.abs(image - reference()[0]).max() > 1e-3
    edited = run(generator(), other, {"b16/torgb": styles["b16/torgb"]})
    np.testing.assert_array_equal(image, edited)
    kept = run(generator(), other, {"b16/torgb": generator().synthesis.styles(latents())["b16/torgb"]})
    assert_close(kept, reference()[0])


def test_torgb_shares_the_next_blocks_latent():
    """Index i feeds: conv1 of 4, then (torgb of the block below and conv0), conv1, ... and last the final torgb."""
    base = generator().synthesis.styles(latents())
    fed = []
    for index in range(6):
        changed = generator().synthesis.styles(latents().at[:, index].add(1.0))
        fed.append([name for name in base if not np.array_equal(base[name], changed[name])])
    assert fed == [
        ["b4/conv1"],
        ["b4/torgb", "b8/conv0"],
        ["b8/conv1"],
        ["b8/torgb", "b16/conv0"],
        ["b16/conv1"],
        ["b16/torgb"],
    ]


@pytest.mark.parametrize("name", FEATURES)
def test_recorded_features_reproduce_the_image(name):
    """Putting back the map that was there gives the image again; a changed map enters as it is and changes the image.

    To a few roundings: a program that is given the map fuses what follows otherwise than one that computes it.
    """
    image, maps = reference()
    again, _ = steer(maps, replace=[name])
    np.testing.assert_allclose(again, image, rtol=2e-5, atol=2e-5)
    changed, met = steer(double=[name])
    assert np.abs(changed - image).max() > 1e-3
    np.testing.assert_array_equal(met[name], maps[name] * 2)
    twice, _ = steer({**maps, name: maps[name] * 2}, replace=[name])
    np.testing.assert_allclose(twice, changed, rtol=2e-5, atol=2e-5)


def test_features_as_arrays():
    """Replacements may be arrays, also several at once; what lies above the last one no longer matters."""
    image, maps = reference()
    features = {name: maps[name] for name in ("b4/conv1", "b16")}
    run = jax.jit(lambda g, ws, features: g.synthesis(ws, features=features))
    assert_close(run(generator(), latents(), features), image)


def test_hooks_refuse():
    """Unknown names and wrong shapes are named, with what there is."""
    synthesis, ws = generator().synthesis, latents()
    styles = synthesis.styles(ws)
    refusals = [
        (dict(features={"b32": jnp.ones((2, 16, 16, 4))}), "no feature map enters b32; there are b4/conv1.*b16/image"),
        (dict(features={"b16": jnp.ones((2, 8, 8, 3))}), r"feature map b16 must be \[2, 8, 8, 5\], got \[2, 8, 8, 3\]"),
        (dict(styles={"b64/conv0": styles["b4/conv1"]}), r"styles: missing none, unknown \['b64/conv0'\]"),
        (dict(noise={"b8/conv2": jnp.ones((1, 8, 8))}), "no noise input at b8/conv2; there is b4/conv1"),
        (dict(noise={"b8/conv1": jnp.ones((1, 4, 4))}), r"noise b8/conv1 must be \[n, 8, 8\], got \[1, 4, 4\]"),
        (dict(noise={"b8/conv1": jnp.ones((8, 8))}), "noise b8/conv1 must be"),
        (dict(noise="random"), "noise must be .*got 'random'"),
    ]
    for options, text in refusals:
        with pytest.raises(ValueError, match=text):
            jax.eval_shape(lambda ws, options=options: synthesis(ws, **options), ws)
    with pytest.raises(ValueError, match=r"missing \['b4/torgb'"):
        synthesis(styles={"b4/conv1": styles["b4/conv1"]})
    for wrong in (ws[0], ws[:, :5], ws[..., :6]):
        with pytest.raises(ValueError, match=r"ws must be \[n, 6, 7\], got"):
            synthesis(wrong)


def test_noise_by_key():
    """A key gives the same noise again, another key another, and each sample its own, in the layers' shapes."""
    make = functools.partial(generator().synthesis.noise_maps, n=2, dtype=jnp.float32)
    one, again, other = make(jax.random.key(0)), make(jax.random.key(0)), make(jax.random.key(1))
    shapes = generator().synthesis.noise_shapes()
    assert shapes == {
        "b4/conv1": (4, 4),
        "b8/conv0": (8, 8),
        "b8/conv1": (8, 8),
        "b16/conv0": (16, 16),
        "b16/conv1": (16, 16),
    }
    for name, shape in shapes.items():
        assert one[name].shape == (2, *shape)
        np.testing.assert_array_equal(one[name], again[name])
        assert (one[name] != other[name]).all() and (one[name][0] != one[name][1]).all()
    assert (one["b8/conv0"] != one["b8/conv1"]).all()
    values = np.concatenate([np.ravel(v) for v in one.values()])
    assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1
    run = jax.jit(lambda g, ws, key: g.synthesis(ws, noise=key))
    images = [run(generator(), latents(), jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 1e-4
    given = jax.jit(lambda g, ws, noise: g.synthesis(ws, noise=noise))(generator(), latents(), one)
    assert_close(given, images[0])


def test_bfloat16_blocks_stay_close():
    """High blocks in bfloat16 give float32 images within its precision, and other numbers than float32."""
    config = sg.GeneratorConfig(**CONFIG, bfloat16_from=8)
    low = parameters.fill(sg.Generator, config, parameters.to_arrays(generator()))
    image, maps = jax.jit(lambda g, ws: g.synthesis.forward(ws))(low, latents())
    assert image.dtype == jnp.float32
    assert [maps[name].dtype for name in ("b4/conv1", "b8", "b16/conv1")] == [jnp.float32, jnp.bfloat16, jnp.bfloat16]
    error = np.abs(image - reference()[0]).max() / np.abs(reference()[0]).max()
    assert 1e-4 < error < 3e-2

    config = sg.DiscriminatorConfig(widths=(6, 5, 4))
    discriminator = lively(sg.Discriminator(config, rngs=nnx.Rngs(0)))
    config = sg.DiscriminatorConfig(widths=(6, 5, 4), bfloat16_from=8)
    half = parameters.fill(sg.Discriminator, config, parameters.to_arrays(discriminator))
    run = jax.jit(lambda d, x: d(x))
    logits, expected = run(half, reference()[0]), run(discriminator, reference()[0])
    assert logits.dtype == jnp.float32 and 0 < np.abs(logits - expected).max() < 3e-2 * max(1, np.abs(expected).max())


def test_mapping_refuses():
    """Missing, superfluous and misshapen inputs are named."""
    z, c = jnp.ones((2, 5)), jnp.ones((2, 3))
    conditional = sg.Generator(sg.GeneratorConfig(**CONFIG, c_dim=3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="c_dim is 0 but c is given"):
        generator().mapping(z, c)
    with pytest.raises(ValueError, match="c_dim is 3 but c is missing"):
        conditional.mapping(z)
    with pytest.raises(ValueError, match=r"z must be \[n, 5\], got \[2, 6\]"):
        generator().mapping(jnp.ones((2, 6)))
    with pytest.raises(ValueError, match=r"c must be \[n, 3\], got \[3\]"):
        conditional.mapping(z, jnp.ones(3))
    assert conditional.mapping(z, c).shape == (2, 7)
    assert np.abs(conditional.mapping(z, c) - conditional.mapping(z, c.at[:, 0].set(5.0))).max() > 1e-3
    config = sg.GeneratorConfig(**CONFIG, w_avg_beta=None)
    with pytest.raises(ValueError, match="holds no mean of w, so truncation_psi must be 1"):
        sg.Generator(config, rngs=nnx.Rngs(0)).map(z, truncation_psi=0.5)


def test_configs_refuse():
    """Settings without meaning are refused where they are written."""
    with pytest.raises(ValueError, match="unknown architecture 'wide'; known: skip, orig, resnet"):
        sg.GeneratorConfig(widths=(4,), architecture="wide")
    for widths in ((), (4, 0)):
        with pytest.raises(ValueError, match="widths must hold the channels"):
            sg.DiscriminatorConfig(widths=widths)
    for resolution in (0, 2, 24):
        with pytest.raises(ValueError, match=f"power of two from 4 on, got {resolution}"):
            sg.channel_widths(resolution)
    assert sg.channel_widths(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert sg.channel_widths(8, channel_base=32, channel_max=6) == (6, 4)
    discriminator = sg.Discriminator(sg.DiscriminatorConfig(widths=(4, 4)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"images must be \[n, 8, 8, 3\], got \(1, 4, 4, 3\)"):
        discriminator(jnp.ones((1, 4, 4, 3)))


def test_arrays_must_fit():
    """from_arrays names what is missing, unexpected or of another shape, and keeps every value."""
    config, arrays = generator().config, parameters.to_arrays(generator())
    again = parameters.to_arrays(sg.Generator.from_arrays(config, arrays))
    assert list(again) == list(arrays)
    for name in arrays:
        np.testing.assert_array_equal(again[name], arrays[name])
    wrong = dict(arrays) | {"synthesis/b4/extra": jnp.ones(1), "synthesis/b4/const": jnp.ones((4, 4, 3))}
    del wrong["mapping/fc0/bias"]
    with pytest.raises(ValueError) as caught:
        sg.Generator.from_arrays(config, wrong)
    for text in (
        "missing mapping/fc0/bias",
        "unexpected synthesis/b4/extra",
        "b4/const is [4, 4, 3], expected [4, 4, 6]",
    ):
        assert text in str(caught.value)
