"""Ctrl-C and SIGTERM ask a launcher to stop where its state can be kept."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether a signal has asked to stop, and which one."""

    signal = 0

    def asked(self) -> bool:
        return self.signal != 0


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """While the block runs, a first SIGINT or SIGTERM only asks; a second one interrupts."""
    stop = Stop()

    def ask(number: int, _frame: object) -> None:
        if stop.asked():
            raise KeyboardInterrupt
        stop.signal = number
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
