# SPDX-License-Identifier: Apache-2.0
"""Laws of latent spaces: exact lifts, what cannot be lifted, draws, finite gradients; and the statistics of W."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from stylegan_jax import heads, joint, latents
from stylegan_jax.joint import Content, Features, Joint, Noise, Weights

PLAIN = list(latents.SPACES.values())
JOINT = [
    Joint(latents.W, (Noise(),)),
    Joint(latents.WPLUS, (Noise(), Content())),
    Joint(latents.ZPLUS, (Noise(2), Features("b8"))),
    Joint(latents.S, (Noise(), Features("b8/torgb"))),
    Joint(latents.WPLUS, (Weights(),)),
]
DRAWN = [
    heads.StyleHead((8, 4), (5,)),
    Joint(heads.StyleHead((8, 4), (5,)), (heads.ContentHead(3, (4,)), Noise())),
    heads.MultiCode(3, "b8"),
    heads.MultiCode(3, "b8/conv1", latents.W),
]
NAMES = dict(ids=lambda space: space.name)
PAIRS = list(itertools.product(PLAIN, repeat=2))
CONDITIONAL = [(latents.Z, latents.ZPLUS, 3), (latents.Z, latents.W, 3), (latents.ZPLUS, latents.WPLUS, 3)]
HELD = [(a, b) for a in PLAIN for b in JOINT if b.holds(a)]


@pytest.fixture(scope="module", params=[0, 3], ids=["unconditional", "conditional"])
def generator(request):
    """Returns a tiny float64 generator whose noise is felt."""
    return make_generator(request.param)


@functools.cache
def make_generator(c_dim):
    with jax.enable_x64(True):
        config = sg.GeneratorConfig(widths=(4, 3), z_dim=5, w_dim=6, c_dim=c_dim, mapping_layers=2)
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
        for layer in (generator.synthesis.b4.conv1, generator.synthesis.b8.conv0, generator.synthesis.b8.conv1):
            layer.noise_strength[...] = jnp.asarray(0.5)
        return generator


def host(generator, seed=0):
    c = jax.nn.one_hot(1, 3) if generator.config.c_dim else None
    p_space = (jnp.arange(6.0) / 6, jnp.ones(6))
    return latents.Host(generator, c, jax.random.key(seed), p_space)


def variable(generator, space, seed=0):
    """Returns a variable of the space that is nothing special in it."""
    found = host(generator, seed)
    if space == latents.WPLUS:
        return jax.random.normal(found.key, (4, 6))
    if isinstance(space, Joint) and space in JOINT:
        return space.lifted(found, variable(generator, space.base, seed), space.base)
    if space in (latents.WPLUSPLUS, latents.S):
        v = latents.lift(found, variable(generator, latents.WPLUS, seed), source=latents.WPLUS, target=space)
        return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(found.key, x.shape), v)
    return space.draw(found)


def image(generator, space, v, **options):
    found = host(generator)
    return latents.render(generator, space.to_inputs(found, v), key=found.key, **options)


@functools.partial(jax.jit, static_argnames=("space", "graph"))
def gradient_of(v, arrays, *, space, graph):
    generator = nnx.merge(graph, arrays)
    return jax.grad(lambda v: jnp.square(image(generator, space, v)).sum())(v)


@pytest.mark.parametrize("space", PLAIN, **NAMES)
def test_shapes(space, x64):
    """A variable has the shape told."""
    generator = make_generator(0)
    shapes = {"z": (5,), "z+": (4, 5), "p+": (4, 6), "w": (6,), "w+": (4, 6), "w++": (4, 4, 6)}
    v = variable(generator, space)
    if space == latents.S:
        assert {name: x.shape for name, x in v.items()} == {
            "b4/conv1": (4,), "b4/torgb": (4,), "b8/conv0": (4,), "b8/conv1": (3,), "b8/torgb": (3,)
        }  # fmt: skip
        return
    assert v.shape == shapes[space.name]
    ws = space.to_inputs(host(generator), v).ws
    assert ws is None if space == latents.WPLUSPLUS else ws.shape == (4, 6)


@pytest.mark.parametrize(("source", "target", "c_dim"), [*((*pair, 0) for pair in PAIRS), *CONDITIONAL])
def test_lifts(source, target, c_dim, x64):
    """A lift to a space that holds all images of another gives the same image; any other is refused."""
    generator = make_generator(c_dim)
    v = variable(generator, source)
    lift = functools.partial(latents.lift, host(generator), v, source=source, target=target)
    if target.name not in source.finer:
        with pytest.raises(ValueError, match=f"cannot lift from .* can be lifted to {source.finer[0][0]}"):
            lift()
        return
    lifted = lift()
    assert jax.tree.map(jnp.shape, lifted) == jax.tree.map(jnp.shape, variable(generator, target))
    np.testing.assert_allclose(image(generator, target, lifted), image(generator, source, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), HELD, **NAMES)
@pytest.mark.parametrize("noise", ["const", "none"])
def test_lifts_to_joint_spaces(source, target, noise, x64):
    """What a space holds beside latents begins as the network's own, so the image stays; with stored noise or none."""
    generator = make_generator(0)
    v, found = variable(generator, source), host(generator)._replace(noise=noise)
    lifted = latents.lift(found, v, source=source, target=target)
    before = image(generator, source, v, noise=noise)
    np.testing.assert_allclose(image(generator, target, lifted, noise=noise), before, rtol=0, atol=1e-12)


