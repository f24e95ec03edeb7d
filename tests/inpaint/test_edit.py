# SPDX-License-Identifier: Apache-2.0
"""Editing: directions from weights and from labels, moving and mixing, and the command run for real."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import optimize

import inpaint
import stylegan_jax as sg
from inpaint import edit, losses
from stylegan_jax import classifiers, dcgan, image_io, stylegan1, stylegan3

RANDOM = np.random.default_rng(0)
SIZE = 16


@functools.cache
def generators():
    """Returns a tiny random generator of every family, by name."""
    return {
        "stylegan1": stylegan1.Generator(
            stylegan1.GeneratorConfig(widths=(6, 4), z_dim=6, mapping_layers=1), rngs=nnx.Rngs(0)
        ),
        "stylegan2": sg.Generator(
            sg.GeneratorConfig(widths=(8, 6, 4), z_dim=5, w_dim=6, mapping_layers=1), rngs=nnx.Rngs(1)
        ),
        "stylegan3": stylegan3.Generator(
            stylegan3.GeneratorConfig(
                resolution=16, widths=(6, 6, 4, 4), z_dim=6, w_dim=6, margin=2, first_stopband=2.5, num_critical=1
            ),
            rngs=nnx.Rngs(2),
        ),
        "dcgan": dcgan.Generator(dcgan.GeneratorConfig(widths=(4, 4), z_dim=6), rngs=nnx.Rngs(3)),
    }


def rows_of(generator, names):
    """Returns the normalised rows of affine layers, from their parameters by name."""
    rows = []
    for name in names:
        layer = generator.synthesis
        for part in name.split("/"):
            layer = getattr(layer, part)
        for row in np.asarray(layer.affine.weight[...], np.float64).T:
            length = np.sqrt((row**2).sum())
            rows.append(row / length if length else row)
    return np.stack(rows)


LAYERS = {
    "stylegan1": ["b4/style0", "b4/style1", "b8/style0", "b8/style1"],
    # A ToRGB shares its w with the next convolution, but the last one.
    "stylegan2": ["b4/conv1", "b8/conv0", "b8/conv1", "b16/conv0", "b16/conv1", "b16/torgb"],
    "stylegan3": ["input", "L0_6_6", "L1_12_6", "L2_16_4", "L3_16_4", "L4_16_3"],
}


@pytest.mark.parametrize("family", LAYERS)
def test_sefa_is_the_eigendecomposition(family):
    """Directions are orthonormal eigenvectors of the stacked weights, the largest first, with a fixed sign."""
    generator = generators()[family]
    names = list(LAYERS[family])
    if family == "stylegan3":
        names = ["input", *generator.synthesis.layer_names]
    directions, values = edit.sefa(generator)
    assert directions.shape == (6, 6) and (np.diff(values) <= 0).all()
    np.testing.assert_allclose(directions @ directions.T, np.eye(6), atol=1e-12)
    a = rows_of(generator, names)
    np.testing.assert_allclose(edit.style_matrix(generator), a, atol=1e-12)
    expected, vectors = np.linalg.eig(a.T @ a)  # the general one, which is not used there
    order = np.argsort(-expected.real)
    np.testing.assert_allclose(values, expected.real[order], atol=1e-9)
    np.testing.assert_allclose(np.abs((directions * vectors.real.T[order]).sum(1)), 1, atol=1e-6)
    assert (directions[np.arange(6), np.abs(directions).argmax(1)] > 0).all()


def test_first_direction_changes_styles_most():
    """Of 500 random unit vectors none moves the normalised styles as far as the first direction, or as little as the
    last one."""
    generator = generators()["stylegan2"]
    directions, _ = edit.sefa(generator)
    a = edit.style_matrix(generator)
    others = RANDOM.normal(size=(500, 6))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    moved = np.linalg.norm(others @ a.T, axis=1)
    assert np.linalg.norm(a @ directions[0]) > moved.max() and np.linalg.norm(a @ directions[-1]) < moved.min()


def test_sefa_of_some_layers():
    """A range takes the layers of its latents, names take themselves, and fewer directions are the first ones."""
    generator = generators()["stylegan2"]
    np.testing.assert_array_equal(
        edit.style_matrix(generator, layers=(1, 2)), edit.style_matrix(generator, layers=("b8/conv0", "b8/conv1"))
    )
    np.testing.assert_array_equal(edit.sefa(generator, count=2)[0], edit.sefa(generator)[0][:2])
    for settings, said in (
        ({"layers": (2, 6)}, "range within 0-5, got 2-6"),
        ({"layers": ("b8/conv0", "b9")}, "unknown layers b9; known: b4/conv1"),
        ({"count": 7}, "from 1 to 6"),
    ):
        with pytest.raises(ValueError, match=said):
            edit.sefa(generator, **settings)
    with pytest.raises(ValueError, match="a dcgan has none"):
        edit.sefa(generators()["dcgan"])


def planted(n=400, width=8):
    """Returns latents of unequal spread, and scores that depend on one direction of them and some noise."""
    normal = RANDOM.normal(size=width)
    normal /= np.linalg.norm(normal)
    w = RANDOM.normal(size=(n, width)) * np.linspace(0.5, 2, width) + 3
    return w, (w - 3) @ normal + 0.05 * RANDOM.normal(size=n), normal


def test_boundary_finds_a_planted_direction():
    """The normal is the planted one, held-out latents lie on their sides, and labels do as well as scores."""
    w, scores, normal = planted()
    found = edit.fit_direction(w, scores)
    assert found.accuracy == 1.0 and found.fitted + found.held_out == 200
    assert found.normal @ normal > 0.97 and np.linalg.norm(found.normal) == pytest.approx(1)
    assert np.mean((w @ found.normal + found.intercept > 0) == (scores > 0)) > 0.95
    assert edit.fit_direction(w, scores > 0, extremes=0.5).normal @ normal > 0.97
    assert edit.fit_direction(w, -scores).normal @ normal < -0.97


def test_boundary_is_the_logistic_regression():
    """Newton's minimum is one: no small step in any coordinate lowers the objective; much decay gives the means."""
    w, scores, _ = planted(120, 3)
    mean = edit.fit_direction(w, scores, extremes=0.5, decay=1e4).normal
    order = np.argsort(scores)
    count = min((scores > 0).sum(), (scores <= 0).sum())
    own = np.arange(count) % 3 > 0
    low, high = w[order[:count][own]], w[order[-count:][own]]
    np.testing.assert_allclose(
        mean, (high.mean(0) - low.mean(0)) / np.linalg.norm(high.mean(0) - low.mean(0)), atol=1e-3
    )
    # The gradient at the minimum, written again from the formula.
    x, sign = np.concatenate([low, high]), np.repeat([-1.0, 1.0], own.sum())
    scale = np.sqrt(x.var(0).mean())
    found = edit.fit_direction(w, scores, extremes=0.5, decay=0.1)

    def gradient(length):
        wrong = 1 / (1 + np.exp(sign * (x @ found.normal + found.intercept) / scale * length))
        return -((x - x.mean(0)) / scale * (sign * wrong)[:, None]).mean(0) + 0.1 * length * found.normal

    # Only the length of the weights is not given back; where the part along the normal vanishes, all of it must.
    length = optimize.brentq(lambda length: gradient(length) @ found.normal, 0.01, 50)
    np.testing.assert_allclose(gradient(length), 0, atol=1e-8)


