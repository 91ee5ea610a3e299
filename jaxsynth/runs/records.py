"""The records of a run in its folder: written, and read again when it is finished.

config.json has the settings that decide it, OUT/inputs the arrays that its objectives were given.
"""

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsynth.arithmetic import unpinned
from jaxsynth.batch import Problem, Run
from jaxsynth.disk import expand, write_atomic
from jaxsynth.inputs import described
from jaxsynth.models.base import Classifier, Generator, check_classifiers
from jaxsynth.objective_text import parse
from jaxsynth.objectives import Objective
from jaxsynth.results import SweepResult
from jaxsynth.runs.checkpoint import from_arrays, map_arrays
from jaxsynth.runs.folder import RESULTS, UNFINISHED, read_config


def config_of(
    problem: Problem,
    devices: Sequence[jax.Device] = (),
    inputs: Mapping[str, Any] | None = None,
    encoder: Classifier | None = None,
) -> dict[str, Any]:
    """Return the parts of config.json in which a resumed run must agree.

    `devices` share a chunk; `inputs` are hashes of what else decides the runs, by name; `encoder`
    is the generator's, if it is used.
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


# --- finished runs --------------------------------------------------------------------------------


def read_results(
    folder: str | Path,
    generator: Generator | None = None,
    classifiers: Sequence[Classifier] | Classifier = (),
) -> SweepResult:
    """Read a finished run's folder; arrays are read at their first use.

    Args:
      folder: of `sweep`, `maximize` or a launcher.
      generator: the one that was used. With the models objectives are objects again and the table
        has all digits; without them it is that of metrics.csv.
      classifiers: all that were used.

    Raises:
      ValueError: if the folder holds no readable results, or a model is none.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"results: {described(folder)} is no folder")
    if generator is not None and not isinstance(generator, Generator):
        raise ValueError(f"results: {described(generator)} is no Generator")
    classifiers = check_classifiers("results", classifiers)
    folder = expand(folder)
    config = read_config(folder)
    path = folder / RESULTS
    if not path.exists() and (folder / UNFINISHED).is_dir():
        raise ValueError(
            f"{folder} holds a run that is not finished: {config.get('command')} with --resume "
            "(resume=True) continues it"
        )
    try:
        found = from_arrays(map_arrays(path))
        runs = [_read_run(run, folder, generator, classifiers) for run in config["runs"]]
    except (KeyError, TypeError) as missing:
        raise ValueError(f"{path} and {folder}/config.json are of no run: {missing}") from None
    if len(runs) != len(found.codes):
        raise ValueError(
            f"{path} has {len(found.codes)} runs, its config.json {len(runs)}: one of them is of "
            "another run"
        )
    settings = config.get("sweep")
    return SweepResult(runs, found, generator, classifiers, settings, config, folder)


def read_objective(text: str, folder: Path, models: Mapping[str, Any]) -> Objective:
    """Read an objective of a folder's config.json, whose arrays are in OUT/inputs."""
    for name in re.findall(r":@(array-\w+\.npy)", text):
        if not (folder / "inputs" / name).is_file():
            raise ValueError(
                f"{folder} has no inputs/{name}: the run maximised an array of a Python program, "
                "which makes it again; so does an image in a folder that has the array"
            )
    text = text.replace(":@array-", f":@{folder}/inputs/array-")
    return parse(text, models) if text else Objective(())


def _read_run(fields: Mapping[str, Any], folder: Path, generator, classifiers) -> Run:
    objective: Any = fields["objective"]
    if generator is not None:
        models = {"generator": generator} | {c.name: c for c in classifiers}
        objective = read_objective(objective, folder, models)
    return Run(fields["seed"], objective, *(fields[k] for k in ("row", "column", "origin")))
