# SPDX-License-Identifier: Apache-2.0
"""Reports: figures that can be computed by hand, text that cannot become markup, pictures by rule, and the page in a
real browser where one is installed."""

import csv
import html.parser
import io
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest
from scipy import stats

from inpaint.experiments import pictures, records
from inpaint.experiments.pictures import Shown
from inpaint.experiments.report import build, choice, statistics, summary, tables

HOSTILE = "\"><img src=x onerror=document.title='owned'><script>document.title='owned'</script>&|$x_1$\\%"


def row(image, value, *, method="a", mask="centre", seed=0, **figures):
    base = {"method": method, "mask": mask, "image": str(image), "seed": seed, "hole_share": 0.25, "seconds": 1.0}
    figures |= {"feature_distance": value, "composite_hole_psnr": 30 - 10 * value, "kept_distance": (7 * image) % 5}
    return base | {"inputs_sha256": "d", "forwards": 3, "gradients": 10, "frozen": 0, "metrics": figures}


def two_methods(count=12):
    """Rows of a method b that is better than a by 0.1 on every image, whatever the image is like."""
    level = np.random.default_rng(0).uniform(1, 2, count)
    rows = [row(i, float(x)) for i, x in enumerate(level)]
    return rows + [row(i, float(x) - 0.1 - 0.001 * i, method="b") for i, x in enumerate(level)]


def test_estimates():
    """Means and medians are numpy's, intervals hold them and are as wide as theory says."""
    x = np.random.default_rng(1).normal(5, 2, 200)
    found = statistics.estimate(x)
    assert found.mean == pytest.approx(x.mean()) and found.median == pytest.approx(np.median(x))
    low, high = found.mean_interval
    assert low < found.mean < high
    # Ten thousand resamples know a quantile to about 2 % of the width.
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / np.sqrt(200), rel=0.05)


def test_paired_comparison():
    """Differences are taken image by image, p is SciPy's, and too few images give none."""
    rng = np.random.default_rng(2)
    ours = {str(i): float(v) for i, v in enumerate(rng.normal(0, 1, 20))}
    theirs = {image: v + 0.3 + 0.1 * rng.normal() for image, v in ours.items()} | {"other": 9.0}
    found = statistics.paired(ours, theirs)
    difference = [ours[image] - theirs[image] for image in ours]
    assert found.count == 20 and found.higher == 0 and found.median == pytest.approx(np.median(difference))
    assert found.p == pytest.approx(stats.wilcoxon(difference, zero_method="zsplit").pvalue)
    assert found.interval[0] < found.median < found.interval[1] < 0
    assert np.isnan(statistics.paired({str(i): 1.0 * i for i in range(5)}, {str(i): 0.0 for i in range(5)}).p)
    assert statistics.paired(ours, ours).p == 1 and statistics.paired({"a": 1.0}, {"b": 1.0}) is None


def test_holm():
    """The example of Holm's procedure that is worked by hand: 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06."""
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = statistics.holm([float("nan"), 0.04, 0.9])
    assert np.isnan(found[0]) and found[1:] == pytest.approx([0.08, 0.9])


def test_figures_of_untouched_images_divide():
    """Detail is told as a share of the truth's, image by image; images without a truth are left out."""
    figure = next(f for f in statistics.FIGURES if f.name == "laplacian_ratio")
    rows = [row(0, 1.0, laplacian_ratio=1.0, true_laplacian_ratio=2.0), row(1, 1.0, laplacian_ratio=1.0)]
    assert statistics.values(rows, figure) == {"0": 0.5}


def test_tables_say_who_is_better():
    """The best mean is marked, and the test tells a constant difference from chance."""
    by_method = statistics.cells(two_methods())["centre"]
    table = tables.figures_table(by_method, title="t")
    column = table.headings.index("feature distance")
    assert [line[0].text for line in table.rows if line[column].best] == ["b"]
    tested = tables.tests_table(by_method, "a", title="t")
    p = tested.rows[0][tested.headings.index("feature distance") + 1]
    assert p.value == pytest.approx(2 / 2**12) and p.text == "< 0.001"


