# SPDX-License-Identifier: Apache-2.0
"""The folder of a study's figures: `figures.json`, and pictures beside it."""

import json
import pathlib
from typing import Any

from inpaint import output
from stylegan_jax import image_io

FIGURES = "figures.json"


def new_folder(path: str, *, overwrite: bool) -> pathlib.Path:
    """Returns the folder `path`, or raises ValueError where it holds something else, or figures not to be replaced."""
    folder = output.check_folder(path, held=(FIGURES,))
    if (folder / FIGURES).exists() and not overwrite:
        raise ValueError(f"--output {folder} holds {FIGURES} of an earlier call; name another or pass --overwrite")
    return folder


def write(folder: pathlib.Path, facts: dict[str, Any]) -> str:
    """Writes `facts` as JSON, and returns the text."""
    text = json.dumps(facts, indent=1) + "\n"
    image_io.write_text(folder / FIGURES, text)
    return text