@pytest.mark.parametrize(
    ("w", "scores", "said"),
    [
        (np.zeros((10, 3, 2)), np.zeros(10), r"need latents \[n, w_dim\]"),
        (np.zeros((10, 3)), np.zeros(9), r"need latents \[n, w_dim\]"),
        (RANDOM.normal(size=(40, 3)), np.full(40, 2.0), "40 of 40 have the attribute"),
        (np.zeros((40, 3)), np.linspace(-1, 1, 40), "all latents are the same"),
        (np.full((40, 3), np.nan), np.linspace(-1, 1, 40), "must be finite"),
    ],
)
def test_latents_that_give_no_boundary(w, scores, said):
    """What cannot be told apart is told in one line."""
    with pytest.raises(ValueError, match=said):
        edit.fit_direction(w, scores)


def test_attribute_of_a_generator():
    """Latents are drawn and judged, the last batch padded, and moving along the normal changes the attribute."""
    generator = generators()["stylegan2"]
    config = classifiers.FunctionConfig(attributes=("bright",), resolution=SIZE)
    classifier = classifiers.FunctionClassifier(lambda images: images.mean((1, 2, 3)) - 0.01, config)
    fit = functools.partial(edit.fit_attribute, jax.random.key(0), generator, classifier, samples=130)
    found = fit(attribute="bright", batch=40)
    ws = generator.map(jax.random.normal(jax.random.key(1), (8, 5)))
    moved = jnp.concatenate([edit.move(ws, found.normal, x) for x in (-1.0, 0.0, 1.0)])
    bright = jax.jit(lambda network, ws: network(ws).mean((1, 2, 3)))(generator.synthesis, moved).reshape(3, 8).mean(1)
    assert bright[0] < bright[1] < bright[2]
    with pytest.raises(ValueError, match="no attribute 'smile'"):
        fit(attribute="smile")


