"""A study's files: tables, arrays, plots and images of what was found."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.study import pages, summary
from benchmarks.study.cells import Costs
from benchmarks.study.problems import NSFW, Group, Models, Target
from benchmarks.study.setting import Study, describe
from benchmarks.study.summary import Names, Outcome
from jaxsynth.devices import batches
from jaxsynth.disk import write_atomic
from jaxsynth.environment import machine_line
from jaxsynth.evaluation.measures import saturated_share
from jaxsynth.evaluation.pictures import ranks as ranks_of
from jaxsynth.images import write_png
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.compiled import network_jit
from jaxsynth.objectives import GENERATOR
from jaxsynth.report.page import Page, ReportImage, ReportRun, write_page
from jaxsynth.report.tables import format_markdown, format_table, write_csv
from jaxsynth.runs.folder import write_arrays
from jaxsynth.system import view

_BATCH = 100  # images at once


def write(
    study: Study,
    names: Names,
    groups: Sequence[Group],
    units: Sequence[int],
    models: Models,
    judge: Classifier,
    found: tuple[Sequence[Outcome], Sequence[np.ndarray], Mapping[str, Costs]],
) -> str:
    """Judge the images, write every file, and return the tables as text.

    Args:
      study: What was asked for.
      names: Of what was compared.
      groups: Of objectives.
      units: The judge's unit of each of `names.scenes`.
      models: Generator and classifiers by name.
      judge: A scene network that no objective knows.
      found: Outcomes, one a budget, not judged yet; the codes of each (M, O, S, D); the costs of a
        code by group.
    """
    outcomes, codes, costs = found
    judged, examples = _judge(models[GENERATOR], judge, names, units, outcomes, codes)
    best = summary.best_known(judged)
    compared = [summary.compare(outcome, best) for outcome in judged]
    write_csv(study.out / "results.csv", summary.run_rows(names, study.seeds, judged))
    _write_arrays(study.out, names, judged, codes)
    text = _write_tables(study, names, judged, compared, costs)
    note = pages.write_plots(study.out / "plots.png", names, judged[-1], compared[-1])
    last = judged[-1], compared[-1], examples
    _write_page(study, names, groups, models.get(NSFW), last, note)
    return "\n".join([text, *([note] if note else [])])


def _judge(
    generator: Generator, judge: Classifier, names: Names, units, outcomes, codes
) -> tuple[list[Outcome], np.ndarray]:
    """The outcomes with what the judge says of the images of the best codes.

    And the images of the last budget's first seeds, (M, scenes, H, W, 3) RGB, empty without scenes.
    """
    judged, examples = [], np.zeros(0)
    for outcome, found in zip(outcomes, codes, strict=True):
        ranks, clipped, shown = np.zeros_like(outcome.judged), np.zeros_like(outcome.clipped), []
        for m in range(len(names.optimizers)):
            for j, o in enumerate(names.scenes):
                raw = _images(generator, found[m, o])
                rgb = generator.preprocess.show(raw)
                clipped[m, j] = saturated_share(generator.preprocess.to_rgb(raw))
                ranks[m, j] = ranks_of(_look(judge, rgb, judge.logits), np.full(len(rgb), units[j]))
                shown.append(rgb[0])
        judged.append(outcome._replace(judged=ranks, clipped=clipped))
        if shown:
            examples = np.stack(shown).reshape(len(names.optimizers), -1, *shown[0].shape)
    return judged, examples


def _images(generator: Generator, codes: np.ndarray) -> np.ndarray:
    """Raw images (N, H, W, 3) of codes (N, D)."""
    static = generator.activations, generator.image, 0
    return _each(static, generator.params, codes)


def _look(classifier: Classifier, rgb: np.ndarray, blob: str) -> np.ndarray:
    """A vector blob (N, K) of a classifier for pictures (N, H, W, 3) uint8, as a user sees them."""
    static = classifier.activations, blob, classifier.size
    return _each(static, classifier.params, classifier.preprocess.to_input(rgb))


def _each(static: tuple[Any, str, int], params: Any, rows: np.ndarray) -> np.ndarray:
    def found() -> Iterator[np.ndarray]:
        for part, count in batches(rows, min(_BATCH, len(rows))):
            yield np.asarray(_apply(static, params, part))[:count]

    return np.concatenate(list(found()))


@functools.partial(network_jit, static_argnums=0)
def _apply(static: tuple[Any, str, int], params, rows):
    """A blob of rows (N, ...); images are resized to `size`, if it is not 0."""
    activations, blob, size = static
    rows = view(rows, size) if size else rows
    return jax.vmap(lambda row: activations(params, row)[blob])(rows)


def _write_arrays(out: Path, names: Names, outcomes: Sequence[Outcome], codes) -> None:
    arrays = {}
    for outcome, found in zip(outcomes, codes, strict=True):
        arrays[f"{outcome.budget:g}/marks"] = outcome.marks
        for m, name in enumerate(names.optimizers):
            own = {"start": outcome.start, "best": outcome.best[m], "curve": outcome.curve[m]}
            own |= {"rate": outcome.rates[m], "codes": found[m]}
            arrays |= {f"{outcome.budget:g}/{name}/{key}": value for key, value in own.items()}
    write_arrays(out / "results.safetensors", arrays)


def _write_tables(study: Study, names: Names, outcomes, compared, costs) -> str:
    """Write table.md and table.tex; return the tables for the terminal."""
    given = [
        f"* cost of a code in forward passes, {group}: "
        + ", ".join(f"{kind} {cost:.2f}" for kind, cost in own.items())
        for group, own in costs.items()
    ]
    how = (
        f"{len(names.objectives)} objectives ({', '.join(names.objectives)}) x "
        f"{len(study.seeds)} seeds; rates tuned per objective on {len(study.tune_seeds)} others"
    )
    lines, tex, text = [f"`{study.command}`", "", f"* {how}", machine_line(), *given], [], []
    for outcome, found in zip(outcomes, compared, strict=True):
        rows = summary.table_rows(names, outcome, found)
        said = summary.sentences(names, outcome, found)
        heading = f"Budget {outcome.budget:g} forward passes"
        lines += ["", f"## {heading}", "", format_markdown(rows), *(f"* {line}" for line in said)]
        tex.append(summary.latex_table(rows, f"{heading}: {how}."))
        text += ["", heading, format_table(rows), *said]
    write_atomic(study.out / "table.md", ("\n".join(lines) + "\n").encode())
    write_atomic(study.out / "table.tex", "\n".join(tex).encode())
    return "\n".join(text)


def _write_page(
    study: Study, names: Names, groups: Sequence[Group], nsfw: Classifier | None, last, note: str
) -> None:
    """images.png and report.html: the last budget, its first seed's images."""
    outcome, compared, examples = last
    for old in study.out.glob("images/*.png"):
        old.unlink()
    said = summary.sentences(names, outcome, compared)
    gallery: list[ReportRun] = []
    links = ["table.md", "table.tex", "results.csv", "config.json", "results.safetensors"]
    if examples.size:
        links.insert(0, "images.png")
        targets = [target for group in groups for target in group.targets]
        scenes = [_heading(targets[i]) for i in names.scenes]
        scores = _sensitive(nsfw, examples)
        page = pages.images_page(names, scenes, compared.order, examples, scores)
        page.save(study.out / "images.png")
        gallery = _gallery(study.out, names, scenes, outcome, compared.order, examples, scores)
    page = Page(
        title="Optimizers at equal cost",
        summary=summary.table_rows(names, outcome, compared),
        runs=gallery,
        note=f"Budget {outcome.budget:g} forward passes. " + " ".join(said),
        command=study.command,
        settings=describe(study, groups),
        traces="" if note else "plots.png",
        links=links,
    )
    write_page(study.out / "report.html", page)


def _sensitive(nsfw: Classifier | None, examples: np.ndarray) -> np.ndarray:
    """P of the sensitive class of images (M, J, H, W, 3), (M, J); 0 without such a classifier."""
    if nsfw is None or nsfw.sensitive is None:
        return np.zeros(examples.shape[:2])
    flat = examples.reshape(-1, *examples.shape[2:])
    return nsfw.sensitive_probability(_look(nsfw, flat, "prob")).reshape(examples.shape[:2])


def _gallery(out: Path, names: Names, scenes, outcome, order, examples, scores) -> list[ReportRun]:
    (out / "images").mkdir(exist_ok=True)
    gallery = []
    for m in order:
        for j, scene in enumerate(scenes):
            file = f"images/run{m * len(scenes) + j:05d}.png"
            write_png(out / file, examples[m, j])
            rank = outcome.judged[m, j, 0]
            lines = (names.optimizers[m], scene, f"judge's rank {rank + 1}")
            gallery.append(ReportRun((ReportImage(file, nsfw=float(scores[m, j])),), lines))
    return gallery


def _heading(target: Target) -> str:
    """A row's name of the table; of an objective given as terms the scene."""
    return target.scene if ":" in target.name else target.name
