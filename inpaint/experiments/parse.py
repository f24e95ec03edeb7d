# SPDX-License-Identifier: Apache-2.0
"""From the text of a flag to a method with its settings."""

import ast
import importlib.util
import pathlib
import re
from typing import Any

from inpaint import config as _config
from inpaint import named_methods
from inpaint.experiments.grid import NamedConfig


def _from_file(text: str) -> _config.RestoreConfig:
    path, _, variant = text.partition(":")
    if not pathlib.Path(path).is_file():
        raise ValueError(f"config file {path} does not exist")
    specification = importlib.util.spec_from_file_location(f"config_{pathlib.Path(path).stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    config = module.get_config(variant)
    if not isinstance(config, _config.RestoreConfig):
        raise ValueError(f"{path} must return a RestoreConfig, got a {type(config).__name__}")
    return config


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        # A comma would end the method in a list of them, so several texts are joined by semicolons.
        return tuple(text.split(";")) if "=" in text else text


def parse_method(text: str, *, starts: int | None = None, steps: int | None = None) -> NamedConfig:
    """Returns the method that `[LABEL=]METHOD[+SETTING=VALUE]...` describes.

    Args:
        text: METHOD is a name of `inpaint.config.METHODS` or a config file with `get_config`, FILE.py or
            FILE.py:VARIANT; a SETTING has a dotted name, such as search.lr; that of search.options and search.terms is
            NAME=VALUE, several joined by semicolons.
        starts, steps: replace the method's own, unless the text says otherwise.

    Raises:
        ValueError: where there is no such method or setting.
    """
    head, *changes = re.split(r"\+(?=[A-Za-z_][\w.]*=)", text)
    label, _, name = head.rpartition("=")
    config = _from_file(name) if ".py" in name else named_methods.named(name)
    values = {}
    for change in changes:
        setting, _, value = change.partition("=")
        values[setting] = _value(value)
    # Flags come first: what is written beside a method's name is meant for it.
    if starts is not None:
        config.search.starts = starts
    if steps is not None:
        config.search.steps = steps
    _config.apply_overrides(config, values)
    config.search.keep = min(config.search.keep, config.search.starts)
    plain = text if not label else text[len(label) + 1 :]
    return NamedConfig(label or plain, config)
