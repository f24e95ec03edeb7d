# SPDX-License-Identifier: Apache-2.0
"""DiFaI's networks: region normalisation, modulation, spectral norm, shapes, what depends on what, samples."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import inpaint
import stylegan_jax as sg
from inpaint.learned import inpainters
from inpaint.learned.difai import normalisation, spectral
from inpaint.learned.difai.coarse import CoarseCompleter, CoarseConfig
from inpaint.learned.difai.decoder import Decoder, DecoderConfig
from inpaint.learned.difai.discriminator import PatchConfig, PatchDiscriminator
from inpaint.learned.difai.inpainter import Difai, DifaiConfig, sefa_steps
from stylegan_jax import parameters
from stylegan_jax.encoders import LinearEncoder, LinearEncoderConfig

SMALL = dict(encoder_widths=(6, 6), widths=(6, 6, 4), hidden=4)
NETWORK = DifaiConfig(w_dim=6, **SMALL, coarse_seen=8, coarse_widths=(4, 4), directions=3, distance=2.0, noise="none")


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape)


def half_mask(n=2, size=8):
    """Returns a region `[n, size, size, 1]` that is another part of every image."""
    return (
        np.stack([(np.arange(size)[:, None] + np.zeros(size)[None]) < size // 2 + i for i in range(n)])[..., None] * 1.0
    )


@functools.cache
def model():
    """Returns a random generator of 16 px with statistics of W and an encoder that takes holes."""
    generator = sg.Generator(sg.GeneratorConfig(widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2), rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    config = LinearEncoderConfig(resolution=16, seen=8, num_ws=6, w_dim=6, components=4)
    arrays = parameters.to_arrays(LinearEncoder(config, rngs=nnx.Rngs(1)))
    rng = np.random.default_rng(1)
    arrays = {name: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) for name, x in arrays.items()}
    encoder = LinearEncoder.from_arrays(config, arrays)
    return sg.Model(generator, w_statistics=statistics, encoder=encoder, encoder_hash="e" * 64, content_hash="a" * 64)


@functools.cache
def difai(**changes):
    config = dataclasses.replace(NETWORK, **changes)
    found = Difai(config, rngs=nnx.Rngs(0))
    found.steps[...] = jnp.asarray(sefa_steps(model(), config))
    return found.guided(model().encoder)


@pytest.fixture(scope="module")
def hole():
    """Returns two images `[2, 16, 16, 3]` in [-1, 1] and masks `[2, 16, 16]`."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    known = np.ones((2, 16, 16), np.float32)
    known[0, 4:12, 4:12] = 0
    known[1, 8:] = 0
    return jnp.asarray(images), jnp.asarray(known)


@pytest.mark.parametrize("across_batch", [False, True])
def test_regions_are_normalised_apart(x64, across_batch):
    """Each region of each image (or of the batch) has mean 0 and variance 1; both computed by hand."""
    x, region = random((2, 8, 8, 3)), half_mask()
    found = np.asarray(normalisation.region_normalise(jnp.asarray(x), jnp.asarray(region), across_batch=across_batch))
    groups = [(slice(None),)] if across_batch else [(slice(i, i + 1),) for i in range(2)]
    for group in groups:
        for inside in (region[group][..., 0] > 0, region[group][..., 0] == 0):
            values, before = found[group][inside], x[group][inside]
            np.testing.assert_allclose(values.mean(0), 0, atol=1e-9)
            np.testing.assert_allclose(values.var(0), 1, atol=1e-4)
            share = inside.mean()
            wanted = (before - before.mean(0)) / np.sqrt(before.var(0) + 1e-5 / share)
            np.testing.assert_allclose(values, wanted, rtol=1e-9)


@pytest.mark.parametrize("across_batch", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_region_is_the_norm_without_vectors(x64, across_batch, value):
    """Of a mask all one (or zero) one region is empty, the other normalised as a whole; so are gradients."""
    x, region = jnp.asarray(random((2, 8, 8, 3))), jnp.full((2, 8, 8, 1), value)
    options = dict(across_batch=across_batch)
    wanted = normalisation.normalise(x, **options)
    np.testing.assert_allclose(normalisation.region_normalise(x, region, **options), wanted, rtol=1e-9)

    def total(x, norm):
        return jnp.sum(norm(x) * jnp.asarray(random(x.shape, 1)))

    gradient = jax.grad(total)(x, lambda x: normalisation.region_normalise(x, region, **options))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, jax.grad(total)(x, lambda x: normalisation.normalise(x, **options)), rtol=1e-6)


