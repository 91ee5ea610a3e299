"""Sweeps in a folder: saved as they are computed, and resumed after a stop or a kill.

On CPU a resumed sweep is bit-equal to an uninterrupted one. Image files are written in threads
while the next chunk is computed.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, chunk_sizes
from jaxsynth.chunks import execute
from jaxsynth.images import write_png
from jaxsynth.png_text import KEYWORD
from jaxsynth.runs.checkpoint import (
    all_asked_to_stop,
    ask_all_to_stop,
    is_finished,
    load_chunk,
    load_progress,
    save_chunk,
    save_progress,
)
from jaxsynth.runs.folder import IMAGES, UNFINISHED, fingerprint, image_name, open_run
from jaxsynth.runs.processes import ALONE, Processes, agree, any_of, lock

Show = Callable[[np.ndarray], np.ndarray]  # raw (H, W, 3) -> RGB uint8
Text = Callable[[int, str], str]  # run, `last` or `best` -> its settings, see `jaxsynth.png_text`
_LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal
_WORDS = ("open", "finished", "refused")  # what process 0 says of the output folder


class Stopped(Exception):
    """The sweep was asked to stop and has saved its state; the message says how far it got."""


@dataclasses.dataclass(frozen=True)
class Saving:
    """Where and how a sweep is saved.

    Attributes:
      folder: the output folder; None saves nothing.
      resume: continue the run there.
      overwrite: replace an earlier run in it.
      save_seconds: seconds between two checkpoints of the chunk under way.
      progress: whether a bar is drawn on stderr.
      asked_to_stop: called after every step.
      devices: those that share a chunk's runs; by default JAX's own choice.
      processes: who shares the run.
      watch: whether a page shows the runs under way, see `jaxsynth.report.watch`.
      tensorboard: whether events are written, see `jaxsynth.report.watch`.
      observers: told of every step and finished chunk.
    """

    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False
    save_seconds: float = 15.0
    progress: bool = True
    asked_to_stop: Callable[[], bool] = lambda: False
    devices: Sequence[jax.Device] = ()
    processes: Processes = ALONE
    watch: bool = False
    tensorboard: bool = False
    observers: Sequence["Observer"] = ()


class Observer(Protocol):
    """Called while a sweep computes."""

    def step(self, first: int, done: int, values: np.ndarray, snapshot: Callable) -> None:
        """Take a step: the chunk's first run, its steps done, objectives (R,), its `Progress`."""

    def chunk(self, first: int, chunk: ChunkResult) -> None:
        """Take a finished chunk, one that was saved before, too."""


def finished_chunks(
    problem: Problem, saving: Saving, name: str = ""
) -> Iterator[tuple[int, ChunkResult]]:
    """Yield this process's chunks, each with its first run: saved ones, then computed ones.

    The folder holds the same runs (`open_run`), stopped or new. `name` stands before the bar, and
    before what `Stopped` says. ValueError if a checkpoint is damaged or of another run.
    """
    (index, count), folder = saving.processes, saving.folder
    chunks = list(chunk_sizes(problem, len(saving.devices) or 1))[index::count]
    left = [first for first in chunks if folder is None or not is_finished(folder, first)]
    for first in sorted(set(chunks) - set(left)):
        chunk = load_chunk(folder, first)
        for observer in saving.observers:
            observer.chunk(first, chunk)
        yield first, chunk
    if not left:
        return
    under_way = None if folder is None else load_progress(folder, left[0])
    steps = max(1, problem.settings.recipe.steps)
    begun, total = under_way.done if under_way else 0, steps * len(left)
    with _bar(saving, name, total, begun) as bar:
        watch = _Watch(problem, saving, bar, len(chunks), len(chunks) - len(left), name)
        how = {"devices": saving.devices, "on_step": watch.step, "on_halved": watch.halved}
        computed = execute(problem, chunks=left, under_way=under_way, **how)
        for first, chunk in zip(left, computed, strict=True):
            if folder is not None:
                save_chunk(folder, first, chunk)
            watch.finished += 1
            for observer in saving.observers:
                observer.chunk(first, chunk)
            bar.update(total - steps * (len(chunks) - watch.finished) - bar.n)
            yield first, chunk
            if first != left[-1] and saving.asked_to_stop():  # a chunk without steps asks here
                raise watch.stopped()


