# SPDX-License-Identifier: Apache-2.0
"""Laws of degradation operators, driven through one table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

import inpaint
from inpaint import operators
from inpaint.operators import (
    Composition,
    Copies,
    DenseGaussian,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Jpeg,
    Mask,
    MotionBlur,
    PartialCirculant,
    PoissonBernoulli,
    Quantise,
    parse,
)
from stylegan_jax import image_io

SIZE = 16
SHAPE = (SIZE, SIZE, 3)
HARD = np.ones((SIZE, SIZE), np.float32)
HARD[4:10, 2:14] = 0
SOFT = HARD.copy()
SOFT[10, 2:14] = 0.25
KEY = jax.random.key(0)
OPERATORS = {
    "hard mask": Mask.checked(HARD),
    "soft mask": Mask.checked(SOFT),
    "box": Downsample(4, "box"),
    "bicubic": Downsample(2),
    "lanczos": Downsample(4, "lanczos"),
    "blur": GaussianBlur(1.5),
    "motion": MotionBlur(5, 30),
    "noise": GaussianNoise(0.2),
    "clipped noise": GaussianNoise(0.2, clip=True),
    "photons": PoissonBernoulli(24, 0.84),
    "jpeg": Jpeg(12),
    "8 bits": Quantise(),
    "3 bits": Quantise(3),
    "grayscale": Grayscale(),
    "copies": Copies(3),
    "circulant": PartialCirculant.draw(KEY, SHAPE, ratio=0.1),
    "dense": DenseGaussian.draw(KEY, SHAPE, ratio=0.05),
    "grey file with a hole": Composition((Grayscale(), Quantise(), Mask.checked(HARD))),
    "noisy jpeg with a hole": Composition((GaussianNoise(0.1), Jpeg(30), Mask.checked(HARD))),
    "hole before blur": Composition((Mask.checked(HARD), GaussianBlur(1.0))),
    "blur before sensing": Composition((GaussianBlur(1.0), PartialCirculant.draw(KEY, SHAPE), GaussianNoise(0.1))),
}
PIXELWISE = ["hard mask", "soft mask"]
LINEAR = [name for name, operator in OPERATORS.items() if operator.linear]
every = pytest.mark.parametrize("name", OPERATORS)
linear = pytest.mark.parametrize("name", LINEAR)
pixelwise = pytest.mark.parametrize("name", PIXELWISE)


def random_image(seed, dtype=np.float32):
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(dtype)


def smooth_image(height, width):
    """Returns `[h, w, 3]` with slopes, an edge and a little noise, as a photograph has them."""
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(0.05 * x + 0.2 * y + k) * np.cos(0.11 * x * (k + 1)) + 0.4 * (x > 0.6 * width) for k in range(3)]
    noise = np.random.default_rng(0).normal(0, 0.05, (height, width, 3))
    return np.clip(0.6 * np.stack(planes, -1) + noise, -1, 1).astype(np.float32)


def root_mean_square(x):
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def test_table_is_complete():
    """Every operator of the package stands in the table."""
    kinds = {type(o) for o in OPERATORS.values()}
    assert kinds == {
        getattr(operators, n) for n in operators.__all__ if n[1].islower() and n != "Operator" and n[0].isupper()
    }


@every
def test_weight_fits_the_measurement(name):
    """Weights broadcast to the measurement, lie in [0, 1] and are not all 0; the rank is the measurement's."""
    operator = OPERATORS[name]
    measurement = jax.eval_shape(operator, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert np.broadcast_shapes(operator.weight.shape, measurement.shape) == measurement.shape
    assert operator.weight.ndim in (0, measurement.ndim) and operator.rank == measurement.ndim
    assert 0 <= operator.weight.min() <= operator.weight.max() == 1


@every
def test_dtype(name, strict_types):
    """The measurement and the surrogate have the image's dtype, in bfloat16 too."""
    operator = OPERATORS[name]
    for dtype in (jnp.float32, jnp.bfloat16):
        image = jax.ShapeDtypeStruct(SHAPE, dtype)
        assert jax.eval_shape(operator, image).dtype == jax.eval_shape(operator.surrogate, KEY, image).dtype == dtype


@every
def test_compiled_stacks(name):
    """A compiled stack of operators gives what each gives alone; only noise draws; gradients are finite."""
    operator = OPERATORS[name]

    def everything(operator, key, x):
        drawn, pull = jax.vjp(lambda x: operator.surrogate(key, x), x)
        return operator(x) if operator.random else drawn, drawn, pull(drawn)[0]

    images, keys = jnp.stack([random_image(0), random_image(1)]), jax.random.split(KEY)
    problems = [inpaint.Problem(operator, operator(x)) for x in images]
    stacked = inpaint.Problem.stack(problems)
    assert stacked.batched and not problems[0].batched
    together = jax.jit(jax.vmap(lambda problem, key, x: everything(problem.operator, key, x)))(stacked, keys, images)
    # A number next to a middle may be rounded otherwise by another program.
    limit = 0.02 if "jpeg" in name else 2e-6
    assert root_mean_square(together[0] - stacked.measurement) < limit
    one = operator.surrogate(keys[1], images[1])
    assert root_mean_square(together[1][1] - one) < limit
    assert (root_mean_square(one - problems[1].measurement) > 0.01) == operator.random
    assert jnp.isfinite(together[2]).all() and (jnp.abs(together[2]).max((1, 2, 3)) > 0).all()


@every
def test_simulation(name):
    """The truth is the same for the same key, another for another key where it draws, and else near the surrogate."""
    operator, image = OPERATORS[name], jnp.asarray(random_image(0))
    truth = operator.simulate(KEY, image)
    assert truth.dtype == jnp.float32 and truth.shape == operator(image).shape
    np.testing.assert_array_equal(truth, operator.simulate(KEY, image))
    if operator.random:
        assert root_mean_square(truth - operator.simulate(jax.random.key(1), image)) > 0.01
        with pytest.raises(ValueError, match=r"draws noise: pass key, such as key=jax.random.key\(0\)"):
            inpaint.Problem.observe(image, operator)
    else:
        limit = 0.02 if "jpeg" in name else 0
        assert root_mean_square(truth - operator.simulate(None, image)) == 0
        assert root_mean_square(truth - operator(image)) <= limit
    np.testing.assert_array_equal(inpaint.Problem.observe(image, operator, key=KEY).measurement, truth)


@jax.jit
def measured(operator, x, other, y):
    return operator(x), operator(other), operator(2 * x - 3 * other), operator.adjoint(y)


def adjoint_defect(operator, dtype):
    """Returns `|<A x, y> - <x, A'y>| / (|A x| |y|)`, or by how much A is not linear where that is more."""
    x, other = (random_image(seed, dtype) for seed in (0, 1))
    shape = jax.eval_shape(operator, x).shape
    y = np.random.default_rng(2).normal(size=shape).astype(dtype)
    a_x, a_other, mixed, back = map(np.asarray, measured(operator, x, other, y))
    assert back.shape == x.shape and back.dtype == a_x.dtype == dtype and a_x.shape == shape
    scale = np.linalg.norm(a_x) * np.linalg.norm(y)
    return max(abs(np.vdot(a_x, y) - np.vdot(x, back)) / scale, np.abs(mixed - (2 * a_x - 3 * a_other)).max() / 5)


@linear
def test_adjoint(name):
    """`<A x, y> = <x, A'y>`, and A is linear."""
    assert adjoint_defect(OPERATORS[name], np.float32) < 1e-5


@linear
def test_adjoint_in_double_precision(name, x64):
    """The same to 1e-9 in float64, though masks and random sums are stored in float32."""
    assert adjoint_defect(OPERATORS[name], np.float64) < 1e-9


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in LINEAR])
def test_no_adjoint(name):
    """What is not linear says so."""
    with pytest.raises(TypeError, match="is not linear and has no adjoint"):
        OPERATORS[name].adjoint(OPERATORS[name](jnp.asarray(random_image(0))))


