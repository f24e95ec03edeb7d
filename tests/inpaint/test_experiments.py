# SPDX-License-Identifier: Apache-2.0
"""Evaluations: rows that survive a kill, grids that go on, tables that count right; and the command for real."""

import json
import string

import jax
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from inpaint import config, masks, output
from inpaint.experiments import assess, grid, records, table
from stylegan_jax import checkpoint, image_io
from stylegan_jax.features.judge import Judge, JudgeConfig

SETTINGS = {"method": "a", "rate": 0.5}


def row(image, *, method="a", mask="centre", seed=0, **figures):
    base = {"method": method, "mask": mask, "image": str(image), "seed": seed, "hole_share": 0.25, "seconds": 1.0}
    base["inputs_sha256"] = "digest"
    return base | {"forwards": 3, "gradients": 10, "metrics": figures}


def test_rows_come_back(tmp_path):
    """From every file of the folder, with their settings."""
    first = records.Records(tmp_path / "new", name="rows-0-of-2.jsonl")
    first.append([row(1), row(2)], SETTINGS)
    first.append([row(3)], SETTINGS)
    records.Records(tmp_path / "new", name="rows-1-of-2.jsonl").append([row(4)], SETTINGS)
    found = records.Records(tmp_path / "new")
    assert sorted(key.image for key in found.rows) == ["1", "2", "3", "4"]
    assert found.settings[records.fingerprint(SETTINGS)]["rate"] == 0.5
    assert len((tmp_path / "new" / "rows-0-of-2.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("kept", [0, 1, 30, None])
def test_a_torn_line_is_made_again(tmp_path, kept):
    """A kill in the middle of a write costs the torn row, even if its line feed alone is missing, and what follows is
    written behind whole lines."""
    writer = records.Records(tmp_path)
    writer.append([row(1)], SETTINGS)
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole + (json.dumps(row(2)).encode())[:kept])
    again = records.Records(tmp_path)
    assert [key.image for key in again.rows] == ["1"]
    again.append([row(2)], SETTINGS)
    assert [key.image for key in records.Records(tmp_path).rows] == ["1", "2"]
    assert writer.path.read_bytes().startswith(whole)


def test_damage_elsewhere_is_an_error(tmp_path):
    """A line that is no JSON in the middle of a file is named."""
    (tmp_path / "rows.jsonl").write_text('{"broken\n' + json.dumps({"settings": "x"}) + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl is damaged in line 1"):
        records.Records(tmp_path)


def test_foreign_folders_are_refused(tmp_path):
    """Nothing is mixed into a folder with other files, nor written over a file."""
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="holds other files"):
        records.Records(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        records.Records(tmp_path / "notes.txt")


def test_rows_of_other_settings_are_not_taken_for_finished(tmp_path):
    """The same cell under other settings is an error, an unknown one is open."""
    found = records.Records(tmp_path)
    found.append([row(1)], SETTINGS)
    wanted, expected = records.Identity("a", "centre", "1", 0), records.fingerprint(SETTINGS)
    assert found.finished(wanted, expected, "digest")
    assert not found.finished(wanted._replace(image="2"), expected, "digest")
    with pytest.raises(ValueError, match="made with other settings"):
        found.finished(wanted, "other", "digest")
    with pytest.raises(ValueError, match="made from another image or mask"):
        found.finished(wanted, expected, "another")


def portraits(count):
    return grid.Portraits(np.zeros((count, 8, 8, 3), np.uint8), tuple(map(str, range(count))), np.arange(count))


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_cell_is_run_once(tmp_path, shards, batch):
    """Over all shards, whatever the batch, and less what is finished."""
    methods = tuple(grid.NamedConfig(name, config.RestoreConfig()) for name in ("a", "b"))
    whole = grid.Grid(methods, (masks.parse("centre"), masks.parse("mouth")), portraits(5), (0, 7))
    found = records.Records(tmp_path)
    digest = grid.inputs_digest(whole.portraits.images[3], whole.known(masks.parse("mouth"), 3))
    finished = row(3, method="b", mask=masks.parse("mouth").name, seed=7) | {"inputs_sha256": digest}
    found.append([finished], SETTINGS)
    prints = {"a": "x", "b": records.fingerprint(SETTINGS)}
    cells = [
        (unit.method.label, unit.mask.name, unit.seed, i)
        for shard in range(shards)
        for unit in whole.units(found, prints, batch={"a": batch, "b": batch}, shard=(shard, shards))
        for i in unit.index
        if len(unit.index) <= batch
    ]
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 5 - 1
    assert ("b", masks.parse("mouth").name, 7, 3) not in cells


def test_masks_belong_to_images():
    """The mask of an image depends on its number and the seed, not on its neighbours."""
    strokes = masks.parse("strokes:0.2-0.3")
    first = grid.draw_mask(strokes, 5, 32, seed=0)
    np.testing.assert_array_equal(first, grid.draw_mask(masks.parse("strokes:0.2-0.3"), 5, 32, seed=0))
    assert (first != grid.draw_mask(strokes, 6, 32, seed=0)).any()
    assert (first != grid.draw_mask(strokes, 5, 32, seed=1)).any()


def test_portraits_are_evenly_spaced(tmp_path):
    """A limit takes the first, the last, and what lies evenly between; names are the numbers in the npz."""
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    split = np.asarray(["train", *["report"] * 9])
    np.savez(tmp_path / "images.npz", images=images, split=split)
    found = grid.load_portraits(str(tmp_path / "images.npz"), resolution=8, split="report", limit=3)
    assert found.names == ("1", "5", "9") and found.ids.tolist() == [1, 5, 9]
    assert found.images[:, 0, 0, 0].tolist() == [1, 5, 9]
    for i in (1, 2):
        image_io.write_image(tmp_path / "folder" / f"face{i}.png", images[i])
    found = grid.load_portraits(str(tmp_path / "folder"), resolution=8)
    assert found.names == ("face1.png", "face2.png") and found.ids[0] != found.ids[1]


def test_bootstrap_interval():
    """It holds the median, is as wide as theory says for normal values, and is repeatable."""
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = table.bootstrap_interval(values)
    assert low < np.median(values) < high
    # The standard deviation of a median of n normal values is sqrt(pi / 2n).
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(np.pi / 800), rel=0.35)
    assert (low, high) == table.bootstrap_interval(values)
    with pytest.raises(ValueError, match="at least 1"):
        table.bootstrap_interval(np.zeros(0))


def test_figures_are_averaged_over_seeds():
    """One value for every image; images without the figure are left out."""
    rows = [row(1, x=1.0), row(1, seed=1, x=3.0), row(2, x=5.0), row(3, x=None)]
    assert table.per_image(rows, "x") == {"1": 2.0, "2": 5.0}


def test_report_compares_pairs():
    """Medians, and the paired difference against a method, whose interval does not see how images differ."""
    noise = np.random.default_rng(0).normal(0, 5, 30)
    true = [[0.0, i] for i in range(30)]
    rows = [row(i, hole_psnr=20 + noise[i], embedding=[noise[i], 1.0], true_embedding=true[i]) for i in range(30)]
    rows += [row(i, method="b", hole_psnr=22 + noise[i], embedding=true[i], true_embedding=true[i]) for i in range(30)]
    text = table.report(rows, against="a")
    assert "| b | +2 [+2, +2] |" in text
    line = next(line for line in text.splitlines() if line.startswith("| b | 30"))
    assert f"{np.median(22 + noise):.2f}" in line and "| 0.000 | 3 + 10 | 30 |" in line
    with pytest.raises(ValueError, match="no rows of 'c'"):
        table.report(rows, against="c")


def test_overview_of_masks():
    """Methods by masks: medians, the best in bold, signs where the paired interval leaves out 0."""

    def row(method, mask, image, psnr, distance):
        figures = {
            "composite_hole_psnr": psnr,
            "feature_distance": distance,
            "embedding": [0.0],
            "true_embedding": [0.0],
        }
        counts = {"forwards": 1, "gradients": 1, "seconds": 1.0, "hole_share": 0.5}
        return {"method": method, "mask": mask, "image": str(image), "seed": 0, "metrics": figures} | counts

    # b is 1 dB behind a on the first mask, whatever the image, and on the second as often ahead as behind.
    rows = [row("a", mask, i, 20.0 + i, 0.5) for mask in ("first", "second") for i in range(8)]
    rows += [row("b", "first", i, 19.0 + i, 0.25) for i in range(8)]
    rows += [row("b", "second", i, 20.0 + i + (-1) ** i, 0.5) for i in range(8)]
    rows.append(row("c", "second", 0, 25.0, 0.75))
    lines = table.report(rows, against="a").splitlines()
    psnr = lines.index("Hole PSNR of the composite, dB:")
    assert lines[psnr + 2] == "| method | first | second |"
    assert lines[psnr + 4 : psnr + 7] == [
        "| a | **23.50** | 23.50 |",
        "| b | 22.50 - | 23.50 |",
        "| c | - | **25.00** |",
    ]
    distance = lines.index("Feature distance:")
    assert lines[distance + 5] == "| b | **0.2500** + | **0.5000** |"
    frechet = lines.index("Frechet distance:")
    assert lines[frechet + 4 : frechet + 7] == [
        "| a | **0.000** | **0.000** |",
        "| b | **0.000** | **0.000** |",
        "| c | - | - |",
    ]
    assert "Overview" not in table.report([r for r in rows if r["mask"] == "first"], against="a")


def test_rows_from_before_a_figure_was_measured_make_tables():
    """The hole PSNR of the composite stands beside the render's, and is a dash where no row has it."""
    pair = dict(embedding=[0.0, 1.0], true_embedding=[0.0, 1.0])
    rows = [row(1, hole_psnr=20.0, **pair), row(1, method="b", hole_psnr=21.0, composite_hole_psnr=24.0, **pair)]
    lines = table.report(rows, against="a").splitlines()
    assert any(line.startswith("| a | 1 | 20.00 | - |") for line in lines)
    assert any(line.startswith("| b | 1 | 21.00 | 24.00 |") for line in lines)
    assert any(line.startswith("| b | +1 [+1, +1] | - |") for line in lines)


def test_settings_of_other_composites_do_not_count():
    """Rows from before there were composites with settings of their own are those of the same settings."""

    def decided(**settings):
        return grid.settings_of(grid.NamedConfig("a", config.RestoreConfig(**settings)), {})["config"]

    assert decided(composite="hard").keys().isdisjoint({"reach", "band"})
    assert decided(composite="feathered", reach=9.0) == decided(composite="feathered")
    assert decided(composite="carried", reach=9.0) != decided(composite="carried")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, and a tiny generator and judge."""
    folder = tmp_path_factory.mktemp("evaluate")
    generator = sg.Generator(sg.GeneratorConfig(widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2), rngs=nnx.Rngs(0))
    statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
    sg.save(folder / "generator", sg.Model(generator, w_statistics=statistics))
    judge = Judge(JudgeConfig(resolution=16, widths=(4, 6), embedding=3), rngs=nnx.Rngs(1))
    checkpoint.save_network(folder / "judge", judge, provenance={})
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, split=np.asarray(["train"] * 6 + ["report"] * 3))
    for i in range(9):
        image_io.write_image(folder / "images" / f"{i}.png", images[i % 6])
    (folder / "foreign").mkdir()
    (folder / "foreign" / "notes.txt").write_text("keep me")
    (folder / "quick.py").write_text(
        "from inpaint.config import RestoreConfig, SearchConfig\n"
        "def get_config(variant=''):\n"
        "    return RestoreConfig(search=SearchConfig(space='w', pool=4))\n"
    )
    (folder / "three.py").write_text("def get_config(variant=''):\n    return 3\n")
    return folder


SEARCH = ["--generator=generator", "--judge=judge", "--starts=2", "--steps=2", "--batch=2"]
WHOLE = [*SEARCH, "--data=images.npz", "--split=report", "--masks=centre,noise:0.5", "--against=ridge"]
METHODS = "--methods=quick=quick.py+search.mahalanobis=1.0,ridge"


def test_evaluate_for_real(folder, run_commands):
    """Shards, a rerun and one whole run give the same rows; the table and sheets are there."""
    outcomes = run_commands(
        "inpaint",
        [
            ["evaluate", *WHOLE, METHODS, "--dry_run", "--output=plan"],
            ["evaluate", *WHOLE, METHODS, "--output=whole"],
            ["evaluate", *WHOLE, METHODS, "--output=parts", "--shard=0/2"],
            ["evaluate", *WHOLE, METHODS, "--output=parts", "--shard=1/2"],
            ["evaluate", *WHOLE, METHODS, "--output=parts", "--table_only"],
            ["evaluate", *WHOLE, METHODS.replace("=1.0", "=2.0"), "--output=parts"],
            ["evaluate", *WHOLE, METHODS, "--output=parts", "--mask_seed=1", "--table_only"],
            ["evaluate", *WHOLE, METHODS, "--output=fourth", "--shard=3/4"],
        ],
        folder,
    )
    assert [code for code, _, _ in outcomes] == [0, 0, 0, 0, 0, 1, 1, 0], outcomes
    assert "no image falls to this process" in outcomes[7][1]
    assert "3 of 3 restorations left, 6 renders and 6 gradients each" in outcomes[0][1]
    assert not (folder / "plan").exists()
    assert "made with other settings" in outcomes[5][2] and outcomes[5][2].count("\n") == 1
    whole, parts = (records.Records(folder / name).rows for name in ("whole", "parts"))
    assert len(whole) == 2 * 2 * 3 and whole.keys() == parts.keys()
    assert "12 of 12 rows" in outcomes[4][1]
    for key, one in whole.items():
        for name, value in one["metrics"].items():
            if isinstance(value, float):
                # Other batches run other programs, which round differently.
                assert parts[key]["metrics"][name] == pytest.approx(value, rel=2e-3, abs=1e-4), (key, name)
        assert one["metrics"]["best_of_k_hole_psnr"] >= one["metrics"]["hole_psnr"] - 1e-4
    assert "## noise:0.5 (hole 50 %)" in (folder / "whole" / "table.md").read_text()
    sheet, _ = image_io.read_image(folder / "whole" / "sheets" / "centre_0.25.png")
    assert sheet.shape == (3 * 148, 4 * 128, 3)
    assert len(list((folder / "whole" / "images").rglob("*.png"))) == 12


BAD = {
    "no data": ([], "--data is needed"),
    "missing data": (["--data=nowhere.npz"], "nowhere.npz does not exist"),
    "unknown split": ([*SEARCH, "--data=images.npz", "--split=magic"], "with split 'magic'"),
    "unknown method": ([*WHOLE, "--methods=magic"], "unknown method 'magic'"),
    "method twice": ([*WHOLE, "--methods=ridge,ridge"], "methods named twice: ridge"),
    "unknown setting": ([*WHOLE, "--methods=quick.py+search.magic=1"], "unknown setting 'search.magic'"),
    "no setting": ([*WHOLE, "--methods=quick.py+search"], "config file quick.py+search does not exist"),
    "setting of another type": ([*WHOLE, "--methods=quick.py+search.steps=abc"], "must be of type int, got 'abc'"),
    "setting of settings": ([*WHOLE, "--methods=quick.py+search=5"], "must be of type SearchConfig, got 5"),
    "unknown selection": ([*WHOLE, "--methods=ridge,quick.py+search.select=x", "--dry_run"], "unknown selection 'x'"),
    "no feather": ([*WHOLE, "--methods=ridge,quick.py+feather=0"], "config.feather must be above 0"),
    "brief in another space": (
        [*WHOLE, "--methods=ridge,brief+search.space=w+"],
        "the method brief has space of its own",
    ),
    "seed twice": ([*WHOLE, "--seeds=1,01"], "seeds named twice: 1"),
    "missing config": ([*WHOLE, "--methods=none.py"], "config file none.py does not exist"),
    "foreign config": ([*WHOLE, "--methods=three.py"], "must return a RestoreConfig"),
    "unknown mask": ([*WHOLE, "--masks=magic"], "magic"),
    "mask twice": ([*WHOLE, "--masks=centre,centre:0.25"], "masks named twice"),
    "seeds": ([*WHOLE, "--seeds=one"], "--seeds must be non-negative integers"),
    "shard": ([*WHOLE, "--shard=2/2"], "--shard must be I/N"),
    "against": ([*WHOLE, "--against=brief"], "--against 'brief' is none of the methods"),
    "judge": ([*WHOLE, "--judge=generator"], "a Judge is needed"),
    "generator": ([*WHOLE, "--generator=judge"], "a generator is needed"),
    "own training data": (["--data=images.npz", *SEARCH, "--methods=ridge"], "fitted on the images they are scored on"),
    "foreign folder": ([*WHOLE, "--methods=ridge", "--output=foreign"], "holds other files"),
    "nothing there": ([*WHOLE, "--methods=ridge", "--table_only", "--output=none"], "holds no rows"),
    "argument": ([*WHOLE, "images"], "unexpected argument 'images'"),
}


@pytest.fixture(scope="module")
def refused(folder, run_commands):
    outcomes = run_commands("inpaint", [["evaluate", *arguments] for arguments, _ in BAD.values()], folder)
    return dict(zip(BAD, outcomes, strict=True))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_clear_line(name, refused):
    """And a failing exit code."""
    code, _, stderr = refused[name]
    assert code in (1, 2) and stderr.count("\n") == 1, stderr
    assert BAD[name][1] in stderr


@pytest.mark.slow
def test_assess_for_real(folder, run_commands):
    """Figures and pictures are there; held-back images must be held back; nothing is overwritten unasked."""
    options = ["--generator=generator", "--judge=judge", "--data=images.npz", "--split=report", "--samples=32"]
    options += ["--invert=2", "--starts=2", "--steps=2", "--output=assessed"]
    outcomes = run_commands(
        "inpaint",
        [
            ["assess", *options, "--restored=images"],
            ["assess", *options],
            ["assess", *options, "--split=train"],
            ["assess", *options, "--output=foreign"],
            ["assess"],
        ],
        folder,
    )
    assert [code for code, _, _ in outcomes] == [0, 1, 1, 1, 1], outcomes
    figures = json.loads((folder / "assessed" / "figures.json").read_text())
    assert 0 <= figures["recall"] <= 1 and figures["frechet"] > 0 and figures["nearest"] > 0
    # The folder holds copies of training images.
    assert figures["restored_nearest"] < 1e-3
    for name, size in {"samples": (128, 256), "interpolation": (128, 256), "inversion": (64, 64)}.items():
        assert image_io.read_image(folder / "assessed" / f"{name}.png")[0].shape[:2] == size, name
    for (_, _, error), text in zip(outcomes[1:], ("--overwrite", "trained on", "other files", "--data"), strict=True):
        assert text in error and error.count("\n") == 1


def test_samples_do_not_depend_on_their_number():
    """Sample i is the key's, however many are drawn."""
    config = sg.GeneratorConfig(widths=(4, 4), z_dim=4, w_dim=4, mapping_layers=1)
    generator = sg.Generator(config, rngs=nnx.Rngs(0))
    few, many = (assess.draw_samples(jax.random.key(0), generator, count) for count in (3, 60))
    assert many.shape == (60, 8, 8, 3) and np.abs(many).max() <= 1
    np.testing.assert_array_equal(few, many[:3])
    assert np.abs(many[0] - many[1]).max() > 1e-3


def test_memory_is_noticed():
    """Copies of training images are at distance 0, new ones as far as those held back."""
    rng = np.random.default_rng(0)
    images = np.zeros((40, 2, 2, 3), np.float32)
    train, held_back, new = (assess.Embedded(images, rng.normal(size=(40, 6))) for _ in range(3))
    assert assess.nearest_ratio(train, train, held_back) == 0
    assert assess.nearest_ratio(new, train, held_back) == pytest.approx(1, abs=0.3)
    found = assess.distances(train, train, held_back)
    assert found["frechet"] == pytest.approx(found["frechet_floor"]) and found["precision"] == found["recall"] == 1


def test_file_names_differ_where_texts_do():
    """Plain names stay as they are; what had to be replaced leaves a checksum."""
    names = ["19", "a.png", "a/b.png", "a_b.png", "\u5c71.png", "\u5ddd.png", "centre:0.25"]
    found = [output.file_name(name) for name in names]
    assert len(set(found)) == len(names) and found[:2] == names[:2] and found[-1] == "centre_0.25"
    assert all(set(name) <= set(string.ascii_letters + string.digits + "._-") for name in found)


def test_masks_are_drawn(folder, run_commands):
    """Files of the asked size, the same for the same seed; nothing is overwritten unasked; help names every flag."""
    draw = ["mask", "--kind=strokes:0.2-0.3", "--size=32", "--output=drawn"]
    outcomes = run_commands(
        "inpaint",
        [
            [*draw, "--count=2"],
            [*draw, "--seed=1", "--overwrite"],
            draw,
            ["mask", "--kind=magic"],
            ["mask", "--help"],
            ["evaluate", "--help"],
        ],
        folder,
    )
    assert [code for code, _, _ in outcomes] == [0, 0, 1, 1, 0, 0], outcomes
    known = [image_io.read_mask(folder / "drawn" / f"strokes_0.2-0.3_{i}.png") for i in (0, 1)]
    for i, mask in enumerate(known):
        np.testing.assert_array_equal(mask, masks.parse("strokes:0.2-0.3")(jax.random.key(i), 32))
    assert "exists already" in outcomes[2][2] and "unknown mask" in outcomes[3][2]
    for text, flag in ((outcomes[4][1], "--kind"), (outcomes[5][1], "--dry_run"), (outcomes[5][1], "--debug")):
        assert flag in text