def test_joint_spaces_gain_parts(x64):
    """What was searched is handed over to a space with more parts; one with fewer parts is refused."""
    generator = make_generator(0)
    few, many = Joint(latents.W, (Noise(2),)), Joint(latents.WPLUS, (Noise(), Features("b8")))
    v = jax.tree.map(lambda x: x + 0.3, variable(generator, few))
    lifted = latents.lift(host(generator), v, source=few, target=many)
    np.testing.assert_allclose(image(generator, many, lifted), image(generator, few, v), rtol=0, atol=1e-12)
    assert list(v["noise"]) == ["b4/conv1", "b8/conv0"] and len(lifted["noise"]) == 3
    with pytest.raises(ValueError, match="cannot lift from w.&noise&features:b8 to w&noise"):
        latents.lift(host(generator), lifted, source=many, target=few)


@pytest.mark.parametrize("space", [*PLAIN, *JOINT, *DRAWN], **NAMES)
def test_gradients_reach_every_variable(space, x64):
    """The gradient of an image is finite and, but for what later parts replace, nowhere all zero."""
    generator = make_generator(0)
    v = variable(generator, space)
    graph, arrays = nnx.split(generator)
    gradient, silent = gradient_of(v, arrays, space=space, graph=graph), []
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(x).all()
        if not np.abs(x).max() > 0:
            silent.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    # What lies before a map that is given is not seen, but by the colours of coarser blocks.
    layers = ("b8/conv0", "b8/conv1")
    hidden = [f"{part}/{layer}" for part in ("latents", "noise") for layer in layers]
    assert sorted(silent) == (hidden if space.name == "s&noise&features:b8/torgb" else [])


@pytest.mark.parametrize("space", DRAWN, **NAMES)
def test_what_a_head_draws_is_its_keys(space, x64):
    """Equal keys give equal images; a head's images differ with the key, those of several codes do not."""
    generator = make_generator(0)
    v, found = variable(generator, space), host(generator)
    first, again, other = (
        latents.render(generator, space.to_inputs(found._replace(key=jax.random.key(k)), v)) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max() > 1e-6) == (not isinstance(space, heads.MultiCode))
    with pytest.raises(ValueError, match="nothing can be lifted to|cannot lift"):
        space.lifted(found, variable(generator, latents.W), latents.W)


def test_one_code_of_importance_one_is_the_generator(x64):
    """A single code is rendered as ever; two are the mean of their maps."""
    generator = make_generator(0)
    single = heads.MultiCode(1, "b8", latents.W)
    v = single.draw(host(generator))
    plain = image(generator, latents.W, v["latents"][0])
    np.testing.assert_allclose(image(generator, single, v), plain, rtol=0, atol=1e-12)


def test_filters_with_equal_latents_are_a_layer(x64):
    """A style for every filter, all alike, is modulation as ever; with others, each filter has its own kernel."""
    generator = make_generator(0)
    ws = variable(generator, latents.WPLUS)
    styles = {name: x[0] for name, x in generator.synthesis.styles(ws[None]).items()}
    out = {"b4/conv1": 4, "b4/torgb": 3, "b8/conv0": 3, "b8/conv1": 3, "b8/torgb": 3}
    repeated = {name: jnp.broadcast_to(x, (out[name], *x.shape)) for name, x in styles.items()}
    plain = image(generator, latents.WPLUS, ws)
    found = latents.render(generator, latents.Inputs(styles=repeated))
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-12)
    # An output channel sees its own style alone.
    changed = latents.render(
        generator, latents.Inputs(styles=repeated | {"b8/torgb": repeated["b8/torgb"].at[1].mul(2.0)})
    )
    assert (np.abs(changed - plain).max((0, 1)) > 1e-6).tolist() == [False, True, False]


