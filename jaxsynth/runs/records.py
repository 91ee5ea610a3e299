"""The settings that decide a run, as config.json has them, and the arrays that they name."""

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsynth.arithmetic import unpinned
from jaxsynth.batch import Problem
from jaxsynth.disk import write_atomic
from jaxsynth.models.base import Classifier, Generator


def config_of(
    problem: Problem,
    devices: Sequence[jax.Device] = (),
    inputs: Mapping[str, Any] | None = None,
    encoder: Classifier | None = None,
) -> dict[str, Any]:
    """Return the parts of config.json in which a resumed run must agree.

    Args:
      problem: the runs.
      devices: those that share a chunk.
      inputs: hashes of what else decides the runs, by name.
      encoder: of the generator, if it is used.
    """
    models = {"generator": problem.generator} | {c.name: c for c in problem.classifiers}
    inputs = dict(inputs or {}) | _files_of(problem)
    if encoder is not None:
        inputs["encoder"] = model_record(encoder)
    return {
        "sweep": settings_record(problem),
        "networks": {name: model_record(model) for name, model in models.items()},
        "inputs": inputs,
        "pixels": dataclasses.asdict(problem.generator.preprocess),
        "arithmetic": unpinned(),
        "chunk_runs": problem.settings.batch * (len(devices) or 1),
        "runs": _run_records(problem),
        "notes": dict(problem.notes),
        "equals": {} if problem.shared is None else problem.shared.equals,
    }


def settings_record(problem: Problem) -> dict[str, Any]:
    """Return the settings of a problem as JSON: functions and optimizers by their names."""
    settings = problem.settings
    plain = dataclasses.asdict(dataclasses.replace(settings, optimizer=""))
    if callable(schedule := settings.recipe.schedule):
        plain["recipe"]["schedule"] = getattr(schedule, "__qualname__", type(schedule).__name__)
    if settings.optimizer:
        own = settings.optimizer if isinstance(settings.optimizer, str) else None
        plain["optimizer"] = own or problem.optimizer.name
    return plain


def model_record(model: Classifier | Generator) -> dict[str, str]:
    """Return what identifies a model: its file's name and hash, or the hash of its parameters."""
    if model.info.sha256:
        return dict(model.info.record)
    leaves = jax.tree.leaves(model.params)
    return {"name": model.info.asked or model.name, "file": "", "sha256": hash_of(*leaves)}


def hash_of(*arrays: Any) -> str:
    """Hash arrays: their kinds, shapes and bytes."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write_inputs(folder: Path, problem: Problem) -> None:
    """Write vectors that objectives were given as arrays into OUT/inputs, under their names."""
    for objective in _objectives(problem):
        for name, array in objective.arrays().items():
            (folder / "inputs").mkdir(exist_ok=True)
            buffer = io.BytesIO()
            np.save(buffer, array)
            write_atomic(folder / "inputs" / name, buffer.getvalue())


def _objectives(problem: Problem) -> list[Any]:
    return list({id(run.objective): run.objective for run in problem.runs}.values())


def _run_records(problem: Problem) -> list[dict[str, Any]]:
    texts = {id(objective): str(objective) for objective in _objectives(problem)}
    return [
        {
            "seed": run.seed,
            "objective": texts[id(run.objective)],
            "row": run.row,
            "column": run.column,
            "origin": run.origin,
        }
        for run in problem.runs
    ]


def _files_of(problem: Problem) -> dict[str, str]:
    """Return hashes of the vectors that objectives have read from files."""
    terms = [term for objective in _objectives(problem) for term in objective.terms]
    read = [t for t in terms if t.which.startswith("@") and not t.which.startswith("@array-")]
    return {t.which[1:]: hash_of(t.index, t.value) for t in read}