def test_constant_regions_become_zero():
    """Two regions of one value each carry nothing but their means; one common norm would leave the step."""
    region = half_mask()
    x = jnp.asarray(np.where(region > 0, 3.0, -1.0) * np.ones(4), jnp.float32)
    np.testing.assert_array_equal(normalisation.region_normalise(x, jnp.asarray(region, jnp.float32)), 0)
    assert np.abs(normalisation.normalise(x)).min() > 0.5


def norm_with(norm, affine, scale, shift):
    found = normalisation.Norm(3, norm=norm, affine=affine, rngs=nnx.Rngs(0))
    found.scale[...], found.shift[...] = jnp.asarray(scale), jnp.asarray(shift)
    return found


def test_vectors_of_regions(x64):
    """Masked: each region has its own scale and shift. The published code adds both shifts everywhere."""
    x, region, rng = random((2, 8, 8, 3)), half_mask(), np.random.default_rng(1)
    scale, shift = rng.normal(size=(2, 2, 3))
    plain = np.asarray(normalisation.region_normalise(jnp.asarray(x), jnp.asarray(region)))
    scaled = plain * np.where(region > 0, 1 + scale[0], 1 + scale[1])
    for affine, wanted in (
        ("masked", scaled + np.where(region > 0, shift[0], shift[1])),
        ("unmasked", scaled + shift.sum(0)),
    ):
        found = norm_with("region", affine, scale, shift)(jnp.asarray(x), jnp.asarray(region))
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    found = norm_with("image", "masked", scale[:1], shift[:1])(jnp.asarray(x), jnp.asarray(region))
    wanted = np.asarray(normalisation.normalise(jnp.asarray(x))) * (1 + scale[0]) + shift[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("norm", normalisation.NORMS)
def test_modulation_of_zero_is_the_plain_norm(norm):
    """Without gamma and beta the condition has no influence; with them gamma is added to 1."""
    options = dict(condition_channels=3, hidden=4, norm=norm, affine="none", resize="mean")
    layer = normalisation.Modulated(5, **options, rngs=nnx.Rngs(0))
    x, condition = (jnp.asarray(random(s), jnp.float32) for s in ((2, 8, 8, 5), (2, 16, 16, 3)))
    known = jnp.asarray(half_mask(size=16)[..., 0], jnp.float32)
    region = normalisation.resized_mask(known, 8)
    plain = normalisation.region_normalise(x, region) if norm == "region" else normalisation.normalise(x)
    assert np.abs(layer(x, condition, known) - plain).max() > 1e-3
    layer.modulation.weight[...] = jnp.zeros_like(layer.modulation.weight[...])
    np.testing.assert_array_equal(layer(x, condition, known), plain)
    layer.modulation.bias[...] = jnp.asarray([1.0] * 5 + [0.5] * 5)
    np.testing.assert_allclose(layer(x, condition, known), 2 * plain + 0.5, rtol=1e-6)


def test_masks_and_conditions_are_made_smaller():
    """Masks take the upper left pixel of a block; conditions that, or the mean."""
    known = jnp.asarray([[[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]], jnp.float32)
    np.testing.assert_array_equal(normalisation.resized_mask(known, 2)[0, ..., 0], [[1, 0], [0, 1]])
    image = known[..., None]
    np.testing.assert_array_equal(normalisation.resized_image(image, 2, resize="nearest")[0, ..., 0], [[1, 0], [0, 1]])
    means = [[0.25, 0], [0.75, 1]]
    np.testing.assert_array_equal(normalisation.resized_image(image, 2, resize="mean")[0, ..., 0], means)


def test_spectral_norm_divides_by_the_largest_singular_value(x64):
    """Power iterations reach numpy's value, and the gradient is that of the quotient at the fixed point."""
    weight = jnp.asarray(random((3, 3, 4, 6)))
    u = jnp.ones((6,))
    for _ in range(300):
        _, u = spectral.largest_singular_value(weight, u)
    matrix = np.asarray(weight).reshape(-1, 6)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    sigma, _ = spectral.largest_singular_value(weight, u)
    np.testing.assert_allclose(sigma, values[0], rtol=1e-9)
    gradient = jax.grad(lambda w: spectral.largest_singular_value(w, u)[0])(weight).reshape(-1, 6)
    np.testing.assert_allclose(gradient, np.outer(left[:, 0], right[0]), atol=1e-9)
    conv = spectral.Conv(4, 6, 3, rngs=nnx.Rngs(0))
    before = np.asarray(conv.u[...])
    for _ in range(300):
        spectral.advance(conv)
    effective = np.asarray(conv.effective_weight(jnp.float64)).reshape(-1, 6)
    np.testing.assert_allclose(np.linalg.svd(effective)[1][0], 1, rtol=1e-6)
    assert np.abs(before - np.asarray(conv.u[...])).max() > 1e-3


@pytest.mark.parametrize("kernel", [3, 4])
def test_strided_convolutions(x64, kernel):
    """Both are the plain convolution with stride 2 and zeros of 1 around, and so is the gradient of the weights."""
    conv = spectral.Conv(3, 5, kernel, spectral=False, rngs=nnx.Rngs(0))
    x = jnp.asarray(random((2, 8, 8, 3)))

    def plain(weight):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, weight, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)

    def ours(weight):
        return parameters.replaced(conv, {"weight": weight}).halve(x)

    weight = jnp.asarray(np.asarray(conv.weight[...], np.float64))
    np.testing.assert_allclose(ours(weight), plain(weight), rtol=1e-9, atol=1e-12)
    aim = jnp.asarray(random((2, 4, 4, 5), 1))
    gradients = [jax.grad(lambda w, f=f: jnp.sum(f(w) * aim))(weight) for f in (ours, plain)]
    np.testing.assert_allclose(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("resolution", "changes"),
    [
        (64, dict(encoder_widths=(64, 128, 256, 512), widths=(1024, 512, 256, 128, 64))),
        (256, {}),
        (256, dict(norm="image", affine="none")),
        (256, dict(affine="unmasked", resize="nearest")),
    ],
)
def test_shapes_of_full_width(resolution, changes):
    """The decoder keeps the size, and its 256 px form has the widths of SPADE with six doublings."""
    config = DecoderConfig(**changes)
    assert config.resolution == resolution

    def run(images, known):
        return Decoder(config, rngs=nnx.Rngs(0))(images, images, known)

    shapes = (1, resolution, resolution, 3), (1, resolution, resolution)
    made = jax.eval_shape(run, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    assert made.shape == shapes[0]
    names = parameters.abstract(Decoder, config)
    assert ("b8/norm0/norm/scale" in names) == (config.affine != "none")
    assert names[f"b{resolution}/conv1/weight"].shape == (3, 3, 64, 64)


@pytest.mark.parametrize("norm", normalisation.NORMS)
def test_a_result_does_not_depend_on_its_neighbours(x64, norm):
    """Two images at once are each what they are alone; with statistics of the batch, as published, they are not."""
    decoder = Decoder(DecoderConfig(**SMALL, norm=norm), rngs=nnx.Rngs(0))
    images, styles = (jnp.asarray(np.tanh(random((2, 16, 16, 3), seed))) for seed in range(2))
    known = jnp.asarray(half_mask(size=16)[..., 0])
    together = decoder(images, styles, known)
    for i in range(2):
        alone = decoder(images[i : i + 1], styles[i : i + 1], known[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-9, atol=1e-12)
    across = decoder(images, styles, known, across_batch=True)
    assert np.abs(across[0] - decoder(images[:1], styles[:1], known[:1], across_batch=True)[0]).max() > 1e-3


def test_what_has_influence_on_the_decoder(hole):
    """Neither what the hole hides, nor the style image where pixels are known."""
    decoder, (images, known) = Decoder(DecoderConfig(**SMALL), rngs=nnx.Rngs(0)), hole
    styles = jnp.flip(images, 1)
    plain = decoder(images, styles, known)
    inside = known[..., None] < 0.5
    np.testing.assert_array_equal(decoder(jnp.where(inside, 5.0, images), styles, known), plain)
    np.testing.assert_array_equal(decoder(images, jnp.where(inside, styles, 5.0), known), plain)
    assert np.abs(decoder(images, jnp.where(inside, -styles, styles), known) - plain).max() > 1e-3


def test_half_precision_keeps_norms_wide(hole):
    """bfloat16 in convolutions gives about the same image, in the images' own type."""
    decoder, (images, known) = Decoder(DecoderConfig(**SMALL), rngs=nnx.Rngs(0)), hole
    plain = decoder(images, images, known)
    low = decoder(images, images, known, dtype=jnp.bfloat16)
    # 8 bits of mantissa through seven layers.
    assert low.dtype == jnp.float32 and 0 < np.abs(low - plain).max() < 0.1


def test_the_coarse_completion(hole):
    """Known pixels stay, hidden ones have no influence, and what fills is enlarged from the size seen."""
    completer, (images, known) = CoarseCompleter(CoarseConfig(seen=8, widths=(4, 4)), rngs=nnx.Rngs(0)), hole
    found, inside = completer(images, known), np.asarray(known) < 0.5
    np.testing.assert_array_equal(found[~inside], images[~inside])
    np.testing.assert_array_equal(completer(jnp.where(inside[..., None], 9.0, images), known), found)
    wanted = jax.image.resize(completer.guess(images, known), images.shape, "linear")
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-6)
    with pytest.raises(ValueError, match="sees blocks of 8 x 8"):
        completer(images[:, :12, :12], known[:, :12, :12])


def test_any_function_may_complete(hole):
    """The coarse completion is replaced by a function, in `produce` too, and changes the latents."""
    images, known = hole
    found = difai(distance=0.0)
    other = found.with_completer(lambda images, known: images * 0 + 0.5)
    key, generator = jax.random.key(0), model().generator
    own, replaced = (one.produce(key, generator, images[0], known[0]) for one in (found, other))
    assert np.abs(own.ws - replaced.ws).max() > 1e-4
    grey = jnp.full((1, 16, 16, 3), 0.5)
    np.testing.assert_allclose(replaced.ws, model().encoder(grey, jnp.ones((1, 16, 16)))[0], atol=1e-5)
    assert other.with_completer(None).completer is None


def test_patch_scores():
    """Five convolutions, one score for every patch; images that leave no patch are refused."""
    critic = PatchDiscriminator(PatchConfig(widths=(4, 4, 4, 4)), rngs=nnx.Rngs(0))
    assert critic(jnp.zeros((2, 64, 64, 3))).shape == (2, 6, 6) and critic(jnp.ones((1, 24, 24, 3))).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="4 widths needs images of 24 px, got 16"):
        critic(jnp.zeros((1, 16, 16, 3)))
    assert all(v.shape[:2] == (4, 4) for n, v in parameters.to_arrays(critic).items() if n.endswith("weight"))


def test_steps_are_sefas():
    """Directions are orthonormal, each as long as W spreads along it, and the first changes the styles most."""
    steps = sefa_steps(model(), NETWORK).astype(np.float64)
    lengths = np.linalg.norm(steps, axis=1)
    directions = steps / lengths[:, None]
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-6)
    covariance = np.asarray(model().w_statistics.covariance, np.float64)
    np.testing.assert_allclose(
        lengths, np.sqrt(np.einsum("ki,ij,kj->k", directions, covariance, directions)), rtol=1e-5
    )
    matrix = inpaint.edit.style_matrix(model().generator)
    change = np.linalg.norm(matrix @ directions.T, axis=0)
    others = np.random.default_rng(0).normal(size=(6, 200))
    assert change[0] >= change[1] >= change[2]
    assert change[0] >= np.linalg.norm(matrix @ (others / np.linalg.norm(others, axis=0)), axis=0).max()


