# SPDX-License-Identifier: Apache-2.0
"""Studies by name: disturbances on arrays, grids that parse, tables in the layout of papers, the command for real."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import stylegan_jax as sg
from inpaint import holes, masks, named_methods, operators
from inpaint.experiments import papers, pictures, records, robustness, studies
from inpaint.experiments.parse import parse_method
from inpaint.experiments.report import tables
from inpaint.metrics import frechet_inception
from stylegan_jax import checkpoint, image_io, stylegan3
from stylegan_jax.features.inception import Inception, InceptionConfig
from stylegan_jax.features.judge import Judge, JudgeConfig

IMAGE = np.random.default_rng(0).uniform(-1, 1, (12, 12, 3)).astype(np.float32)
KNOWN = np.ones((12, 12), np.float32)
KNOWN[4:8, 3:7] = 0


@pytest.mark.parametrize("how", robustness.DISTURBANCES, ids=lambda how: how.name)
def test_disturbances(how):
    """Each changes what its name says, and nothing else."""
    image, known = robustness.disturb(IMAGE, KNOWN, how, seed=3)
    kind, _, pixels = how.name.partition(" ")
    n = int(pixels or 0)
    if kind in ("repeat", "seed"):
        np.testing.assert_array_equal(image, IMAGE)
        np.testing.assert_array_equal(known, KNOWN)
    if kind == "rounding":
        assert 0 < np.abs(image - IMAGE).max() <= 1.1e-6 and (known == KNOWN).all()
    if kind == "shifted":
        np.testing.assert_array_equal(image[:, n:], IMAGE[:, :-n])
        np.testing.assert_array_equal(known[:, n:], KNOWN[:, :-n])
        assert not known[:, :n].any()
        np.testing.assert_array_equal(robustness.moved(image, -n, fill=0.0)[:, :-n], IMAGE[:, :-n])
    if kind in ("dilated", "eroded"):
        np.testing.assert_array_equal(known, holes.grown(KNOWN, n if kind == "dilated" else -n))
        assert ((known <= KNOWN) if kind == "dilated" else (known >= KNOWN)).all() and (known != KNOWN).any()
    if kind == "moved":
        np.testing.assert_array_equal(1 - known[:, n:], 1 - KNOWN[:, :-n])
        assert known[:, :n].all() and (image == IMAGE).all()


@pytest.mark.parametrize("name", sorted(studies.STUDIES))
def test_studies_are_made_of_what_exists(name):
    """Methods, masks and degradations parse, labels differ, and what is compared with is among them."""
    study = studies.STUDIES[name]
    found = [parse_method(text) for text in study.texts("latent_search")]
    for method in found:
        named_methods.build_method(method.config)
    labels = [method.label for method in found]
    assert len(set(labels)) == len(labels)
    if study.kind != "semantics" and study.against is not None:
        assert study.against.replace("{method}", "latent_search") in labels
    for text in study.masks:
        masks.parse(text)
    for text in study.degradations:
        operators.parse(text, size=64, key=jax.random.key(0), channels=3)


def test_papers_ask_for_what_exists():
    """Every line of every table has a mask or degradation that parses, and numbers for all of its printed columns."""
    for name, group in papers.PAPERS.items():
        for text in papers.tasks([name])[name in papers.DEGRADED]:
            if name in papers.DEGRADED:
                operators.parse(text, size=64, key=jax.random.key(0), channels=3)
            else:
                masks.parse(text)
        for table in group:
            for line in table.lines:
                assert len(line.printed) == len(table.columns) and len(line.labels) == len(table.labels)
    assert len(papers.PAPERS["filipovski"][0].lines) == 12 and len(papers.PAPERS["difai"][0].lines) == 15


def test_tables_of_papers():
    """Ours are means in the paper's units beside its own numbers, which are called theirs; a dash is not measured."""

    def row(image, mask, **figures):
        return {"method": "m", "mask": mask, "image": image, "seed": 0, "metrics": figures}

    rows = [row("1", "noise:0.8", relative_l1=0.02, luminance_psnr=20.0)]
    rows += [row("2", "noise:0.8", relative_l1=0.04, luminance_psnr=22.0)]
    distances = {papers.cell_name("m", "noise:0.8"): 12.5}
    found = papers.filled(rows, distances)
    assert [table.title for table in found] == ["Filipovski et al., Table 1"]
    table = found[0]
    assert table.headings[2:] == ("m", "DCGAN (theirs, other data)", "StyleGAN (theirs, other data)")
    lines = {(line[0].text, line[1].text): [cell.text for cell in line[2:]] for line in table.rows}
    assert lines["l1, %", "noise"] == ["3.00", "5.6", "2.79"]
    assert lines["PSNR", "noise"] == ["21.000", "20.745", "25.654"]
    assert lines["FID", "noise"] == ["12.50", "203.981", "148.268"]
    assert lines["SSIM", "regular"] == ["-", "0.875", "0.891"]
    assert "other data" in tables.markdown(found) and tables.latex(found).count("tabular") == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny StyleGAN2, a tiny StyleGAN3, a judge, and an Inception a sixteenth as wide."""
    folder = tmp_path_factory.mktemp("studies")
    config = sg.GeneratorConfig(widths=(8, 8, 8), z_dim=4, w_dim=6, mapping_layers=2)
    third = stylegan3.GeneratorConfig(resolution=16, z_dim=4, w_dim=6, widths=(8, 8, 6, 4), mapping_layers=1)
    for name, generator in (
        ("generator", sg.Generator(config, rngs=nnx.Rngs(0))),
        ("third", stylegan3.Generator(third, rngs=nnx.Rngs(0))),
    ):
        statistics = sg.estimate_w_statistics(jax.random.key(0), generator, samples=200)
        sg.save(folder / name, sg.Model(generator, w_statistics=statistics))
    judge = Judge(JudgeConfig(resolution=16, widths=(4, 6), embedding=3), rngs=nnx.Rngs(1))
    checkpoint.save_network(folder / "judge", judge, provenance={})
    inception = Inception(InceptionConfig(narrower=16, classes=2), rngs=nnx.Rngs(2))
    checkpoint.save_network(folder / "inception", inception, provenance={})
    return folder


def distances(folder, evaluated):
    """Returns FID of every mask of an evaluation by one method, from the pictures that it left."""
    network, content_hash = checkpoint.load_network(folder / "inception", Inception)
    rows, found = records.Records(folder / evaluated).rows.values(), {}

    def statistics(paths):
        images = [image_io.read_picture(path).levels for path in paths]
        return frechet_inception.inception_statistics(
            network, images, convention="pytorch_fid", network_hash=content_hash
        )

    for mask in {row["mask"] for row in rows}:
        own = [row for row in rows if row["mask"] == mask]
        sides = (
            statistics(path_of(folder / evaluated, row) for row in own)
            for path_of in (pictures.picture_path, pictures.truth_path)
        )
        found[mask] = frechet_inception.inception_distance(*sides)
    return found


BASE = ["--judge=judge", "--samples=2", "--starts=2", "--steps=2"]
MOVED = "--methods=moved=latent_search+search.space=w&transform+search.pool=2"


@pytest.mark.slow
def test_robustness_for_real(folder, run_commands):
    """Every disturbance has a row, the repeat is the floor, another seed is far from it, and a second call skips."""
    call = ["evaluate", "--study=robustness", *BASE, "--generator=generator", "--methods=brief", "--output=robust"]
    done = run_commands("inpaint", [call, call], folder)
    assert [code for code, _, _ in done] == [0, 0], [errors for _, _, errors in done]
    assert "2 of 2 images" in done[0][1] and "2 of 2 images" not in done[1][1]
    found = records.Records(folder / "robust").rows
    # Of 16 pixels, 8 of them hidden, the strongest ones leave no hole or nothing else.
    assert {key.mask for key in found} == {how.name for how in robustness.DISTURBANCES} - {"eroded 4", "dilated 4"}
    for key, row in found.items():
        figures = row["metrics"]
        if key.mask == "repeat":
            assert figures["change_distance"] == 0 and figures["latent_change"] == 0
        if key.mask == "seed":
            assert figures["latent_change"] > 0.1 and figures["change_distance"] > 0
        assert figures["known_psnr"] is not None and figures["start_deviation"] > 0
    assert "the same search again agrees with itself" in (folder / "robust" / "report.md").read_text()


def test_papers_and_refusals(folder, run_commands):
    """A paper's table stands in the report, with its command noted; what makes no sense is told in one line."""
    base = [*BASE, "--generator=generator"]
    done = run_commands(
        "inpaint",
        [
            ["evaluate", "--study=papers", *base, "--papers=filipovski", "--methods=biharmonic", "--output=papers"]
            + ["--inception=inception"],
            ["evaluate", "--study=semantics", *base, "--output=no"],
            ["evaluate", "--study=robustness", *base, "--masks=centre,mouth", "--output=no"],
            ["evaluate", "--study=papers", *base, "--papers=magic", "--output=no"],
            ["evaluate", "--study=quality", *base, "--data=x.npz", "--output=no"],
        ],
        folder,
    )
    assert [code for code, _, _ in done] == [0, 1, 1, 1, 1], [errors for _, _, errors in done]
    reasons = (
        "--judged_by is needed",
        "takes one mask, got 2",
        "unknown paper 'magic'",
        "--samples exclude each other",
    )
    for (_, _, errors), reason in zip(done[1:], reasons, strict=True):
        assert reason in errors and errors.count("\n") == 1, errors
    page = (folder / "papers" / "report.md").read_text()
    assert "203.981" in page
    measured = papers.read_distances(folder / "papers")
    for mask, distance in distances(folder, "papers").items():
        assert measured[papers.cell_name("biharmonic", mask)] == pytest.approx(distance, rel=1e-4)
        assert distance > 0 and f"{distance:.2f}" in page
    calls = [json.loads(line) for line in (folder / "papers" / "commands.jsonl").read_text().splitlines()]
    assert calls[0]["papers"] == ["filipovski"] and not (folder / "no" / "rows.jsonl").exists()


@pytest.mark.slow
def test_slower_studies_for_real(folder, run_commands):
    """Robustness of a StyleGAN3 whose input's transform is searched, and where a search begins."""
    done = run_commands(
        "inpaint",
        [
            ["evaluate", "--study=robustness", *BASE, "--generator=third", MOVED, "--output=turned"],
            ["evaluate", "--study=initialisation", *BASE, "--generator=generator", "--output=begins"],
        ],
        folder,
    )
    assert [code for code, _, _ in done] == [0, 0], [errors for _, _, errors in done]
    assert all(row["metrics"]["latent_change"] is not None for row in records.Records(folder / "turned").rows.values())
    assert {key.method for key in records.Records(folder / "begins").rows} == {
        f"{name}, {kind}" for name in ("mean", "random", "prescreen") for kind in ("1 start", "best of 2")
    }
