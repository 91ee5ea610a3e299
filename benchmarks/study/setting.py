"""The request of a study, and its checks."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.cells import Costs, check_batch, steps_within
from benchmarks.study.problems import Group
from jaxsynth.ask_tell import GRADIENT, PRIOR, VALUE
from jaxsynth.environment import this_device
from jaxsynth.objectives import GENERATOR
from jaxsynth.optimizer_names import OPTIMIZERS, check_optimizer_name, make_optimizer
from jaxsynth.system import ENCODER


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its flags ask for it.

    Attributes:
      optimizers: Names that `choose_optimizers` gives.
      seeds, tune_seeds: Reported, and used for tuning only.
      budgets: Forward passes of a run.
      factors: Of every optimizer's own rate, in the tuning sweep.
      further_rates: How many are tried beyond an end of it at most.
      batch: Codes per evaluation.
      gradient_cost: Forward passes that a gradient counts as, and one with the encoder's pass; ()
        to measure them.
      out: The folder.
      command: What was typed.
      noise: Of the objective as optimizers are told it, a share of its value.
      records: What identifies the weights of each model, by the name that it goes by.
      resume, overwrite: What to do with a study that is there.
    """

    optimizers: tuple[str, ...]
    seeds: tuple[int, ...]
    tune_seeds: tuple[int, ...]
    budgets: tuple[float, ...]
    factors: tuple[float, ...]
    further_rates: int
    batch: int
    gradient_cost: tuple[float, ...]
    out: Path
    command: str
    noise: float
    records: Mapping[str, Any]
    resume: bool
    overwrite: bool


def choose_optimizers(patterns: Sequence[str]) -> tuple[str, ...]:
    """Find names of optimizers by name, glob or variant, in the order asked for, each once.

    Raises:
      ValueError: Naming what is wrong, with the nearest names.
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in OPTIMIZERS if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            check_optimizer_name(pattern)
            found = [pattern]
        chosen |= dict.fromkeys(found)
    if not chosen:
        raise ValueError("no optimizer named: give names or globs such as 'adam' or 'c*'")
    return tuple(chosen)


def check_budgets(study: Study, costs: Costs | None = None) -> None:
    """Check that every budget pays for a step of every optimizer.

    Without costs those that were given count, else a forward pass.

    Raises:
      ValueError: If one does not, two budgets cannot be told apart, or a batch does not hold a
        population.
    """
    costs = costs or given_costs(study) or dict.fromkeys((VALUE, GRADIENT, PRIOR), 1.0)
    if len({f"{budget:g}" for budget in study.budgets}) < len(study.budgets):
        raise ValueError(f"budgets {study.budgets}: two agree in six digits, which name them")
    for name in study.optimizers:
        optimizer = make_optimizer(name)
        try:
            check_batch(optimizer, study.batch)
            for budget in study.budgets:
                steps_within(optimizer, costs, budget)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def given_costs(study: Study) -> Costs:
    """Return the costs of --gradient_cost; {} if they are to be measured."""
    if not study.gradient_cost:
        return {}
    return dict(zip((VALUE, GRADIENT, PRIOR), (1.0, *study.gradient_cost), strict=True))


def describe(study: Study, groups: Sequence[Group]) -> dict[str, Any]:
    """Return what decides the numbers, as config.json holds it."""
    return {
        "experiment": "benchmark_optimizers",
        "command": study.command,
        "optimizers": list(study.optimizers),
        "rows": {name: _row(study, name) for name in study.optimizers},
        "objectives": {name: text for group in groups for name, text in _texts(group).items()},
        "seeds": list(study.seeds),
        "tune_seeds": list(study.tune_seeds),
        "budgets": list(study.budgets),
        "rates": list(study.factors),
        "further_rates": study.further_rates,
        "batch": study.batch,
        "gradient_cost": list(study.gradient_cost),
        "networks": dict(study.records),
        **_noise(study),
    }


def cost_made_of(study: Study, group: Group, asks: str) -> dict[str, Any]:
    """Return everything that decides the cost of an evaluation of a group."""
    names = [GENERATOR, *(c.name for c in group.problem.structures[0].request.system.classifiers)]
    names += [ENCODER] if asks == PRIOR else []
    return {
        "objectives": _texts(group),
        "networks": {name: study.records.get(name) for name in names},
        "batch": study.batch,
        "gradient_cost": list(study.gradient_cost),
        "device": this_device(),
    }


def cell_made_of(study: Study, name: str, group: Group, costs: Costs) -> dict[str, Any]:
    """Return everything that decides a cell but its budget, which is in its name."""
    asks = make_optimizer(name).asks
    return cost_made_of(study, group, asks) | {
        "population and rates": _row(study, name),
        "seeds": list(study.seeds),
        "tune_seeds": list(study.tune_seeds),
        "further_rates": study.further_rates,
        "cost": costs[asks],
        **_noise(study),
    }


def _noise(study: Study) -> dict[str, float]:
    return {"noise": study.noise} if study.noise else {}


def _row(study: Study, name: str) -> list[float]:
    """Population and rates of an optimizer's row: they tell whether it has changed."""
    optimizer = make_optimizer(name)
    return [float(optimizer.population), *optimizer.rates(study.factors)]


def _texts(group: Group) -> dict[str, str]:
    return {target.name: str(target.objective) for target in group.targets}
