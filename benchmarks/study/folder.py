"""The folder of a benchmark. Optimizers and budgets can be added to one that is there.

config.json            every setting, the costs that were measured, hashes, versions
cells/NAME.safetensors a finished part: an optimizer, group of objectives, budget and phase
results.csv            tidy: a row per optimizer, budget, objective and seed
results.safetensors    per budget and optimizer, arrays (objectives, seeds, ...): BUDGET/OPTIMIZER/
                       start, best, codes, curve, rate (O,); marks of a budget: BUDGET/marks
table.md, table.tex    a row per optimizer, a table per budget
plots.png, images.png, report.html
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from jaxsynth.environment import this_device
from jaxsynth.runs.folder import (
    CONFIG,
    LOCK,
    load_arrays,
    read_config,
    write_arrays,
    write_config,
)

CELLS = "cells"
_OURS = (CONFIG, "results.csv", "results.safetensors", "table.md", "table.tex", "plots.png")
_OURS += ("images.png", "images/*.png", "report.html", f"{CELLS}/*.safetensors")
_PART = ".*.part"  # what a killed process was writing
_OURS += (_PART, f"{CELLS}/{_PART}", f"images/{_PART}")
_MAY_DIFFER = ("command", "optimizers", "budgets", "rows")  # no cell depends on another one's
_GROW = ("networks", "rows")  # those of earlier parts stay


def read_earlier(
    folder: Path, config: Mapping[str, Any], resume: bool, overwrite: bool
) -> dict[str, Any]:
    """What config.json says of an earlier part of this run, or {}. Nothing is changed yet.

    Raises:
      ValueError: if the folder holds anything that is neither to be replaced nor to be gone on
        with, or was begun on another device or with other settings than optimizers and budgets.
    """
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    occupied = any(not path.match(_PART) for path in found)
    if occupied and resume:
        before = read_config(folder)
        for key, value in {**config, "device": this_device()}.items():
            if key not in _MAY_DIFFER and not _agree(before.get(key), value):
                raise ValueError(
                    f"--resume: {folder} was begun with {key} {before.get(key)!r}, not {value!r}: "
                    "give the same flags (--optimizers and --budgets may be others), or another "
                    "--out"
                )
        for name, row in config["rows"].items():
            if (kept := before.get("rows", {}).get(name, row)) != row:
                raise ValueError(
                    f"--resume: {folder} holds {name} with population and rates {kept}, not {row}: "
                    "its row has changed since; choose another --out"
                )
        return before
    if occupied and not overwrite:
        raise ValueError(
            f"output folder {folder} is not empty: the same command with --resume goes on with a "
            "benchmark that was stopped; else choose another --out, or --overwrite"
        )
    return {}


def clear(folder: Path, patterns: Sequence[str] = ("images/*.png",)) -> None:
    """Deletes files that would be of another run: by default the images, which are drawn anew."""
    for old in [path for pattern in patterns for path in folder.glob(pattern)]:
        old.unlink()


def _agree(before: Any, now: Any) -> bool:
    """Whether a setting is the one that it was. An added optimizer may bring the encoder along."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return all(before[key] == now[key] for key in before.keys() & now.keys())
    return before == now


def make_ready(
    folder: Path, config: Mapping[str, Any], before: Mapping[str, Any], costs: Mapping[str, Any]
) -> None:
    """Clears the folder unless something came `before`, and writes config.json; from here on it can
    be gone on with. Networks and rows that only earlier cells needed stay in it, and so do the
    command and versions of each earlier part, under `earlier`."""
    if not before:
        clear(folder, _OURS)
    (folder / CELLS).mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    merged = {
        **{key: before.get(key, {}) | config.get(key, {}) for key in _GROW},
        "costs": dict(costs),
        "earlier": before.get("earlier", []),
    }
    part = {key: before[key] for key in ("command", "versions") if key in before}
    if part and part not in merged["earlier"]:
        merged["earlier"] = [*merged["earlier"], part]
    write_config(folder, dict(config) | merged)


def save_cell(folder: Path, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps a finished cell, whole or not at all."""
    write_arrays(_cell(folder, name), arrays)


def has_cell(folder: Path, name: str) -> bool:
    """Whether a cell is finished."""
    return _cell(folder, name).is_file()


def load_cell(folder: Path, name: str) -> dict[str, np.ndarray]:
    """A finished cell. Raises ValueError if its file is damaged."""
    return load_arrays(_cell(folder, name))


def _cell(folder: Path, name: str) -> Path:
    return folder / CELLS / f"{quote(name, safe='+@,')}.safetensors"
