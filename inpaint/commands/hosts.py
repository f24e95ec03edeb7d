# SPDX-License-Identifier: Apache-2.0
"""The flags of runs over several processes, on one machine or many, and the share of the work that falls to this one.

Processes find each other by JAX's own runtime, which says how many they are, and part. Each restores its own images
with its own devices into the folder that they share, so none waits for another, and none fails with another.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
from absl import flags

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Share the images with the other processes of this run. How many there are is asked of the cluster (SLURM, MPI, "
    "Kubernetes, TPU pods and whatever else JAX detects), or said by the next three flags.",
)
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, the same in every process.")
_COUNT = flags.DEFINE_integer("num_processes", None, "Processes of this run.", lower_bound=1)
_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)

Item = TypeVar("Item")


class Share(NamedTuple):
    """Every `count`-th piece of work, beginning with number `index`."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Returns those of `items` that fall to this share."""
        return list(items[self.index :: self.count])


@contextlib.contextmanager
def joined() -> Iterator[Share]:
    """Gives this process's share, after it has met the others where --distributed asks for it.

    Raises:
        ValueError: where the flags contradict each other, or nothing says how many processes there are.
    """
    asked = {"coordinator_address": _ADDRESS.value, "num_processes": _COUNT.value, "process_id": _ID.value}
    given = [name for name, value in asked.items() if value is not None]
    if not _DISTRIBUTED.value:
        if given:
            raise ValueError(f"--{given[0]} says something about a run of several processes; add --distributed")
        yield Share()
        return
    if given and len(given) < len(asked):
        raise ValueError(f"--{', --'.join(asked)} belong together; given is only --{', --'.join(given)}")
    if given and _ID.value >= _COUNT.value:
        raise ValueError(f"--process_id must be below --num_processes {_COUNT.value}, got {_ID.value}")
    try:
        jax.distributed.initialize(**asked)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "--distributed: nothing tells how many processes there are; give --coordinator_address HOST:PORT, "
            f"--num_processes and --process_id ({error})"
        ) from error
    share = Share(jax.process_index(), jax.process_count())
    # They need no more of each other; still joined, all would die with process 0.
    jax.distributed.shutdown()
    yield share
