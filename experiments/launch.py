"""How every launcher runs: bad input is one line on stderr and exit code 2."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from absl import app
from absl import flags as absl_flags

from jaxsynth.environment import is_out_of_memory, prepare_streams
from jaxsynth.inputs import printable
from jaxsynth.runs.folder import UNFINISHED
from jaxsynth.runs.saving import Stopped

from . import flags

_DEBUG = "On an error, show where it arose and what caused it."


def run_experiment(main: Callable[..., int | None], kind: type, argv: Any = None) -> NoReturn:
    """Call `main` with the flags that a dataclass has, and exit with its return value.

    `kind.TAKES_WORDS` passes the words that are no flags on to `main`; WITHOUT names flags that
    have no effect here, WHY says so. Fields `name` and `typed`, if any, get the launcher's name and
    the flags that were typed. `argv` is by default this process's.
    """
    without, fields = getattr(kind, "WITHOUT", ()), kind.__dataclass_fields__
    words = getattr(kind, "TAKES_WORDS", False)
    name = Path(main.__code__.co_filename).stem
    flags.define(kind, without)

    def read_and_run(rest: Sequence[str]) -> int | None:
        if rest[1:] and not words:
            raise ValueError(f"unexpected argument {rest[1]!r}: {name} takes flags only (--help)")
        typed = flags.typed()
        for flag in without:
            if flag in typed:
                raise ValueError(
                    f"--{flag} has no effect in {name}, {kind.WHY}: leave it out (--help lists "
                    "the flags that have one)"
                )
        given = {"name": name, "typed": typed}
        settings = flags.read(kind, **{key: given[key] for key in given if key in fields})
        return main(settings, rest[1:]) if words else main(settings)

    run_main(read_and_run, argv)


def run_main(
    main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parse the flags, call `main(argv)` with the rest, and exit with its return value.

    A closed output pipe does not end the work.

    Exit codes: 0 done (also `--help`), 130 stopped by Ctrl-C (143 by SIGTERM), 2 bad input: a flag
    that cannot be parsed, or a ValueError or OSError of the library; 3 where no run stayed finite.
    Anything else is a bug and keeps its traceback.
    """

    def guarded(rest: Sequence[str]) -> int:
        try:
            return main(rest) or 0
        except ValueError as error:
            return _refuse(str(error), error)
        except (MemoryError, RuntimeError) as error:
            if not (advice := _way_out(error)):
                raise
            return _refuse(advice, error)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except OSError as error:
            return _refuse(f"{error.filename or 'file system'}: {error.strerror or error}", error)

    if "debug" not in absl_flags.FLAGS:
        absl_flags.DEFINE_bool("debug", False, _DEBUG, module_name=sys.argv[0])
    prepare_streams()
    for chatty in ("jax", "matplotlib"):  # absent accelerators and font caches are no news
        logging.getLogger(chatty).setLevel(logging.WARNING)

    out, err = _Stream(sys.stdout), _Stream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.run(guarded, argv=None if argv is None else list(argv), flags_parser=_parse)
        finally:
            out.flush()
    raise AssertionError("app.run always exits")


def command_line(name: str, package: str = "experiments") -> str:
    """Return the command as it was typed."""
    words = sys.argv[0].split()
    start = words if words[:1] == ["jaxsynth"] else ["python", "-m", f"{package}.{name}"]
    return shlex.join([*start, *sys.argv[1:]])


class Stop:
    """Whether a signal has asked to stop, and which one."""

    signal = 0

    def asked(self) -> bool:
        """Return whether one has."""
        return self.signal != 0


@contextlib.contextmanager
def resumable(out: Path, again: str = "the same command with --resume") -> Iterator[Stop]:
    """Wrap work that is saved in `out`: an early end prints one line that says what continues it.

    Raises:
      SystemExit: with 128 + signal, where it was stopped.
      ValueError: where the disk failed.
    """
    with stop_signals() as stop:
        try:
            yield stop
        except Stopped as stopped:
            print(f"stopped: {stopped}; {again} continues", file=sys.stderr)
            sys.exit(128 + (stop.signal or signal.SIGTERM))
        except OSError as error:
            saved = any(out.glob(f"{UNFINISHED}/**/*.safetensors"))
            advice = f"; finished chunks are saved in {out}: fix that, then {again} continues"
            why = f"{error.filename or out}: {error.strerror or error}"
            raise ValueError(why + advice * saved) from error


@contextlib.contextmanager
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


def _way_out(error: MemoryError | RuntimeError) -> str:
    """Return advice for an error of the machine; "" for other errors."""
    if isinstance(error, MemoryError):
        return (
            f"out of memory on the host ({error or 'no more'}): a smaller --batch needs less, with "
            "another --out or --overwrite; so do fewer runs (--seeds)"
        )
    if is_out_of_memory(error):
        return (
            f"out of memory on the device even with one run at once ({error}): it takes a device "
            "with more memory, or smaller networks"
        )
    return ""


class _Stream:
    """Standard output or error; if its reader is gone, output is dropped and the work continues."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if somebody reads."""
        with self._perhaps():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if somebody reads."""
        with self._perhaps():
            self._stream.flush()

    @contextlib.contextmanager
    def _perhaps(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _renamed(word: str) -> str:
    """Replace a flag of version 0.1 by today's, and say so."""
    flag, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
    new = flags.RENAMED.get(flag, "")
    if not word.startswith("-") or new.partition("=")[0] not in absl_flags.FLAGS:
        return word
    print(f"--{flag} is called --{new} now", file=sys.stderr)
    return f"--{new}" if "=" in new else f"--{new}{equals}{value}"


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return absl_flags.FLAGS([_renamed(word) for word in argv])
    except absl_flags.Error as error:
        sys.exit(_refuse(f"{error} (--help lists the flags)", error))
    except SystemExit:
        sys.exit(0)  # the help flags print and leave; that is no failure


def _refuse(message: str, error: BaseException) -> int:
    if absl_flags.FLAGS["debug"].value:
        cause: BaseException | None = error
        while cause is not None:
            cause.__suppress_context__, cause = False, cause.__cause__ or cause.__context__
        traceback.print_exception(error)
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2
