# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint may be written to a place."""

from __future__ import annotations

import os

from convert.errors import ConversionError

CHECKPOINT_MARK = "_CHECKPOINT_METADATA"  # orbax writes this file last, into every complete checkpoint


def check_destination(source: str | os.PathLike[str], destination: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuses a destination that is taken.

    Args:
      source: the file to be converted.
      destination: the directory to be written.
      overwrite: a checkpoint may be replaced, but nothing else, and not one that holds the source.

    Raises:
      ConversionError: with the destination and what to do.
    """
    source, destination = os.path.abspath(source), os.path.abspath(destination)
    if not os.path.lexists(destination):
        return
    if not overwrite:
        raise ConversionError("exists already; name another place, or pass --overwrite", source=destination)
    if not os.path.isfile(os.path.join(destination, CHECKPOINT_MARK)):
        raise ConversionError("is no checkpoint; --overwrite replaces only checkpoints", source=destination)
    if os.path.realpath(source).startswith(os.path.join(os.path.realpath(destination), "")):
        raise ConversionError("holds the source itself, which --overwrite would delete", source=destination)
