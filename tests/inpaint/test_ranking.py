# SPDX-License-Identifier: Apache-2.0
"""What ranks starts: scores and sums of them, how well they agree with the truth, and the command that measures it."""

import json

import numpy as np
import pytest
import scipy.stats

from inpaint.experiments import ranking
from inpaint.search import scoring


def test_rank_correlation_is_spearmans():
    """As SciPy has it, with ties; NaN where one row is constant."""
    draws = np.random.default_rng(0)
    for levels in (3, 1000):
        one, other = draws.integers(0, levels, (2, 20)).astype(float)
        expected = scipy.stats.spearmanr(one, other).statistic
        assert ranking.rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ranking.rank_correlation(np.ones(4), np.arange(4.0)))


def test_sums_of_scores():
    """Parts count in units of their deviation over the starts of an image, whatever their size; infinite stays so."""
    scores = {
        "objective": np.asarray([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]),
        "critic": np.asarray([[5.0, 5.0, 5.0], [0, 2, 1]]),
    }
    found = scoring.combined(scores, {"objective": 1.0, "critic": 2.0})
    unit = np.sqrt(1.5)
    np.testing.assert_allclose(found, [[-unit, 0, unit], [-unit - 2 * unit, 2 * unit, unit]], rtol=1e-12)
    scores["objective"][0, 1] = np.inf
    found = scoring.combined(scores, {"objective": 1.0})
    np.testing.assert_allclose(found[0], [-1, np.inf, 1])
    assert scoring.parse_score("objective+critic:0.5") == {"objective": 1.0, "critic": 0.5}
    for text, message in (
        ("truth", "unknown or repeated score 'truth'; known: objective, centrality, l2"),
        ("l2+l2", "unknown or repeated score 'l2'"),
        ("l2:x", "the weight of l2 must be a number, got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            scoring.parse_score(text)


def test_quality_of_scores():
    """A score that orders as the truth does has correlation 1 and gains all that can be gained; the opposite loses."""
    psnr = np.random.default_rng(1).normal(20, 1, (5, 6))
    ranked = ranking.Ranked({"good": -psnr, "bad": psnr}, psnr, -psnr)
    good, bad = (ranking.quality(ranked, ranked.scores[name]) for name in ("good", "bad"))
    assert good.psnr_correlation == pytest.approx(1) and bad.psnr_correlation == pytest.approx(-1)
    assert good.psnr_gain[0] == pytest.approx(np.median(psnr.max(1) - psnr.mean(1)))
    assert bad.psnr_gain[0] == pytest.approx(np.median(psnr.min(1) - psnr.mean(1)))
    assert (
        good.feature_gain[0] < 0 < bad.feature_gain[0] and good.psnr_gain[1] <= good.psnr_gain[0] <= good.psnr_gain[2]
    )
    lines = ranking.table(ranked).splitlines()
    assert len(lines) == 6 and lines[2].startswith("| good | +1.00 | +1.00 | +")


@pytest.mark.slow
def test_command(tmp_path, save_generator, run_commands):
    """The study writes its table, figures and all scores; what cannot be ranked is told in one line."""
    save_generator(tmp_path / "generator")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "faces.npz", images=pixels, split=np.asarray(["tune"] * 3))
    rank = ["rank", "--data=faces.npz", "--generator=generator", "--starts=4", "--limit=3", "--together=2"]
    rank += ["--combinations=objective+centrality:0.5"]
    method = "--method=latent_search+search.coarse_share=0+search.pool=4+search.steps=3"
    cases = [
        [*rank, method, "--output=out"],
        [*rank, "--method=biharmonic", "--output=no"],
        [*rank[:-1], "--combinations=objective+truth", method, "--output=no"],
    ]
    results = run_commands("inpaint", cases, tmp_path)
    assert [result[0] for result in results] == [0, 1, 1], results
    facts = json.loads((tmp_path / "out" / "figures.json").read_text())
    names = {"objective", "centrality", "l2", "l1", "gradient", "mahalanobis", "high_band", "style_spread"}
    assert set(facts["scores"]) == names | {"objective+centrality:0.5"} and facts["portraits"] == 3
    with np.load(tmp_path / "out" / "scores.npz") as arrays:
        assert set(arrays.files) == names | {"hole_psnr", "feature_distance"}
        assert all(arrays[name].shape == (3, 4) for name in arrays.files)
    assert "| objective |" in results[0][1] and "truth: hole error" in results[0][1]
    assert "makes no search" in results[1][2] and "unknown or repeated score 'truth'" in results[2][2]
