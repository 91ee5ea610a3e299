"""Runs of a finished sweep that go on: --continue_from and --extend_steps."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxsynth.models.weights import file_record
from jaxsynth.recipes import Recipe
from jaxsynth.runs.checkpoint import read_codes
from jaxsynth.runs.folder import RESULTS, UNFINISHED, read_config
from jaxsynth.short import Run
from jaxsynth.system import GENERATOR
from jaxsynth.terms import Term

# Flags that hold on for all who go on, and for those who go on with the same objective.
_NETWORKS = ("generator", "nsfw", "places", "encoder", "precision")
_ALIKE = (*_NETWORKS, "balance", "show", "images", "blur_sheet", "batch")
# The modules of flags that say how; all others say what is climbed.
_SHARED = ("experiments.run_flags", "experiments.recipe_flags", "experiments.processes")


class Earlier(NamedTuple):
    """A finished sweep that is gone on from.

    Attributes:
      folder, config: where it is, and its config.json.
      numbers: the runs that go on.
      extends: whether they keep their objectives (--extend_steps).
    """

    folder: Path
    config: Mapping[str, Any]
    numbers: tuple[int, ...]
    extends: bool

    @property
    def recipe(self) -> Recipe:
        """How it climbed."""
        fields = dict(self.config["sweep"]["recipe"])
        fields["optimizer_args"] = tuple(map(tuple, fields["optimizer_args"]))
        return Recipe(**fields)


def read_earlier(text: str, experiment: str, extends: bool) -> Earlier:
    """The sweep that --continue_from=FOLDER or FOLDER:3,7 names.

    Raises:
      ValueError: if there is none, it is not finished, it has no such run, or an extension of it
        is another experiment's.
    """
    folder, _, given = text.rpartition(":")
    if Path(text).is_dir() or not re.fullmatch(r"\d+(,\d+)*", given):
        folder, given = text, ""
    path = Path(folder)
    if (path / UNFINISHED).is_dir():
        raise ValueError(f"--continue_from={text}: the run in {path} is not finished; --resume it")
    if not (path / RESULTS).is_file():
        raise ValueError(
            f"--continue_from={text}: no {RESULTS} in {path}; expected the folder of a finished "
            "run, or FOLDER:3,7 for some of its runs"
        )
    config = read_config(path)
    try:
        count, own = len(config["runs"]), config["experiment"]
        config["networks"][GENERATOR]["sha256"], config["flags"].keys(), config["sweep"]["recipe"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"--continue_from={text}: config.json there is of no sweep") from None
    numbers = tuple(dict.fromkeys(map(int, given.split(",")))) if given else tuple(range(count))
    if wrong := [number for number in numbers if number >= count]:
        raise ValueError(
            f"--continue_from={text}: there is no run {wrong[0]} in {path}; expected 0 to "
            f"{count - 1}"
        )
    if extends and own != experiment:
        raise ValueError(
            f"--continue_from={text} is a run of {own}, and --extend_steps keeps its objective: "
            f"python -m experiments.{own}"
        )
    return Earlier(path, config, numbers, extends)


def take_flags(earlier: Earlier) -> None:
    """Gives flags that were not typed the earlier sweep's values, those that hold on.

    Raises:
      ValueError: if an extension was told to climb something else.
    """
    kept = _NETWORKS
    if earlier.extends:
        shared = flags.FLAGS.flags_by_module_dict()
        known = {flag.name for module in _SHARED for flag in shared.get(module, ())}
        climbed = [name for name in earlier.config["flags"] if name not in known]
        if typed := [name for name in climbed if name in flags.FLAGS and flags.FLAGS[name].present]:
            raise ValueError(
                f"--{typed[0]}: --extend_steps goes on with the same objective; for another one "
                "give --steps instead of it"
            )
        kept = (*_ALIKE, *climbed)
    for name in set(kept) & set(flags.FLAGS) & set(earlier.config["flags"]):
        if not flags.FLAGS[name].present:
            flags.FLAGS[name].value = earlier.config["flags"][name]


def check_earlier(earlier: Earlier, networks: Mapping[str, str], out: Path) -> None:
    """Raises ValueError unless the networks (role -> name) are those of the earlier sweep: the
    generator, whose codes go on, and in an extension all of them; and `out` is another folder."""
    if out.resolve() == earlier.folder.resolve():
        raise ValueError(f"--continue_from={earlier.folder} is --out as well: choose another --out")
    for role, before in earlier.config["networks"].items():
        if role != GENERATOR and not (earlier.extends and role in networks):
            continue
        now = file_record(networks[role])
        if now["sha256"] != before["sha256"]:
            raise ValueError(
                f"{earlier.folder} was made with {role} {before['name']} of sha256 "
                f"{before['sha256']}, but --{role}={now['name']} has {now['sha256']}: give the "
                "file that it was made with"
            )


def going_on(earlier: Earlier, runs: Sequence[Run]) -> tuple[list[Run], np.ndarray]:
    """The runs, with where they come from, and their start codes (R, D).

    An extension's runs are the earlier sweep's own; otherwise those given, whose seeds are the
    numbers of the runs that they go on from.

    Raises:
      ValueError: if the earlier results are not those of its config.
    """
    codes = read_codes(earlier.folder / RESULTS)
    before = earlier.config["runs"]
    if len(codes) != len(before):
        raise ValueError(
            f"{earlier.folder / RESULTS} has {len(codes)} runs, its config.json {len(before)}: one "
            "of them is of another run"
        )
    if earlier.extends:
        pairs = [(number, _run(before[number])) for number in earlier.numbers]
    else:
        pairs = [(run.seed, _named(run)) for run in runs]
    numbers = [number for number, _ in pairs]
    named = [
        dataclasses.replace(run, seed=before[number]["seed"], origin=f"{earlier.folder}:{number}")
        for number, run in pairs
    ]
    return named, codes[numbers]


def _run(fields: Mapping[str, Any]) -> Run:
    terms = tuple(Term(**term | {"index": tuple(term["index"])}) for term in fields["terms"])
    return Run(fields["seed"], terms, fields["row"], fields["column"])


def _named(run: Run) -> Run:
    """A run whose seed is the number of an earlier one, and so called on the sheet."""
    said = rf"\bseed {run.seed}$"
    row, column = (re.sub(said, f"run {run.seed}", place) for place in (run.row, run.column))
    return dataclasses.replace(run, row=row, column=column)
