"""One run by several processes, on one machine or many: JAX's own distributed runtime.

Every process computes whole chunks of its own, on its own devices, into the same folder; process 0
makes the folder ready and writes the pages. The folder must be on a file system that all share.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several processes share the run."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes share the run.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0 on.", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Several processes share the run, and the cluster's manager (Slurm, Open MPI, Kubernetes, a "
    "TPU pod) says which: no further flags are needed.",
)
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Use so many of this machine's devices; by default all.", lower_bound=1
)


class Processes(NamedTuple):
    """How many share the run, and which one this is."""

    index: int
    count: int

    @property
    def leads(self) -> bool:
        return self.index == 0


def join_processes() -> Processes:
    """Joins the others, before anything has touched a device; alone without the flags.

    Raises:
      ValueError: if the flags do not go together, or the others cannot be found.
    """
    given = {f.name: f.value for f in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3 and not _DISTRIBUTED.value:
        return Processes(0, 1)
    if missing and not _DISTRIBUTED.value:
        absent, together = (", ".join(f"--{n}" for n in names) for names in (missing, given))
        raise ValueError(f"{absent} missing: {together} go together")
    if not missing and _PROCESS_ID.value >= _NUM_PROCESSES.value:
        raise ValueError(
            f"--process_id={_PROCESS_ID.value}: expected 0 to {_NUM_PROCESSES.value - 1}, as "
            f"--num_processes={_NUM_PROCESSES.value}"
        )
    if _COORDINATOR.value and not re.fullmatch(r".+:\d+", _COORDINATOR.value):
        raise ValueError(f"--coordinator={_COORDINATOR.value}: expected HOST:PORT")
    try:
        jax.distributed.initialize(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, initialization_timeout=300
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the processes of this run did not find each other ({error}): without a cluster's "
            "manager give --coordinator, --num_processes and --process_id"
        ) from None
    return Processes(jax.process_index(), jax.process_count())


def chosen_devices() -> tuple[jax.Device, ...]:
    """The devices that this process computes on.

    Raises:
      ValueError: if there are fewer than asked for.
    """
    found = tuple(jax.local_devices())
    if _DEVICES.value and _DEVICES.value > len(found):
        raise ValueError(f"--devices={_DEVICES.value}: there are {len(found)} here")
    return found[: _DEVICES.value]


def agree(processes: Processes, value: int) -> int:
    """Process 0's value, once every process has come here."""
    if processes.count == 1:
        return value
    return int(_answered(multihost_utils.broadcast_one_to_all, np.int32(value)))


def any_of(processes: Processes, flag: bool) -> bool:
    """Whether the flag is set in any process, once every process has come here."""
    if processes.count == 1:
        return flag
    return bool(np.any(_answered(multihost_utils.process_allgather, np.bool_(flag))))


def _answered(ask_all: Callable[[np.generic], np.ndarray], word: np.generic) -> np.ndarray:
    """What a call that all processes make gives.

    Raises:
      ValueError: if one of them does not make it.
    """
    try:
        return ask_all(word)
    except RuntimeError as error:
        why = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"a process of this run does not answer ({why}): it has ended, or refused its flags "
            "and says why"
        ) from None
