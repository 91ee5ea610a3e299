"""The folder of a run: its files, and whether two runs are the same.

  OUT/.lock                     held (flock) by the process that works on the run
  OUT/config.json               flags, settings, versions, device
  OUT/results.safetensors       every array, see `jaxsynth.runs.checkpoint`
  OUT/images/run00012_last.png  pictures
  OUT/unfinished/               checkpoints, until the last page is written

Every file is written atomically.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jaxsynth.disk import check_regular, write_atomic
from jaxsynth.environment import this_device, versions

RESULTS, CONFIG, METRICS = "results.safetensors", "config.json", "metrics.csv"
UNFINISHED = "unfinished"
EVENTS = "tensorboard"  # folder of the events
LOCK = ".lock"
STOP = "stop"  # in UNFINISHED, where a process of several has stopped
GONE = ".unfinished.part"  # UNFINISHED on its way out
IMAGES = {"none": (), "best": ("best",), "all": ("last", "best")}  # choice -> a run's image files
_PART = ".*.part"  # files that a killed process was writing
_PAGES = (
    "index.html",
    "report.html",
    "traces.png",
    "contact_sheet.png",
    "strip.png",
    "atlas_*.png",
    "examples_*.png",
)
_PAGES += ("explorer/*.webp", "explorer/*.js", "film_*.webp", "film_*.mp4")
_PAGES += (f"{EVENTS}/events.out.tfevents.*",)
_TABLES = tuple(f"{s}.{k}" for s in ("balances", "precision") for k in ("csv", "md", "json"))
_TABLES += ("examples.csv", "map.csv")
_CHECKPOINTS = ("run*.safetensors", "under_way*.safetensors", _PART, STOP)
_OURS = (RESULTS, CONFIG, METRICS, *_PAGES, *_TABLES, _PART, "images/run*.png", f"images/{_PART}")
_OURS += ("inputs/array-*.npy", "parts.json", "parts/*.safetensors", f"parts/{_PART}")
_OURS += tuple(f"{UNFINISHED}/{name}" for name in _CHECKPOINTS)

# Parts of config.json in which a resumed run must agree, and what messages call them.
_DECISIVE = ("experiment", "sweep", "networks", "inputs", "show", "images", "chunk_runs", "runs")
_DECISIVE += ("arithmetic", "size")
_CALLED = {"chunk_runs": "runs a chunk (--batch times the devices)", "size": "--size"}


def image_name(run: int, which: str) -> str:
    """Return the path of a run's image in its folder; `which` is `last` or `best`."""
    return f"images/run{run:05d}_{which}.png"


# --- making it ready ------------------------------------------------------------------------------


def unusable(folder: Path, error: OSError) -> ValueError:
    """Return the error of a folder that cannot be used, and say why."""
    why = error.strerror
    if isinstance(error, FileExistsError | NotADirectoryError):
        why = "a file has its name, or that of a folder above it; choose another"
    return ValueError(f"output folder {folder} cannot be used: {why}")


def prepare(path: str | Path, overwrite: bool, more: Sequence[str] = ()) -> Path:
    """Make an output folder; ValueError if it cannot be written, or holds anything.

    `overwrite` deletes the files of an earlier run in it, and those of the patterns `more`; others
    are left alone.
    """
    folder = Path(path)
    try:
        if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            if not overwrite:
                raise ValueError(_occupied(folder))
            clear(folder, more)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    except OSError as error:
        raise unusable(folder, error) from error
    return folder


def _occupied(folder: Path) -> str:
    if not (folder / UNFINISHED).is_dir():
        return (
            f"output folder {folder} is not empty: choose another (--out, folder=), or replace its "
            "run (--overwrite, overwrite=True)"
        )
    return (
        f"output folder {folder} holds a run that was stopped: --resume (resume=True) continues "
        "it, --overwrite (overwrite=True) starts again"
    )


