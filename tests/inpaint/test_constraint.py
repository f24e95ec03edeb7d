# SPDX-License-Identifier: Apache-2.0
"""Classifiers of one attribute: labels, training, figures; and the commands that train, ask and judge by them."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

from inpaint import named_methods, sample
from inpaint.experiments import constraint
from inpaint.learned import attribute_classifier as learned
from inpaint.learned.attribute_classifier import Agreement, ClassifierTrainConfig, ClassifierTrainer
from stylegan_jax import checkpoint, classifiers, image_io
from stylegan_jax.classifiers import ConvolutionalClassifier
from stylegan_jax.training import data

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
CONFIG = ClassifierTrainConfig(
    attribute="bright_below",
    labels="bright",
    resolution=8,
    widths=(4, 4),
    convolutions=1,
    features=4,
    images=240,
    batch=8,
    lr=0.02,
    reach=0.02,
    noise=0.0,
    cutout=0.0,
    snapshot_images=80,
)


def make_images(n, *, seed=0):
    """Returns noisy uint8 images whose lower half is brighter where the label is true."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    images = rng.integers(60, 140, (n, 8, 8, 3))
    images[:, 4:] += np.where(labels, 60, -40)[:, None, None, None]
    return np.clip(images, 0, 255).astype(np.uint8), labels


def write_npz(path, n=60, size=1):
    images, labels = make_images(n)
    split = np.asarray(["train", "tune", "report"])[np.arange(n) % 3]
    marks = np.where(np.arange(n) % 10 == 7, -1, labels).astype(np.int8)
    images = images.repeat(size, 1).repeat(size, 2)
    np.savez(path, images=images, bright=marks, split=split, ones=np.ones(n, np.int8), real=labels * 0.5)
    return images, marks, split


def test_labels_go_with_their_images(tmp_path):
    """Those of the split, without the uncertain ones, in the npz's order, with three channels."""
    images, marks, split = write_npz(tmp_path / "a.npz")
    found, labels = data.load_labelled_images(tmp_path / "a.npz", labels="bright", resolution=8, split="tune")
    kept = (split == "tune") & (marks >= 0)
    np.testing.assert_array_equal(found, images[kept])
    np.testing.assert_array_equal(labels, marks[kept] == 1)
    assert labels.dtype == bool


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("smile", "has no array 'smile'; it has images, bright"),
        ("ones", "ones must hold both 0 and 1"),
        ("real", "labels must be one integer for each image, got float64"),
        ("split", "labels must be one integer for each image"),
    ],
)
def test_unsuitable_labels_are_told(tmp_path, name, reason):
    write_npz(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=reason):
        data.load_labelled_images(tmp_path / "a.npz", labels=name, resolution=8)


def test_a_folder_has_no_labels(tmp_path):
    image_io.write_image(tmp_path / "a.png", make_images(1)[0][0])
    with pytest.raises(data.DataError, match="is a folder; labels are read from an npz"):
        data.load_labelled_images(tmp_path, labels="bright", resolution=8)


def leaves(state):
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def test_training_learns_and_resumes(tmp_path, shared_compilations):
    """It tells unseen images apart; stopping and resuming changes no bit; the averaged network is stored."""
    images, labels = make_images(64)
    whole, lines = ClassifierTrainer(CONFIG, images, labels, tmp_path / "whole"), []
    whole.run(provenance={"source": "random"}, report=lines.append)
    assert lines[-1]["images"] == 240 and lines[-1]["loss"] < lines[0]["loss"]
    others, truth = make_images(40, seed=1)
    assert (
        learned.agreement(learned.predict(whole.classifier(), others, attribute="bright_below"), truth).accuracy > 0.9
    )
    network, _ = checkpoint.load_network(tmp_path / "whole" / "model", classifiers.StoredClassifier)
    assert isinstance(network, ConvolutionalClassifier) and network.attributes == ("bright_below",)
    np.testing.assert_array_equal(network(image_io.from_uint8(others)), whole.classifier()(image_io.from_uint8(others)))
    part = ClassifierTrainer(CONFIG, images, labels, tmp_path / "part")
    with pytest.raises(RuntimeError, match="stopped"):
        part.run(provenance={}, report=stop_at(160))
    part = ClassifierTrainer(CONFIG, images, labels, tmp_path / "part")
    assert int(part.state.images) == 80
    part.run(provenance={}, report=lines.append)
    for one, other in zip(leaves(whole.state), leaves(part.state), strict=True):
        np.testing.assert_array_equal(one, other)


