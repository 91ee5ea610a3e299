"""The folder that a run leaves behind: config.json, results.safetensors, images.

Arrays of `results.safetensors` (R runs, T steps, D code units, k recorded steps):

  start_codes (R, D)             before the first update
  codes (R, D)                   after the last update
  best_codes (R, D)              of the highest objective met
  recorded_codes (R, k, D)       after the steps of --record_codes
  objective (R, T)               at the code before each update
  objective_last, objective_best (R,)  of the last and the best image
  activations/NETWORK/BLOB (R, T, K)   per step: a vector blob whole (K units); of a spatial blob
                                 the units that the run weighs, in the order of its terms
  last/NETWORK/BLOB, best/NETWORK/BLOB (R, K)  the same of the last and the best image
  images/last, images/best (R, H, W, 3)  raw pixels, BGR, mean-subtracted
  ended (R,)                     step that ended the run before its last, or -1
  sound (R,)                     False if something that is not finite ended it, frozen at its last
                                 good code; True after a zero gradient
"""

import importlib.metadata
import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jaxsynth.ascent import Evaluation
from jaxsynth.chunks import Results
from jaxsynth.disk import check_regular, whole_file, write_whole
from jaxsynth.version import VERSION

RESULTS = "results.safetensors"
CONFIG = "config.json"
LOCK = ".lock"
STOP = "stop"  # in there, where a process of several has stopped
GONE = ".unfinished.part"  # the same on its way out, of a run that is finished
UNFINISHED = "unfinished"  # what a run under way keeps, see `jaxsynth.runs.checkpoint`
_ITEM_SIZES = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "U32": 4, "U8": 1, "BOOL": 1}
_TABLE = ("csv", "md", "json")
_OURS = (RESULTS, CONFIG, "metrics.csv", "report.html", "traces.png", "contact_sheet.png")
_OURS += ("strip.png", "atlas_*.png", "images/run*.png")
_OURS += tuple(f"{stem}.{kind}" for stem in ("balances", "precision") for kind in _TABLE)
_OURS += (f"{UNFINISHED}/run*.safetensors", f"{UNFINISHED}/under_way*.safetensors")
_OURS += (f"{UNFINISHED}/.*.part", f"{UNFINISHED}/{STOP}", "images/.*.part", ".*.part")


def prepare_folder(path: str | Path, overwrite: bool) -> Path:
    """Makes the output folder.

    With `overwrite`, files of an earlier run in it are deleted; others are left alone.

    Raises:
      ValueError: if it holds anything and `overwrite` is not set, or cannot be written.
    """
    folder = Path(path)
    try:
        if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            if not overwrite:
                raise ValueError(occupied(folder))
            clear_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise ValueError(f"output folder {folder} cannot be used: {error.strerror}") from None
    return folder


def occupied(folder: Path) -> str:
    """Why a folder that is not empty is refused, and the way out."""
    if (folder / UNFINISHED).is_dir():
        return (
            f"output folder {folder} holds a run that was stopped: the same command with --resume "
            "goes on with it, --overwrite starts again"
        )
    return f"output folder {folder} is not empty: choose another --out, or --overwrite"


def clear_folder(folder: Path) -> None:
    """Deletes what a run has written there, and the folder if nothing else is in it."""
    for part in [path for path in folder.glob(f"{UNFINISHED}/*") if path.is_dir()]:
        clear_folder(part)  # of one of several sweeps, see `jaxsynth.runs.sweeps`
    shutil.rmtree(folder / GONE, ignore_errors=True)
    for old in [path for pattern in _OURS for path in folder.glob(pattern)]:
        old.unlink()
    for left in (folder / UNFINISHED, folder / "images", folder):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def read_codes(path: str | Path) -> np.ndarray:
    """Codes of a .npy file, or the final codes of an earlier run's results.safetensors.

    Raises:
      ValueError: if it is neither.
    """
    what = f"FILE.npy or an earlier run's {RESULTS}"
    check_regular(path, f"start codes {str(path)!r}", what)
    try:
        if str(path).endswith(".safetensors"):
            with safetensors.safe_open(path, framework="np") as file:
                return file.get_tensor("codes")
        codes = np.load(path, allow_pickle=False)
        if isinstance(codes, np.ndarray):
            return codes
        why = "an archive of several arrays"
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, EOFError, safetensors.SafetensorError):
        why = "damaged, or of another kind"
    raise ValueError(f"start codes {str(path)!r}: {why}; expected {what}")


def versions() -> dict[str, str]:
    """Of this package, Python, and what decides the numbers."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"jaxsynth": VERSION, "python": platform.python_version()} | found


def hardware() -> str:
    """The accelerators' kind, or how many CPUs of which model."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{jax.device_count()} x {device.device_kind}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {model}"


