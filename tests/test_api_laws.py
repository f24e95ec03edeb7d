# SPDX-License-Identifier: Apache-2.0
"""Laws of every public function: keys first, options by name, no catch-all arguments, documented shapes."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

from stylegan_jax.training.config import TrainConfig
from stylegan_jax.training.dcgan import DcganTrainConfig

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("stylegan_jax", "inpaint", "convert")
SOURCES = sorted(
    path for folder in (*PACKAGES, "configs", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)
CONFIGS = sorted(str(path.relative_to(ROOT / "configs"))[:-3] for path in (ROOT / "configs").rglob("*.py"))

# Arguments that have a default and may still be given by position, with the reason.
POSITIONAL = {
    "c": "labels follow the latents or images they belong to; None for an unconditional network",
    "bias": "belongs to x, as in a convolution; None for none",
    "padding": "belongs to the kernel, as in lax",
    "ws": "the synthesis network's one input; None where styles are complete",
    "path": "load() with nothing loads the demo model",
    "weight": "term(name, weight) reads as the sum it stands for",
    "variant": "ml_collections passes what follows the colon of a config file by position",
    "argv": "entry points are called with or without arguments",
}
# Methods without a docstring of their own, with the reason.
UNDOCUMENTED = {
    "candidates": "documented in the protocol Initialisation",
    "draw": "documented in the protocol Initialisation, in Space and in Part",
    "holds": "documented in Space",
    "has_ws": "documented in Space",
    "to_inputs": "documented in Space",
    "from_inputs": "documented in Space",
    "lifted": "documented in Space",
    "add": "documented in Part",
    "of": "documented in Part",
    "set_state": "the pickle protocol's own",
    "resolution": "a property named in its class",
    "present": "a property named in its class",
    "size": "a property named in its class",
    "dtype": "a property named in its class",
}
# Functions of arrays whose shape does not matter, with the reason.
ANY_SHAPE = {
    "unchanged": "gives back what it gets",
    "to_arrays": "names arrays of every shape",
    "fill": "takes arrays of every shape",
    "from_arrays": "takes arrays of every shape, shows one",
    "transfer": "reads arrays of every shape",
    "arrays": "reads arrays of every shape",
    "read": "reads an array of every shape",
}


def public_functions(path):
    """Returns {name: (syntax node, docstrings of its class and module)} for every public function and method."""
    found = {}

    def collect(body, prefix, around):
        for node in body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[f"{path.relative_to(ROOT)}:{prefix}{node.name}"] = node, around
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                collect(node.body, f"{prefix}{node.name}.", f"{around} {ast.get_docstring(node)}")

    module = ast.parse(path.read_text(encoding="utf-8"))
    collect(module.body, "", ast.get_docstring(module) or "")
    return found


FUNCTIONS = {
    name: entry
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    for name, entry in public_functions(path).items()
}


def test_there_are_functions_to_judge():
    """The walk finds functions, methods and class methods of all packages."""
    for name in (
        "inpaint/search/solve.py:solve",
        "stylegan_jax/generator.py:StyleGenerator.map",
        "inpaint/problem.py:read",
    ):
        assert name in FUNCTIONS
    assert len(FUNCTIONS) > 120


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_signature_and_docstring(name):
    """A key comes first, options are given by name, nothing is caught unnamed, and a docstring tells the shapes."""
    (node, around), short = FUNCTIONS[name], name.split(":")[1].split(".")[-1]
    arguments = node.args
    positional = [a.arg for a in arguments.posonlyargs + arguments.args]
    assert arguments.kwarg is None, "**kwargs hides misspelt options"
    own = positional[1:] if positional[:1] in (["self"], ["cls"]) else positional
    assert "key" not in own[1:], "a key comes first, or by name only"
    optional = positional[len(positional) - len(arguments.defaults) :]
    assert set(optional) <= set(POSITIONAL), "options are keyword-only"

    docstring = ast.get_docstring(node)
    assert docstring or short in UNDOCUMENTED, "a public function says what it does"
    hints = [a.annotation for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs] + [node.returns]
    arrays = [hint for hint in hints if hint is not None and re.search(r"\b(Array|ndarray)\b", ast.unparse(hint))]
    if arrays and docstring and short not in ANY_SHAPE:
        said = f"{docstring} {around}"
        assert "[" in said or "scalar" in said, "arrays come with their shapes in brackets, here or above"


@pytest.mark.parametrize("package", PACKAGES)
def test_exported_names(package):
    """`__all__` names what exists, in order, and every exported function and class is documented."""
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value):
            assert (inspect.getdoc(value) or "").strip(), f"{package}.{name} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_first_line_is_the_licence(path):
    """Every source file starts with its SPDX line and a docstring."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text))


def load_config(name):
    """Returns the module of a file in configs/, which is no package."""
    specification = importlib.util.spec_from_file_location(f"config_{name}", ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def takes_variant(module):
    return bool(inspect.signature(module.get_config).parameters)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files_give_settings(name):
    """A config file imports and its settings are those of a command; a training config fits the networks."""
    module = load_config(name)
    config = module.get_config()
    if name.startswith("train_"):
        assert isinstance(config, TrainConfig | DcganTrainConfig)
        assert config.images > 0 and config.resolution >= 4 and config.batch > 0
    assert takes_variant(module), 'get_config(variant) must know "smoke"'
