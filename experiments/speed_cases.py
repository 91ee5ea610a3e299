"""The cases of `benchmark_speed`, and what it does in processes of their own.

A case is measured in a new process: after others, a step of milliseconds takes up to half as long
again on CPU (benchmarks/README.md), and a sweep has its process for itself, too.
"""

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from experiments.heap import keep_memory
from experiments.launch import keep_compiled
from jaxsynth.engine.objective import GENERATOR
from jaxsynth.experiment import NSFW, PLACES
from jaxsynth.files.results import machine_line
from jaxsynth.files.weights import cache_dir, load_network
from jaxsynth.networks.network import Network
from jaxsynth.speed.cases import Case, network_case, random_network, trio_case
from jaxsynth.speed.compare import (
    Limits,
    Measured,
    check_agreement,
    machine_limits,
    measure,
    peer_versions,
)

_FULL = {GENERATOR: "dgn_fc6", NSFW: "open_nsfw", PLACES: "places205"}
_POCKET = {GENERATOR: "pocket_generator", NSFW: "open_nsfw", PLACES: "pocket_places"}
_TRIOS = {"trio": _FULL, "pocket": _POCKET}
CASES = ("trio", *_FULL.values(), "pocket", "pocket_generator", "pocket_places")


class OwnProcess:
    """A new process that calls functions, one after the other; with `with`.

    Functions, arguments and results are pickled: functions of a module, plain data, arrays.
    """

    def __enter__(self) -> "OwnProcess":
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_begin)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Raises what the function raises, ValueError if the process was killed."""
        try:
            return self._pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise ValueError(
                f"the process of {function.__name__} ({', '.join(map(str, args))}) was killed, as "
                "when memory is full: smaller --batches need less"
            ) from None


def machine(precisions: Sequence[str], peers: Sequence[str]) -> tuple[str, dict[str, Limits]]:
    """`machine_line` with the peers' versions, and `machine_limits` by precision."""
    line = machine_line(peer_versions(peers))
    return line, {precision: machine_limits(precision) for precision in precisions}


def agreement(name: str) -> float:
    """`check_agreement` of a case by its name."""
    return check_agreement(make_case(name))


def measure_case(name: str, *args: Any) -> Measured:
    """`measure` of a case by its name."""
    return measure(make_case(name), *args)


@functools.cache
def make_case(name: str) -> Case:
    """A case by its name."""
    if name in _TRIOS:
        return trio_case(name, {role: _network(n) for role, n in _TRIOS[name].items()})
    return network_case(_network(name))


def _network(name: str) -> Network:
    """A shipped network, or one of 2016 with random weights."""
    return random_network(name) if name in _FULL.values() else load_network(name)


def _begin() -> None:
    keep_memory()
    keep_compiled(cache_dir())