def test_adjoints_refuse():
    """A measurement of another shape is refused with the right one."""
    with pytest.raises(ValueError, match=r"must be \[77\], got \[76\]"):
        OPERATORS["circulant"].adjoint(jnp.zeros(76))


def test_box_is_the_mean_of_blocks():
    """Each pixel of a box is the mean of its block."""
    image = random_image(0)
    means = [[image[i : i + 4, j : j + 4].mean((0, 1)) for j in range(0, SIZE, 4)] for i in range(0, SIZE, 4)]
    np.testing.assert_allclose(OPERATORS["box"](jnp.asarray(image)), means, atol=1e-6)


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos"])
@pytest.mark.parametrize("factor", [2, 8, 16])
def test_downsampling_is_pillows(kernel, factor):
    """Bicubic and Lanczos are those of Pillow for floats, borders and extreme factors included."""
    image = random_image(0)
    method = Image.Resampling[kernel.upper()]
    side = SIZE // factor
    expected = [np.asarray(Image.fromarray(image[..., i]).resize((side, side), method)) for i in range(3)]
    np.testing.assert_allclose(Downsample(factor, kernel)(jnp.asarray(image)), np.stack(expected, -1), atol=2e-6)


def test_blur_is_scipys():
    """A Gaussian blur is SciPy's with its mirrored border; neither blur changes a constant or the mean brightness."""
    image = random_image(0)
    expected = scipy.ndimage.gaussian_filter(image, (1.5, 1.5, 0), mode="reflect", truncate=4)
    np.testing.assert_allclose(OPERATORS["blur"](jnp.asarray(image)), expected, atol=2e-6)
    for name in ("blur", "motion"):
        np.testing.assert_allclose(OPERATORS[name](jnp.full(SHAPE, 0.3)), 0.3, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "angle", "path"),
    [
        (3, 0, {(0, -1): 1 / 3, (0, 0): 1 / 3, (0, 1): 1 / 3}),
        (2, 90, {(-1, 0): 0.25, (0, 0): 0.5, (1, 0): 0.25}),
        (3 * 2**0.5, 45, {(-1, 1): 1 / 3, (0, 0): 1 / 3, (1, -1): 1 / 3}),
    ],
)
def test_motion(length, angle, path):
    """A point becomes the path: along x at 0 degrees, up and to the right at 45, each pixel by its share."""
    expected = np.zeros((SIZE, SIZE))
    for (down, right), share in path.items():
        expected[8 + down, 8 + right] = share
    point = jnp.zeros((SIZE, SIZE, 1)).at[8, 8].set(1)
    np.testing.assert_allclose(MotionBlur(length, angle)(point)[..., 0], expected, atol=1e-6)


