"""Launchers: flags -> models -> one library call -> report."""

import os
import signal
import sys
from pathlib import Path

# `python -m experiments.benchmark_speed` and its like are in benchmarks/, in a checkout only.
__path__.append(str(Path(__file__).parents[1] / "benchmarks"))


def _stop_at_once(number: int, _frame: object) -> None:
    """Stop before anything is computed that could be saved (later: `experiments.launch`)."""
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if sys.argv[:1] == ["-m"]:  # a launcher under `python -m`, whose imports take seconds
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _stop_at_once)