def test_tables_are_text_whatever_the_names():
    """Pipes, markup, TeX and formulas of spreadsheets stay text in every form."""
    rows = [row(i, 1.0 + i, method=m) for i in range(8) for m in (HOSTILE, "=1+1", "a_b & 50 %")]
    every = tables.all_tables(rows, against="=1+1")
    markdown = tables.markdown(every)
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in {len(t.headings) + 1 for t in every}
    assert "<img" not in markdown and "<script" not in markdown
    lines = list(csv.reader(io.StringIO(tables.comma_separated(every))))
    assert {len(line) for line in lines} == {5} and "'=1+1" in {line[1] for line in lines}
    latex = tables.latex(every)
    assert r"a\_b \& 50 \%" in latex and r"\$x\_1\$\textbackslash{}\%" in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == len(every)


def test_the_answer_is_read_from_the_figures():
    """Who is best, by how much, and who cannot be told apart; the same words turn with the figures."""
    rows = two_methods()
    said = " ".join(summary.answer(rows, against="a"))
    assert "centre (25 % hidden, 12 images): b has the best mean feature distance" in said
    assert "Against a, better: b." in said
    turned = [r | {"method": {"a": "b", "b": "a"}[r["method"]]} for r in rows]
    assert "Against a, worse: b." in " ".join(summary.answer(turned, against="a"))
    few = " ".join(summary.answer(two_methods(4), against="a"))
    assert "With 4 images no difference to a can be told" in few
    noise = [row(i, float(np.sin(7 * i)), method=m) for i in range(9) for m in "ab"]
    assert "not to be told from it: b" in " ".join(summary.answer(noise, against="a"))


def test_pictures_are_chosen_by_rule():
    """Best, median, worst by the judge's distance, the most diverse by that of the kept; seeds are not mixed."""
    rows = [row(i, (3.0, 1.0, 2.0, 5.0, 4.0)[i]) for i in range(5)] + [row(0, 0.0, seed=1)]
    found = {chosen.rule: chosen.row["image"] for chosen in choice.choose(rows)}
    assert found == {"best": "1", "median": "0", "worst": "3", "most diverse": "2"}
    assert [c.row["image"] for c in choice.choose(rows, named=["4"]) if c.rule == "named"] == ["4"]


def test_commands_are_narrowed_to_a_row():
    """A picture's command is the call's, with the row's own method, mask and seed in place of all of them."""
    call = {
        "arguments": [
            "--data",
            "a b.npz",
            "--study=quality",
            "--methods",
            "x,y",
            "--masks=centre",
            "--dry_run",
            "--quiet",
        ],
        "methods": {"label": "label=m+search.terms=('a=1',)"},
        "degradations": [],
        "starts": 4,
        "steps": None,
    }
    found = choice.command(
        [{"arguments": [], "methods": {}}, call], row(0, 1.0, method="label", mask="strokes:0.2-0.3")
    )
    assert found == (
        "python -m inpaint evaluate --data 'a b.npz' --quiet "
        "'--methods=\"label=m+search.terms=('\"'\"'a=1'\"'\"',)\"' --masks=strokes:0.2-0.3 --seeds=0 --starts=4"
    )
    assert choice.command([call], row(0, 1.0, method="other")) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An evaluation with pictures whose names try to be markup and to leave the folder."""
    folder = tmp_path_factory.mktemp("report") / "evaluation"
    written = records.Records(folder)
    rows, rng = [], np.random.default_rng(0)
    names = [HOSTILE, "../../../etc/passwd", "plain", *map(str, range(5))]
    for method, shift in (("good", 0.0), (HOSTILE, 0.5)):
        for i, name in enumerate(names):
            made = row(i, 1 + 0.1 * i + shift, method=method, laplacian_ratio=0.5 + 0.01 * i, true_laplacian_ratio=1.0)
            rows.append(made | {"image": name})
            x = rng.uniform(-1, 1, (16, 16, 3)).astype(np.float32)
            pictures.write(folder, rows[-1], Shown(np.stack([x, -x]), 0 * x, x))
    facts = {"arguments": [f"--data={HOSTILE}"], "methods": {"good": "good"}, "against": "good"}
    written.append(rows, {"method": "m"})
    pictures.note_command(folder, facts)
    return folder


class Markup(html.parser.HTMLParser):
    """Collects the tags of a page and its pictures' addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value is not None]