class _Watch:
    """The duties after every step: the bar moves, the state is saved, the sweep stops if asked.

    `finished` of all `chunks` are; the bar is that of the others.
    """

    def __init__(
        self, problem: Problem, saving: Saving, bar: tqdm, chunks: int, finished: int, name: str
    ):
        self._problem, self._saving, self._bar = problem, saving, bar
        self.finished, self._chunks, self._before, self._name = finished, chunks, finished, name
        self._saved, self._best, self._stepped = time.monotonic(), -np.inf, False

    def step(self, first: int, done: int, values: np.ndarray, snapshot: Callable) -> None:
        steps, folder = self._problem.settings.recipe.steps, self._saving.folder
        now = (self.finished - self._before) * steps + done
        if not self._stepped:  # the time left is reckoned without compilation
            self._bar.start_t, self._bar.initial, self._stepped = time.time(), now, True
        self._bar.update(now - self._bar.n)
        self._best = np.max(values, initial=self._best, where=np.isfinite(values))
        said = f"best {self._best:.4g}, median {np.median(values):.4g}"
        self._bar.set_postfix_str(said, refresh=False)
        for observer in self._saving.observers:
            observer.step(first, done, values, snapshot)
        stop = self._saving.asked_to_stop()
        due = stop or time.monotonic() - self._saved >= self._saving.save_seconds
        if due and folder is not None:
            save_progress(folder, first, snapshot())
            self._saved = time.monotonic()
        if stop:
            runs = f"runs {first} to {first + len(values) - 1} of {len(self._problem.batch.codes)}"
            raise self.stopped(f"{runs} at step {done} of {steps}, ")

    def stopped(self, where: str = "") -> Stopped:
        name = f"{self._name}: " if self._name else ""
        return Stopped(f"{name}{where}{self.finished} of {self._chunks} chunks finished")

    def halved(self, at_once: int) -> None:
        """Say, also without the bar, that memory was short."""
        self._bar.clear()
        said = f"continuing with {at_once} runs at once, as --batch={at_once} computes them"
        print(f"out of memory: {said}", file=sys.stderr)


class _Lines:
    """Standard error that is no terminal: a bar that is drawn again is another line."""

    def write(self, text: str) -> None:
        if said := text.strip():
            print(said, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def _bar(saving: Saving, name: str, total: int, begun: int) -> tqdm:
    """All steps, the best objective and the median, on stderr."""
    how: dict[str, Any] = {"unit": "step", "disable": not saving.progress, "file": sys.stderr}
    how["smoothing"] = 0  # the mean rate
    if not sys.stderr.isatty():
        how |= {"file": _Lines(), "delay": _LINE_SECONDS, "mininterval": _LINE_SECONDS}
        said = "{desc}{n_fmt} of {total_fmt} steps in {elapsed}, {remaining} left{postfix}"
        how |= {"bar_format": said}
    return tqdm(total=total, initial=begun, desc=f"{name}: " if name else None, **how)


# --- alone or with others -------------------------------------------------------------------------


def open_together(
    saving: Saving, config: Mapping[str, Any], held: ExitStack
) -> dict[str, Any] | None:
    """Lock the folder and make it ready, in process 0; `held` keeps the lock.

    Returns the folder's config, or None if the run is finished. ValueError, in every process, if
    the folder cannot be used or holds another run, or the processes do not compute the same in one
    folder.
    """
    processes, folder = saving.processes, saving.folder
    opened, refusal = dict(config), None
    if processes.count > 1:  # else: a config may hold a million runs
        own = fingerprint(config)
        if any_of(processes, own != agree(processes, own)):
            raise ValueError(
                "the processes of this run were started with different flags, networks or numbers "
                "of devices: give all of them the same"
            )
    if processes.leads:
        try:
            held.enter_context(lock(folder))
            opened = open_run(folder, config, saving.resume, saving.overwrite)
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


def compute_together(problem: Problem, saving: Saving, images: str, show: Show, text: Text) -> None:
    """Compute all chunks and write their images; others hear of a stop or failure."""
    processes, folder = saving.processes, saving.folder
    shared, failure = processes.count > 1, None

    def asked_to_stop() -> bool:
        return saving.asked_to_stop() or (shared and all_asked_to_stop(folder))

    own = dataclasses.replace(saving, asked_to_stop=asked_to_stop)
    try:
        with image_writer(folder, images, show, text) as write:
            for first, chunk in finished_chunks(problem, own):
                write(problem.runs_of(range(first, first + len(chunk.codes))), chunk)
    except Exception as error:
        failure = error
        if shared:
            ask_all_to_stop(folder)
    if any_of(processes, failure is not None):
        raise failure or Stopped("another process has stopped")


@contextmanager
def image_writer(
    folder: Path, images: str, show: Show, text: Text = lambda run, which: ""
) -> Iterator[Callable[[Sequence[Sequence[int]], ChunkResult], None]]:
    """Write the image files of chunks, in a thread per core.

    Gives write(numbers, chunk), which returns while the chunk's images are encoded; each has the
    numbers of the runs that it is of. The next `write` waits for them, and so does the block's end.
    Both raise what an encoding has raised. `images` is a key of `IMAGES`, `show` makes pixels
    visible, `text` travels in each file, see `jaxsynth.png_text`.
    """
    under_way: list[Future[None]] = []

    def wait() -> None:
        while under_way:
            under_way.pop(0).result()

    def encode(runs: Sequence[int], which: str, image: np.ndarray) -> None:
        for run in runs:
            said = text(run, which)
            path = folder / image_name(run, which)
            write_png(path, show(image), {KEYWORD: said} if said else None)

    def write(numbers: Sequence[Sequence[int]], chunk: ChunkResult) -> None:
        wait()
        for which in IMAGES[images]:
            for image, runs in zip(getattr(chunk, which).image, numbers, strict=True):
                under_way.append(threads.submit(encode, runs, which, image))

    if IMAGES[images]:
        (folder / "images").mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield write
        wait()