def test_circulant_is_its_matrix():
    """The FFT gives what the explicit matrix gives: signs, shifted filters as rows, and the rows kept."""
    operator, image = OPERATORS["circulant"], random_image(0)
    indices = np.asarray(operator.indices)
    matrix = np.stack([np.roll(operator.filter[::-1], i + 1) for i in indices]) * np.asarray(operator.signs)
    flat = np.concatenate([image[..., channel].ravel() for channel in range(3)])
    assert matrix.shape == (77, 768) and len(set(indices.tolist())) == 77
    np.testing.assert_allclose(operator(jnp.asarray(image)), matrix @ flat, atol=1e-4)


@pytest.mark.parametrize(("kind", "ratio", "count"), [(PartialCirculant, 0.01, 8), (DenseGaussian, 0.05, 38)])
def test_sensing_keeps_lengths(kind, ratio, count):
    """`|A d|` is about `|d|`, down to a ratio of 1 %; a key stands for one operator."""
    drawn = [kind.draw(jax.random.key(seed), SHAPE, ratio=ratio) for seed in (0, 1, 2, 3, 4, 5, 6, 0)]
    lengths = [float(jnp.linalg.norm(o(jnp.asarray(random_image(3))))) for o in drawn[:-1]]
    assert 0.6 < np.mean(np.square(lengths)) / np.square(random_image(3)).sum() < 1.4
    assert drawn[0](jnp.zeros(SHAPE)).shape == (count,)
    assert all(map(np.array_equal, jax.tree.leaves(drawn[0]), jax.tree.leaves(drawn[-1])))