def test_conditional_directions():
    """What is left of a direction is orthogonal to all others, also to dependent ones, and nearest to what it was."""
    n, a, b = RANDOM.normal(size=(3, 7))
    found = edit.orthogonalise(n, [a, b, a + 2 * b])
    np.testing.assert_allclose([found @ a, found @ b, np.linalg.norm(found)], [0, 0, 1], atol=1e-12)
    basis = np.linalg.qr(np.stack([a, b], 1))[0]
    rest = n - basis @ basis.T @ n
    np.testing.assert_allclose(found, rest / np.linalg.norm(rest), atol=1e-12)
    np.testing.assert_allclose(edit.orthogonalise(n, []), n / np.linalg.norm(n), atol=1e-15)
    with pytest.raises(ValueError, match="nothing is left"):
        edit.orthogonalise(a - b, [a, b])
    with pytest.raises(ValueError, match="alike"):
        edit.orthogonalise(a, [b[:3]])


def test_direction_files(tmp_path):
    """A direction comes back as written, published shapes are read, and whatever else is refused in one line."""
    n = RANDOM.normal(size=6)
    n /= np.linalg.norm(n)
    edit.write_direction(tmp_path / "own.npy", n)
    assert np.load(tmp_path / "own.npy").shape == (1, 6) and np.load(tmp_path / "own.npy").dtype == np.float32
    np.testing.assert_allclose(edit.read_direction(tmp_path / "own.npy", w_dim=6), n, atol=1e-7)
    np.save(tmp_path / "flat.npy", 3 * n)
    np.testing.assert_allclose(edit.read_direction(tmp_path / "flat.npy", w_dim=6), n, atol=1e-15)
    np.save(tmp_path / "objects.npy", np.asarray([{}], object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", n=n)
    np.save(tmp_path / "zero.npy", 0 * n)
    np.save(tmp_path / "nan.npy", np.nan * n)
    np.save(tmp_path / "text.npy", np.asarray(["a"] * 6))
    (tmp_path / "note.npy").write_text("no array")
    for name, said in (
        ("objects.npy", "not a readable .npy"),
        ("note.npy", "not a readable .npy"),
        ("several.npz", "no array of numbers"),
        ("text.npy", "no array of numbers"),
        ("zero.npy", "its length is 0"),
        ("nan.npy", "its length is nan"),
        ("missing.npy", "does not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(ValueError, match=said):
            edit.read_direction(tmp_path / name, w_dim=6)
    with pytest.raises(ValueError, match=r"\[512\] or \[1, 512\], got \[1, 6\]; it belongs to another"):
        edit.read_direction(tmp_path / "own.npy", w_dim=512)


def test_moving_and_mixing():
    """Strength 0 is the identity, layers move exactly, mixing takes them to the bit, and a unit of strength is W's."""
    ws, other = RANDOM.normal(size=(2, 3, 5, 6)).astype(np.float32)
    n = np.eye(6)[2]
    np.testing.assert_array_equal(edit.move(ws, n, 0), ws)
    moved = np.asarray(edit.move(ws, n, -1.5, spread=2.0, layers=(1, 3)))
    step = np.zeros((5, 6), np.float32)
    step[1:4, 2] = -3
    np.testing.assert_array_equal(moved, ws + step)
    np.testing.assert_array_equal(edit.move(ws[0], n, 1.0)[:, 2], ws[0][:, 2] + 1)
    mixed = np.asarray(edit.mix(ws, other, (0, 1)))
    np.testing.assert_array_equal(mixed[:, :2], other[:, :2])
    np.testing.assert_array_equal(mixed[:, 2:], ws[:, 2:])
    w = RANDOM.normal(size=(2000, 6)) * [1, 1, 4, 1, 1, 1]
    assert edit.spread(n, sg.WStatistics(w.mean(0), np.cov(w.T))) == pytest.approx(4, rel=0.05)
    for call, said in (
        (lambda: edit.move(ws, n, 1, layers=(3, 5)), "range within 0-4, got 3-5"),
        (lambda: edit.move(ws, n[:5], 1), r"must be \[6\], got \[5\]"),
        (lambda: edit.mix(ws, other[:2], (0, 1)), "of one shape"),
        (lambda: edit.mix(ws, other, (2, 1)), "got 2-1"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_a_search_holds_an_edit():
    """A search from an edit, with the hold, moves across the direction and hardly along it."""
    generator = generators()["stylegan2"]
    known = np.ones((SIZE, SIZE), np.float32)
    known[4:12, 4:12] = 0
    problem = inpaint.Problem.observe(
        RANDOM.uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32), inpaint.operators.Mask.checked(known)
    )
    model = sg.Model(generator, w_statistics=sg.estimate_w_statistics(jax.random.key(0), generator, samples=100))
    ws, n = RANDOM.normal(size=(6, 6)).astype(np.float32), edit.sefa(generator, count=1)[0][0]
    method = inpaint.methods.latent_search(
        steps=8, coarse_share=0, mahalanobis=0, initialisation=inpaint.Given(0.0), others=(inpaint.hold_term(n, 100),)
    )
    found = inpaint.solve(model, problem, method, starts=1, key=jax.random.key(0), guess=ws).ws[0]
    along, directions = np.square((found - ws) @ n).mean(), edit.sefa(generator)[0][1:]
    across = np.square((found - ws) @ directions.T).mean()
    assert along < 0.1 * across and across > 1e-4
    d = jnp.asarray(n, jnp.float32)
    assert float(losses.displacement(ws + 2 * n[None].astype(np.float32), ws, d)) == pytest.approx(4, rel=1e-4)
    with pytest.raises(ValueError, match="weight of hold"):
        inpaint.hold_term(n, -1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_generator, save_pictures, run_commands):
    """A folder with a finished restoration by a tiny generator, of a picture that is letterboxed; things that cannot be
    edited; and directions."""
    folder = tmp_path_factory.mktemp("edit")
    save_generator(folder / "generator")
    save_pictures(folder)
    flags = ["--generator", "generator", "--image", "wide_image.png", "--mask", "wide_mask.png", "--output", "restored"]
    flags += ["--steps", "2", "--starts", "2", "--keep", "2", "--init", "random", "--space", "w"]
    ((code, _, error),) = run_commands("inpaint", [["restore", *flags]], folder)
    assert code == 0, error
    np.save(folder / "direction.npy", np.eye(6)[:1])
    np.save(folder / "published.npy", np.eye(512)[:1])
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").write_text("keep me")
    (folder / "edited").mkdir()
    (folder / "edited" / "edit.json").write_text("{}")
    for name in ("smooth", "square"):
        shutil.copytree(folder / "restored", folder / name)
    (folder / "smooth" / "latents.npz").unlink()
    # A picture of the generator's size, whose file is gone: what the folder itself holds must do.
    settings = json.loads((folder / "square" / "config.json").read_text())
    (folder / "square" / "config.json").write_text(json.dumps(settings | {"image": "gone.png"}))
    return folder


def pixels(path):
    """Returns a PNG's levels."""
    return image_io.to_uint8(image_io.read_image(path)[0])


def test_command(folder, run_commands):
    """Edits keep the known pixels bit for bit, strength 0 is the restoration itself, and the folder says all."""
    moved = ["--direction", "direction.npy", "--orthogonal_to", "sefa:1", "--results", "1,2", "--strength", "-3,0,3"]
    cases = [
        ["--restored", "restored", *moved, "--layers", "1-4", "--refit", "2", "--output", "moved"],
        ["--restored", "square", "--mix", "1,2", "--layers", "0-2", "--refit", "0", "--output", "mixed"],
        ["--restored", "restored", "--direction", "attribute:teeth_visible", "--samples", "100", "--strength", "0,9"]
        + ["--refit", "0", "--output", "teeth"],
    ]
    results = run_commands("inpaint", [["edit", *case] for case in cases], folder)
    assert [code for code, _, _ in results] == [0, 0, 0], results
    assert "gone.png is not there any more" in results[1][1]
    hole, given = pixels(folder / "wide_mask.png")[..., 0] == 255, pixels(folder / "wide_image.png")
    for i in (1, 2):
        for name in ("restored", "photo", "raw"):
            own = "edited" if name == "restored" else name
            before = (folder / "restored" / f"{name}_{i}.png").read_bytes()
            assert (folder / "moved" / f"{own}_{i}_2.png").read_bytes() == before
        for j in (1, 3):
            edited = pixels(folder / "moved" / f"photo_{i}_{j}.png")
            np.testing.assert_array_equal(edited[~hole], given[~hole])
            assert (edited[hole] != pixels(folder / "restored" / f"photo_{i}.png")[hole]).any()
    facts = json.loads((folder / "moved" / "edit.json").read_text())
    assert facts["layers"] == [1, 4] and facts["strengths"] == [-3, 0, 3] and len(facts["edits"]) == 6
    assert image_io.read_image(folder / "moved" / "edit_sheet.png")[0].shape == (4 * 212, 4 * 192, 3)
    with np.load(folder / "restored" / "latents.npz") as stored, np.load(folder / "mixed" / "latents.npz") as mixed:
        (a, b), ws = stored["w"], mixed["w"]
        np.testing.assert_array_equal(ws[2], np.concatenate([b[:3], a[3:]]))
        known = stored["known"] == 1
    visible = pixels(folder / "restored" / "input.png")
    np.testing.assert_array_equal(pixels(folder / "mixed" / "edited_1_3.png")[known], visible[known])
    teeth = json.loads((folder / "teeth" / "edit.json").read_text())
    first, second = teeth["edits"]
    assert first["probability"] == first["probability_before"] == second["probability_before"] != second["probability"]
    assert teeth["layers"] == [2, 5] and 0 <= teeth["boundaries"]["attribute:teeth_visible"]["accuracy"] <= 1


# What is wrong: (flags of edit, what the line must say).
BAD = {
    "nothing asked": ([], "name either a --direction"),
    "no folder": (["--restored", "nowhere", "--direction", "sefa:0"], "nowhere is no folder"),
    "no restoration": (["--restored", "notes", "--direction", "sefa:0"], "holds no finished restoration"),
    "no latents": (["--restored", "smooth", "--direction", "sefa:0"], "makes an image without latents"),
    "foreign output": (["--direction", "sefa:0", "--output", "notes"], "holds other files"),
    "edited before": (["--direction", "sefa:0", "--output", "edited"], "holds an earlier edit"),
    "layers beyond": (["--direction", "sefa:0", "--layers", "2-9"], "range within 0-5, got 2-9"),
    "layers in words": (["--direction", "sefa:0", "--layers", "coarse"], "FIRST-LAST"),
    "infinite strength": (["--direction", "sefa:0", "--strength", "inf"], "must be finite"),
    "sefa of nothing": (["--direction", "sefa:first"], "unknown direction 'sefa:first'"),
    "unknown direction": (["--direction", "smile"], "unknown direction 'smile'"),
    "wrong width": (["--direction", "published.npy"], "got [1, 512]; it belongs to another one"),
    "unknown attribute": (["--direction", "attribute:smile"], "no attribute 'smile'"),
    "classifier for nothing": (["--direction", "sefa:0", "--classifier", "x"], "no direction attribute:NAME asks it"),
    "mix of one": (["--mix", "1", "--layers", "0-2"], "--mix takes two results"),
    "mix without layers": (["--mix", "1,2"], "--layers says what"),
    "other generator": (["--generator", "tiny32", "--direction", "sefa:0"], "latents.npz"),
}


def test_bad_input(folder, run_commands):
    """Every mistake ends in one clear line, and nothing is written."""
    cases = [["edit", "--restored", "restored", "--output", "none", *flags] for flags, _ in BAD.values()]
    for (name, (_, said)), (code, _, error) in zip(BAD.items(), run_commands("inpaint", cases, folder), strict=True):
        assert code == 1 and error.count("\n") == 1 and said in error, (name, error)
    assert not (folder / "none").exists()
    assert {path.name for path in (folder / "notes").iterdir()} == {"notes.txt"}
