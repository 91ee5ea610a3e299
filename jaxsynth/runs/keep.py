"""Sweeps carried out in a folder: saved as they are computed, stopped or killed, and resumed.

On CPU a resumed sweep is bit-equal to an uninterrupted one. Several sweeps of one longer job have
folders of their own below the job's:

  OUT/unfinished/NAME    the sweep NAME under way
"""

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxsynth.ascent import ChunkResult, Progress
from jaxsynth.chunks import Problem, chunk_starts, execute, join
from jaxsynth.runs.checkpoint import (
    all_asked_to_stop,
    ask_all_to_stop,
    is_finished,
    load_chunk,
    load_progress,
    save_chunk,
    save_progress,
)
from jaxsynth.runs.folder import UNFINISHED, fingerprint, lock, open_run
from jaxsynth.runs.pictures import Show, image_writer
from jaxsynth.runs.processes import ALONE, Processes, agree, any_of

_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal
_WORDS = ("open", "finished", "refused")  # what process 0 says of the output folder


class Stopped(Exception):
    """The sweep was asked to stop and has saved its state; the message says how far it came."""


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Where and how a sweep is saved.

    Attributes:
      folder: the output folder; None saves nothing.
      resume: continue what is there.
      overwrite: replace an earlier run in it.
      save_seconds: seconds between two checkpoints of the chunk under way.
      progress: whether a bar is drawn on stderr.
      asked_to_stop: called after every step.
      devices: what a chunk's runs are split over; by default JAX's own choice.
      processes: who shares the run.
    """

    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False
    save_seconds: float = 15.0
    progress: bool = True
    asked_to_stop: Callable[[], bool] = lambda: False
    devices: tuple[jax.Device, ...] = ()
    processes: Processes = ALONE


def all_chunks(problem: Problem, keeping: Keeping) -> list[int]:
    """Give the first runs of all chunks."""
    return chunk_starts(problem, len(keeping.devices) or 1)


def finished_chunks(
    problem: Problem, keeping: Keeping, name: str = ""
) -> Iterator[tuple[int, ChunkResult]]:
    """Yield this process's chunks, each with its first run: saved ones, then computed ones.

    Args:
      problem: the runs.
      keeping: its folder holds the same runs (`open_run`), stopped or new.
      name: stands before the bar, and before what `Stopped` says.

    Raises:
      Stopped: if it was asked to.
      ValueError: if a checkpoint is damaged or of another run.
    """
    (index, count), folder = keeping.processes, keeping.folder
    chunks = all_chunks(problem, keeping)[index::count]
    left = [first for first in chunks if folder is None or not is_finished(folder, first)]
    for first in sorted(set(chunks) - set(left)):
        yield first, load_chunk(folder, first)
    if not left:
        return
    under_way = None if folder is None else load_progress(folder, left[0])
    prefix, done = f"{name}: " if name else "", len(chunks) - len(left)

    def finished() -> str:
        return f"{done} of {len(chunks)} chunks finished"

    with _bar(problem, keeping, name, len(left), under_way) as bar:
        on_step = _saver(problem, keeping, prefix, finished, bar)
        computed = execute(
            problem,
            on_step=on_step,
            chunks=left,
            under_way=under_way,
            devices=keeping.devices,
            on_halved=bar.say_halved,
        )
        for first, chunk in zip(left, computed, strict=True):
            if folder is not None:
                codes = problem.batch.codes[first : first + len(chunk.codes)]
                save_chunk(folder, first, chunk, codes)
            done += 1
            bar.end_chunk()
            yield first, chunk
            if first != left[-1] and keeping.asked_to_stop():  # a chunk without steps asks here
                raise Stopped(prefix + finished())


# --- alone or with others -------------------------------------------------------------------------


def open_together(
    keeping: Keeping, config: Mapping[str, Any], held: ExitStack
) -> dict[str, Any] | None:
    """Lock the folder and make it ready, in process 0; `held` keeps the lock.

    Returns:
      The folder's config; None if the run is finished.

    Raises:
      ValueError: in every process, if the folder cannot be used or holds another run, or the
        processes do not compute the same in one folder.
    """
    processes, folder = keeping.processes, keeping.folder
    opened, refusal = dict(config), None
    _check_alike(processes, config)
    if processes.leads:
        try:
            held.enter_context(lock(folder))
            opened = open_run(folder, config, keeping.resume, keeping.overwrite)
        except (ValueError, OSError) as error:
            refusal = error
    word = "refused" if refusal else "finished" if opened is None else "open"
    word = _WORDS[agree(processes, _WORDS.index(word))]
    if word == "refused":
        raise refusal or ValueError(f"process 0 has refused output folder {folder}")
    if word == "finished":
        return None
    if any_of(processes, not (folder / UNFINISHED).is_dir()):
        raise ValueError(
            f"output folder {folder} of process 0 is not that of all processes: give all of them "
            "one --out, on a file system that they share"
        )
    return opened


def compute_together(problem: Problem, keeping: Keeping, images: str, show: Show) -> None:
    """Compute all chunks and write their images; others hear of a process that stops or fails.

    Raises:
      Stopped: if this process or another one has stopped.
    """
    processes, folder = keeping.processes, keeping.folder
    shared, failure = processes.count > 1, None

    def asked_to_stop() -> bool:
        return keeping.asked_to_stop() or (shared and all_asked_to_stop(folder))

    own = dataclasses.replace(keeping, asked_to_stop=asked_to_stop)
    try:
        with image_writer(folder, images, show) as write:
            for first, chunk in finished_chunks(problem, own):
                write(first, chunk)
    except Exception as error:
        failure = error
        if shared:
            ask_all_to_stop(folder)
    if any_of(processes, failure is not None):
        raise failure or Stopped("another process has stopped")


def _check_alike(processes: Processes, config: Mapping[str, Any]) -> None:
    if processes.count == 1:
        return  # a config may hold a million runs
    own = fingerprint(config)
    if any_of(processes, own != agree(processes, own)):
        raise ValueError(
            "the processes of this run were started with different flags, networks or numbers of "
            "devices: give all of them the same"
        )


# --- several sweeps of one job --------------------------------------------------------------------


def finished_sweep(
    keeping: Keeping, name: str, problem: Problem, config: Mapping[str, Any]
) -> ChunkResult:
    """Give all runs of one of several sweeps: saved ones, then computed ones.

    Raises:
      Stopped: if it was asked to.
      ValueError: if its folder holds a sweep of other settings, or a checkpoint is damaged.
    """
    open_sweep(keeping, name, config)
    own = dataclasses.replace(keeping, folder=sweep_folder(keeping.folder, name))
    chunks = finished_chunks(problem, own, name)
    return join([chunk for _, chunk in sorted(chunks, key=lambda pair: pair[0])])


def sweep_config(
    command: str,
    settings: Any,
    runs: Sequence[Any],
    networks: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Give the config.json of one of several sweeps.

    `networks` are role -> what `file_record` says of its file.
    """
    return {
        "command": command,
        "sweep": dataclasses.asdict(settings),
        "networks": {role: dict(record) for role, record in sorted(networks.items())},
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def open_sweep(keeping: Keeping, name: str, config: Mapping[str, Any]) -> None:
    """Make the folder of a sweep ready.

    Raises:
      ValueError: if it holds one of other settings.
    """
    open_run(sweep_folder(keeping.folder, name), config, resume=True)


def sweep_folder(out: Path, name: str) -> Path:
    """Give the folder of the sweep `name`, one of several that share `out`."""
    return out / UNFINISHED / name


def close_sweep(out: Path, name: str) -> None:
    """Remove the checkpoints of a sweep whose results are written."""
    shutil.rmtree(sweep_folder(out, name), ignore_errors=True)
    with suppress(OSError):  # others are under way
        (out / UNFINISHED).rmdir()


def _saver(
    problem: Problem, keeping: Keeping, prefix: str, finished: Callable[[], str], bar: "_Bar"
) -> Callable[[int, int, np.ndarray, Callable[[], Progress]], None]:
    """Give what is called after every step: it moves the bar, saves, and stops."""
    total, steps, saved = len(problem.batch.codes), problem.settings.recipe.steps, time.monotonic()

    def on_step(first: int, done: int, values: np.ndarray, snapshot) -> None:
        nonlocal saved
        bar.show(done, values)
        stop = keeping.asked_to_stop()
        due = stop or time.monotonic() - saved >= keeping.save_seconds
        if due and keeping.folder is not None:
            save_progress(keeping.folder, first, snapshot())
            saved = time.monotonic()
        if stop:
            raise Stopped(
                f"{prefix}runs {first} to {first + len(values) - 1} of {total} at step {done} of "
                f"{steps}, {finished()}"
            )

    return on_step


# --- the bar --------------------------------------------------------------------------------------


class _Lines:
    """Standard error that is no terminal: a bar that is drawn again is another line."""

    def write(self, text: str) -> None:
        if said := text.strip():
            print(said, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


class _Bar:
    """All chunks' steps and the median objective, on stderr."""

    def __init__(self, bar: tqdm, steps: int):
        self._bar, self._steps, self._chunks = bar, steps, 0

    def show(self, done: int, values: np.ndarray) -> None:
        self._bar.update(self._chunks * self._steps + done - self._bar.n)
        self._bar.set_postfix_str(f"objective {np.median(values):.4g}", refresh=False)

    def end_chunk(self) -> None:
        self._chunks += 1
        self._bar.update(self._chunks * self._steps - self._bar.n)

    def say_halved(self, at_once: int) -> None:
        """Say, also without the bar, that memory was short."""
        self._bar.clear()
        said = f"going on with {at_once} runs at once, as --batch={at_once} computes them"
        print(f"out of memory: {said}", file=sys.stderr)


@contextmanager
def _bar(
    problem: Problem, keeping: Keeping, name: str, chunks: int, under_way: Progress | None
) -> Iterator[_Bar]:
    steps = max(1, problem.settings.recipe.steps)
    begun = under_way.done if under_way else 0
    how: dict[str, Any] = {"unit": "step", "disable": not keeping.progress, "file": sys.stderr}
    if not sys.stderr.isatty():
        how |= {"file": _Lines(), "delay": _LINE_SECONDS, "mininterval": _LINE_SECONDS}
        how |= {"bar_format": "{desc}{n_fmt} of {total_fmt} steps in {elapsed}{postfix}"}
    with tqdm(total=steps * chunks, initial=begun, desc=name or None, **how) as bar:
        yield _Bar(bar, steps)
