"""A study from models to a folder of tables, plots and images; finished cells are not repeated.

config.json            what was asked for last, costs, hashes, versions
cells.json, cells/     finished parts (`jaxsynth.runs.parts`): costs of evaluations, and cells
results.csv            tidy: a row per optimizer, budget, objective and seed
results.safetensors    per budget and optimizer, arrays (objectives, seeds, ...): BUDGET/OPTIMIZER/
                       start, best, codes, curve, rate (O,); marks of a budget: BUDGET/marks
table.md, table.tex    a row per optimizer, a table per budget
plots.png, images.png, report.html

Optimizers and budgets can be added to a study that is there: a part is known by what it was made
of, and no cell depends on another one.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.study import cells, output, tuning
from benchmarks.study.cells import Costs, Work, step_cost, steps_within
from benchmarks.study.problems import START, Group, Models, Target, make_groups
from benchmarks.study.setting import (
    Study,
    cell_made_of,
    check_budgets,
    cost_made_of,
    describe,
    given_costs,
)
from benchmarks.study.summary import Names, Outcome
from benchmarks.study.tuning import measured_costs
from jaxsynth.ask_tell import VALUE, Optimizer
from jaxsynth.models.base import Classifier
from jaxsynth.objectives import GENERATOR
from jaxsynth.optimizer_names import make_optimizer
from jaxsynth.runs.folder import LOCK, write_config
from jaxsynth.runs.parts import Parts
from jaxsynth.starts import make_box

Say = Callable[[str], None]
_BY_OBJECTIVE = ("start", "best", "curve", "codes", "rate", "edge", "steps", "spent")
_FILES = ("results.csv", "table.md", "table.tex", "plots.png", "images.png", "images/*.png")


class Bench(NamedTuple):
    """A study under way."""

    study: Study
    work: Work
    costs: dict[str, Costs]  # by group
    parts: Parts
    say: Say


def benchmark(
    study: Study,
    models: Models,
    judge: Classifier,
    targets: Sequence[Target],
    say: Say,
    encoder: Classifier | None = None,
    progress: tuple[Callable[[int], None], Callable[[int], None]] = (lambda n: None,) * 2,
) -> str:
    """Compute what is missing, write the folder, and return the tables as text.

    Args:
      study: What is asked for.
      models: Generator and classifiers by name.
      judge: A scene network that no objective knows.
      targets: The objectives.
      say: Called with lines of news.
      encoder: The generator's, if an optimizer asks for it.
      progress: The first is called after every step with the number of runs that made it, the
        second once before, with their sum.

    Raises:
      ValueError: For a budget that pays for no step, an objective that is not finite at a start, a
        population that the batch does not hold, a folder of another study.
    """
    _check_folder(study)
    groups = make_groups(targets, models, encoder, study.batch)
    names = _names(study, groups)
    units = [judge.unit_of(scene) for scene in _scenes(groups, names)]
    work = Work(_box(models[GENERATOR]), progress[0], study.noise)
    for group in groups:
        cells.check_starts(work, group, (*study.seeds, *study.tune_seeds))
    parts = _parts(study) if study.resume else None
    costs = {group.name: _costs(study, names, group, work, parts) for group in groups}
    for own in costs.values():
        check_budgets(study, own)
    bench = Bench(study, work, costs, parts or _parts(study), say)
    cells_of = list(itertools.product(study.optimizers, groups, study.budgets))
    progress[1](sum(_run_steps(bench, *cell) for cell in cells_of))
    _save_costs(bench, groups)
    write_config(study.out, describe(study, groups) | {"costs": costs})
    for group in groups:
        given = ", ".join(f"{asks} {cost:.2f}" for asks, cost in costs[group.name].items())
        say(f"{group.name}: cost of a code in forward passes: {given}")
    outcomes = []
    for budget in study.budgets:
        found = [_optimizer(bench, name, groups, budget) for name in study.optimizers]
        outcomes.append(_outcome(study, names, budget, found))
    found = [o for o, _ in outcomes], [c for _, c in outcomes], costs
    return output.write(study, names, groups, units, models, judge, found)


def _names(study: Study, groups: Sequence[Group]) -> Names:
    ordered = [target for group in groups for target in group.targets]
    return Names(
        optimizers=study.optimizers,
        kinds=tuple(make_optimizer(name).asks for name in study.optimizers),
        objectives=tuple(target.name for target in ordered),
        scenes=tuple(i for i, target in enumerate(ordered) if target.scene),
    )


def _scenes(groups: Sequence[Group], names: Names) -> list[str]:
    ordered = [target for group in groups for target in group.targets]
    return [ordered[i].scene for i in names.scenes]


def _box(generator):
    upper, lower = (None, None) if generator.code is None else generator.code[:2]
    return make_box(START, generator.code_size, upper, np.float32, lower)


def _check_folder(study: Study) -> None:
    """Raise ValueError if the folder holds anything and no flag says what to do with it."""
    occupied = study.out.is_dir() and any(path.name != LOCK for path in study.out.iterdir())
    if occupied and not (study.resume or study.overwrite):
        raise ValueError(
            f"output folder {study.out} is not empty: the same command with --resume continues a "
            "benchmark that was stopped; else choose another --out, or --overwrite"
        )


def _parts(study: Study) -> Parts:
    """The finished parts of this study; those of another one are cleared if that was asked for."""
    how = {"resume": study.resume, "overwrite": study.overwrite}
    return Parts(study.out, study.command, **how, stem="cells", files=_FILES)


def _costs(study: Study, names: Names, group: Group, work: Work, parts: Parts | None) -> Costs:
    """Those that were given, else saved ones, and the others measured."""
    if given := given_costs(study):
        return given
    wanted = [VALUE, *sorted(set(names.kinds) - {VALUE})]
    known = {
        asks: parts.value(_cost(group, asks))
        for asks in wanted
        if parts and parts.done(_cost(group, asks), cost_made_of(study, group, asks))
    }
    if missing := [asks for asks in wanted if asks not in known]:
        codes = cells.starts(work.box, study.seeds)
        return dict(measured_costs(group, missing, codes, study.batch)) | known
    return known


def _save_costs(bench: Bench, groups: Sequence[Group]) -> None:
    for group, (asks, cost) in ((g, pair) for g in groups for pair in bench.costs[g.name].items()):
        made_of = cost_made_of(bench.study, group, asks)
        if not bench.parts.done(_cost(group, asks), made_of):
            bench.parts.save(_cost(group, asks), made_of, value=cost)


def _cost(group: Group, asks: str) -> str:
    return f"cost@{group.name}@{asks}"


def _run_steps(bench: Bench, name: str, group: Group, budget: float) -> int:
    """Runs x steps that a cell still takes."""
    study, optimizer = bench.study, make_optimizer(name)
    tune, report = _missing(bench, name, group, budget)
    seeds = report * len(study.seeds)
    seeds += tune * len(optimizer.rates(study.factors)) * len(study.tune_seeds)
    steps = steps_within(optimizer, bench.costs[group.name], budget)
    return seeds * len(group.targets) * steps


def _missing(bench: Bench, name: str, group: Group, budget: float) -> tuple[bool, bool]:
    """Whether a cell is still to be tuned, and to be reported."""
    rates = make_optimizer(name).rates(bench.study.factors)
    made_of = cell_made_of(bench.study, name, group, bench.costs[group.name])
    tune, report = _keys(name, group, budget)
    report_missing = not bench.parts.done(report, made_of)
    return report_missing and len(rates) > 1 and not bench.parts.done(tune, made_of), report_missing


def _keys(name: str, group: Group, budget: float) -> tuple[str, str]:
    """Names of a cell's tuning and of what it reports: no two budgets share one."""
    key = f"{name}@{float(budget)!r}@{group.name}"
    return f"{key}@tune", f"{key}@report"


