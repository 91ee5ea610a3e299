"""A benchmark from networks to a folder of tables, plots and images; finished cells are kept."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.study import cells, folder, output, tuning
from benchmarks.study.climb import Costs, step_cost, steps_within
from benchmarks.study.costs import measured_costs
from benchmarks.study.problems import Group, Objective, make_groups
from benchmarks.study.setting import BenchmarkRun, check_budgets, describe, given_costs
from benchmarks.study.summary import Names, Outcome
from jaxsynth.evaluation.looks import label_units
from jaxsynth.models.network import Network
from jaxsynth.optimizers import Optimizer, make_optimizer
from jaxsynth.recipes import make_box
from jaxsynth.system import GENERATOR

Say = Callable[[str], None]
_BY_OBJECTIVE = ("start", "best", "curve", "codes", "rate", "edge", "steps", "spent")


def benchmark(
    run: BenchmarkRun,
    networks: Mapping[str, Network],
    judge: Network,
    objectives: Sequence[Objective],
    say: Say,
    on_step: Callable[[int], None] = lambda runs: None,
    on_plan: Callable[[int], None] = lambda run_steps: None,
) -> str:
    """Computes what is missing, writes the folder, and gives the tables as text.

    Args:
      networks: generator, classifiers, and the generator's encoder if an optimizer needs it.
      judge: a scene network that no objective knows.
      on_step: called after every step with the number of runs that made it.
      on_plan: called once, with the sum of what on_step will be told.

    Raises:
      ValueError: for a budget that pays for no step, an objective that is not finite at a start, a
        population that the batch does not hold, a folder that is not this benchmark's.
    """
    groups = make_groups(objectives, networks)
    ordered = [o for group in groups for o in group.objectives]
    names = Names(
        optimizers=run.optimizers,
        kinds=tuple(make_optimizer(name).asks for name in run.optimizers),
        objectives=tuple(o.name for o in ordered),
        scenes=tuple(i for i, o in enumerate(ordered) if o.scene),
    )
    units = label_units([ordered[i].scene for i in names.scenes], judge)
    generator = networks[GENERATOR]
    upper, lower = (generator.code.upper, generator.code.lower) if generator.code else (None, None)
    box = make_box(cells.START, generator.input_shape[0], upper, np.float32, lower)
    config = describe(run, names, ordered)
    before = folder.read_earlier(run.out, config, run.resume, run.overwrite)
    work = cells.Work(box, run.batch, on_step)
    for group in groups:
        cells.check_starts(work, group, (*run.seeds, *run.tune_seeds))
    known = before.get("costs", {})
    costs = {g.name: _costs(run, names, g, box, known.get(g.name, {})) for g in groups}
    for own in costs.values():
        check_budgets(run, own)
    folder.make_ready(run.out, config, before, costs)
    cells_of = itertools.product(run.optimizers, groups, run.budgets)
    on_plan(sum(_run_steps(run, name, group, costs, budget) for name, group, budget in cells_of))
    for group in groups:
        given = ", ".join(f"{kind} {cost:.2f}" for kind, cost in costs[group.name].items())
        say(f"{group.name}: cost of a code in forward passes: {given}")
    outcomes = []
    for budget in run.budgets:
        found = [_optimizer(run, work, name, groups, costs, budget, say) for name in run.optimizers]
        outcomes.append(_outcome(run, names, budget, found))
    outcomes, codes = [o for o, _ in outcomes], [c for _, c in outcomes]
    return output.write(run, names, ordered, units, networks, judge, outcomes, codes, costs)


def _costs(run: BenchmarkRun, names: Names, group: Group, box, known: Costs) -> Costs:
    """Those that were given, or measured of the kinds that are not known yet."""
    if given := given_costs(run):
        return given
    if missing := sorted(set(names.kinds) - known.keys()):
        measured = measured_costs(group, missing, cells.starts(box, run.seeds), run.batch)
        return measured | dict(known)
    return known


def _run_steps(run: BenchmarkRun, name: str, group: Group, costs, budget: float) -> int:
    """Runs x steps that a cell still takes."""
    optimizer = make_optimizer(name)
    tune, report = _missing(run, optimizer, _key(name, budget, group))
    seeds = report * len(run.seeds)
    seeds += tune * len(optimizer.rates(run.factors)) * len(run.tune_seeds)
    return seeds * len(group.objectives) * steps_within(optimizer, costs[group.name], budget)


def _missing(run: BenchmarkRun, optimizer: Optimizer, key: str) -> tuple[bool, bool]:
    """Whether a cell is still to be tuned, and to be reported."""
    report = not folder.has_cell(run.out, _reported(key))
    choice = len(optimizer.rates(run.factors)) > 1
    return report and choice and not folder.has_cell(run.out, _tuned(key)), report


def _key(name: str, budget: float, group: Group) -> str:
    """Of a cell's files: no two budgets share one."""
    return f"{name}@{float(budget)!r}@{group.name}"