@pytest.mark.parametrize("name", ["noise", "photons"])
def test_noise_has_its_mean_and_variance(name):
    """Truth and surrogate have the mean that `operator(image)` says, and the same variance."""
    operator = OPERATORS[name]
    image, keys = jnp.broadcast_to(jnp.array([-0.4, 0.0, 0.2]), SHAPE), jax.random.split(KEY, 64)
    truth, surrogate = (np.stack([draw(k, image) for k in keys]) for draw in (operator.simulate, operator.surrogate))
    for drawn in (truth, surrogate):
        np.testing.assert_allclose(drawn.mean((0, 1, 2)), operator(image)[0, 0], atol=0.02)
    np.testing.assert_allclose(truth.std((0, 1, 2)), surrogate.std((0, 1, 2)), rtol=0.03)
    if name == "noise":
        np.testing.assert_allclose(truth.std((0, 1, 2)), 0.2, rtol=0.03)
    else:
        dead = (truth == -1).all(-1)
        assert abs(1 - dead.mean() - operator.keep) < 0.02
        assert (surrogate[dead] == -1).all()
        u = (image[0, 0] + 1) / 2
        expected = 2 * np.sqrt(0.84 * (u / 24 + u**2) - (0.84 * u) ** 2)
        np.testing.assert_allclose(truth.std((0, 1, 2)), expected, rtol=0.03)


def test_clipped_noise_stays_in_range():
    """Truth and surrogate lie in [-1, 1], and what is clipped keeps its gradient."""
    operator = OPERATORS["clipped noise"]
    image = jnp.full(SHAPE, 0.95)
    drawn, pull = jax.vjp(lambda x: operator.surrogate(KEY, x), image)
    assert float(drawn.max()) == 1
    np.testing.assert_array_equal(pull(jnp.ones(SHAPE))[0], 1)


@pytest.mark.parametrize(("quality", "limit"), [(6, 0.5), (18, 0.5), (50, 1.0), (90, 1.5)])
def test_jpeg_is_near_the_file(quality, limit):
    """The surrogate differs from the file far less than the file from the image, of any size, in colour or grey."""
    operator = Jpeg(quality)
    for image in (smooth_image(29, 19), smooth_image(SIZE, SIZE)[..., :1]):
        surrogate, file = operator(jnp.asarray(image)), operator.simulate(None, jnp.asarray(image))
        difference, loss = (127.5 * root_mean_square(x) for x in (surrogate - file, file - image))
        assert difference < limit < loss


def test_jpeg_can_be_searched():
    """Descent on the surrogate brings an image, out of range at first, much nearer to a file's."""
    operator, target = Jpeg(30), jnp.asarray(smooth_image(SIZE, SIZE))
    file = operator.simulate(None, target)
    loss = jax.jit(jax.value_and_grad(lambda x: jnp.sum((operator(x) - file) ** 2)))
    x = jnp.full(SHAPE, 1.2)
    first, _ = loss(x)
    for _ in range(40):
        x = x - 0.3 * loss(x)[1]
    assert loss(x)[0] < 0.1 * first


