"""Observers of a sweep under way: a page, and events for TensorBoard.

OUT/index.html reads OUT/explorer/live.js every second. The pictures of the current chunk come
first, decoded from its codes; finished runs follow, the newest first. The explorer takes the page's
place when the report is written. OUT/tensorboard has the objective of each run and its image.
"""

import contextlib
import importlib.util
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, time
from types import TracebackType
from typing import Any

import numpy as np

from jaxsynth import table
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, chunk_sizes
from jaxsynth.report.explorer import EXPLORER, LIVE, decode, number, trace_points, write_call
from jaxsynth.report.page import write_live_page
from jaxsynth.report.sheet import place_of, scaled, webp_url
from jaxsynth.results import visible
from jaxsynth.runs.folder import EVENTS
from jaxsynth.runs.saving import Saving
from jaxsynth.scoring import sensitive_score
from jaxsynth.table import BLUR_ABOVE

_SIDE = 160  # of a picture in pixels
_NOW, _FINISHED = 16, 48  # pictures shown at most, of the current chunk and of finished runs
_MOST_EVENTS = 64  # runs with a curve and an image of their own, in TensorBoard
_SECONDS, _SHARE = 2.0, 0.05  # between two writings at least; of the time they take at most


class LivePage:
    """Rewrites the page's data after a step: an observer of `jaxsynth.runs.saving.Saving`.

    A context: when the block ends, the page says whether the sweep is finished or has stopped.
    """

    def __init__(self, problem: Problem, saving: Saving, config: Mapping[str, Any]):
        """Write the page of the runs of this process."""
        self._problem, self._config, self._folder = problem, config, saving.folder or Path()
        index, count = saving.processes
        sizes = list(chunk_sizes(problem, len(saving.devices) or 1).items())[index::count]
        runs = [problem.runs_of(range(first, first + size)) for first, size in sizes]
        self._runs = sum(len(same) for chunk in runs for same in chunk)
        self._steps, self._total = max(1, problem.settings.recipe.steps), len(sizes)
        self._hides = sensitive_score(problem.classifiers)
        self._new: deque[tuple[int, ChunkResult, int]] = deque(maxlen=_FINISHED)
        self._now: list[dict[str, Any]] = []
        self._finished: list[dict[str, Any]] = []
        self._chunks, self._finished_runs, self._begun = 0, 0, None
        self._curves: list[np.ndarray] = []  # of the current chunk, by step
        self._step, self._best, self._due, self._compiled = 0, -np.inf, 0.0, False
        self._values = np.zeros(0)
        (self._folder / EXPLORER).mkdir(exist_ok=True)
        title = config.get("title") or f"{config.get('experiment', 'sweep')} under way"
        write_live_page(self._folder / "index.html", str(title), config.get("command", ""))
        self._write("running")

    def step(self, first: int, done: int, values: np.ndarray, snapshot: Callable) -> None:
        """Take a step of the chunk of these runs; write if it is time."""
        clock = monotonic()
        self._step, self._values = done, np.asarray(values, float)
        self._curves.append(self._values)
        known = np.isfinite(self._values)
        self._best = np.max(self._values, initial=self._best, where=known)
        if clock >= self._due:
            self._now = self._pictures(first, snapshot().codes[: len(values)])
            self._write("running")
            took = monotonic() - clock if self._compiled else 0.0  # the first time compiles
            self._compiled, self._due = True, monotonic() + max(_SECONDS, took / _SHARE)
        self._begun = self._begun or (monotonic(), self._steps_done())

    def chunk(self, first: int, chunk: ChunkResult) -> None:
        """Take a finished chunk; it is drawn when the page is written."""
        numbers = self._problem.runs_of(range(first, first + len(chunk.codes)))
        self._finished_runs += sum(map(len, numbers))
        self._chunks, self._step = self._chunks + 1, 0
        self._new.extend((first + i, chunk, i) for i in range(len(chunk.codes)))
        self._curves, self._now = [], []
        if monotonic() >= self._due or self._chunks == self._total:
            self._write("running")

    def __enter__(self) -> "LivePage":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Say how it ended, unless the explorer has taken the page's place."""
        if (self._folder / EXPLORER / LIVE).exists():
            with contextlib.suppress(OSError):  # the disk may be what went wrong
                self._write("stopped" if kind else "finished")

    def _write(self, state: str) -> None:
        known = self._values[np.isfinite(self._values)]
        done = self._steps_done()
        data = {
            "state": state,
            "time": time(),
            "done": done,
            "total": self._total * self._steps,
            "left": self._seconds_left(done),
            "step": self._step,
            "steps": self._steps,
            "finished_runs": self._finished_runs,
            "runs": self._runs,
            "best": number(float(self._best)),
            "median": number(float(np.median(known))) if known.size else None,
            "blur_above": BLUR_ABOVE,
            "now": self._now,
            "finished": self._newest(),
        }
        write_call(self._folder / EXPLORER / LIVE, "live", data)

    def _steps_done(self) -> int:
        return self._chunks * self._steps + self._step

    def _seconds_left(self, done: int) -> float | None:
        if self._begun is None or done <= self._begun[1]:
            return None
        rate = (monotonic() - self._begun[0]) / (done - self._begun[1])
        return round(rate * (self._total * self._steps - done), 1)

    def _pictures(self, first: int, codes: np.ndarray) -> list[dict[str, Any]]:
        """The runs of the current chunk, drawn from their codes."""
        generator, found = self._problem.generator, []
        curves = np.stack(self._curves, axis=1)
        for i, raw in enumerate(decode(generator, codes[:_NOW])):
            rgb = visible(raw, generator, self._config)
            found.append(self._entry(first + i, rgb, self._hides(rgb), curves[i]))
            found[-1]["lines"].append(f"objective {self._values[i]:.4g}")
        return found

    def _newest(self) -> list[dict[str, Any]]:
        """Finished runs, the newest first; each is drawn once."""
        new = [self._finished_run(*one) for one in reversed(self._new)]
        self._new.clear()
        self._finished = [*new, *self._finished][:_FINISHED]
        return self._finished

    def _finished_run(self, row: int, chunk: ChunkResult, i: int) -> dict[str, Any]:
        which, judges = table.shown(chunk, i), self._problem.classifiers
        look = getattr(chunk, which)
        objective = self._problem.runs[self._problem.runs_of([row])[0][0]].objective
        scores = table.scores(objective, judges, {"last": table.of_run(look.watched, i)})
        rgb = visible(np.asarray(look.image[i]), self._problem.generator, self._config)
        p = table.sensitive_of(scores, judges)
        entry = self._entry(row, rgb, p or 0.0, np.asarray(chunk.objective[i], float))
        entry["lines"] += table.score_lines(objective, scores, judges)
        return entry

    def _entry(self, row: int, rgb: np.ndarray, p: float, curve: np.ndarray) -> dict[str, Any]:
        runs = self._problem.runs_of([row])[0]
        return {
            "run": int(runs[0]),
            "lines": [place_of(self._problem.runs[runs[0]]) or f"run {runs[0]}"],
            "image": webp_url(scaled(rgb, _SIDE), quality=85, method=0),
            "p": number(p, 3),
            "curve": [number(value, 4) for value in curve[trace_points(len(curve))].tolist()],
        }


