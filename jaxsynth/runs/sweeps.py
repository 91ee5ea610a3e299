"""Several sweeps of one launcher, each kept while it is under way until its figures are written.

  OUT/unfinished/NAME    the sweep NAME under way: the folder of a run, see `jaxsynth.runs.keep`

What is finished is known by the hash of what it was made of (`sha256_of`), which stands beside its
figures: --resume computes nothing twice, and takes nothing that is of other settings.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jaxsynth.chunks import Results, chunk_starts, join
from jaxsynth.maximize import Plan, Run, Sweep
from jaxsynth.runs.folder import UNFINISHED, prepare_folder
from jaxsynth.runs.keep import barely_begun, kept_chunks, open_run


class Keeping(NamedTuple):
    """Where and how sweeps are kept.

    Attributes:
      out: the launcher's folder, which it has locked.
      resume: go on with what is there.
      save_seconds: seconds between two savings of the chunk under way.
      asked_to_stop: looked at after every step.
      shown: whether a bar is drawn.
    """

    out: Path
    resume: bool
    save_seconds: float
    asked_to_stop: Callable[[], bool]
    shown: bool


def open_folder(folder: Path, resume: bool, overwrite: bool, figures: str) -> None:
    """Makes a folder ready for sweeps, or for what is left of them.

    figures: name of the file that tells what is finished.

    Raises:
      ValueError: if it holds anything and neither flag says what to do.
    """
    begun = (folder / UNFINISHED).is_dir() or (folder / figures).is_file()
    if not (resume and begun):
        prepare_folder(folder, overwrite or (resume and barely_begun(folder)))


def sweep_config(
    command: str,
    sweep: Sweep,
    runs: Sequence[Run],
    networks: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The config.json of a sweep; `networks` are role -> what `file_record` says of its file."""
    return {
        "command": command,
        "sweep": dataclasses.asdict(sweep),
        "networks": {role: dict(record) for role, record in sorted(networks.items())},
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def sha256_of(config: Mapping[str, Any]) -> str:
    """Hash of what decides figures: everything in the config but the command."""
    plain = {name: value for name, value in config.items() if name != "command"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def open_sweep(keeping: Keeping, name: str, config: Mapping[str, Any]) -> None:
    """Makes the folder of a sweep that is not finished.

    Raises:
      ValueError: if it keeps one of other settings.
    """
    open_run(_folder(keeping.out, name), config, keeping.resume, overwrite=False)


def kept_sweep(keeping: Keeping, name: str, todo: Plan) -> Results:
    """All runs of an opened sweep: kept ones, then computed ones.

    Raises:
      Stopped: if it was asked to.
      ValueError: if a kept file is damaged.
    """
    chunks = kept_chunks(
        todo,
        _folder(keeping.out, name),
        chunk_starts(len(todo.batch.codes), todo.settings.batch),
        keeping.save_seconds,
        keeping.asked_to_stop,
        keeping.shown,
        name=name,
    )
    return join([chunk for _, chunk in sorted(chunks, key=lambda pair: pair[0])])


def close_sweep(out: Path, name: str) -> None:
    """The sweep's figures are written: what was kept of it goes, and the folder after the last."""
    shutil.rmtree(_folder(out, name), ignore_errors=True)
    with suppress(OSError):  # others are under way
        (out / UNFINISHED).rmdir()


def _folder(out: Path, name: str) -> Path:
    return out / UNFINISHED / name
