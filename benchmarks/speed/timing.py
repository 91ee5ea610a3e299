"""Clocks: functions timed in turn, so that what else the machine does meets them alike."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

_SETTLE = 0.05  # seconds; PyTorch's threads spin for some 10 ms (benchmarks/README.md)


class Timing(NamedTuple):
    """Seconds a call: median, and the first and third quartile."""

    median: float
    low: float
    high: float
    seconds: np.ndarray  # (repeats,)


def time_in_turn(
    calls: Mapping[str, Callable[[], None]], repeats: int, budget: float
) -> dict[str, Timing]:
    """Each call once unclocked, then all in turn until `repeats` rounds or `budget` seconds.

    A turn is calls unclocked until `_SETTLE` seconds have passed, and one clocked: another call's
    threads still spin when it has returned, and the caches are full of its weights; a step among
    steps meets neither. A call must wait for its own result. At least three rounds are made.
    """
    for call in calls.values():
        call()  # compiles
    rows: list[list[float]] = []
    begin = time.perf_counter()
    while len(rows) < 3 or (len(rows) < repeats and time.perf_counter() - begin < budget):
        rows.append([_warm_seconds(call) for call in calls.values()])
    return {name: summarise(column) for name, column in zip(calls, np.asarray(rows).T, strict=True)}


def summarise(seconds: np.ndarray) -> Timing:
    """Median and quartiles of (repeats,) seconds."""
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Timing(float(median), float(low), float(high), seconds)


def ratio(ours: Timing, other: Timing) -> float:
    """Median over the rounds of other / ours: above 1 where ours is faster."""
    return float(np.median(other.seconds / ours.seconds))


def _warm_seconds(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    while time.perf_counter() - begin < _SETTLE:
        call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
