# SPDX-License-Identifier: Apache-2.0
"""A running search on disk, so that it goes on where it was interrupted, and ends as if it had not been.

A folder holds `search.json` (which search it is, starts at once), `part-L-N.npz` (finished chunks, by the leg between
two cuts, and their first lane) and `running/` (an orbax directory: variables, optimiser, traces of the chunk that is
running). Each is written whole or not at all.
"""

import functools
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from inpaint.search.loop import Start
from stylegan_jax import checkpoint, image_io

SEARCH, RUNNING = "search.json", "running"
_SEP = "|"  # between names in a stored part; names of layers hold slashes


class DamagedStateError(Exception):
    """The stored state of a running chunk cannot be read."""


def digest(*trees: Any) -> str:
    """Returns the sha256 of names, types and values of the arrays of pytrees."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class SavedSearch:
    """The stored state of one search.

    A search shorter than `every` leaves nothing, and pays nothing.

    Args:
        folder: of the state; made when there is something to store.
        every: least seconds between two stored states.
        identity: what else the caller wants to be the same; all that `solve` is given counts already.
        replace: remove the state of another search instead of refusing to begin.
    """

    def __init__(self, folder: str | os.PathLike, *, every: float = 60.0, identity: str = "", replace: bool = False):
        self.folder, self.every, self.identity, self.replace = pathlib.Path(folder), every, identity, replace
        self._saved, self._chunk, self._pending = time.monotonic(), 0, {}

    def open(self, describe: Callable[[], str], size: int) -> int:
        """Returns how many starts run at once: as many as in the stored search, if there is one, or `size`.

        Args:
            describe: returns a digest of the search that begins; called when it is needed, since it takes its time.
            size: starts at once.

        Raises:
            ValueError: where the folder holds the state of another search.
        """
        self._search = functools.cache(lambda: hashlib.sha256(f"{describe()} {self.identity}".encode()).hexdigest())
        self._chunk, self._pending, path = size, {}, self.folder / SEARCH
        if not path.exists():
            # Nothing says whose the rest is.
            self.remove()
            return size
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            same, chunk = stored["search"] == self._search(), int(stored["chunk"])
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if same:
            self._chunk = chunk
            return chunk
        if not self.replace:
            raise ValueError(
                f"{self.folder} holds the state of an interrupted search with other settings or inputs, or of another "
                "version of the libraries; --overwrite (replace=True) or removing it begins anew"
            )
        self.remove()
        return size

    def resize(self, size: int) -> None:
        """Notes that from now on `size` starts run at once; what the present chunk had stored is void."""
        self._chunk = size
        self.forget_running()
        if (self.folder / SEARCH).exists():
            self._write_facts()

    def _write_facts(self) -> None:
        facts = {"search": self._search(), "chunk": self._chunk}
        image_io.write_text(self.folder / SEARCH, json.dumps(facts) + "\n")

    def _part(self, leg: int, first: int) -> pathlib.Path:
        return self.folder / f"part-{leg}-{first:08d}.npz"

    def part(self, first: int, *, leg: int = 0) -> dict[str, Any] | None:
        """Returns what the finished chunk of a leg found that began with lane `first`, or None where none can be
        read."""
        try:
            with np.load(self._part(leg, first), allow_pickle=False) as arrays:
                return {"attributes": {}} | traverse_util.unflatten_dict({n: arrays[n] for n in arrays.files}, sep=_SEP)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save_part(self, first: int, found: dict[str, Any], *, leg: int = 0) -> None:
        """Stores what the chunk of a leg found that began with lane `first`, now or when the time has come."""
        self._pending[leg, first] = found
        if self._is_due():
            self._write_pending()
            self.forget_running()
            self._saved = time.monotonic()

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved >= self.every

    def _write_pending(self) -> None:
        self._write_facts()
        for place, found in self._pending.items():
            flat = traverse_util.flatten_dict(found, sep=_SEP)

            def write(path: str, flat: dict[str, Any] = flat) -> None:
                with open(path, "wb") as file:
                    np.savez(file, **flat)

            image_io.write_atomically(self._part(*place), write)
        self._pending = {}

    def forget_running(self) -> None:
        """Removes what is stored of the running chunk."""
        shutil.rmtree(self.folder / RUNNING, ignore_errors=True)

    def running(self, first: int, *, size: int, leg: int = 0) -> tuple[int, int] | None:
        """Returns phase and steps done in it of the stored state, if it is of the `size` lanes of a leg from `first`
        on."""
        try:
            facts = checkpoint.state_metadata(self.folder / RUNNING)
        except checkpoint.CheckpointError:
            return None
        found = facts["first"], facts["size"], facts.get("leg", 0)
        return (facts["phase"], facts["done"]) if found == (first, size, leg) else None

    def load_running(self, starts: Start, done: int) -> tuple[Start, Array]:
        """Returns the stored starts and objectives `[done, starts]`.

        Args:
            starts: of the same shapes.
            done: steps so far, of all phases.

        Raises:
            DamagedStateError: where they cannot be read.
        """
        traces = jnp.zeros((done, starts.frozen.shape[0]), jax.tree.leaves(starts.v)[0].dtype)
        try:
            return checkpoint.load_state(self.folder / RUNNING, (starts, traces))[0]
        except checkpoint.CheckpointError as error:
            raise DamagedStateError(str(error)) from error

    def save_running(
        self, first: int, phase: int, done: int, starts: Start, traces: list[Array], *, leg: int = 0
    ) -> None:
        """Stores the running chunk if the time has come.

        Args:
            first: its first lane.
            phase: number of the running phase; done: steps in it.
            starts: as they are.
            traces: objectives of all steps so far, parts `[steps, starts]`.
            leg: between two cuts, from 0 on.
        """
        if not self._is_due():
            return
        self._write_pending()
        facts = {"first": first, "size": starts.frozen.shape[0], "phase": phase, "done": done, "leg": leg}
        checkpoint.save_state(self.folder / RUNNING, (starts, jnp.concatenate(traces)), metadata=facts)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Removes the state, once the results are safe."""
        # A kill in the middle must not leave parts that look like a state.
        aside = self.folder.with_name(f"{self.folder.name}.old-{secrets.token_hex(4)}")
        try:
            os.replace(self.folder, aside)
        except OSError:
            return
        shutil.rmtree(aside, ignore_errors=True)
