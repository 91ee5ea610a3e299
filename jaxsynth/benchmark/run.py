"""A benchmark from networks to a folder of tables, plots and images; finished cells are kept."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsynth.benchmark import cells, folder, pages, summary
from jaxsynth.benchmark.climb import Costs, check_batch, measured_costs, steps_within
from jaxsynth.benchmark.optimizers import make_optimizer
from jaxsynth.benchmark.problems import Group, Objective, make_groups
from jaxsynth.benchmark.protocol import GRADIENT, PRIOR, VALUE
from jaxsynth.benchmark.summary import Names, Outcome
from jaxsynth.engine.objective import GENERATOR, System, make_system
from jaxsynth.engine.picture import draw
from jaxsynth.engine.recipes import make_box
from jaxsynth.evaluation.figures import saturated_share
from jaxsynth.evaluation.looks import judge_ranks, label_units, look
from jaxsynth.experiment import NSFW, NSFW_UNIT
from jaxsynth.files.images import to_rgb, write_png
from jaxsynth.files.results import hardware, write_arrays
from jaxsynth.files.whole import write_whole
from jaxsynth.networks.network import Network
from jaxsynth.report.html import ReportImage, ReportRun, write_report
from jaxsynth.report.tables import format_markdown, format_table, write_metrics

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark as its flags ask for it.

    Attributes:
      optimizers: names that `choose_optimizers` gives.
      seeds, tune_seeds: reported, and used for tuning only.
      budgets: forward-equivalents of a run.
      factors: of every optimizer's own rate, in the tuning sweep.
      batch: codes per evaluation.
      gradient_cost: forward-equivalents of a gradient, and of one with the encoder's pass; () to
        measure them.
    """

    optimizers: tuple[str, ...]
    seeds: tuple[int, ...]
    tune_seeds: tuple[int, ...]
    budgets: tuple[float, ...]
    factors: tuple[float, ...]
    batch: int
    gradient_cost: tuple[float, ...]
    out: Path
    command: str
    records: Mapping[str, Any]
    resume: bool
    overwrite: bool


def benchmark(
    run: BenchmarkRun,
    networks: Mapping[str, Network],
    judge: Network,
    objectives: Sequence[Objective],
    say: Say,
    on_step: Callable[[int], None] = lambda runs: None,
) -> str:
    """Computes what is missing, writes the folder, and gives the tables as text.

    Args:
      networks: generator, classifiers, and the generator's encoder if an optimizer needs it.
      judge: a scene network that no objective knows.

    Raises:
      ValueError: for a budget that pays for no step, a folder that is not this benchmark's.
    """
    groups = make_groups(objectives, networks)
    ordered = [o for group in groups for o in group.objectives]
    names = Names(
        optimizers=run.optimizers,
        kinds=tuple(make_optimizer(name).kind for name in run.optimizers),
        objectives=tuple(o.name for o in ordered),
        scenes=tuple(i for i, o in enumerate(ordered) if o.scene),
    )
    units = label_units([ordered[i].scene for i in names.scenes], judge)
    generator = networks[GENERATOR]
    upper = generator.code.upper if generator.code is not None else None
    box = make_box(cells.START, generator.input_shape[0], upper, np.float32)
    config = _config(run, names)
    costs = folder.open_folder(run.out, config, run.resume, run.overwrite)
    work = cells.Work(box, run.batch, on_step)
    if not costs:
        costs = {group.name: _costs(run, names, group, box) for group in groups}
        for own in costs.values():
            check_budgets(run, own)
        folder.write_settings(run.out, config, costs)
    for group in groups:
        given = ", ".join(f"{kind} {cost:.2f}" for kind, cost in costs[group.name].items())
        say(f"{group.name}: cost of a code in forward passes: {given}")
    outcomes = []
    for budget in run.budgets:
        found = [_optimizer(run, work, name, groups, costs, budget, say) for name in run.optimizers]
        outcomes.append(_outcome(names, budget, found))
    outcomes, codes = [o for o, _ in outcomes], [c for _, c in outcomes]
    return _write(run, names, ordered, units, networks, judge, outcomes, codes, costs)


def check_budgets(run: BenchmarkRun, costs: Costs | None = None) -> None:
    """Raises ValueError unless every budget pays for a step of every optimizer, and the batch holds
    its population. Without costs those that were given count, else a forward pass."""
    costs = costs or _given_costs(run) or dict.fromkeys((VALUE, GRADIENT, PRIOR), 1.0)
    for name in run.optimizers:
        optimizer = make_optimizer(name)
        check_batch(optimizer, run.batch)
        for budget in run.budgets:
            try:
                steps_within(optimizer, costs, budget)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _given_costs(run: BenchmarkRun) -> Costs:
    """Those of --gradient_cost; {} if they are to be measured."""
    if not run.gradient_cost:
        return {}
    return dict(zip((VALUE, GRADIENT, PRIOR), (1.0, *run.gradient_cost), strict=True))


