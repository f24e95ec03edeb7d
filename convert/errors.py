# SPDX-License-Identifier: Apache-2.0
"""The one exception of this package, and how text that comes from a file is shown in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

MOST_SHOWN = 20


class ConversionError(ValueError):
    """A checkpoint file was refused.

    Attributes:
      problems: every reason that was found, one string each (the message shows the first twenty).
      source: the file concerned, or None where the reader only saw bytes.
    """

    def __init__(self, *problems: str, source: str | None = None):
        super().__init__(*problems)
        self.problems = problems
        self.source = source

    def __str__(self) -> str:
        text = "; ".join(self.problems[:MOST_SHOWN])
        if len(self.problems) > MOST_SHOWN:
            text += f"; and {len(self.problems) - MOST_SHOWN} more"
        return f"{self.source}: {text}" if self.source else text


@contextlib.contextmanager
def concerning(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file `path` in every `ConversionError` raised inside the block."""
    try:
        yield
    except ConversionError as error:
        error.source = error.source or os.fspath(path)
        raise


def shown(value: object) -> str:
    """Returns `value` as short text on one line: what a file says may hold line ends, terminal codes or megabytes."""
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else value[:57] + "...")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a number of more than 128 bits"
    if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(item, int) for item in value):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    return f"a {type(value).__name__}"