class EventFile:
    """Writes an event for every step and image: an observer of `jaxsynth.runs.saving.Saving`."""

    def __init__(self, problem: Problem, saving: Saving, config: Mapping[str, Any]):
        """Open the file."""
        from tensorboardX import SummaryWriter

        self._problem, self._config = problem, config
        self._writer = SummaryWriter(f"{saving.folder}/{EVENTS}", flush_secs=10)
        self._writer.add_text("command", str(config.get("command", "")))

    def step(self, first: int, done: int, values: np.ndarray, snapshot: Callable) -> None:
        """Write the objectives of a chunk, their median and the best."""
        known = values[np.isfinite(values)]
        if known.size:
            self._writer.add_scalar(f"chunk_{first:05d}/median", np.median(known), done)
            self._writer.add_scalar(f"chunk_{first:05d}/best", known.max(), done)
        for row, value in enumerate(values, first):
            if row < _MOST_EVENTS:
                self._writer.add_scalar(f"objective/{self._name(row)}", value, done)

    def chunk(self, first: int, chunk: ChunkResult) -> None:
        """Write the image that each finished run shows."""
        for i in range(min(len(chunk.codes), max(0, _MOST_EVENTS - first))):
            look = getattr(chunk, table.shown(chunk, i))
            rgb = visible(np.asarray(look.image[i]), self._problem.generator, self._config)
            steps = self._problem.settings.recipe.steps
            self._writer.add_image(f"image/{self._name(first + i)}", rgb, steps, dataformats="HWC")

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _name(self, row: int) -> str:
        run = int(self._problem.runs_of([row])[0][0])
        return " ".join(filter(None, (f"run {run:05d}", place_of(self._problem.runs[run]))))


def check_observers(saving: Saving) -> None:
    """Raise ValueError if a package that is asked for is missing."""
    if saving.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "tensorboard needs the package tensorboardX: pip install 'jaxsynth[tensorboard]'"
        )


def observers(
    problem: Problem, saving: Saving, config: Mapping[str, Any], held: contextlib.ExitStack
) -> Sequence[Any]:
    """Return what looks on while a sweep computes; `held` ends it."""
    if not saving.processes.leads:
        return ()
    found: list[Any] = []
    if saving.watch:
        found.append(held.enter_context(LivePage(problem, saving, config)))
    if saving.tensorboard:
        events = contextlib.closing(EventFile(problem, saving, config))
        found.append(held.enter_context(events))
    return found
