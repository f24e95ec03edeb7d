# SPDX-License-Identifier: Apache-2.0
"""Figures that converted networks give: LPIPS, identity, FID; against golden values, sums in numpy, and one another."""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from convert import perceptual as conversion
from inpaint import metrics
from inpaint.experiments import records, table
from inpaint.experiments.measure import Restored, check_measured, measure
from inpaint.metrics import frechet_inception as fid
from inpaint.metrics import perceptual
from inpaint.metrics.judge import LoadedJudge
from stylegan_jax import checkpoint, features, image_io, parameters
from stylegan_jax.features import arcface
from stylegan_jax.features.judge import Judge, JudgeConfig

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import golden_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FACE = features.ArcFaceConfig(resolution=8, embedding=5, widths=(6, 8), depths=(2, 1), stem=6, reduction=2)


def random_images(seed, n, size, *, channels=3):
    return np.random.default_rng(seed).uniform(-1, 1, (n, size, size, channels)).astype(np.float32)


def levels(seed, n, height=40, width=32, *, channels=3):
    """Returns smooth random images uint8 `[n, h, w, c]`, whose features differ more than those of noise."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (n, 5, 4, channels))
    return np.kron(coarse, np.ones((1, height // 5, width // 4, 1))).astype(np.uint8)


def built(kind, config):
    """Returns a network with random weights from numpy: drawing them in JAX compiles a program for every shape."""
    rng, arrays = np.random.default_rng(0), {}
    for name, array in parameters.abstract(kind, config).items():
        if len(array.shape) == 4:
            arrays[name] = rng.normal(0, np.sqrt(2 / np.prod(array.shape[:3])), array.shape)
        elif name.endswith(("bias", "mean")):
            arrays[name] = rng.normal(0, 0.1, array.shape)
        else:
            arrays[name] = rng.uniform(0.5, 1.5, array.shape)
    return kind.from_arrays(config, {name: array.astype(np.float32) for name, array in arrays.items()})


@functools.cache
def lpips(trunk="alexnet", widths=(4, 6, 8, 6, 6)):
    return built(features.Lpips, features.LpipsConfig(trunk=trunk, widths=widths))


@functools.cache
def face_network():
    return built(features.ArcFace, FACE)


@functools.cache
def inception_network():
    return built(features.Inception, features.InceptionConfig(narrower=16, classes=2))


def hole_of(size, rows, columns):
    hole = np.zeros((size, size), np.float32)
    hole[rows, columns] = 1
    return hole


# LPIPS.


def test_lpips_golden():
    """Whole and in holes it is the paper's code's, with its trained weights: distance, and mean of its map."""
    with np.load(GOLDEN / "perceptual.npz") as file:
        golden = {name: file[name] for name in ("in1", "alexnet/distance", "alexnet/spatial")}
    with np.load(GOLDEN / "lpips_lin_v01.npz") as file:
        linear = {name.removeprefix("alex/"): file[name] for name in file if name.startswith("alex/")}
    weights = golden_weights.weights("alexnet", golden_weights.shapes("alexnet"))
    network = conversion.from_state_dict(weights, linear=linear).build()
    image = np.moveaxis(golden_weights.image(201, (2, 3, 64, 64))[:1], 1, -1)
    truth = np.moveaxis(golden["in1"], 1, -1)
    hole = hole_of(64, slice(10, 40), slice(5, 50))
    soft = np.linspace(0, 1, 64, dtype=np.float32)[:, None] * np.ones(64, np.float32)
    found = metrics.perceptual_distances(
        network, np.repeat(image, 2, 0), np.repeat(truth, 2, 0), holes=[hole, soft], chunk=2
    )
    np.testing.assert_allclose(found.whole, golden["alexnet/distance"][0], rtol=2e-5)
    spatial = golden["alexnet/spatial"][0, 0]
    expected = [(spatial * mask).sum() / mask.sum() for mask in (hole, soft)]
    np.testing.assert_allclose(found.hole, expected, rtol=2e-5)
    assert abs(expected[0] / golden["alexnet/distance"][0] - 1) > 1e-3


def test_lpips_of_batches():
    """It is the network's own; neither the number of pairs nor the chunk matter; images are clipped and grey ones
    repeated; equal images are at 0; NaN stays with its pair; a hole without pixels has NaN."""
    images, truths = random_images(0, 5, 40), random_images(1, 5, 40)
    holes = (np.random.default_rng(2).random((5, 40, 40)) < 0.3).astype(np.float32)
    images[3], holes[4] = truths[3], 0
    network = lpips()
    found = metrics.perceptual_distances(network, images, truths, holes=holes)
    own = jax.jit(lambda x, y: network.distance(x, y))(jnp.asarray(images), jnp.asarray(truths))
    np.testing.assert_allclose(found.whole, own, rtol=1e-5, atol=1e-7)
    assert found.whole[3] == found.hole[3] == 0 and np.isnan(found.hole[4]) and (found.hole[:3] > 0).all()
    for n, chunk in ((1, None), (4, None), (5, 3)):
        some = metrics.perceptual_distances(network, images[:n], truths[:n], holes=holes[:n], chunk=chunk)
        np.testing.assert_allclose(some.whole, found.whole[:n], rtol=1e-6)
        np.testing.assert_allclose(some.hole, found.hole[:n], rtol=1e-6)
    damaged, loud = images.copy(), images.copy()
    damaged[1, 0, 0, 0] = np.nan
    loud[0] *= 1000
    other = metrics.perceptual_distances(network, np.concatenate([damaged, loud]), np.repeat(truths[:1], 10, 0)).whole
    assert np.isnan(other[1]) and np.isfinite(np.delete(other, 1)).all()
    clipped = np.clip(loud[:1], -1, 1)
    assert other[5] == pytest.approx(metrics.perceptual_distances(network, clipped, truths[:1]).whole[0], rel=1e-6)
    grey = metrics.perceptual_distances(network, images[:2, ..., :1], truths[:2, ..., :1]).whole
    colours = metrics.perceptual_distances(
        network, np.repeat(images[:2, ..., :1], 3, -1), np.repeat(truths[:2, ..., :1], 3, -1)
    )
    assert colours.hole is None
    np.testing.assert_allclose(grey, colours.whole, rtol=1e-6)


def test_diversity_over_pairs():
    """It is the mean over unordered pairs, in a hole too; equal results have none, one result has no pairs."""
    results, network = random_images(3, 3, 40), lpips()
    hole = hole_of(40, slice(0, 20), slice(0, 40))
    pairs = metrics.perceptual_distances(network, results[[0, 0, 1]], results[[1, 2, 2]], holes=[hole] * 3)
    assert metrics.perceptual_diversity(network, results) == pytest.approx(pairs.whole.mean(), rel=1e-6)
    assert metrics.perceptual_diversity(network, results, hole=hole) == pytest.approx(pairs.hole.mean(), rel=1e-6)
    assert metrics.perceptual_diversity(network, results[[0, 0]]) == 0
    assert np.isnan(metrics.perceptual_diversity(network, results[:1]))


def test_diversity_of_kept_results(tmp_path, shared_compilations):
    """A row's figure is the mean over the pairs of its own kept composites, whoever else is in the batch."""
    judge = Judge(JudgeConfig(resolution=40, widths=(4, 6), embedding=3), rngs=nnx.Rngs(0))
    checkpoint.save_network(tmp_path / "judge", judge, provenance={})
    kept = np.stack([random_images(seed, 3, 40) for seed in (5, 6)])
    truths = random_images(7, 2, 40)
    known = 1 - np.stack([hole_of(40, slice(10, 30), slice(10, 30))] * 2)
    restored = Restored(kept[:, 0], kept[:, 0], kept, truths, known, kept)
    rows = measure(restored, LoadedJudge(tmp_path / "judge"), networks={"lpips": lpips()})
    for row, results in zip(rows, kept, strict=True):
        assert row["kept_lpips"] == pytest.approx(metrics.perceptual_diversity(lpips(), results), rel=1e-5)
    alone = measure(restored._replace(kept=kept[:, :1]), LoadedJudge(tmp_path / "judge"))
    assert all("kept_lpips" not in row and "kept_distance" not in row for row in alone)