def _tuned(key: str) -> str:
    return f"{key}@tune"


def _reported(key: str) -> str:
    return f"{key}@report"


def _optimizer(run, work, name: str, groups, costs, budget: float, say: Say) -> dict[str, Any]:
    """One optimizer on all groups at a budget: arrays joined along the objectives."""
    parts = [_cell(run, work, name, group, costs[group.name], budget, say) for group in groups]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in _BY_OBJECTIVE}
    at_once = run.batch // make_optimizer(name).population
    places = sum(-(-part["start"].size // at_once) * at_once for part in parts)
    seconds = sum(float(part["seconds"][0]) for part in parts)
    return joined | {"seconds": seconds / places}


def _cell(run, work, name: str, group: Group, costs: Costs, budget: float, say: Say):
    """One optimizer on one group: tuned and reported, or what was kept of it."""
    optimizer, key = make_optimizer(name), _key(name, budget, group)
    tune, report = _missing(run, optimizer, key)
    if not report:
        return folder.load_cell(run.out, _reported(key))
    rates = optimizer.rates(run.factors)
    if tune:
        seeds, further = run.tune_seeds, run.further_rates
        swept = tuning.tune(work, optimizer, group, costs, budget, rates, seeds, further)
        folder.save_cell(run.out, _tuned(key), swept._asdict())
    chosen = np.full(len(group.objectives), rates[0])
    edge = np.zeros(len(chosen), int)
    if len(rates) > 1:
        swept = tuning.Tuned(**folder.load_cell(run.out, _tuned(key)))
        chosen, edge = tuning.choose_rates(swept), tuning.edges(swept, optimizer.largest)
    cells.warm_up(work, optimizer, group, costs)
    begin = time.perf_counter()
    found = cells.climb_all(work, optimizer, group, costs, budget, chosen, run.seeds)
    seconds, steps = time.perf_counter() - begin, steps_within(optimizer, costs, budget)
    arrays = found._asdict() | {
        "rate": chosen,
        "edge": edge,
        "steps": np.full(len(chosen), steps),
        "spent": np.full(len(chosen), steps * step_cost(optimizer, costs)),
        "seconds": np.array([seconds]),
    }
    folder.save_cell(run.out, _reported(key), arrays)
    median = np.median(found.best, axis=1)
    values = ", ".join(f"{o.name} {v:.3g}" for o, v in zip(group.objectives, median, strict=True))
    say(f"{name}, budget {budget:g}, {seconds:.0f} s: {values}")
    return arrays


def _outcome(run: BenchmarkRun, names: Names, budget: float, found) -> tuple[Outcome, np.ndarray]:
    """One budget's results, not judged yet, and their codes (M, O, S, D)."""
    stacked = {key: np.stack([one[key] for one in found]) for key in found[0]}
    outcome = Outcome(
        budget=budget,
        marks=cells.marks(budget),
        start=stacked["start"][0],
        best=stacked["best"],
        curve=stacked["curve"],
        rates=stacked["rate"],
        edge=stacked["edge"] if len(run.factors) > 1 else None,
        steps=stacked["steps"],
        spent=stacked["spent"],
        seconds=stacked["seconds"],
        judged=np.zeros((len(found), len(names.scenes), stacked["best"].shape[2]), int),
        clipped=np.zeros((len(found), len(names.scenes))),
    )
    return outcome, stacked["codes"]
