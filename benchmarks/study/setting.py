"""What a benchmark is asked for, and what of it cannot be had."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.climb import Costs, check_batch, steps_within
from benchmarks.study.problems import Objective
from benchmarks.study.summary import Names
from jaxsynth.optimizers import (
    GRADIENT,
    OPTIMIZERS,
    PRIOR,
    VALUE,
    check_optimizer_name,
    make_optimizer,
)
from jaxsynth.terms import Term


@dataclasses.dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark as its flags ask for it.

    Attributes:
      optimizers: names that `choose_optimizers` gives.
      seeds, tune_seeds: reported, and used for tuning only.
      budgets: forward passes of a run.
      factors: of every optimizer's own rate, in the tuning sweep.
      further_rates: how many are tried beyond an end of it at most.
      batch: codes per evaluation.
      gradient_cost: forward passes that a gradient counts as, and one with the encoder's pass; ()
        to measure them.
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


def check_budgets(run: BenchmarkRun, costs: Costs | None = None) -> None:
    """Raises ValueError unless budgets can be told apart, every one pays for a step of every
    optimizer, and the batch holds its population. Without costs those that were given count, else a
    forward pass."""
    costs = costs or given_costs(run) or dict.fromkeys((VALUE, GRADIENT, PRIOR), 1.0)
    if len({f"{budget:g}" for budget in run.budgets}) < len(run.budgets):
        raise ValueError(f"budgets {run.budgets}: two agree in six digits, which name them")
    for name in run.optimizers:
        optimizer = make_optimizer(name)
        try:
            check_batch(optimizer, run.batch)
            for budget in run.budgets:
                steps_within(optimizer, costs, budget)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def given_costs(run: BenchmarkRun) -> Costs:
    """Those of --gradient_cost; {} if they are to be measured."""
    if not run.gradient_cost:
        return {}
    return dict(zip((VALUE, GRADIENT, PRIOR), (1.0, *run.gradient_cost), strict=True))


def describe(run: BenchmarkRun, names: Names, objectives: Sequence[Objective]) -> dict[str, Any]:
    """What decides the numbers, as config.json holds it."""
    return {
        "experiment": "benchmark_optimizers",
        "command": run.command,
        "optimizers": list(names.optimizers),
        "rows": {name: _row(run, name) for name in names.optimizers},
        "objectives": list(names.objectives),
        "terms": {o.name: [_text(term) for term in o.terms] for o in objectives},
        "seeds": list(run.seeds),
        "tune_seeds": list(run.tune_seeds),
        "budgets": list(run.budgets),
        "rates": list(run.factors),
        "further_rates": run.further_rates,
        "batch": run.batch,
        "gradient_cost": list(run.gradient_cost),
        "networks": dict(run.records),
    }


def _row(run: BenchmarkRun, name: str) -> list[float]:
    """Population and rates of an optimizer's row: they tell whether it has changed."""
    optimizer = make_optimizer(name)
    return [float(optimizer.population), *optimizer.rates(run.factors)]


def _text(term: Term) -> str:
    """A term as the numbers that it weighs: network:blob:index:weight."""
    index = ",".join(map(str, term.index))
    return f"{term.network}:{term.blob}:{index}:{term.weight!r}"