def test_quantisation_is_the_files():
    """8 bits are what a PNG file keeps; the gradient is 1 in and out of range; of 3 bits 8 levels are left."""
    image = 1.2 * random_image(0)
    shown, pull = jax.vjp(OPERATORS["8 bits"], jnp.asarray(image))
    np.testing.assert_allclose(shown, image_io.from_uint8(image_io.to_uint8(image)), atol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones(SHAPE))[0], 1, rtol=1e-6)
    levels = np.unique(np.asarray(OPERATORS["3 bits"](jnp.asarray(image))))
    np.testing.assert_allclose(levels, np.linspace(-1, 1, 8), atol=1e-6)


def test_grayscale_is_pillows():
    """Luma is Pillow's "L", up to its rounding."""
    pixels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    grey = OPERATORS["grayscale"](jnp.asarray(image_io.from_uint8(pixels)))
    expected = image_io.from_uint8(np.asarray(Image.fromarray(pixels).convert("L")))
    np.testing.assert_allclose(grey[..., 0], expected, atol=0.52 / 127.5)


MASK, BLUR = Mask.checked(HARD), GaussianBlur(1.0)


@pytest.mark.parametrize(
    ("members", "known", "weight"),
    [
        ((MASK,), HARD, HARD),
        ((MASK, Mask.checked(SOFT)), HARD * SOFT, HARD * SOFT),
        ((MASK, Quantise()), HARD, HARD),
        ((Quantise(), MASK), HARD, HARD),
        ((Quantise(4), MASK), None, HARD),
        ((MASK, GaussianNoise(0.1)), None, HARD),
        ((Grayscale(), MASK), None, HARD),
        ((BLUR, MASK), None, HARD),
        ((MASK, BLUR), None, None),
        ((MASK, BLUR, Mask.checked(SOFT)), None, SOFT),
        ((Composition((BLUR, MASK)), Quantise()), None, HARD),
        ((Quantise(),), None, None),
    ],
)
def test_what_compositions_show(members, known, weight):
    """Pixels are shown as they are by masks and files alone; a mask counts from the last mixing member on."""
    operator = Composition.checked(members)
    assert operator.known is None if known is None else np.array_equal(operator.known, known)
    assert np.array_equal(operator.weight, 1 if weight is None else weight[..., None])


def test_compositions_act_in_order():
    """Each member gets what the one before it leaves, and draws by its own key."""
    image = jnp.asarray(random_image(0))
    noise, box = OPERATORS["noise"], OPERATORS["box"]
    np.testing.assert_array_equal(Composition((box, MotionBlur(3)))(image), MotionBlur(3)(box(image)))
    first = noise.simulate(jax.random.fold_in(KEY, 0), image)
    expected = noise.simulate(jax.random.fold_in(KEY, 2), box(first))
    np.testing.assert_array_equal(Composition((noise, box, noise)).simulate(KEY, image), expected)


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("downsample:4", Downsample(4, "bicubic")),
        ("downsample:XL:box", Downsample(32, "box")),
        ("blur:1.5", GaussianBlur(1.5)),
        ("motion:5", MotionBlur(5, 0)),
        ("motion:5:-30", MotionBlur(5, -30)),
        ("noise:.1", GaussianNoise(0.1)),
        ("noise:0.1:clip", GaussianNoise(0.1, clip=True)),
        ("poisson:24", PoissonBernoulli(24, 1)),
        ("poisson:XL", PoissonBernoulli(6, 0.36)),
        ("jpeg:10", Jpeg(10)),
        ("quantise", Quantise(8)),
        ("quantise:4", Quantise(4)),
        ("grayscale", Grayscale()),
        ("downsample:4:bicubic+jpeg:10", Composition((Downsample(4), Jpeg(10)))),
        ("downsample:M+poisson:M+jpeg:M", Composition((Downsample(8), PoissonBernoulli(24, 0.84), Jpeg(12)))),
    ],
)
def test_parse(text, operator):
    """A text stands for its operator."""
    assert parse(text, size=64) == operator
    assert hash(jax.tree.structure(parse(text, size=64))) == hash(jax.tree.structure(operator))


