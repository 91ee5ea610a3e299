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
  ended (R,)                     step at which a zero gradient ended the run, or -1
  skipped (R,)                   updates skipped for a non-finite gradient
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from jaxsynth.engine.ascent import Evaluation
from jaxsynth.engine.sweep import Results
from jaxsynth.version import VERSION

RESULTS = "results.safetensors"
CONFIG = "config.json"
_OURS = (RESULTS, CONFIG, "metrics.csv", "report.html", "traces.png", "contact_sheet.png")
_OURS += ("strip.png", "atlas_*.png", "images/run*.png")


def prepare_folder(path: str | Path, overwrite: bool) -> Path:
    """Makes the output folder, and `images` in it.

    With `overwrite`, files of an earlier run in it are deleted; others are left alone.

    Raises:
      ValueError: if it holds anything and `overwrite` is not set, or cannot be written.
    """
    folder = Path(path)
    try:
        if folder.exists() and any(folder.iterdir()):
            if not overwrite:
                raise ValueError(
                    f"output folder {folder} is not empty: choose another --out, or --overwrite"
                )
            clear_folder(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise ValueError(f"output folder {folder} cannot be used: {error.strerror}") from None
    return folder


def clear_folder(folder: Path) -> None:
    """Deletes what a run has written there, and the folder if nothing else is in it."""
    for old in [path for pattern in _OURS for path in folder.glob(pattern)]:
        old.unlink()
    for left in (folder / "images", folder):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def read_codes(path: str | Path) -> np.ndarray:
    """Codes of a .npy file, or the final codes of an earlier run's results.safetensors.

    Raises:
      ValueError: if it is neither.
    """
    try:
        if str(path).endswith(".safetensors"):
            return safetensors.numpy.load_file(path)["codes"]
        codes = np.load(path, allow_pickle=False)
        if isinstance(codes, np.ndarray):
            return codes
        why = "an archive of several arrays"
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, EOFError, KeyError, safetensors.SafetensorError):
        why = "damaged, or of another kind"
    raise ValueError(
        f"start codes {str(path)!r}: {why}; expected FILE.npy or an earlier run's {RESULTS}"
    )


def versions() -> dict[str, str]:
    """Of this package, Python, and what decides the numbers."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"jaxsynth": VERSION, "python": platform.python_version()} | found


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json: what was asked for, versions and device."""
    device = jax.devices()[0]
    full = dict(config) | {
        "versions": versions(),
        "device": {"platform": device.platform, "kind": device.device_kind},
    }
    write_whole(folder / CONFIG, json.dumps(full, indent=1).encode())


def write_results(folder: Path, results: Results, start_codes: np.ndarray) -> None:
    """Writes results.safetensors, whole or not at all; the names are in this module's docstring."""
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
        "skipped": results.skipped,
    }
    for prefix, watched in (
        ("activations", results.watched),
        ("last", results.last.watched),
        ("best", results.best.watched),
    ):
        for role, blobs in watched.items():
            arrays |= {f"{prefix}/{role}/{blob}": values for blob, values in blobs.items()}
    data = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    write_whole(folder / RESULTS, data)


def read_results(folder: str | Path) -> Results:
    """Inverse of `write_results`.

    Raises:
      ValueError: if the folder holds no readable results.
    """
    path = Path(folder) / RESULTS
    try:
        arrays = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds no readable results: {error}") from None
    trees: dict[str, dict[str, dict[str, np.ndarray]]] = {"activations": {}, "last": {}, "best": {}}
    for name, values in arrays.items():
        prefix, _, rest = name.partition("/")
        if prefix in trees:
            role, _, blob = rest.partition("/")
            trees[prefix].setdefault(role, {})[blob] = values
    looks = {
        which: Evaluation(arrays[f"objective_{which}"], trees[which], arrays[f"images/{which}"])
        for which in ("last", "best")
    }
    plain = ("codes", "best_codes", "recorded_codes", "objective", "ended", "skipped")
    return Results(**{k: arrays[k] for k in plain}, watched=trees["activations"], **looks)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
