"""Runs of a finished sweep that are continued: --continue_from and --extend_steps."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.disk import expand
from jaxsynth.objective_text import parse
from jaxsynth.objectives import GENERATOR
from jaxsynth.recipes import Recipe
from jaxsynth.results import Run
from jaxsynth.runs.checkpoint import read_codes
from jaxsynth.runs.folder import RESULTS, UNFINISHED, read_config

# Flags that are taken over unless typed; the second set where the objectives stay the same.
_NETWORKS = ("generator", "nsfw", "places", "model", "encoder", "precision", "size")
_NETWORKS += ("preprocess",)
_ALIKE = (*_NETWORKS, "balance", "show", "images", "blur_sheet", "batch")


class Earlier(NamedTuple):
    """A finished sweep that is continued.

    Attributes:
      folder, config: where it is, and its config.json.
      numbers: the runs that are continued.
      extends: whether they keep their objectives (--extend_steps).
    """

    folder: Path
    config: Mapping[str, Any]
    numbers: tuple[int, ...]
    extends: bool

    @property
    def recipe(self) -> Recipe:
        """The recipe of the earlier sweep."""
        return Recipe(**self.config["sweep"]["recipe"])

    def check_models(self, records: Mapping[str, Mapping[str, str]], out: Path) -> None:
        """Check that `out` is another folder, and the models are those of the earlier sweep.

        The generator must be, whose codes are continued; in an extension all of them. `records` are
        their `model_record`s by role.
        """
        if out.resolve() == self.folder.resolve():
            raise ValueError(
                f"--continue_from={self.folder} is --out as well: choose another --out"
            )
        for role, before in self.config["networks"].items():
            now = records.get(role) if role == GENERATOR or self.extends else None
            if now and now["sha256"] != before["sha256"]:
                raise ValueError(
                    f"{self.folder} was made with {role} {before['name']} of sha256 "
                    f"{before['sha256']}, but --{role}={now['name']} has {now['sha256']}: give the "
                    "file that it was made with"
                )

    def continued(
        self, runs: Sequence[Run], models: Mapping[str, Any]
    ) -> tuple[list[Run], np.ndarray]:
        """Return the runs, with where they come from, and their start codes (R, D).

        An extension's runs are the earlier sweep's own; otherwise those given, whose seeds are the
        numbers of the runs that they continue.
        """
        codes = read_codes(self.folder / RESULTS)
        before = self.config["runs"]
        if len(codes) != len(before):
            raise ValueError(
                f"{self.folder / RESULTS} has {len(codes)} runs, its config.json {len(before)}: "
                "one of them is of another run"
            )
        if self.extends:
            pairs = [(number, _run(before[number], models)) for number in self.numbers]
        else:
            pairs = [(run.seed, _called_run(run)) for run in runs]
        numbers = [number for number, _ in pairs]
        named = [
            dataclasses.replace(run, seed=before[number]["seed"], origin=f"{self.folder}:{number}")
            for number, run in pairs
        ]
        return named, codes[numbers]


def read_earlier(text: str, experiment: str, extends: bool) -> Earlier:
    """Read the finished sweep that --continue_from=FOLDER or FOLDER:3,7 names.

    An extension must be of the same experiment.
    """
    folder, _, given = text.rpartition(":")
    if expand(text).is_dir() or not re.fullmatch(r"\d+(,\d+)*", given):
        folder, given = text, ""
    path = expand(folder)
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


def take_over(flags: Any, shared: type) -> Any:
    """Replace flags that were not typed by their values in the sweep that is continued.

    The fields of `shared`, the base class, say how runs are computed; all others define the
    objective, which an extension may not change.
    """
    fields = {field.name for field in dataclasses.fields(flags) if "help" in field.metadata}
    before, names = flags.earlier.config["flags"], {*_NETWORKS}
    if flags.earlier.extends:
        own = fields - {field.name for field in dataclasses.fields(shared)}
        if typed := [name for name in before if name in own & flags.typed]:
            raise ValueError(
                f"--{typed[0]}: --extend_steps continues the same objective; for another one give "
                "--steps instead of it"
            )
        names = {*_ALIKE, *own}
    same = {name: before[name] for name in before if name in (names & fields) - flags.typed}
    same = {name: tuple(v) if isinstance(v, list) else v for name, v in same.items()}
    return dataclasses.replace(flags, **same)


def _run(fields: Mapping[str, Any], models: Mapping[str, Any]) -> Run:
    text = fields.get("objective")
    if text is None:  # of version 0.1
        text = " + ".join(map(_term_text, fields["terms"]))
    return Run(fields["seed"], parse(text, models), fields["row"], fields["column"])


def _term_text(term: Mapping[str, Any]) -> str:
    *place, unit = term["index"]
    at = f"@{place[0]},{place[1]}" if place else ""
    return f"{term['network']}:{term['blob']}:{unit}{at}:{term['weight']!r}"


def _called_run(run: Run) -> Run:
    """A run whose seed is the number of an earlier one, and so called on the sheet."""
    said = rf"\bseed {run.seed}$"
    row, column = (re.sub(said, f"run {run.seed}", place) for place in (run.row, run.column))
    return dataclasses.replace(run, row=row, column=column)