# Identity.


def test_identity_of_faces():
    """It is the cosine of the embeddings of the cropped faces; the same image has 1."""
    images, truths = random_images(4, 3, 256), random_images(5, 3, 256)
    images[2] = truths[2]
    found = metrics.identity_similarity(face_network(), images, truths)
    embed = jax.jit(lambda x: face_network()(arcface.face_crop(x, size=8)))
    embeddings = [np.asarray(embed(jnp.asarray(x)), np.float64) for x in (images, truths)]
    np.testing.assert_allclose(found, (embeddings[0] * embeddings[1]).sum(1), atol=1e-6)
    assert found[2] == pytest.approx(1, abs=1e-6) and np.abs(found[:2]).max() < 0.9999
    few = metrics.identity_similarity(face_network(), images[:1], truths[:1])
    np.testing.assert_allclose(few, found[:1], atol=1e-6)


def test_other_sizes_are_brought_to_256():
    """Larger ones are averaged, smaller ones interpolated between centres of pixels."""
    x = random_images(6, 2, 512)
    means = x.reshape(2, 256, 2, 256, 2, 3).mean((2, 4))
    np.testing.assert_allclose(perceptual.to_aligned_size(jnp.asarray(x)), means, atol=1e-6)
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (1, 64, 64, 3))
    expected = np.clip((np.arange(256) + 0.5) / 4 - 0.5, 0, 63)
    np.testing.assert_allclose(perceptual.to_aligned_size(jnp.asarray(ramp))[0, :, 9, 1], expected, atol=1e-5)
    same = jnp.asarray(means)
    assert perceptual.to_aligned_size(same) is same