def machine_line(more: Mapping[str, str] | None = None) -> str:
    """A Markdown item: the hardware, and the versions with those of `more` packages."""
    packages = ", ".join(f"{name} {number}" for name, number in (versions() | (more or {})).items())
    return f"* {hardware()}; {packages}"


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json: what was asked for, versions and device."""
    full = dict(config) | {"versions": versions(), "device": this_device()}
    write_whole(folder / CONFIG, json.dumps(full, indent=1).encode())


def this_device() -> dict[str, str]:
    """Platform and kind of the first device, as config.json has them."""
    device = jax.devices()[0]
    return {"platform": device.platform, "kind": device.device_kind}


def read_config(folder: Path) -> dict[str, Any]:
    """Inverse of `write_config`.

    Raises:
      ValueError: if the folder has no readable config.json.
    """
    path = folder / CONFIG
    check_regular(path, str(path), "the config.json of a run")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not the config.json of a run: expected an object, {{...}}")
    return config


def read_results(folder: str | Path) -> Results:
    """What a run has left in its folder.

    Raises:
      ValueError: if the folder holds no readable results.
    """
    path = Path(folder) / RESULTS
    try:
        return results_from_arrays(safetensors.numpy.load_file(path))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds no readable results: {error}") from None


def read_last_image(folder: Path, run: int) -> np.ndarray:
    """Raw pixels (H, W, 3) of a run's last image in results.safetensors; nothing else is read."""
    with safetensors.safe_open(folder / RESULTS, framework="np") as file:
        return file.get_slice("images/last")[run]


def results_arrays(results: Results, start_codes: np.ndarray) -> dict[str, np.ndarray]:
    """Runs by the names of results.safetensors, which are in this module's docstring."""
    arrays = {
        "start_codes": start_codes,
        "codes": results.codes,
        "best_codes": results.best_codes,
        "recorded_codes": results.recorded_codes,
        "objective": results.objective,
        "objective_last": results.last.objective,
        "objective_best": results.best.objective,
        "images/last": results.last.image,
        "images/best": results.best.image,
        "ended": results.ended,
        "sound": results.sound,
    }
    arrays |= flatten_watched("activations", results.watched)
    arrays |= flatten_watched("last", results.last.watched)
    return arrays | flatten_watched("best", results.best.watched)


def results_from_arrays(arrays: Mapping[str, np.ndarray]) -> Results:
    """Inverse of `results_arrays`.

    Raises:
      ValueError: if an array is missing.
    """
    try:
        return _results(arrays)
    except KeyError as missing:
        raise ValueError(f"array {missing} is missing") from None


def _results(arrays: Mapping[str, np.ndarray]) -> Results:
    looks = {
        which: Evaluation(
            arrays[f"objective_{which}"],
            unflatten_watched(arrays, which),
            arrays[f"images/{which}"],
        )
        for which in ("last", "best")
    }
    plain = ("codes", "best_codes", "recorded_codes", "objective", "ended", "sound")
    watched = unflatten_watched(arrays, "activations")
    return Results(**{k: arrays[k] for k in plain}, watched=watched, **looks)


def flatten_watched(
    prefix: str, watched: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """{network: {blob: array}} -> {PREFIX/NETWORK/BLOB: array}."""
    return {
        f"{prefix}/{role}/{blob}": values
        for role, blobs in watched.items()
        for blob, values in blobs.items()
    }


def unflatten_watched(
    arrays: Mapping[str, np.ndarray], prefix: str
) -> dict[str, dict[str, np.ndarray]]:
    """Inverse of `flatten_watched`; other arrays are passed over."""
    watched: dict[str, dict[str, np.ndarray]] = {}
    for name, values in arrays.items():
        first, _, rest = name.partition("/")
        role, _, blob = rest.partition("/")
        if first == prefix:
            watched.setdefault(role, {})[blob] = values
    return watched


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file whole or not at all."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_whole(path, safetensors.numpy.save(plain))


def write_parts(path: Path, parts: Sequence[Path]) -> None:
    """Joins safetensors files of the same arrays along their first axis, one array of one part in
    memory, whole or not at all."""
    shapes: dict[str, list[tuple[str, list[int]]]] = {}
    for part in parts:  # one open file at a time: there may be thousands
        with safetensors.safe_open(part, framework="np") as file:
            for name in list(file.keys()):
                slice_ = file.get_slice(name)
                shapes.setdefault(name, []).append((slice_.get_dtype(), slice_.get_shape()))
    header, end = {}, 0
    for name, found in shapes.items():
        kind, shape = found[0][0], [sum(s[0] for _, s in found), *found[0][1][1:]]
        size = math.prod(shape) * _ITEM_SIZES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            for part in parts:
                with safetensors.safe_open(part, framework="np") as file:
                    out.write(np.ascontiguousarray(file.get_tensor(name)).data)
