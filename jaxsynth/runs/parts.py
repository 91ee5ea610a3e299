"""Finished parts of a longer job, each known by its inputs.

  OUT/STEM.json              {name: {"command", "made_of", "value"}}, rewritten after every part
  OUT/STEM/NAME.safetensors  a part's arrays, if it has any
  OUT/unfinished/SWEEP       sweeps under way, each in a folder of its own

A resumed job computes no part twice, and reuses no part that was made of something else.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, every_run, join
from jaxsynth.disk import write_atomic
from jaxsynth.runs.folder import (
    UNFINISHED,
    as_json,
    barely_begun,
    check_same,
    load_arrays,
    open_run,
    prepare,
    write_arrays,
)
from jaxsynth.runs.saving import Saving, finished_chunks


class Parts:
    """The parts of one job in its folder, which the caller has locked."""

    def __init__(
        self,
        folder: str | Path,
        command: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        stem: str = "parts",
        files: Sequence[str] = (),
    ):
        """Make the folder ready, or read its finished parts.

        Args:
          folder: the job's.
          command: of the job; it is named where another one's parts are found.
          resume: continue the job there.
          overwrite: replace the job there.
          stem: names the file and the folder of the parts.
          files: patterns of the job's further files, which `overwrite` deletes.

        Raises:
          ValueError: if the folder holds anything and neither flag says what to do, or is damaged.
        """
        self.folder, self._command, self._stem = Path(folder), command, stem
        begun = (self.folder / UNFINISHED).is_dir() or self._index.is_file()
        if not (resume and begun):
            more = (f"{stem}.json", f"{stem}/*.safetensors", f"{stem}/.*.part", *files)
            prepare(self.folder, overwrite or (resume and barely_begun(self.folder)), more)
        self._found = self._read()

    @property
    def _index(self) -> Path:
        return self.folder / f"{self._stem}.json"

    def done(self, name: str, made_of: Mapping[str, Any]) -> bool:
        """Whether the part is finished; `made_of` is JSON, everything that decides the part.

        ValueError if a part of this name was made of something else.
        """
        if name not in self._found:
            return False
        saved = {"command": self.command(name), name: self.made_of(name)}
        check_same(self.folder, saved, {name: made_of}, [name])
        return True

    def value(self, name: str) -> Any:
        """Return the value of a finished part."""
        return self._found[name]["value"]

    def made_of(self, name: str) -> dict[str, Any]:
        """Return what decided a finished part."""
        return self._found[name]["made_of"]

    def command(self, name: str) -> str:
        """Return the command that made a finished part."""
        return self._found[name]["command"]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Load the arrays of a finished part; ValueError if the file is damaged."""
        return load_arrays(self._file(name))

    def save(
        self,
        name: str,
        made_of: Mapping[str, Any],
        value: Any = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Save a finished part: first its arrays, then its line in the index."""
        if arrays is not None:
            self._file(name).parent.mkdir(exist_ok=True)
            write_arrays(self._file(name), arrays)
        record = {"command": self._command, "made_of": as_json(made_of), "value": as_json(value)}
        self._found[name] = record
        write_atomic(self._index, json.dumps(self._found, indent=1).encode())

    def names(self) -> list[str]:
        """Return the names of all finished parts, in the order of their saving."""
        return list(self._found)

    def _file(self, name: str) -> Path:
        return self.folder / self._stem / f"{quote(name, safe='+@,')}.safetensors"

    def _read(self) -> dict[str, Any]:
        path = self._index
        try:
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            for record in found.values():
                record["command"], record["made_of"], record["value"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read ({error!r}): delete it") from error
        return found


# --- several sweeps of one job --------------------------------------------------------------------


def finished_sweep(
    saving: Saving, name: str, problem: Problem, config: Mapping[str, Any]
) -> ChunkResult:
    """Return all runs of one of several sweeps: saved ones, then computed ones."""
    own = dataclasses.replace(saving, folder=open_sweep(saving, name, config))
    chunks = finished_chunks(problem, own, name)
    return every_run(problem, join([chunk for _, chunk in sorted(chunks, key=lambda p: p[0])]))


def open_sweep(saving: Saving, name: str, config: Mapping[str, Any]) -> Path:
    """Make the folder of a sweep ready; ValueError if it holds one of other settings."""
    if saving.folder is None:
        raise ValueError("several sweeps of one job need a folder")
    folder = saving.folder / UNFINISHED / name
    open_run(folder, config, resume=True)
    return folder


def close_sweep(out: Path, name: str) -> None:
    """Remove the checkpoints of a sweep whose results are written."""
    shutil.rmtree(out / UNFINISHED / name, ignore_errors=True)
    with suppress(OSError):  # others are under way
        (out / UNFINISHED).rmdir()