BAD_PAIRS = {
    "integers": (lambda: (levels(0, 1, 40, 40), levels(0, 1, 40, 40), None), "must be floats"),
    "one image": (lambda: (random_images(0, 1, 40)[0], random_images(0, 1, 40)[0], None), "must be floats"),
    "none": (lambda: (random_images(0, 0, 40), random_images(0, 0, 40), None), "n at least 1"),
    "two channels": (lambda: (random_images(0, 1, 40, channels=2), random_images(0, 1, 40), None), "1 or 3"),
    "other sizes": (lambda: (random_images(0, 1, 40), random_images(0, 1, 48), None), "must have one shape"),
    "other holes": (lambda: (random_images(0, 1, 40), random_images(0, 1, 40), np.ones((40, 40))), "holes must be"),
    "too small": (lambda: (random_images(0, 1, 16), random_images(0, 1, 16), None), "at least 31 rows"),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_bad_pairs_are_refused(name):
    """With one line that says what came."""
    make, reason = BAD_PAIRS[name]
    images, truths, holes = make()
    with pytest.raises(ValueError, match=reason):
        metrics.perceptual_distances(lpips(), images, truths, holes=holes)


def test_sizes_are_checked_before_anything_runs():
    """A trunk says which images are too small for it; identity takes squares only."""
    perceptual.check_size(lpips(), (31, 40))
    with pytest.raises(ValueError, match="at least 31 rows"):
        perceptual.check_size(lpips(), (30, 40))
    with pytest.raises(ValueError, match="square images, got 40 x 48"):
        perceptual.to_aligned_size(jnp.zeros((1, 40, 48, 3)))


# FID.


def features_by_hand(images, convention):
    """Returns the features of a few uint8 images that were resampled in numpy."""
    images = np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
    i = np.arange(299)
    for axis in (1, 2):
        size = images.shape[axis]
        place = (i + 0.5) * size / 299 - 0.5 if convention == "pytorch_fid" else i * size / 299
        place = np.clip(place, 0, size - 1)
        low = np.floor(place).astype(int)
        part = (place - low).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
        high = np.take(images, np.minimum(low + 1, size - 1), axis)
        images = np.take(images, low, axis) * (1 - part) + high * part
    scaled = images / 127.5 - 1 if convention == "pytorch_fid" else images / 128 - 1
    padded = np.zeros((fid.CHUNK, *scaled.shape[1:]), np.float32)
    padded[: len(scaled)] = scaled
    # The metric's own program, which takes long to compile; test_perceptual.py checks the network.
    definition, weights = nnx.split(inception_network())
    with jax.default_matmul_precision("highest"):
        found = fid._through(weights, jnp.asarray(padded), definition=definition)
    return np.asarray(found, np.float64)[: len(scaled)]


def distance_by_hand(a, b, ddof):
    """Returns FID of features; tr (A B)^1/2 is the sum of the singular values of X Y^T, X and Y being centred."""
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - ddof) for s in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + np.square(x).sum() + np.square(y).sum() - 2 * root


