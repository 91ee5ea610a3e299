"""Sweeps carried out in a folder: saved as they are computed, stopped or killed, and resumed.

On CPU a resumed sweep is bit-equal to an uninterrupted one. Several sweeps of one longer job have
folders of their own below the job's:

  OUT/unfinished/NAME    the sweep NAME under way
"""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxsynth.ascent import Progress
from jaxsynth.chunks import Results, chunk_starts, join
from jaxsynth.images import to_rgb, write_png
from jaxsynth.runs.checkpoint import (
    is_finished,
    load_chunk,
    load_progress,
    save_chunk,
    save_progress,
)
from jaxsynth.runs.folder import IMAGES, UNFINISHED, image_name, open_run
from jaxsynth.runs.processes import ALONE, Processes
from jaxsynth.short import Plan, Run, Sweep, execute


class Stopped(Exception):
    """The sweep was asked to stop and has saved its state; the message says how far it came."""


@dataclasses.dataclass(frozen=True)
class Keeping:
    """Where and how a sweep is saved.

    Attributes:
      folder: the output folder, which the caller has locked.
      resume: continue what is there.
      overwrite: replace an earlier run in it.
      save_seconds: seconds between two checkpoints of the chunk under way.
      progress: whether a bar is drawn on stderr.
      asked_to_stop: called after every step.
      devices: what a chunk's runs are split over; by default JAX's own choice.
      processes: who shares the run.
    """

    folder: Path
    resume: bool = False
    overwrite: bool = False
    save_seconds: float = 15.0
    progress: bool = True
    asked_to_stop: Callable[[], bool] = lambda: False
    devices: tuple[jax.Device, ...] = ()
    processes: Processes = ALONE


def all_chunks(problem: Plan, keeping: Keeping) -> list[int]:
    """Give the first runs of all chunks."""
    return chunk_starts(problem, len(keeping.devices) or 1)


def finished_chunks(
    problem: Plan, keeping: Keeping, name: str = ""
) -> Iterator[tuple[int, Results]]:
    """Yield this process's chunks, each with its first run: saved ones, then computed ones.

    Args:
      problem: the runs.
      keeping: its folder holds the same runs (`open_run`), stopped or new.
      name: stands before the bar, and before what `Stopped` says.

    Raises:
      Stopped: if it was asked to.
      ValueError: if a checkpoint is damaged or of another run.
    """
    index, count = keeping.processes
    chunks = all_chunks(problem, keeping)[index::count]
    left = [first for first in chunks if not is_finished(keeping.folder, first)]
    for first in sorted(set(chunks) - set(left)):
        yield first, load_chunk(keeping.folder, first)
    if not left:
        return
    under_way = load_progress(keeping.folder, left[0])
    prefix = f"{name}: " if name else ""

    def finished() -> str:
        found = sum(is_finished(keeping.folder, first) for first in chunks)
        return f"{found} of {len(chunks)} chunks finished"

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
            codes = problem.batch.codes[first : first + len(chunk.codes)]
            save_chunk(keeping.folder, first, chunk, codes)
            bar.end_chunk()
            yield first, chunk
            if first != left[-1] and keeping.asked_to_stop():  # a chunk without steps asks here
                raise Stopped(prefix + finished())


def finished_sweep(
    keeping: Keeping, name: str, problem: Plan, config: Mapping[str, Any]
) -> Results:
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
    settings: Sweep,
    runs: Sequence[Run],
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
    problem: Plan, keeping: Keeping, prefix: str, finished: Callable[[], str], bar: "_Bar"
) -> Callable[[int, int, np.ndarray, Callable[[], Progress]], None]:
    """Give what is called after every step: it moves the bar, saves, and stops."""
    total, steps, saved = len(problem.batch.codes), problem.settings.recipe.steps, time.monotonic()

    def on_step(first: int, done: int, values: np.ndarray, snapshot) -> None:
        nonlocal saved
        bar.show(done, values)
        stop = keeping.asked_to_stop()
        if stop or time.monotonic() - saved >= keeping.save_seconds:
            save_progress(keeping.folder, first, snapshot())
            saved = time.monotonic()
        if stop:
            raise Stopped(
                f"{prefix}runs {first} to {first + len(values) - 1} of {total} at step {done} of "
                f"{steps}, {finished()}"
            )

    return on_step


# --- the bar --------------------------------------------------------------------------------------


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
    problem: Plan, keeping: Keeping, name: str, chunks: int, under_way: Progress | None
) -> Iterator[_Bar]:
    steps = max(1, problem.settings.recipe.steps)
    begun = under_way.done if under_way else 0
    how = {"unit": "step", "disable": not keeping.progress, "file": sys.stderr}
    with tqdm(total=steps * chunks, initial=begun, desc=name or None, **how) as bar:
        yield _Bar(bar, steps)


# --- pictures -------------------------------------------------------------------------------------


@contextmanager
def image_writer(folder: Path, images: str, how: str) -> Iterator[Callable[[int, Results], None]]:
    """Write the image files of chunks, in a thread per core.

    Gives write(first, chunk), which hands on the images of a chunk whose first run is `first` and
    returns while they are encoded. One chunk at a time is under way: the next `write` waits for it,
    and so does the block's end, after which all files are there. Both raise what an encoding has
    raised.

    Args:
      folder: the output folder.
      images: which files, a key of `IMAGES`.
      how: how pixels become visible (`to_rgb`).
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        for one in under_way:
            one.result()
        under_way.clear()

    with ThreadPoolExecutor(os.cpu_count()) as threads:

        def write(first: int, chunk: Results) -> None:
            wait()
            for which in IMAGES[images]:
                for i, image in enumerate(getattr(chunk, which).image):
                    path = folder / image_name(first + i, which)
                    under_way.append(threads.submit(_encode, path, image, how))

        if IMAGES[images]:
            (folder / "images").mkdir(exist_ok=True)
        yield write
        wait()


def _encode(path: Path, image: np.ndarray, how: str) -> None:
    write_png(path, to_rgb(image, how))
