"""The cases of `benchmark_speed`, and what it does in processes of their own.

Each measurement has a new process, as a sweep has: after other cases a step of milliseconds takes
up to half as long again on CPU (benchmarks/README.md).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.speed.cases import Case, network_case, random_network, trio_case
from benchmarks.speed.compare import (
    Limits,
    Measured,
    check_agreement,
    machine_limits,
    measure,
    peer_versions,
)
from experiments.run_flags import NSFW, PLACES
from jaxsynth.environment import (
    cache_dir,
    is_out_of_memory,
    keep_compiled,
    machine_line,
)
from jaxsynth.models.network import Network
from jaxsynth.models.weights import load_network
from jaxsynth.system import GENERATOR

_FULL = {GENERATOR: "dgn_fc6", NSFW: "open_nsfw", PLACES: "places205"}
_POCKET = {GENERATOR: "pocket_generator", NSFW: "open_nsfw", PLACES: "pocket_places"}
_TRIOS = {"trio": _FULL, "pocket": _POCKET}
CASES = ("trio", *_FULL.values(), "pocket", "pocket_generator", "pocket_places")


def measure_machine(
    precisions: Sequence[str], peers: Sequence[str]
) -> tuple[str, dict[str, Limits]]:
    """`machine_line` with the peers' versions, and `machine_limits` by precision."""
    limits = {precision: machine_limits(precision) for precision in precisions}
    return machine_line(peer_versions(peers)), limits


def compare_gradients(name: str) -> float:
    """`check_agreement` of a case by its name."""
    return check_agreement(make_case(name))


def measure_case(name: str, batch: int, precision: str, *settings: Any) -> Measured:
    """`measure` of a case by its name.

    Raises:
      ValueError: also if memory is full.
    """
    try:
        return measure(make_case(name), batch, precision, *settings)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or is_out_of_memory(error)):
            raise
        raise ValueError(
            f"{name}, batch {batch}, {precision}: out of memory ({error}): smaller --batches need "
            "less; what was measured before is written"
        ) from None


def make_case(name: str) -> Case:
    """A case by its name."""
    if name in _TRIOS:
        return trio_case(name, {role: _network(n) for role, n in _TRIOS[name].items()})
    return network_case(_network(name))


def _network(name: str) -> Network:
    """A shipped network, or one of 2016 with random weights."""
    return random_network(name) if name in _FULL.values() else load_network(name)


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` by a new process, which ends with this one.

    The function is one of a module; arguments and result are pickled.

    Raises:
      ValueError, OSError: as the function does; ValueError if the process ends without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args), daemon=True)
    with _interrupts_held():  # by the new process: this one is interrupted, and that one ends
        process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        raise ValueError(
            f"the process of {function.__name__} {args[:1]} ended without a result (exit code "
            f"{process.exitcode}): what it wrote stands above"
        ) from None
    process.join()
    if error is not None:
        raise error
    return result


def _answer(sender: Connection, function: Callable[..., Any], args: Sequence[Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_compiled(cache_dir())
    try:
        sender.send((function(*args), None))
    except (ValueError, OSError) as error:
        sender.send((None, error))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C meanwhile; a process that is started here never sees it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