def stop_at(images):
    def report(line):
        if line["images"] == images:
            raise RuntimeError("stopped")

    return report


def test_unsuitable_images_are_told(tmp_path):
    images, labels = make_images(8)
    with pytest.raises(ValueError, match=r"expected images \[n, 8, 8, 3\] and labels \[n\]"):
        ClassifierTrainer(CONFIG, images[:, :4], labels, tmp_path)
    with pytest.raises(ValueError, match="make no classifier"):
        ClassifierTrainer(dataclasses.replace(CONFIG, kernel=2), images, labels, tmp_path)
    with pytest.raises(ValueError, match="5 stages cannot halve 8 px 4 times"):
        ClassifierTrainer(dataclasses.replace(CONFIG, widths=(4,) * 5), images, labels, tmp_path)


def test_kernel_ridge_regression_separates():
    """It is right on unseen images of an easy kind, mirrored or not, and knows which side is which."""
    images, labels = make_images(40)
    others, truth = make_images(30, seed=2)
    for seen in (others, others[:, :, ::-1]):
        assert learned.agreement(learned.kernel_ridge(images, labels, seen), truth).accuracy > 0.9


def test_agreement_is_counted():
    """The four cases, and Wilson's interval for 9 of 10 (0.596 to 0.982)."""
    found = learned.agreement(np.asarray([1.0, -1, 2, -2, 0.1]), np.asarray([True, True, False, False, True]))
    assert found == Agreement(present_found=2, present_missed=1, absent_found=1, absent_missed=1)
    assert found.accuracy == pytest.approx(0.6) and "60.0 % right" in found.line()
    assert Agreement(9, 1, 0, 0).interval() == pytest.approx((0.596, 0.982), abs=1e-3)


def test_blind_sheets_keep_their_key():
    """Every row shows each result once, in an order that the key tells."""
    holes = np.zeros((5, 8, 8, 3), np.float32)
    found = {
        name: constraint.Constrained(np.full((5, 8, 8, 3), level, np.float32), *np.zeros((3, 5)))
        for name, level in (("free", -1.0), ("present", 0.0), ("absent", 1.0))
    }
    sheet, key = constraint.blind_sheet(holes, found, seed=0, tile=128)
    assert sheet.shape == (5 * 148, 4 * 128, 3) and len({tuple(order) for order in key}) > 1
    levels = {"free": 0, "present": 128, "absent": 255}
    for i, order in enumerate(key):
        row = sheet[i * 148 : (i + 1) * 148]
        centres = [int(np.median(row[:, (k + 1) * 128 : (k + 2) * 128])) for k in range(3)]
        assert centres == [levels[name] for name in order]


def test_obedience_is_judged_by_the_second_classifier():
    one = constraint.Constrained(np.zeros((3, 1, 1, 3)), np.zeros(3), np.ones(3), np.asarray([0.9, 0.5, 0.1]))
    assert one.obeyed(1.0).tolist() == [True, False, False] and one.obeyed(0.0).tolist() == [False, True, True]


def test_the_shipped_classifier():
    """It is the one that the documents name, and sees the smile of the sample portrait."""
    network, found = checkpoint.load_network(checkpoint.CLASSIFIER, classifiers.StoredClassifier)
    assert found.startswith("4bd74fb669ca") and network.attributes == ("teeth_visible",)
    portrait = (sample.portrait(64) + 1) * 127.5
    assert learned.predict(network, np.rint(portrait)[None].astype(np.uint8), attribute="teeth_visible")[0] > 0