def _config(run: BenchmarkRun, names: Names) -> dict[str, Any]:
    """What decides the numbers, as config.json holds it."""
    return {
        "experiment": "benchmark_optimizers",
        "command": run.command,
        "optimizers": list(names.optimizers),
        "objectives": list(names.objectives),
        "seeds": list(run.seeds),
        "tune_seeds": list(run.tune_seeds),
        "budgets": list(run.budgets),
        "rates": list(run.factors),
        "batch": run.batch,
        "gradient_cost": list(run.gradient_cost),
        "networks": dict(run.records),
    }


def _costs(run: BenchmarkRun, names: Names, group: Group, box) -> Costs:
    kinds = sorted(set(names.kinds))
    if given := _given_costs(run):
        return given
    return measured_costs(group, kinds, cells.starts(box, run.seeds), run.batch)


def _optimizer(run, work, name: str, groups, costs, budget: float, say: Say) -> dict[str, Any]:
    """One optimizer on all groups at a budget: arrays joined along the objectives."""
    parts = [_cell(run, work, name, group, costs[group.name], budget, say) for group in groups]
    joined = {
        key: np.concatenate([part[key] for part in parts])
        for key in parts[0]
        if key not in ("seconds", "runs")
    }
    seconds = sum(float(part["seconds"][0]) for part in parts)
    return joined | {"seconds": seconds / joined["start"].size}


def _cell(run, work, name: str, group: Group, costs: Costs, budget: float, say: Say):
    """One optimizer on one group: tuned and reported, or what was kept of it."""
    optimizer, key = make_optimizer(name), f"{name}@{budget:g}@{group.name}"
    rates = optimizer.rates(run.factors)
    kept = folder.load_cell(run.out, f"{key}@report")
    if kept is not None:
        return kept
    chosen = np.repeat(rates, len(group.objectives)).reshape(len(rates), -1)[0]
    if len(rates) > 1:
        tuned = folder.load_cell(run.out, f"{key}@tune")
        if tuned is None:
            best = cells.tune(work, optimizer, group, costs, budget, rates, run.tune_seeds)
            tuned = {"best": best, "rates": np.asarray(rates)}
            folder.save_cell(run.out, f"{key}@tune", tuned)
        chosen = cells.choose_rates(tuned["best"], rates)
    cells.warm_up(work, optimizer, group, costs)
    begin = time.perf_counter()
    found = cells.report(work, optimizer, group, costs, budget, chosen, run.seeds)
    seconds = time.perf_counter() - begin
    ends = (min(rates), max(rates)) if len(rates) > 1 else ()
    arrays = found._asdict() | {
        "rate": chosen,
        "edge": np.isin(chosen, ends),
        "steps": np.full(len(chosen), steps_within(optimizer, costs, budget)),
        "seconds": np.array([seconds]),
    }
    folder.save_cell(run.out, f"{key}@report", arrays)
    median = np.median(found.best, axis=1)
    values = ", ".join(f"{o.name} {v:.3g}" for o, v in zip(group.objectives, median, strict=True))
    say(f"{name}, budget {budget:g}, {seconds:.0f} s: {values}")
    return arrays


def _outcome(names: Names, budget: float, found) -> tuple[Outcome, np.ndarray]:
    """One budget's results, not judged yet, and their codes (M, O, S, D)."""
    stacked = {key: np.stack([one[key] for one in found]) for key in found[0]}
    outcome = Outcome(
        budget=budget,
        marks=cells.marks(budget),
        start=stacked["start"][0],
        best=stacked["best"],
        curve=stacked["curve"],
        rates=stacked["rate"],
        edge=stacked["edge"],
        steps=stacked["steps"],
        seconds=stacked["seconds"],
        judged=np.zeros((len(found), len(names.scenes), stacked["best"].shape[2]), int),
        clipped=np.zeros((len(found), len(names.scenes))),
    )
    return outcome, stacked["codes"]