def test_samples_differ_by_their_steps(hole):
    """Another key gives another result; distance 0 the same; only the layers named are moved; latents are returned."""
    images, known = hole
    generator, keys = model().generator, jax.random.split(jax.random.key(0), 2)

    def both(network):
        return [network.produce(key, generator, images[0], known[0]) for key in keys]

    one, two = both(difai())
    assert np.abs(one.image - two.image).max() > 1e-4 and one.ws.shape == (6, 6) and one.features is None
    still, again = both(difai(distance=0.0))
    np.testing.assert_array_equal(still.image, again.image)
    middle, _ = both(difai(first_layer=2, last_layer=3))
    np.testing.assert_array_equal(middle.ws[jnp.asarray([0, 1, 4, 5])], still.ws[jnp.asarray([0, 1, 4, 5])])
    assert (np.abs(middle.ws[2:4] - still.ws[2:4]).max(1) > 1e-3).all()
    assert (np.abs(np.asarray((one.ws - still.ws) @ np.linalg.pinv(difai().steps[...]))) <= 2 + 1e-4).all()
    masked, _ = both(difai(distance=0.0, sees="masked"))
    shown = images[:1] * known[:1, ..., None]
    np.testing.assert_allclose(masked.ws, model().encoder(shown, known[:1])[0], atol=1e-5)