def test_the_page_stands_alone(folder, tmp_path):
    """No address leads elsewhere, names stay text, and the files beside the page are whole."""
    written = build.write(build.gather(folder, named=["plain"]), tmp_path)
    assert [path.name for path in written[:4]] == list(build.FILES)
    text = written[0].read_text()
    found = Markup(text)
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert "named: image plain" in text and "best: image" in text
    assert len(written) > 4 if build.has_matplotlib() else "matplotlib is not installed" in text


def test_without_matplotlib_there_is_a_page_still(folder, tmp_path, monkeypatch):
    """It says what is missing and how to get it."""
    monkeypatch.setattr(build, "has_matplotlib", lambda: False)
    written = build.write(build.gather(folder), tmp_path)
    text = written[0].read_text()
    assert len(written) == 4 and "matplotlib is not installed" in text and "<svg" not in text


def test_report_command(folder, run_commands):
    """The page is written for real, and wrong calls end in one line."""
    done = run_commands(
        "inpaint",
        [
            ["report", str(folder), "--output=page"],
            ["report"],
            ["report", "nowhere"],
            ["report", str(folder), "--against=magic"],
            ["report", str(folder), "--show=magic"],
        ],
        folder.parent,
    )
    assert [code for code, _, _ in done] == [0, 1, 1, 1, 1], done
    assert (folder.parent / "page" / "report.html").is_file() and "good has the best mean" in done[0][1]
    for (_, _, errors), reason in zip(
        done[1:], ("one folder", "holds no rows", "'magic' has no rows", "no rows of image"), strict=True
    ):
        assert reason in errors and errors.count("\n") == 1


class Browser:
    """Chromium without a window, driven by chromedriver's own protocol."""

    def __init__(self, folder):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            try:
                self.ask("/status")
                break
            except OSError:
                time.sleep(0.1)
        arguments = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
        arguments = [*arguments.split(), "--disable-background-networking", "--disable-component-update"]
        arguments += [f"--user-data-dir={folder}", "--window-size=390,800"]
        options = {"args": arguments, "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.ask(f"{self.session}/execute/sync", {"script": script, "args": []})

    def close(self):
        request = urllib.request.Request(self.address + getattr(self, "session", "/shutdown"), method="DELETE")
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except OSError:
            pass
        self.driver.terminate()
        self.driver.wait()


@pytest.fixture
def browser(tmp_path):
    """A browser, closed after the test."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium with chromedriver (Debian: apt-get install chromium chromium-driver)")
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


CLICK = "document.querySelectorAll('table.sortable')[0].querySelectorAll('th button')[{}].click();"
FIRST = "return [...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map(r => r.cells[0].textContent);"
SLIDE = """
const card = document.querySelector('.card'), slide = card.querySelector('.slide');
slide.value = 25;
slide.dispatchEvent(new Event('input'));
return getComputedStyle(card.querySelector('.over')).clipPath;
"""
CHOOSE = """
const card = document.querySelector('.card'), left = card.querySelector('.under'), before = left.src;
const choice = card.querySelector('select');
choice.value = 'truth';
choice.dispatchEvent(new Event('change'));
return before !== left.src && left.src.startsWith('data:image/');
"""


def test_the_page_in_a_browser(folder, tmp_path, browser):
    """No errors, every picture loads, tables sort both ways, slider and choice work, nothing sticks out on a phone, and
    names that try to be markup do nothing."""
    page = build.write(build.gather(folder), tmp_path / "out")[0]
    browser.ask(f"{browser.session}/url", {"url": page.as_uri()})
    assert browser.run("return document.title") != "owned"
    assert browser.run("return [...document.images].every(x => x.complete && x.naturalWidth > 0)")
    assert browser.run("return document.images.length") > 8
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.run(CLICK.format(1))
    assert browser.run(FIRST)[0] == "good"
    browser.run(CLICK.format(1))
    assert browser.run(FIRST)[-1] == "good"
    assert "25%" in browser.run(SLIDE)
    assert browser.run(CHOOSE)
    assert browser.ask(f"{browser.session}/se/log", {"type": "browser"}) == []