def _write(run, names, objectives, units, networks, judge, outcomes, codes, costs) -> str:
    """Judges the images, writes every file, and gives the tables as text."""
    system = make_system(networks[GENERATOR], {})
    params = jax.tree.map(jax.numpy.asarray, networks[GENERATOR].params)
    judged, examples = [], np.zeros(0)
    for outcome, found in zip(outcomes, codes, strict=True):
        ranks, clipped, shown = np.zeros_like(outcome.judged), np.zeros_like(outcome.clipped), []
        for m in range(len(names.optimizers)):
            for j, o in enumerate(names.scenes):
                images = np.asarray(_draw(system, params, jax.numpy.asarray(found[m, o])))
                rgb = to_rgb(images)
                clipped[m, j] = saturated_share(images)
                ranks[m, j] = judge_ranks(judge, rgb, np.full(len(rgb), units[j]))
                shown.append(rgb[0])
        judged.append(outcome._replace(judged=ranks, clipped=clipped))
        if shown:
            examples = np.stack(shown).reshape(len(names.optimizers), -1, *shown[0].shape)
    best = summary.best_known(judged)
    compared = [summary.compare(outcome, best) for outcome in judged]
    write_metrics(run.out / "results.csv", summary.run_rows(names, run.seeds, judged))
    _write_arrays(run.out, names, judged, codes)
    text = _write_tables(run, names, judged, compared, costs)
    note = pages.write_plots(run.out / "plots.png", names, judged[-1], compared[-1])
    _write_page(run, names, objectives, networks, judged, compared, examples, note)
    return "\n".join([text, *([note] if note else [])])


@functools.partial(jax.jit, static_argnums=0)
def _draw(system: System, params, codes):
    """Raw images (N, H, W, 3) of codes (N, D)."""
    return jax.vmap(lambda code: draw(system, params, {}, code)[0])(codes)


def _write_arrays(out: Path, names: Names, outcomes: Sequence[Outcome], codes) -> None:
    arrays = {}
    for outcome, found in zip(outcomes, codes, strict=True):
        arrays[f"{outcome.budget:g}/marks"] = outcome.marks
        for m, name in enumerate(names.optimizers):
            own = {"start": outcome.start, "best": outcome.best[m], "curve": outcome.curve[m]}
            own |= {"rate": outcome.rates[m], "codes": found[m]}
            arrays |= {f"{outcome.budget:g}/{name}/{key}": value for key, value in own.items()}
    write_arrays(out / "results.safetensors", arrays)


def _write_tables(run, names: Names, outcomes, compared, costs) -> str:
    """table.md and table.tex; gives the tables for the terminal."""
    given = [
        f"* cost of a code in forward passes, {group}: "
        + ", ".join(f"{kind} {cost:.2f}" for kind, cost in own.items())
        for group, own in costs.items()
    ]
    how = (
        f"{len(names.objectives)} objectives ({', '.join(names.objectives)}) x "
        f"{len(run.seeds)} seeds; rates tuned per objective on {len(run.tune_seeds)} others"
    )
    lines, tex, text = [f"`{run.command}`", "", f"* {how}", f"* {hardware()}", *given], [], []
    for outcome, found in zip(outcomes, compared, strict=True):
        rows = summary.table_rows(names, outcome, found)
        said = summary.sentences(names, outcome, found)
        heading = f"Budget {outcome.budget:g} forward-equivalents"
        lines += ["", f"## {heading}", "", format_markdown(rows), *(f"* {line}" for line in said)]
        tex.append(summary.latex_table(rows, f"{heading}: {how}."))
        text += ["", heading, format_table(rows), *said]
    write_whole(run.out / "table.md", ("\n".join(lines) + "\n").encode())
    write_whole(run.out / "table.tex", "\n".join(tex).encode())
    return "\n".join(text)


def _write_page(
    run, names: Names, objectives, networks, outcomes, compared, examples, note: str
) -> None:
    """images.png and report.html: the last budget, its first seed's images."""
    outcome, found = outcomes[-1], compared[-1]
    said = summary.sentences(names, outcome, found)
    gallery = []
    links = ["table.md", "table.tex", "results.csv", "config.json", "results.safetensors"]
    if examples.size:
        flat = examples.reshape(-1, *examples.shape[2:])
        nsfw = look(networks[NSFW], flat, ["prob"])["prob"][:, NSFW_UNIT]
        nsfw = nsfw.reshape(examples.shape[:2])
        scenes = [names.objectives[i] for i in names.scenes]
        page = pages.images_page(names, scenes, found.order, examples, nsfw)
        page.save(run.out / "images.png")
        links.insert(0, "images.png")
        for m in found.order:
            for j, scene in enumerate(scenes):
                file = f"images/run{m * len(scenes) + j:05d}.png"
                write_png(run.out / file, examples[m, j])
                rank = outcome.judged[m, j, 0]
                lines = (names.optimizers[m], scene, f"judge's rank {rank + 1}")
                image = ReportImage(file, nsfw=float(nsfw[m, j]))
                gallery.append(ReportRun((image,), lines))
    write_report(
        run.out / "report.html",
        "Optimizers at equal cost",
        summary.table_rows(names, outcome, found),
        gallery,
        command=run.command,
        config=_config(run, names),
        note=f"Budget {outcome.budget:g} forward passes. " + " ".join(said),
        traces="" if note else "plots.png",
        links=links,
    )
