"""A plan carried out in a folder that keeps whatever is computed: stopped or killed, it goes on.

On CPU the resumed sweep is bit-equal to an uninterrupted one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsynth.chunks import Results
from jaxsynth.maximize import Plan
from jaxsynth.progress import Progress
from jaxsynth.runs.checkpoint import is_kept, load_chunk, load_progress, save_chunk, save_progress
from jaxsynth.runs.folder import (
    CONFIG,
    LOCK,
    RESULTS,
    STOP,
    UNFINISHED,
    prepare_folder,
    read_config,
    write_config,
)
from jaxsynth.runs.progress import execute_shown

# Parts of config.json in which a resumed run must agree.
_DECISIVE = ("experiment", "sweep", "networks", "inputs", "show", "images", "chunk_runs", "runs")

_CALLED = {"chunk_runs": "runs a chunk (--batch times the devices)"}


class Stopped(Exception):
    """The sweep was asked to stop and has kept its state; the message says how far it came."""


def open_run(
    folder: Path, config: Mapping[str, Any], resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """Makes the folder ready for a run of this config, or for what is left of it.

    Returns:
      The config that the folder keeps: an unfinished run's own. None if `resume` is set and the run
      is finished.

    Raises:
      ValueError: if the folder holds another run, or this one and `resume` is not set.
    """
    unfinished, finished = (folder / UNFINISHED).is_dir(), (folder / RESULTS).is_file()
    if resume and (folder / CONFIG).is_file() and (unfinished or finished):
        kept = read_config(folder)
        _check_same(folder, kept, json.loads(json.dumps(dict(config))))
        (folder / UNFINISHED / STOP).unlink(missing_ok=True)
        return kept if unfinished else None
    prepare_folder(folder, overwrite or (resume and (unfinished or barely_begun(folder))))
    (folder / UNFINISHED).mkdir()
    write_config(folder, config)
    return read_config(folder)


def fingerprint(config: Mapping[str, Any]) -> int:
    """A number below 2^28 that two configs share if they agree in what decides a run."""
    text = json.dumps({part: config.get(part) for part in _DECISIVE}, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)


def barely_begun(folder: Path) -> bool:
    """Whether a run was killed here before it wrote its config."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return names <= {LOCK}


def _check_same(folder: Path, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for part in _DECISIVE:
        found = _difference(part, kept.get(part), asked.get(part))
        if found is None:
            continue
        what, old, new = found
        raise ValueError(
            f"output folder {folder} holds a run with {_CALLED.get(what, what)} {_short(old)}, not "
            f"{_short(new)}: resume it with its own command ({kept.get('command')}), or choose "
            "another --out"
        )


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """Name and values of the first leaf in which two JSON values differ; None if there is none."""
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = ((f"{name} {key}", old.get(key), new.get(key)) for key in {**old, **new})
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = ((f"{name} {i}", *pair) for i, pair in enumerate(zip(old, new, strict=True)))
    elif isinstance(old, list) and isinstance(new, list):
        return f"number of {name}", len(old), len(new)
    else:
        return name, old, new
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def kept_chunks(
    todo: Plan,
    folder: Path,
    chunks: Sequence[int],
    save_seconds: float,
    asked_to_stop: Callable[[], bool] = lambda: False,
    shown: bool = True,
    devices: Sequence[jax.Device] = (),
    name: str = "",
) -> Iterator[tuple[int, Results]]:
    """Chunks, each with its first run: those that the folder keeps, then computed ones, which it
    keeps from then on.

    Args:
      todo, folder: of the same run (`open_run`), stopped or new.
      chunks: the first runs of those that are wanted.
      save_seconds: seconds between two savings of the chunk under way.
      asked_to_stop: looked at after every step.
      devices: what a chunk is split over.
      name: stands before the bar, and before what `Stopped` says.

    Raises:
      Stopped: if it was asked to.
      ValueError: if a kept file is damaged or of another run.
    """
    left = [first for first in chunks if not is_kept(folder, first)]
    for first in sorted(set(chunks) - set(left)):
        yield first, load_chunk(folder, first)
    if not left:
        return
    total, saved = len(todo.batch.codes), time.monotonic()
    prefix = f"{name}: " if name else ""

    def on_step(
        first: int, steps: int, values: np.ndarray, snapshot: Callable[[], Progress]
    ) -> None:
        nonlocal saved
        stop = asked_to_stop()
        if stop or time.monotonic() - saved >= save_seconds:
            save_progress(folder, first, snapshot())
            saved = time.monotonic()
        if stop:
            raise Stopped(
                f"{prefix}runs {first} to {first + len(values) - 1} of {total} at step {steps} of "
                f"{todo.settings.recipe.steps}, {finished()}"
            )

    def finished() -> str:
        count = sum(is_kept(folder, first) for first in chunks)
        return f"{count} of {len(chunks)} chunks finished"

    computed = execute_shown(
        todo,
        shown,
        name,
        on_step=on_step,
        chunks=left,
        under_way=load_progress(folder, left[0]),
        devices=devices,
    )
    for first, chunk in zip(left, computed, strict=True):
        save_chunk(folder, first, chunk, todo.batch.codes[first : first + len(chunk.codes)])
        yield first, chunk
        if first != left[-1] and asked_to_stop():  # a chunk without steps asks nowhere else
            raise Stopped(prefix + finished())
