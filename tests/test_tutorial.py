# SPDX-License-Identifier: Apache-2.0
"""Every block of docs/tutorial.md is run, in the order of the page."""

import pathlib
import re
import shlex

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands():
    """Returns the arguments of all command lines of the page's shell blocks."""
    text = "".join(block.replace("\\\n", " ") for kind, block in BLOCKS if kind == "sh")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def test_every_block_is_run():
    """There are blocks of both kinds, and none of any other, which nothing would run."""
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"} and len(BLOCKS) >= 10
    assert all(line[:3] == ["python", "-m", "inpaint"] for line in commands())


def test_python_blocks(shared_compilations, tmp_path, monkeypatch):
    """One after the other in one namespace; each says by its own assertions what it shows."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "tutorial"}
    for number, (_, block) in enumerate(((k, b) for k, b in BLOCKS if k == "python"), 1):
        try:
            exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        except Exception as error:
            pytest.fail(f"block {number} of {PAGE.name} fails: {type(error).__name__}: {error}\n{block}")


@pytest.mark.slow
def test_command_lines(run_commands, tmp_path):
    """Each ends well, and leaves what the page says."""
    done = run_commands("inpaint", [line[3:] for line in commands()], tmp_path)
    assert [code for code, _, _ in done] == [0] * len(done), [errors for _, _, errors in done]
    assert (tmp_path / "out" / "portrait" / "scores.json").is_file()
    assert (tmp_path / "out" / "evaluate" / "report.html").is_file()