def write_folder(folder, images):
    for i, image in enumerate(images):
        image_io.write_image(folder / ("deep" if i == 0 else ".") / f"{i}.png", image)


def test_distance_of_folders(tmp_path, shared_compilations, monkeypatch):
    """In both conventions it is that of features resampled and compared in numpy; equal sets are at 0; order,
    neighbours and where images come from do not matter; grey images count as colours."""
    network, sets = inception_network(), {"real": levels(0, 5), "made": levels(1, 3)}
    write_folder(tmp_path / "real", sets["real"])
    split = np.asarray(["train"] * 2 + ["report"] * 3)
    np.savez_compressed(tmp_path / "made.npz", images=np.concatenate([levels(2, 2), sets["made"]]), split=split)
    for convention, ddof in (("pytorch_fid", 1), ("nvlabs", 0)):
        both = features_by_hand(np.concatenate(list(sets.values())), convention)
        by_hand = {"real": both[:5], "made": both[5:]}
        real = fid.inception_statistics(network, fid.read_images(tmp_path / "real"), convention=convention)
        monkeypatch.setattr(fid, "ROWS_AT_ONCE", 3)
        images = fid.read_images(tmp_path / "made.npz", split="report")
        made = fid.inception_statistics(network, images, convention=convention)
        assert (real.count, made.count, made.convention) == (5, 3, convention)
        scale = np.abs(by_hand["made"]).max()
        np.testing.assert_allclose(made.mu, by_hand["made"].mean(0), atol=2e-5 * scale)
        expected = distance_by_hand(by_hand["real"], by_hand["made"], ddof)
        assert fid.inception_distance(real, made) == pytest.approx(expected, rel=1e-4)
        assert expected > 1e-3 and fid.inception_distance(real, real) == pytest.approx(0, abs=1e-6 * expected)
    again = fid.inception_statistics(network, sets["real"][::-1], convention=convention)
    assert fid.inception_distance(again, real) == pytest.approx(0, abs=1e-6 * expected)
    grey = levels(3, 2, channels=1)
    some = fid.inception_features(network, grey)
    np.testing.assert_allclose(some, fid.inception_features(network, np.repeat(grey, 3, -1)), rtol=1e-6)
    assert np.abs(some[0] - some[1]).max() > 1e-3


