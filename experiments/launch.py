"""How every launcher runs: bad input is one line on stderr and exit code 2."""

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags

from experiments.heap import keep_memory
from jaxsynth.parts import is_out_of_memory
from jaxsynth.report.tables import printable


def run_main(
    main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """Parses the flags, calls `main(argv)` with what is left, and exits with what it returns.

    The process keeps the memory it gives back (`keep_memory`).

    Exit codes: 0 done (also `--help`), 130 stopped by Ctrl-C (143 by SIGTERM), 2 bad input: a flag
    that cannot be parsed, or a ValueError or OSError of the library; 3 where no run stayed finite.
    Anything else is a bug and keeps its traceback.
    """

    def guarded(rest: Sequence[str]) -> int:
        try:
            return main(rest) or 0
        except ValueError as error:
            return _refuse(str(error))
        except (MemoryError, RuntimeError) as error:
            if not (advice := _memory_advice(error)):
                raise
            return _refuse(advice)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except OSError as error:
            return _refuse(f"{error.filename or 'file system'}: {error.strerror or error}")

    keep_memory()
    for stream in (sys.stdout, sys.stderr):  # a name may not fit the terminal's encoding
        stream.reconfigure(errors="backslashreplace")
    for chatty in ("jax", "matplotlib"):  # absent accelerators and font caches are no news
        logging.getLogger(chatty).setLevel(logging.WARNING)
    app.run(guarded, argv=None if argv is None else list(argv), flags_parser=_parse)
    raise AssertionError("app.run always exits")


def keep_compiled(cache: Path) -> None:
    """Compiled programs, small ones too, are kept below this folder: another process that needs the
    same ones compiles nothing. To be called before anything is compiled."""
    jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def command_line(name: str, package: str = "experiments") -> str:
    """The command as it was typed."""
    return shlex.join(["python", "-m", f"{package}.{name}", *sys.argv[1:]])


def check_flags_only(name: str, argv: Sequence[str]) -> None:
    """Raises ValueError for a word on the command line that is no flag."""
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: {name} takes flags only")


def parse_some_of(flag: str, values: Sequence[str], known: Sequence[str]) -> list[str]:
    """What a list flag names, each once; ValueError unless it is some of what is known."""
    if not values or not set(values) <= set(known):
        raise ValueError(f"--{flag}={','.join(values)}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(values))


def parse_counts(flag: str, values: Sequence[str], expected: str) -> list[int]:
    """A list flag's numbers from 1 up, each once; `expected` says in an error what it takes, as in
    `numbers such as 1,8`.

    Raises:
      ValueError: if there is none, or one is no such number.
    """
    if not values or not all(value.isdecimal() and int(value) > 0 for value in values):
        raise ValueError(f"--{flag}={','.join(values)}: expected {expected}")
    return list(dict.fromkeys(int(value) for value in values))


def _memory_advice(error: MemoryError | RuntimeError) -> str:
    """The way out of an error that says that memory is full; "" for another one."""
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


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(list(argv))
    except flags.Error as error:
        sys.exit(_refuse(f"{error} (--help lists the flags)"))
    except SystemExit:
        sys.exit(0)  # the help flags print and leave; that is no failure


def _refuse(message: str) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2
