"""One run by several processes, on one machine or many, and one folder of a single run.

They find each other by JAX's own distributed runtime.
Every process computes whole chunks of its own, on its own devices, into the same folder; process 0
makes the folder ready and writes the pages. The folder must be on a file system that all share.
"""

import functools
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxsynth.environment import check_backend
from jaxsynth.runs.folder import LOCK, unusable

_WAIT = 300  # seconds for the others to come


class Processes(NamedTuple):
    """How many share the run, and which one this is."""

    index: int
    count: int

    @property
    def leads(self) -> bool:
        """Whether this one makes the folder ready and writes the pages."""
        return self.index == 0


ALONE = Processes(0, 1)


@functools.cache
def join_processes(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    distributed: bool = False,
) -> Processes:
    """Join the others, before anything has touched a device; alone without arguments.

    A process joins once: later calls return what the first one did.

    Args:
      coordinator: HOST:PORT of process 0.
      count: how many processes share the run.
      index: the number of this one, from 0.
      distributed: the cluster's manager (Slurm, Open MPI, Kubernetes, a TPU pod) says all that.

    Raises:
      ValueError: if the arguments do not go together, or the others cannot be found.
    """
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3 and not distributed:
        return ALONE
    if missing and not distributed:
        absent, together = (", ".join(f"--{n}" for n in names) for names in (missing, given))
        raise ValueError(f"{absent} missing: {together} go together")
    if not missing and (index or 0) >= (count or 0):
        raise ValueError(
            f"--process_id={index}: expected 0 to {count - 1}, as --num_processes={count}"
        )
    if coordinator and not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator}: expected HOST:PORT")
    try:
        jax.distributed.initialize(coordinator, count, index, initialization_timeout=_WAIT)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the processes of this run did not find each other ({error}): without a cluster's "
            "manager give --coordinator, --num_processes and --process_id"
        ) from error
    return Processes(jax.process_index(), jax.process_count())


def chosen_devices(count: int | None = None) -> tuple[jax.Device, ...]:
    """Return the first `count` devices of this machine, by default all."""
    check_backend()
    found = tuple(jax.local_devices())
    if count and count > len(found):
        raise ValueError(f"--devices={count}: there are {len(found)} here")
    return found[:count]


def agree(processes: Processes, value: int) -> int:
    """Return process 0's value, a number below 2^31, once every process has called this."""
    return _gathered(processes, value)[0]


def any_of(processes: Processes, flag: bool) -> bool:
    """Whether the flag is set in any process, once every process has called this."""
    return any(_gathered(processes, int(flag)))


def _gathered(processes: Processes, value: int) -> list[int]:
    if processes.count == 1:
        return [value]
    from jax.experimental import multihost_utils

    try:
        return np.ravel(multihost_utils.process_allgather(np.int32(value))).tolist()
    except RuntimeError as error:
        why = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"a process of this run does not answer ({why}): it has ended, or refused its flags "
            "and says why"
        ) from error


# --- the lock -------------------------------------------------------------------------------------


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep every other process off the folder until the block ends; ValueError if one holds it.

    The folder is made if need be, and removed again if nothing was written into it. The lock is the
    kernel's and ends with the process, however that ends. Without locks (some network file systems,
    Windows), one line on stderr says so and the work continues without.
    """
    made, handle = not folder.exists(), None
    try:
        handle = _locked_handle(folder)
        yield
    finally:
        if handle is not None:
            with suppress(OSError):  # Windows deletes no open file
                (folder / LOCK).unlink(missing_ok=True)
            os.close(handle)
        if made:
            with suppress(OSError):  # something was written
                folder.rmdir()


def _locked_handle(folder: Path) -> int:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unusable(folder, error) from error
        try:
            _flock(handle, folder)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                os.truncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except FileNotFoundError:  # its last holder has deleted it in between
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _flock(handle: int, folder: Path) -> None:
    try:
        import fcntl  # POSIX only

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
        raise ValueError(
            f"output folder {folder} is in use by another process (number {holder}): wait for it, "
            "or choose another (--out, folder=)"
        ) from error
    except (ImportError, OSError) as error:
        why = (
            f"the file system of {folder} has no locks ({getattr(error, 'strerror', sys.platform)})"
        )
        print(f"{why}: start no second process with this folder", file=sys.stderr)
