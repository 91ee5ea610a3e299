"""Ctrl-C and SIGTERM ask a launcher to stop where its state can be kept."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxsynth.runs.keep import Stopped

_GO_ON = "the same command with --resume goes on"


class Stop:
    """Whether a signal has asked to stop, and which one."""

    signal = 0

    def asked(self) -> bool:
        return self.signal != 0


@contextmanager
def keeps_going_on(out: Path) -> Iterator[Stop]:
    """A launcher's work, which it keeps in `out`: what ends it early is one line that tells how to
    go on.

    Raises:
      SystemExit: with 128 + signal, where it was stopped.
      ValueError: where the disk failed.
    """
    with stop_signals() as stop:
        try:
            yield stop
        except Stopped as stopped:
            print(f"stopped: {stopped}; {_GO_ON}", file=sys.stderr)
            sys.exit(128 + (stop.signal or signal.SIGTERM))
        except OSError as error:
            raise ValueError(
                f"{error.filename or out}: {error.strerror or error}; what is finished is kept in "
                f"{out}: mend that, then {_GO_ON}"
            ) from None


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