def test_one_direction_continuously(hole):
    """Distance 0 is the unperturbed result, latents go along a line, and unknown directions are told."""
    images, known = hole
    generator, network = model().generator, difai(distance=0.0)
    found, styles = network.along(generator, images[0], known[0], direction=1, distances=jnp.asarray([-1.0, 0, 1.0]))
    plain = network.produce(jax.random.key(0), generator, images[0], known[0])
    np.testing.assert_allclose(found[1], plain.image, atol=2e-5)
    ws = network.moved(plain.ws[None], jnp.asarray([[0, 1.0, 0]]))
    np.testing.assert_allclose(styles[2], generator.synthesis(ws, noise="none")[0], atol=2e-5)
    with pytest.raises(ValueError, match="direction must be 0 to 2, got 3"):
        network.along(generator, images[0], known[0], direction=3, distances=jnp.zeros(1))


def test_solve_and_search_from_samples(hole):
    """Samples are a Result like any other; a search begins at their latents and does not worsen the known pixels."""
    images, known = hole
    problem = inpaint.Problem.observe(images[0], inpaint.operators.Mask.checked(known[0]))
    options = dict(starts=2, key=jax.random.key(5))
    plain = inpaint.solve(model().generator, problem, inpaint.methods.learned(difai()), **options)
    assert plain.raw.shape == (2, 16, 16, 3) and plain.ws.shape == (2, 6, 6) and plain.scores.shape == (2,)
    own = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 1)
    shown = jnp.where(known[0][..., None] > 0, images[0], 0)
    alone = difai().produce(own, model().generator, shown, known[0])
    np.testing.assert_allclose(plain.raw[1], alone.image, atol=2e-5)
    refined = inpaint.solve(model().generator, problem, inpaint.methods.learned(difai(), steps=3, lr=0.05), **options)
    assert (refined.scores <= plain.scores).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(norm="group"), "norm must be one of region, image, got 'group'"),
        (dict(affine="both"), "affine must be one of masked, unmasked, none"),
        (dict(norm="image", affine="unmasked"), "is about two regions"),
        (dict(widths=(4, 4)), "one width more than it; got 2 and 2"),
        (dict(hidden=0), "must be positive"),
        (dict(sees="nothing"), "sees must be one of coarse, masked"),
        (dict(noise="fresh"), 'noise must be "const" or "none"'),
        (dict(directions=7), r"directions must be 1 to w_dim \(6\)"),
        (dict(distance=-1.0), "distance at least 0"),
        (dict(coarse_seen=5), "coarse_seen must divide the resolution 16"),
        (dict(coarse_widths=(4,) * 5), "more often than it can be halved"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    """Are told when the config is made or the network built."""
    with pytest.raises(ValueError, match=message):
        Difai(dataclasses.replace(NETWORK, **changes), rngs=nnx.Rngs(0))


def test_missing_parts_are_told(hole):
    """No encoder, no statistics, layers that there are not."""
    images, known = hole
    with pytest.raises(ValueError, match="none was given"):
        difai().guided(None).produce(jax.random.key(0), model().generator, images[0], known[0])
    with pytest.raises(ValueError, match="statistics of W"):
        sefa_steps(dataclasses.replace(model(), w_statistics=None), NETWORK)
    with pytest.raises(ValueError, match="within 0-5, got 4-9"):
        sefa_steps(model(), dataclasses.replace(NETWORK, first_layer=4, last_layer=9))


def test_stored_and_loaded(tmp_path, hole):
    """Half precision comes back near, with the generator's encoder; another generator or encoder is refused."""
    images, known = hole
    network = difai()
    inpainters.save(
        tmp_path / "x", network.guided(None), generator="a" * 64, provenance={"encoder": "e" * 64}, half=True
    )
    found, digest = inpainters.load("difai", model(), path=tmp_path / "x")
    assert len(digest) == 64 and found.config == network.config
    key, generator = jax.random.key(0), model().generator
    one, two = (x.produce(key, generator, images[0], known[0]).image for x in (network, found))
    # 11 bits of mantissa.
    np.testing.assert_allclose(one, two, atol=0.02)
    for change, message in (
        (dict(encoder_hash="f" * 64), "begins with the generator's encoder"),
        (dict(content_hash="b" * 64), "not of bbbbbbbbbbbb"),
    ):
        with pytest.raises(sg.CheckpointError, match=message):
            inpainters.load("difai", dataclasses.replace(model(), **change), path=tmp_path / "x")