@pytest.mark.parametrize("level", operators.LEVELS)
def test_levels(level):
    """Every strength of the table is an operator's."""
    for name in operators.LEVELS[level]:
        assert parse(f"{name}:{level}", size=(64, 32)) is not None


def test_parse_draws():
    """Masks have the size of what is left and each position its own key; sensing sees the shape that is left."""
    mask = parse("downsample:2+mask:noise:0.5", size=32, key=KEY).members[1]
    assert mask.known.shape == (16, 16) and float(mask.known.mean()) == 0.5
    both = parse("mask:noise:0.5+mask:noise:0.5", size=32, key=KEY)
    assert not np.array_equal(both.members[0].known, both.members[1].known)
    dense = parse("grayscale+dense:0.5", size=(8, 4), key=KEY).members[1]
    assert dense.shape == (8, 4, 1) and dense.matrix.shape == (16, 32)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fog", "unknown degradation 'fog'.*known: downsample, blur, motion"),
        ("jpeg:10+", "unknown degradation ''.*known: downsample"),
        ("jpeg:", "'jpeg:' has nothing after its colon; jpeg: a JPEG file"),
        ("jpeg", "'jpeg': it takes 1 argument, got 0; jpeg: a JPEG file"),
        ("downsample:4:box:2", "it takes 1 to 2 arguments, got 3"),
        ("grayscale:1", "it takes 0 arguments, got 1"),
        ("downsample:4:nearest", "unknown kernel 'nearest'; known: box, bicubic, lanczos"),
        ("downsample:2.5", "whole factor of at least 2, got 2.5"),
        ("downsample:5", r"5 does not divide the image's 64x64; its factors divide 64"),
        ("jpeg:0", "from 1 to 100, got 0"),
        ("jpeg:ten", "'ten' is no number such as 4"),
        ("blur:0", "above 0, got 0"),
        ("motion:1", "above 1, got 1"),
        ("noise:0", "above 0, in units of the range"),
        ("noise:0.1:cut", "'cut' is not 'clip'"),
        ("poisson:0", "photons must be above 0, got 0"),
        ("poisson:6:0", "above 0 and at most 1, got 0"),
        ("quantise:9", "1 to 8 bits, got 9"),
        ("grayscale+grayscale", r"only an image \[h, w, 3\] has colour to lose, got \[64, 64, 1\]"),
        ("mask:centre", "drawn at random: pass key"),
        ("circulant:0.1", "drawn at random: pass key"),
    ],
)
def test_parse_refuses(text, error):
    """A text that cannot be meant is refused with what came, what is known and what to do."""
    with pytest.raises(ValueError, match=error):
        parse(text, size=64)


@pytest.mark.parametrize(
    ("text", "size", "error"),
    [
        ("circulant:0", 16, "ratio of measurements to values must be above 0 and at most 1, got 0"),
        ("dense:1", 128, r"a dense matrix \[49152, 49152\] would take 9.0 GiB; take fewer"),
        ("circulant:0.1+jpeg:9", 16, r"JPEG needs an image \[h, w, c\], got \[77\]; let it come earlier"),
        ("circulant:0.1+mask:centre", 16, r"square images, and what is left here is \[77\]"),
        ("mask:moon", 16, "unknown mask 'moon'; known: centre"),
    ],
)
def test_parse_refuses_with_a_key(text, size, error):
    """So is what does not fit the image at its place."""
    with pytest.raises(ValueError, match=error):
        parse(text, size=size, key=KEY)


def test_compositions_refuse():
    """Nothing, and what is no operator, cannot be composed."""
    with pytest.raises(ValueError, match="at least one operator, got none"):
        Composition.checked([])
    with pytest.raises(TypeError, match="made of operators, got str"):
        Composition.checked(["jpeg:10"])


