# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the rules of the architecture, read from the syntax tree of every module."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("stylegan_jax", "inpaint", "convert")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


def imports_of(tree, *, module_level=False):
    """Returns the full names that a syntax tree imports; with `module_level` only what an import runs."""
    found, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if not (module_level and (for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))):
            waiting += ast.iter_child_nodes(node)
    return found


def imported(name, *, module_level=False):
    return imports_of(ast.parse((ROOT / name).read_text(encoding="utf-8")), module_level=module_level)


def reaches(found, *packages):
    """Returns the imports that lie in one of `packages`."""
    return sorted(n for n in found for p in packages if n == p or n.startswith(f"{p}."))


def is_command(name):
    """Returns whether a module belongs to a command line; command_line.py is what all of them share."""
    path = pathlib.PurePosixPath(name)
    return (
        path.name in ("command.py", "command_line.py", "__main__.py")
        or path.stem.endswith("_command")
        or "commands" in path.parts
    )


def test_the_walk_sees_imports():
    """The walk itself finds each form, and tells functions from modules."""
    tree = ast.parse(
        "import a.b\nfrom c import d\ndef f():\n    import e\nclass G:\n    import h\nif TYPE_CHECKING:\n    import i\n"
    )
    assert imports_of(tree) == {"a.b", "c", "c.d", "e", "h", "i"}
    assert imports_of(tree, module_level=True) == {"a.b", "c", "c.d", "h"}
    assert reaches({"inpaint.x", "inpainting"}, "inpaint") == ["inpaint.x"]
    assert len(MODULES) > 40


@pytest.mark.parametrize("name", NAMES)
def test_packages_point_down_only(name):
    """stylegan_jax knows neither of the others, inpaint not convert, and nobody another framework."""
    found, package = imported(name), name.split("/")[0]
    above = {"stylegan_jax": ("inpaint", "convert"), "inpaint": ("convert",), "convert": ("inpaint",)}[package]
    assert reaches(found, *above) == []
    assert reaches(found, "torch", "torchvision", "tensorflow", "keras") == []


@pytest.mark.parametrize("name", NAMES)
def test_one_place_for_each_library(name):
    """One module stores checkpoints, one reads images; commands alone have flags, search and training optax."""
    found = imported(name)
    if name != "stylegan_jax/checkpoint.py":
        assert reaches(found, "orbax") == []
    if name != "stylegan_jax/image_io.py":
        assert reaches(found, "PIL") == []
    if not is_command(name):
        assert reaches(found, "absl.flags", "absl.app", "ml_collections.config_flags") == []
    if not name.startswith(("stylegan_jax/training/", "inpaint/search/", "inpaint/learned/")):
        assert reaches(found, "optax") == []


def test_the_places_are_in_use():
    """The exceptions above are no dead letters."""
    assert reaches(imported("stylegan_jax/checkpoint.py"), "orbax") and reaches(
        imported("stylegan_jax/image_io.py"), "PIL"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("convert/")])
def test_convert_takes_our_networks_only_inside_functions(name):
    """Reading a file needs no JAX."""
    assert reaches(imported(name, module_level=True), "stylegan_jax", "jax", "flax") == []


def test_importing_convert_loads_neither_jax_nor_networks():
    """A fresh interpreter that imports convert holds neither JAX nor our networks."""
    code = "import sys, convert; print([m for m in ('jax', 'flax', 'stylegan_jax', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_no_private_names_cross_modules(name):
    """No module takes a name starting with one underscore from another module."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    taken = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert taken == []


def test_nobody_searches_by_the_judge():
    """Metrics, experiments and its own training know the judging network; objectives and selections never see it."""
    own = ("stylegan_jax.features.judge", "stylegan_jax.training.judge")
    judges = (*own, "inpaint.metrics.judge", "inpaint.experiments")
    allowed = (
        "stylegan_jax/checkpoint.py",
        "stylegan_jax/features/judge.py",
        "stylegan_jax/training/judge",
        "inpaint/metrics/",
        "inpaint/experiments/",
        "inpaint/commands/evaluate_command.py",
        "inpaint/commands/assess_command.py",
        "inpaint/commands/constrain_command.py",
        "inpaint/commands/initialise_command.py",
        "inpaint/commands/rank_command.py",
        "inpaint/commands/report_command.py",
        "inpaint/commands/study_flags.py",
        "inpaint/commands/study_runs.py",
        "inpaint/commands/study.py",
    )
    assert any(reaches(imported(name), *judges) for name in NAMES)
    for name in NAMES:
        if not name.startswith(allowed):
            assert reaches(imported(name), *judges) == [], name