@pytest.mark.slow
def test_features_at_full_width():
    """From levels to features it is the published chain, TensorFlow's resampling included."""
    with np.load(GOLDEN / "perceptual.npz") as file:
        kernels, expected = file["inception/kernels"], file["inception/tf1_pool3"]
    shapes = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for line in kernels:
        name, *sizes = line.split()
        shapes[f"{name}.conv.weight"] = tuple(map(int, sizes))
        shapes |= golden_weights.norm_shapes(f"{name}.bn", int(sizes[0]))
    network = conversion.from_state_dict(golden_weights.weights("inception", shapes)).build()
    images = np.round(golden_weights.image(142, (1, 3, 120, 100), 0, 255)).astype(np.uint8)
    found = fid.inception_features(network, np.moveaxis(images, 1, -1), convention="nvlabs", chunk=1)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_statistics_are_kept(tmp_path):
    """What is written comes back, pytorch-fid's keys are enough, and what cannot be compared is refused."""
    rng = np.random.default_rng(0)
    sigma = np.cov(rng.normal(size=(50, 4)).T)
    whole = fid.InceptionStatistics(rng.normal(size=4), sigma, 50, "nvlabs", "abc")
    fid.write_statistics(tmp_path / "whole.npz", whole)
    found = fid.read_statistics(tmp_path / "whole.npz")
    assert found[2:] == (50, "nvlabs", "abc") and (found.mu == whole.mu).all() and (found.sigma == sigma).all()
    with np.load(tmp_path / "whole.npz") as file:
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
    np.savez(tmp_path / "plain.npz", mu=whole.mu + 3, sigma=sigma)
    plain = fid.read_statistics(tmp_path / "plain.npz")
    assert plain[2:] == (None, None, None)
    assert fid.inception_distance(plain, found) == pytest.approx(4 * 9, rel=1e-9)
    assert fid.holds_statistics(tmp_path / "plain.npz") and not fid.holds_statistics(tmp_path)
    for change, reason in (({"convention": "pytorch_fid"}, "different conventions"), ({"network": "x"}, "networks")):
        with pytest.raises(ValueError, match=reason):
            fid.inception_distance(found, found._replace(**change))
    np.savez(tmp_path / "nan.npz", mu=whole.mu * np.nan, sigma=sigma)
    np.savez(tmp_path / "shape.npz", mu=whole.mu[:3], sigma=sigma)
    np.savez(tmp_path / "images.npz", images=levels(0, 2))
    (tmp_path / "text.npz").write_text("mu")
    for name, reason in (
        ("nan", "NaN"),
        ("shape", r"sigma \[d, d\]"),
        ("images", "no readable"),
        ("text", "no readable"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.npz.*{reason}"):
            fid.read_statistics(tmp_path / f"{name}.npz")


def mixed(folder):
    write_folder(folder, levels(0, 2))
    image_io.write_image(folder / "large.png", levels(0, 1, 80, 32)[0])
    return folder


def damaged(folder):
    path = folder / "images.npz"
    np.savez(path, images=levels(0, 3))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def saved(**arrays):
    def save(folder):
        np.savez(folder / "images.npz", **arrays)
        return folder / "images.npz"

    return save


BAD_SETS = {
    "missing": (lambda folder: folder / "none", None, "none does not exist"),
    "empty": (lambda folder: folder, None, "no images in"),
    "mixed": (mixed, None, r"large\.png has 80 x 32 pixels, 1\.png 40 x 32; FID needs sets of one size"),
    "one image": (saved(images=levels(0, 1)), None, "at least 2 images in each set, got 1"),
    "no images": (saved(pictures=levels(0, 1)), None, "no array 'images', but pictures"),
    "floats": (saved(images=random_images(0, 2, 8)), None, "must be uint8"),
    "no split": (saved(images=levels(0, 2)), "report", "no array 'split'"),
    "unknown split": (saved(images=levels(0, 2), split=np.array(["a", "a"])), "b", "no images in .* with split 'b'"),
    "split of a folder": (mixed, "report", "needs an npz file"),
    "damaged": (damaged, None, "is damaged in image"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_bad_sets_are_refused(name, tmp_path, monkeypatch):
    """In one line, which names the file."""
    make, split, reason = BAD_SETS[name]
    path = make(tmp_path)
    monkeypatch.setattr(fid, "inception_features", lambda network, images, **_: np.zeros((len(images), 128)))
    with pytest.raises(ValueError, match=reason) as caught:
        fid.inception_statistics(inception_network(), fid.read_images(path, split=split))
    assert "\n" not in str(caught.value)


def test_bad_features_are_refused(monkeypatch):
    """Images of other kinds, unknown conventions, a network that gives NaN."""
    network = inception_network()
    for arguments, reason in (
        ((random_images(0, 2, 8),), "must be uint8"),
        ((levels(0, 2)[0],), "must be uint8"),
    ):
        with pytest.raises(ValueError, match=reason):
            fid.inception_features(network, *arguments)
    with pytest.raises(ValueError, match="unknown convention 'tf'"):
        fid.inception_features(network, levels(0, 2), convention="tf")
    with pytest.raises(ValueError, match=r"image 2 is \[40, 40, 3\]"):
        fid.inception_statistics(network, [*levels(0, 2), levels(0, 1, 40, 40)[0]])
    monkeypatch.setattr(fid, "inception_features", lambda network, images, **_: np.full((len(images), 128), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite features"):
        fid.inception_statistics(network, levels(0, 2))


# The commands.


def test_tables_show_what_was_measured():
    """Columns, differences and notes of networks are there only where rows have such figures."""

    def row(method, image, **figures):
        return {
            **{"method": method, "mask": "centre", "image": str(image), "seed": 0, "hole_share": 0.25, "seconds": 1.0},
            **{"forwards": 1, "gradients": 1, "metrics": {"embedding": [0.0], "true_embedding": [0.0], **figures}},
        }

    plain = [row(method, i, hole_psnr=1.0) for method in "ab" for i in range(3)]
    text = table.report(plain, against="a")
    assert "LPIPS" not in text and "identity" not in text
    rich = [row(method, i, lpips=0.5 + i, lpips_hole=0.25, identity=0.75) for method in "ab" for i in range(3)]
    text = table.report(rich, against="a")
    assert "| LPIPS | hole LPIPS | identity |" in text and "| 1.5000 | 0.2500 | 0.750 |" in text
    assert "LPIPS: of the composite" in text and "Identity: cosine" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 2


def test_rows_of_other_networks_are_told_apart(tmp_path):
    """Rows measured by others, or by none, are named in so many words; cells that are not asked for do not count."""
    found = records.Records(tmp_path)
    row = {"method": "a", "mask": "centre", "image": "0", "seed": 0, "metrics": {}}
    found.append([row], {"method": "a"})
    found.append([row | {"method": "b"}], {"method": "b", "metric_networks": {"lpips": "0123"}})
    check_measured(found, {("a", "centre")}, {})
    check_measured(found, {("b", "centre"), ("a", "mouth")}, {"lpips": "0123"})
    for label, hashes, reason in (
        ("a", {"lpips": "0123"}, "theirs none, yours lpips 0123"),
        ("b", {}, "theirs lpips 0123, yours none"),
        (
            "b",
            {"lpips": "4567"},
            "rows of b on centre measured by other networks .*theirs lpips 0123, yours lpips 4567",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            check_measured(found, {(label, "centre")}, hashes)


def test_commands_for_real(tmp_path, run_commands, shared_compilations):
    """evaluate writes the figures of networks; distance writes the figure, and statistics."""
    rngs = nnx.Rngs(0)
    generator = sg.Generator(sg.GeneratorConfig(widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2), rngs=rngs)
    sg.save(tmp_path / "generator", sg.Model(generator))
    network = lpips("vgg16", (4, 6, 6, 8, 8))
    for name, stored in {
        "judge": Judge(JudgeConfig(resolution=16, widths=(4, 6), embedding=3), rngs=rngs),
        "lpips": network,
        "arcface": face_network(),
        "inception": inception_network(),
    }.items():
        checkpoint.save_network(tmp_path / name, stored, provenance={})
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    np.savez(tmp_path / "sets.npz", images=levels(0, 7))
    write_folder(tmp_path / "made", levels(1, 6))
    evaluate = ["evaluate", "--generator=generator", "--judge=judge", "--data=images.npz", "--methods=biharmonic"]
    evaluate += ["--output=rows", "--lpips=lpips", "--identity_metric=arcface"]
    outcomes = run_commands(
        "inpaint",
        [
            evaluate,
            ["distance", "--real=sets.npz", "--made=made", "--inception=inception", "--convention=nvlabs"]
            + ["--statistics=kept.npz", "--output=fid.json"],
        ],
        tmp_path,
    )
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    rows = records.Records(tmp_path / "rows").rows.values()
    assert len(rows) == 3 and "| LPIPS | hole LPIPS | identity |" in outcomes[0][1]
    composites = [
        image_io.read_image(next((tmp_path / "rows" / "images").rglob(f"{row['image']}.png")))[0] for row in rows
    ]
    truths = image_io.from_uint8(images[[int(row["image"]) for row in rows]])
    hole = hole_of(16, slice(4, 12), slice(4, 12))
    own = metrics.perceptual_distances(network, np.stack(composites), truths, holes=[hole] * 3)
    for name, values in (("lpips", own.whole), ("lpips_hole", own.hole)):
        # The composites were written with 8 bits.
        np.testing.assert_allclose([row["metrics"][name] for row in rows], values, rtol=0.02)
    assert all(-1 <= row["metrics"]["identity"] < 0.9999 for row in rows)
    facts = json.loads((tmp_path / "fid.json").read_text())
    assert facts["real"] == {"name": "sets.npz", "split": None, "images": 7} and facts["made"]["images"] == 6
    assert facts["convention"] == "nvlabs" and outcomes[1][2].count("warning: ") == 2
    kept = fid.read_statistics(tmp_path / "kept.npz")
    assert (
        kept.count == 7
        and kept.network == facts["inception"]
        and kept.mu.shape == (inception_network().config.features,)
    )
    assert f"FID {facts['frechet_inception_distance']:.6g} (nvlabs; 7 and 6 images)" in outcomes[1][1]
    assert facts["frechet_inception_distance"] > 1e-3