def test_commands(tmp_path, save_generator, run_commands):
    """A classifier is trained and measured, constrains a restoration, and is judged by a second one."""
    save_generator(tmp_path / "generator")
    write_npz(tmp_path / "faces.npz", size=2)
    config = f"--config={CONFIGS / 'classifier_teeth.py'}:smoke"
    names = ["--config.labels=bright", "--config.attribute=bright_below"]
    train = ["train", "--data=faces.npz", "--split=train", config, *names]
    restore = ["restore", "--generator=generator", "--starts=2", "--steps=2", "--keep=1"]
    restore += ["--config.search.coarse_share=0"]
    asked = ["--classifier=one/model", "--attribute=bright_below=1:0.5"]
    constrain = ["constrain", "--data=faces.npz", "--split=report", "--limit=2", "--generator=generator"]
    constrain += ["--attribute=bright_below", "--classifier=one/model", "--starts=2", "--steps=2", "--mask=centre"]
    constrain += ["--people=2", "--method=latent_search+search.coarse_share=0"]
    cases = [
        [*train, "--output=one", "--check=tune"],
        [*restore, *asked, "--output=restored"],
        [*restore, "--classifier=one/model", "--attribute=bright_bellow=1", "--output=no"],
        [*restore, "--method=biharmonic", "--attribute=bright_below=1", "--output=no"],
        [*restore, "--classifier=one/model", "--output=no"],
        [*constrain, "--judged_by=two/model", "--output=study"],
        [*constrain, "--judged_by=one/model", "--output=no"],
    ]
    second = classifiers.ConvolutionalConfig(attributes=("bright_below",), resolution=8, widths=(4,), convolutions=1)
    checkpoint.save_network(
        tmp_path / "two" / "model", ConvolutionalClassifier(second, rngs=nnx.Rngs(1)), provenance={}
    )
    done = run_commands("inpaint", cases, tmp_path)
    assert [code for code, _, _ in done] == [0, 0, 1, 1, 1, 0, 1], [errors for _, _, errors in done]
    assert "tune: " in done[0][1] and "tune, kernel ridge regression: " in done[0][1]
    reasons = {
        2: "no attribute 'bright_bellow'; perhaps bright_below",
        3: "--attribute constrains a search, and the method biharmonic makes none",
        4: "--classifier is given, but nothing in the objective asks for it",
        6: "is the classifier that the search asks; name another one",
    }
    for case, reason in reasons.items():
        assert reason in done[case][2] and done[case][2].count("\n") == 1, done[case][2]
    rows = json.loads((tmp_path / "restored" / "scores.json").read_text())
    assert all(0 < row["attributes"]["bright_below"] < 1 for row in rows)
    assert all("attribute:bright_below" in row["terms"] for row in rows)
    settings = json.loads((tmp_path / "restored" / "config.json").read_text())
    assert len(settings["options"]["networks"]["classifier"]) == 64
    figures = json.loads((tmp_path / "study" / "figures.json").read_text())
    assert set(figures["targets"]) == {"free", "present", "absent"} and figures["portraits"] == 2
    assert len(json.loads((tmp_path / "study" / "key.json").read_text())) == 2
    assert (tmp_path / "study" / "sheet.png").is_file() and not (tmp_path / "no").exists()


def test_expected_pixels_make_way_for_a_constraint():
    """They know nothing of it; who wants both says so."""
    config = named_methods.named("encoder_search")

    def weights():
        return {term.name: term.weight for term in named_methods.build_method(config).phases[-1].terms}

    assert weights()["expected_l2"] == config.search.expected > 0
    config.search.attributes = ("teeth_visible=1",)
    assert "expected_l2" not in weights() and weights()["attribute:teeth_visible"] == config.search.attribute_weight
    config.search.constrained_expected = 0.2
    assert weights()["expected_l2"] == 0.2
