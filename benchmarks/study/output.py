"""A benchmark's files: tables, arrays, plots and images of what was found."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.study import folder, pages, summary
from benchmarks.study.climb import Costs
from benchmarks.study.problems import Objective
from benchmarks.study.setting import BenchmarkRun, describe
from benchmarks.study.summary import Names, Outcome
from jaxsynth.disk import write_whole
from jaxsynth.environment import machine_line
from jaxsynth.evaluation.figures import saturated_share
from jaxsynth.evaluation.looks import judge_ranks, look, padded_batches
from jaxsynth.images import to_rgb, write_png
from jaxsynth.maximize import NSFW, NSFW_UNIT
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Network
from jaxsynth.picture import draw
from jaxsynth.report.pages import Page, ReportImage, ReportRun, write_page
from jaxsynth.report.tables import format_markdown, format_table, write_metrics
from jaxsynth.runs.folder import write_arrays
from jaxsynth.system import GENERATOR, System, make_system


def write(
    run: BenchmarkRun,
    names: Names,
    objectives: Sequence[Objective],
    units: Sequence[int],
    networks: Mapping[str, Network],
    judge: Network,
    outcomes: Sequence[Outcome],
    codes: Sequence[np.ndarray],
    costs: Mapping[str, Costs],
) -> str:
    """Judges the images, writes every file, and gives the tables as text.

    Args:
      units: the judge's unit of each of `names.scenes`.
      outcomes: one a budget, not judged yet. codes: of each (M, O, S, D).
      costs: of a code, by group of objectives.
    """
    judged, examples = _judge(networks[GENERATOR], judge, names, units, outcomes, codes, run.batch)
    best = summary.best_known(judged)
    compared = [summary.compare(outcome, best) for outcome in judged]
    write_metrics(run.out / "results.csv", summary.run_rows(names, run.seeds, judged))
    _write_arrays(run.out, names, judged, codes)
    text = _write_tables(run, names, judged, compared, costs)
    note = pages.write_plots(run.out / "plots.png", names, judged[-1], compared[-1])
    _write_page(run, names, objectives, networks, judged, compared, examples, note)
    return "\n".join([text, *([note] if note else [])])


def _judge(
    generator: Network, judge: Network, names: Names, units, outcomes, codes, batch: int
) -> tuple[list[Outcome], np.ndarray]:
    """The outcomes with what the judge says of the images of the best codes; and those of the last
    budget's first seeds, (M, scenes, H, W, 3) RGB, empty without scenes."""
    system = make_system(generator, {})
    params = jax.tree.map(jax.numpy.asarray, generator.params)
    judged, examples = [], np.zeros(0)
    for outcome, found in zip(outcomes, codes, strict=True):
        ranks, clipped, shown = np.zeros_like(outcome.judged), np.zeros_like(outcome.clipped), []
        for m in range(len(names.optimizers)):
            for j, o in enumerate(names.scenes):
                images = _images(system, params, found[m, o], batch)
                rgb = to_rgb(images)
                clipped[m, j] = saturated_share(images)
                ranks[m, j] = judge_ranks(judge, rgb, np.full(len(rgb), units[j]))
                shown.append(rgb[0])
        judged.append(outcome._replace(judged=ranks, clipped=clipped))
        if shown:
            examples = np.stack(shown).reshape(len(names.optimizers), -1, *shown[0].shape)
    return judged, examples


def _images(system: System, params, codes: np.ndarray, batch: int) -> np.ndarray:
    """Raw images (N, H, W, 3) of codes (N, D), at most `batch` at once."""
    drawn = [np.asarray(_draw(system, params, part)) for part in padded_batches(codes, batch)]
    return np.concatenate(drawn)[: len(codes)]


@functools.partial(network_jit, static_argnums=0)
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
    lines, tex, text = [f"`{run.command}`", "", f"* {how}", machine_line(), *given], [], []
    for outcome, found in zip(outcomes, compared, strict=True):
        rows = summary.table_rows(names, outcome, found)
        said = summary.sentences(names, outcome, found)
        heading = f"Budget {outcome.budget:g} forward passes"
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
    folder.clear(run.out)
    outcome, found = outcomes[-1], compared[-1]
    said = summary.sentences(names, outcome, found)
    gallery = []
    links = ["table.md", "table.tex", "results.csv", "config.json", "results.safetensors"]
    if examples.size:
        flat = examples.reshape(-1, *examples.shape[2:])
        nsfw = look(networks[NSFW], flat, ["prob"])["prob"][:, NSFW_UNIT]
        nsfw = nsfw.reshape(examples.shape[:2])
        scenes = [_heading(objectives[i]) for i in names.scenes]
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
    page = Page(
        "Optimizers at equal cost",
        summary.table_rows(names, outcome, found),
        gallery,
        command=run.command,
        settings=describe(run, names, objectives),
        note=f"Budget {outcome.budget:g} forward passes. " + " ".join(said),
        traces="" if note else "plots.png",
        links=links,
    )
    write_page(run.out / "report.html", page)


def _heading(objective: Objective) -> str:
    """A row's name of the table; of an objective given as terms the scene."""
    return objective.scene if ":" in objective.name else objective.name