@pixelwise
def test_hole_is_never_revealed(name):
    """What the hole holds, even nothing finite, changes neither the measurement nor the problem."""
    operator, image = OPERATORS[name], random_image(0)
    hole = np.asarray(operator.known)[..., None] == 0
    assert hole.any()
    for filling in (random_image(1), np.full_like(image, np.nan)):
        np.testing.assert_array_equal(operator(jnp.asarray(np.where(hole, filling, image))), operator(image))
    one, other = (inpaint.Problem.observe(x, operator) for x in (image, np.where(hole, random_image(1), image)))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)
    assert (np.asarray(one.measurement)[hole[..., 0]] == 0).all()


@pixelwise
def test_known_pixels_are_shown_as_they_are(name):
    """Wherever something is known the measurement is the image, and measuring twice is measuring once."""
    operator, image = OPERATORS[name], random_image(0)
    shown, known = np.asarray(operator(jnp.asarray(image))), np.asarray(operator.known)
    np.testing.assert_array_equal(shown[known > 0], image[known > 0])
    np.testing.assert_array_equal(operator(jnp.asarray(shown)), shown)


@pixelwise
def test_weight_is_known(name):
    """A pixel counts as much as it is known, and a hole has no gradient."""
    operator = OPERATORS[name]
    np.testing.assert_array_equal(operator.weight[..., 0], operator.known)
    gradient = jax.grad(lambda x: jnp.sum(operator(x)))(jnp.asarray(random_image(0)))
    np.testing.assert_array_equal(gradient, np.repeat((np.asarray(operator.known) > 0)[..., None], 3, -1))


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (np.ones((4, 4, 1)), r"must be \[h, w\], got \[4, 4, 1\]"),
        (np.full((4, 4), 1.5), r"must lie in \[0, 1\].*got 1.5 to 1.5"),
        (np.full((4, 4), -0.5), r"must lie in \[0, 1\].*got -0.5"),
        (np.full((4, 4), np.nan), r"must lie in \[0, 1\].*nan"),
        (np.zeros((4, 4)), "hides every pixel.*polarity"),
        (np.ones((4, 4)), "has no hole.*polarity"),
    ],
)
def test_masks_refuse(known, text):
    """A mask that cannot be meant is refused with its range."""
    with pytest.raises(ValueError, match=text):
        Mask.checked(known)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((SIZE, SIZE, 3), np.uint8), r"must be float \[h, w, c\].*uint8 \[16, 16, 3\]"),
        (np.zeros((SIZE, SIZE), np.float32), r"must be float \[h, w, c\].*\[16, 16\]"),
        (np.full((SIZE, SIZE, 3), 255.0, np.float32), r"finite and in \[-1, 1\].*127.5"),
        (np.full((SIZE, SIZE, 3), np.nan, np.float32), r"finite and in \[-1, 1\]"),
        (np.zeros((4, SIZE, 3), np.float32), r"the mask is \[16, 16\] but the image is \[4, 16\]; resize"),
    ],
)
def test_problems_refuse(image, text):
    """An image that does not fit is refused with what came."""
    with pytest.raises(ValueError, match=text):
        inpaint.Problem.observe(image, OPERATORS["hard mask"])


def test_problems_stack():
    """A stack carries a leading axis on every array; nothing cannot be stacked."""
    problem = inpaint.Problem.observe(random_image(0), OPERATORS["hard mask"])
    stacked = inpaint.Problem.stack([problem, problem, problem])
    assert not problem.batched and stacked.batched
    assert stacked.measurement.shape == (3, SIZE, SIZE, 3) and stacked.operator.known.shape == (3, SIZE, SIZE)
    with pytest.raises(ValueError, match="no problems"):
        inpaint.Problem.stack([])


def test_unequal_problems_do_not_stack():
    """Operators of other settings or shapes are refused."""
    image = random_image(0)
    one, other = (inpaint.Problem.observe(image, Jpeg(quality)) for quality in (10, 20))
    with pytest.raises(
        ValueError, match=r"problem 1 has another operator or shape.*Jpeg.*20.*Jpeg.*10.*stack those that are"
    ):
        inpaint.Problem.stack([one, other])
