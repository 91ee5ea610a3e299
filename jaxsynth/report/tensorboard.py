"""Events for TensorBoard: OUT/tensorboard, with the objective of each run and its image."""

import importlib.util
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from jaxsynth import table
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem
from jaxsynth.report.sheet import place_of
from jaxsynth.results import visible
from jaxsynth.runs.folder import EVENTS
from jaxsynth.runs.saving import Saving

_MOST = 64  # runs with a curve and an image of their own


def check_tensorboard() -> None:
    """Raise ValueError if the package that writes events is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "tensorboard needs the package tensorboardX: pip install 'jaxsynth[tensorboard]'"
        )


class EventFile:
    """Writes an event for every step and image: an observer of `jaxsynth.runs.saving.Saving`.

    A context that closes the file.
    """

    def __init__(self, problem: Problem, saving: Saving, config: Mapping[str, Any]):
        """Open the file.

        Args:
          problem: the runs.
          saving: its folder, which exists.
          config: as config.json has it.
        """
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
            if row < _MOST:
                self._writer.add_scalar(f"objective/{self._name(row)}", value, done)

    def chunk(self, first: int, chunk: ChunkResult) -> None:
        """Write the image that each finished run shows."""
        for i in range(min(len(chunk.codes), max(0, _MOST - first))):
            look = getattr(chunk, table.shown(chunk, i))
            rgb = visible(np.asarray(look.image[i]), self._problem.generator, self._config)
            steps = self._problem.settings.recipe.steps
            self._writer.add_image(f"image/{self._name(first + i)}", rgb, steps, dataformats="HWC")

    def __enter__(self) -> "EventFile":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close the file."""
        self._writer.close()

    def _name(self, row: int) -> str:
        run = int(self._problem.runs_of([row])[0][0])
        return " ".join(filter(None, (f"run {run:05d}", place_of(self._problem.runs[run]))))