def test_the_transform_moves_an_image_of_stylegan3(x64):
    """A shift by whole pixels moves the middle of the image, and the part begins as the stored transform."""
    from stylegan_jax import stylegan3

    config = stylegan3.GeneratorConfig(resolution=16, z_dim=4, w_dim=6, widths=(8, 8, 6, 4), mapping_layers=1)
    generator = stylegan3.Generator(config, rngs=nnx.Rngs(0))
    space, found = Joint(latents.W, (joint.Transform(),)), latents.Host(generator, key=jax.random.key(0))
    w = jax.random.normal(found.key, (6,))
    v = latents.lift(found, w, source=latents.W, target=space)
    np.testing.assert_array_equal(v["transform"], [1, 0, 0, 0])
    plain = latents.render(generator, latents.W.to_inputs(found, w))
    np.testing.assert_allclose(latents.render(generator, space.to_inputs(found, v)), plain, rtol=0, atol=1e-12)
    moved = v | {"transform": jnp.asarray([2.0, 0, 4 / 16, 0])}
    shifted = latents.render(generator, space.to_inputs(found, moved))
    error = np.abs(shifted[4:-4, 1:6] - plain[4:-4, 5:10]).mean()
    assert error < 0.2 * np.abs(plain[4:-4, 1:6] - plain[4:-4, 5:10]).mean()


REFUSED = {
    "noise": (Noise(), "no noise inputs"),
    "features": (Features("b64"), "no feature map enters 'b64'; there are b4/conv1, .*b8/torgb"),
    "transform": (joint.Transform(), "only StyleGAN3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parts_that_a_generator_lacks(name, x64):
    """What a generator has no place for is refused by name."""
    part, text = REFUSED[name]
    generator = make_generator(0)
    if name == "noise":
        config = sg.GeneratorConfig(widths=(4, 3), z_dim=5, w_dim=6, mapping_layers=2, use_noise=False)
        generator = sg.Generator(config, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=text):
        latents.lift(host(generator), jnp.zeros(6), source=latents.W, target=Joint(latents.W, (part,)))


def test_bad_variables_are_refused(x64):
    """Latents for filters and weights of another shape, an unknown weight, parts twice or none."""
    generator = make_generator(0)
    with pytest.raises(ValueError, match=r"latents of w\+\+ must be \[4, 4, 6\], got \[4, 6\]"):
        latents.WPLUSPLUS.to_inputs(host(generator), jnp.zeros((4, 6)))
    for name, shape in (("b8/torgb/bias", 4), ("b8/torgb/gain", 3)):
        with pytest.raises(ValueError, match=rf"weight {name}: got \[{shape}\], the network has"):
            latents.render(generator, latents.Inputs(jnp.zeros((4, 6)), weights={name: jnp.zeros(shape)}))
    for parts in ((), (Noise(), Noise(2))):
        with pytest.raises(ValueError, match="a joint space needs parts, each once"):
            Joint(latents.W, parts)


def test_lift_chain_is_the_mapping(generator, x64):
    """Z to W to W+ are the latents that the generator itself computes, in float64."""
    found = host(generator)
    z = variable(generator, latents.Z)
    w = latents.lift(found, z, source=latents.Z, target=latents.W)
    ws = latents.lift(found, w, source=latents.W, target=latents.WPLUS)
    expected = generator.map(z[None], None if found.c is None else found.c[None])[0]
    assert ws.dtype == jnp.float64
    np.testing.assert_array_equal(ws, expected)


def test_p_plus_is_the_gaussian_model_of_w(x64):
    """Its variable is what whitening by mean and deviation leaves of latents after the inverse activation."""
    generator = make_generator(0)
    ws, found = variable(generator, latents.WPLUS), host(generator)
    mean, deviation = found.p_space
    v = (jnp.where(ws >= 0, ws, 5 * ws) - mean[None]) / deviation[None]
    np.testing.assert_allclose(latents.PPLUS.to_inputs(found, v).ws, ws, rtol=0, atol=1e-14)


def test_w_statistics_are_those_of_the_draws(generator, x64):
    """Mean and covariance are numpy's over the same latents, taken at once instead of by the thousand."""
    key, n = jax.random.key(7), 2300
    found = latents.estimate_w_statistics(key, generator, samples=n)
    z_key, c_key = jax.random.split(key)
    z, c = jax.random.normal(z_key, (n, 5)), latents.random_labels(c_key, generator.config.c_dim, n)
    w = np.asarray(jax.jit(lambda network, z, c: network(z, c))(generator.mapping, z, c))
    np.testing.assert_allclose(found.mean, w.mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(w, rowvar=False), rtol=0, atol=1e-12)
    if c is not None:
        assert (np.unique(c.argmax(1)) == [0, 1, 2]).all() and (c.sum(1) == 1).all()


def test_w_statistics_need_samples(generator, x64):
    """One sample has no covariance."""
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        latents.estimate_w_statistics(jax.random.key(0), generator, samples=1)