def clear(folder: Path, more: Sequence[str] = ()) -> None:
    """Delete a run's files there, and the folder if nothing else is in it."""
    for sweep in [path for path in folder.glob(f"{UNFINISHED}/*") if path.is_dir()]:
        clear(sweep)  # one of several sweeps of a job
    shutil.rmtree(folder / GONE, ignore_errors=True)
    for old in {path for pattern in (*_OURS, *more) for path in folder.glob(pattern)}:
        old.unlink()
    for left in (
        *(folder / name for name in (UNFINISHED, "images", "inputs", "parts", "explorer", EVENTS)),
        folder,
    ):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def open_run(
    folder: Path, config: Mapping[str, Any], resume: bool = False, overwrite: bool = False
) -> dict[str, Any] | None:
    """Make the folder ready for a run of this config, or for its rest.

    Returns:
      The folder's config: an unfinished run's own. None if `resume` is set and the run is finished.

    Raises:
      ValueError: if the folder holds another run, or this one and `resume` is not set.
    """
    unfinished = (folder / UNFINISHED).is_dir()
    begun = (folder / CONFIG).is_file() and (unfinished or (folder / RESULTS).is_file())
    if resume and begun:
        saved = read_config(folder)
        check_same(folder, saved, config)
        (folder / UNFINISHED / STOP).unlink(missing_ok=True)
        shutil.rmtree(folder / GONE, ignore_errors=True)  # where a kill came before its end
        return saved if unfinished else None
    prepare(folder, overwrite or (resume and (unfinished or barely_begun(folder))))
    (folder / UNFINISHED).mkdir()
    write_config(folder, config)
    return read_config(folder)


def barely_begun(folder: Path) -> bool:
    """Whether a run was killed here before it wrote its config."""
    found = folder.iterdir() if folder.is_dir() else ()
    return all(path.name == LOCK or path.match(_PART) for path in found)


# --- is this the same run? ------------------------------------------------------------------------


def check_same(
    folder: Path,
    saved: Mapping[str, Any],
    asked: Mapping[str, Any],
    parts: Sequence[str] = _DECISIVE,
) -> None:
    """Raise ValueError, which names the first difference, unless configs agree in these parts."""
    asked = as_json({part: asked.get(part) for part in parts})
    for part in parts:
        found = first_difference(part, saved.get(part), asked[part])
        if found is not None:
            what, old, new = found
            raise ValueError(
                f"output folder {folder} holds a run with {_CALLED.get(what, what)} {_short(old)}, "
                f"not {_short(new)}: resume it with its own command ({saved.get('command')}), or "
                "choose another (--out, folder=)"
            )


def first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    """Return the name and values of the first leaf in which two JSON values differ, or None."""
    if old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{name} {key}", old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"number of {name}", len(old), len(new)
        pairs = [(f"{name} {i}", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return name, old, new
    return next(filter(None, (first_difference(*pair) for pair in pairs)), None)


def fingerprint(config: Mapping[str, Any]) -> int:
    """Return a number below 2^28, equal for configs that decide equal runs."""
    return int(sha256_of({part: config.get(part) for part in _DECISIVE})[:7], 16)


def sha256_of(config: Mapping[str, Any] | Sequence[Any]) -> str:
    """Hash everything in a config, or any other JSON value, but the command."""
    if isinstance(config, Mapping):
        config = {name: value for name, value in config.items() if name != "command"}
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def as_json(value: Any) -> Any:
    """Return a value as JSON reads it back: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


# --- files ----------------------------------------------------------------------------------------


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json: flags, settings, versions and device."""
    full = dict(config) | {"versions": versions(), "device": this_device()}
    write_atomic(folder / CONFIG, json.dumps(full, indent=1).encode())


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; ValueError if the folder has no readable one."""
    path = folder / CONFIG
    check_regular(path, str(path), "the config.json of a run")
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not the config.json of a run: expected an object, {{...}}")
    return config


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file atomically."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomic(path, safetensors.numpy.save(plain))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a checkpoint's arrays; ValueError, with the way out, if the file is damaged."""
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and --resume (resume=True) computes it "
            "again"
        ) from error
