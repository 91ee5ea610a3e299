"""Launchers as a user types them, many command lines in one process.

`run_cases("scene", [["--steps=-1"], ...])` runs this file in a process of its own, see `launching`
(launchers' flags are global, and two may have flags of the same name), and gives an Outcome each.
"""

import contextlib
import importlib
import io
import json
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launching import start

HUNG = -1  # the exit code of a case that did not end
_MOST_SECONDS = 150


class Outcome(NamedTuple):
    """What a command line left: its exit code (None: it started to compute), what it printed, and
    whether it has touched the folder `run` in its working directory."""

    code: int | None
    out: str
    err: str
    wrote: bool


class Computed(BaseException):
    """The launcher has come to the point where it compiles."""


class Hung(BaseException):
    """A case has taken longer than any that is refused may."""


def run_cases(
    experiment: str,
    cases: Sequence[Sequence[str]],
    folder: Path,
    setup: str = "",
    more_memory: int = 0,
) -> list[Outcome]:
    """Outcomes of `python -m experiments.EXPERIMENT FLAGS...`, in this working directory each.

    setup: a module of the tests that the process imports first. more_memory: bytes of address space
    that it may take for the cases; 0 for any number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    typed = json.dumps([list(case) for case in cases])
    process = start(
        "in_process", experiment, setup, more_memory, typed, cwd=folder, JAX_PLATFORMS="cpu"
    )
    out, err = process.communicate(600)
    assert process.returncode == 0, err[-3000:]
    return [Outcome(*found) for found in json.loads(out)]


def _main() -> None:
    signal.signal(signal.SIGALRM, _hung)
    experiment, setup, more_memory, cases = sys.argv[1:]
    if setup:
        importlib.import_module(setup)
    module = importlib.import_module(f"experiments.{experiment}")
    if "experiments.common" in sys.modules:
        _never_compile()
    if int(more_memory):
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + int(more_memory),) * 2)
    print(json.dumps([_one(module, experiment, case) for case in json.loads(cases)]))


def _never_compile() -> None:
    from experiments import common
    from jaxsynth import programs

    def compiled(*_args, **_options):
        raise Computed

    for place, name in ((programs, "respond_jit"), (programs, "evaluate_jit"), (common, "encode")):
        setattr(place, name, compiled)


def _one(module, experiment: str, case: Sequence[str]) -> Outcome:
    from absl import flags

    from experiments.launch import run_experiment, run_main

    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    sys.argv = [experiment, *case]
    code = None
    signal.alarm(_MOST_SECONDS)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if hasattr(module, "Flags"):
                run_experiment(module.main, module.Flags, sys.argv)
            run_main(module.main, sys.argv)
        except SystemExit as end:
            code = end.code or 0
        except Computed:
            pass
        except Hung:
            code = HUNG
        finally:
            signal.alarm(0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Outcome(code, *texts, Path("run").exists())


def _hung(*_args) -> None:
    raise Hung


if __name__ == "__main__":
    _main()