def _optimizer(bench: Bench, name: str, groups: Sequence[Group], budget: float) -> dict[str, Any]:
    """One optimizer on all groups at a budget: arrays joined along the objectives."""
    parts = [_cell(bench, name, group, budget) for group in groups]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in _BY_OBJECTIVE}
    at_once = bench.study.batch // make_optimizer(name).population
    places = sum(-(-part["start"].size // at_once) * at_once for part in parts)
    seconds = sum(float(part["seconds"][0]) for part in parts)
    return joined | {"seconds": seconds / places}


def _cell(bench: Bench, name: str, group: Group, budget: float) -> dict[str, np.ndarray]:
    """One optimizer on one group: tuned and reported, or what was saved of it."""
    costs, optimizer = bench.costs[group.name], make_optimizer(name)
    tuned, reported = _keys(name, group, budget)
    tune, report = _missing(bench, name, group, budget)
    if not report:
        return bench.parts.arrays(reported)
    study, rates = bench.study, optimizer.rates(bench.study.factors)
    made_of = cell_made_of(study, name, group, costs)
    if tune:
        seeds, further = study.tune_seeds, study.further_rates
        swept = tuning.tune(bench.work, optimizer, group, costs, budget, rates, seeds, further)
        bench.parts.save(tuned, made_of, arrays=swept._asdict())
    chosen, edge = np.full(len(group.targets), rates[0]), np.zeros(len(group.targets), int)
    if len(rates) > 1:
        swept = tuning.Tuned(**bench.parts.arrays(tuned))
        chosen, edge = tuning.choose_rates(swept), tuning.edges(swept, optimizer.largest)
    arrays = _report(bench, optimizer, group, budget, chosen) | {"edge": edge}
    bench.parts.save(reported, made_of, arrays=arrays)
    median = np.median(arrays["best"], axis=1)
    values = ", ".join(f"{t.name} {v:.3g}" for t, v in zip(group.targets, median, strict=True))
    bench.say(f"{name}, budget {budget:g}, {arrays['seconds'][0]:.0f} s: {values}")
    return arrays


def _report(
    bench: Bench, optimizer: Optimizer, group: Group, budget: float, rates: np.ndarray
) -> dict[str, np.ndarray]:
    """Optimize from the reported seeds with these rates (O,)."""
    costs = bench.costs[group.name]
    cells.warm_up(bench.work, optimizer, group, costs)
    begin = time.perf_counter()
    found = cells.optimise_all(
        bench.work, optimizer, group, costs, budget, rates, bench.study.seeds
    )
    seconds, steps = time.perf_counter() - begin, steps_within(optimizer, costs, budget)
    return found._asdict() | {
        "rate": rates,
        "steps": np.full(len(rates), steps),
        "spent": np.full(len(rates), steps * step_cost(optimizer, costs)),
        "seconds": np.array([seconds]),
    }


def _outcome(study: Study, names: Names, budget: float, found) -> tuple[Outcome, np.ndarray]:
    """One budget's results, not judged yet, and their codes (M, O, S, D)."""
    stacked = {key: np.stack([one[key] for one in found]) for key in found[0]}
    outcome = Outcome(
        budget=budget,
        marks=cells.marks(budget),
        start=stacked["start"][0],
        best=stacked["best"],
        curve=stacked["curve"],
        rates=stacked["rate"],
        edge=stacked["edge"] if len(study.factors) > 1 else None,
        steps=stacked["steps"],
        spent=stacked["spent"],
        seconds=stacked["seconds"],
        judged=np.zeros((len(found), len(names.scenes), stacked["best"].shape[2]), int),
        clipped=np.zeros((len(found), len(names.scenes))),
    )
    return outcome, stacked["codes"]
