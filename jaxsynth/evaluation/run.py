"""An evaluation from photographs and models to a folder of table, metrics and sheets.

Every group is saved as soon as it is finished, its sweeps until then. A later evaluation of the
same weights into the same folder adds its groups to the others.

OUT/figures.json         group -> its metrics, and what they were made of (`jaxsynth.runs.parts`)
OUT/table.md             all metrics, rewritten after every group
OUT/scenes_00.png, ...   pages of `scenes`; reconstructions, nsfw, sfw, joint, random, spectra
OUT/unfinished/          sweeps under way, see `jaxsynth.runs.saving`
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem
from jaxsynth.disk import write_atomic
from jaxsynth.environment import hardware, versions
from jaxsynth.evaluation import groups
from jaxsynth.evaluation.groups import JUDGE, LPIPS, NSFW, PLACES, Group, Work, features
from jaxsynth.evaluation.pictures import Pair, check_judge, label_units, reconstruct
from jaxsynth.images import write_png
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.problem import Settings, plan
from jaxsynth.report.plots import plot_spectra
from jaxsynth.results import Run
from jaxsynth.runs.folder import UNFINISHED, sha256_of
from jaxsynth.runs.parts import Parts, close_sweep, finished_sweep, open_sweep
from jaxsynth.runs.processes import lock
from jaxsynth.runs.records import config_of, model_record
from jaxsynth.runs.saving import Saving, Stopped
from jaxsynth.system import ENCODER, GENERATOR, make_encoder
from jaxsynth.training.data import ImageSet, load_images

_COMPUTE: dict[str, Callable[[Work], Group]] = {
    "network": groups.network,
    "inversion": groups.inversion,
    "frechet": groups.frechet,
    "spectrum": groups.spectrum,
    "scenes": groups.scenes,
    "nsfw": groups.nsfw,
    "joint": groups.joint,
    "random": groups.random,
    "size": groups.size,
}
GROUPS = tuple(_COMPUTE)
SWEEPS = {
    "scenes": ("scenes",),
    "nsfw": ("nsfw", "sfw"),
    "joint": ("joint",),
    "random": ("random",),
}
_SEEN_BY = {"scenes": (PLACES,), "joint": (PLACES, NSFW)}  # a sweep's classifiers; others: NSFW
_ROLES = {  # in addition to the generator and the scene network
    "inversion": (ENCODER,),
    "frechet": (ENCODER, JUDGE),
    "spectrum": (ENCODER,),
    "scenes": (JUDGE, LPIPS),
    "nsfw": (NSFW,),
    "joint": (NSFW,),
    "random": (NSFW,),
}
_STEM, _TABLE = "figures", "table.md"
_PAGES = ("scenes_*", "reconstructions", "nsfw", "sfw", "joint", "random", "spectra")
_OURS = (_TABLE, *(f"{name}.png" for name in _PAGES))
_WITH_PHOTOGRAPHS = ("network", "inversion", "frechet", "spectrum", "scenes")
Models = Mapping[str, Generator | Classifier]
Sweeps = Mapping[str, tuple[Sequence[Run], Settings]]


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """An evaluation: which groups, of which photographs.

    Attributes:
      groups: Some of `GROUPS`.
      data: Folder of photographs as for the trainers; some groups need none.
      cache: Folder of decoded photographs.
      photographs: How many of the validation photographs to use, evenly spread; 0 is all. `network`
        always uses all. Frechet distances of unequal counts are not comparable: choose as many as
        there are random codes.
      command: How to repeat it.
    """

    groups: tuple[str, ...]
    data: Path | None
    cache: Path
    photographs: int = 0
    command: str = ""


def roles_needed(chosen: Sequence[str], data: Path | None) -> set[str]:
    """Return the roles of the models that these groups need.

    Raises:
      ValueError: If one of them needs photographs and there is no folder of them.
    """
    if data is None and (needs := [g for g in chosen if g in _WITH_PHOTOGRAPHS]):
        raise ValueError(f"--data is missing: {needs[0]} needs a folder of photographs")
    roles = {GENERATOR, PLACES, *(role for group in chosen for role in _ROLES.get(group, ()))}
    return roles | {JUDGE} if "random" in chosen and data is not None else roles


def evaluate_prior(
    run: EvaluationRun,
    models: Models,
    sweeps: Sweeps,
    saving: Saving,
    say: Callable[[str], None] = print,
) -> str:
    """Compute groups of metrics one after another, write everything, and return the table.

    Args:
      run: The groups.
      models: By role; those of `roles_needed`, and the encoder if a recipe's prior needs it.
      sweeps: Name in `SWEEPS` -> its runs and how they are computed; those of the chosen groups.
      saving: The output folder, and how to save; it is asked to stop after every step of a sweep
        and after every group.
      say: Called with a line for every finished group.

    Raises:
      ValueError: For anything that cannot work, before any long work.
      Stopped: If it was asked to; what is computed is saved.
    """
    pair, out = _check(run, models), saving.folder
    plans = {name: _plan(models, name, *of) for name, of in sweeps.items()}
    configs = {name: _config(run, models, problem) for name, problem in plans.items()}
    made_of = {name: _made_of(run, name, models, configs) for name in run.groups}
    photographs = functools.cache(lambda: _photographs(run, models[GENERATOR].image_size, say))
    if not (out / f"{_STEM}.json").is_file():
        _check_categories(run, run.groups, photographs, models)

    @functools.cache
    def some() -> ImageSet:
        images = photographs()
        count = min(run.photographs or len(images.rows), len(images.rows))
        spread = np.linspace(0, len(images.rows), count, endpoint=False).astype(int)
        return images._replace(rows=images.rows[spread])

    def pixels() -> np.ndarray:
        return some().images[some().rows]

    reconstructions = functools.cache(lambda: reconstruct(pair, pixels()))
    real_features = functools.cache(lambda: features(models[JUDGE], pixels()))

    def results(name: str) -> ChunkResult:
        return finished_sweep(saving, name, plans[name], configs[name])

    runs = {name: of for name, (of, _) in sweeps.items()}
    given = models, pair, runs, results, photographs, some, run.data is not None
    work = Work(*given, reconstructions, real_features)
    with lock(out):
        parts = _open_parts(run.command, saving, models)
        left = [name for name in run.groups if not parts.done(name, made_of[name])]
        _check_categories(run, left, photographs, models)
        for name in [s for group in left for s in SWEEPS.get(group, ())]:
            open_sweep(saving, name, configs[name])
        for name in set(run.groups) - set(left):
            _close(out, name)
        for i, name in enumerate(left):
            start = time.perf_counter()
            group = _COMPUTE[name](work)
            _write_pages(out, name, group.pages)
            value = {"metrics": group.metrics, "hardware": hardware()}
            parts.save(name, made_of[name], value)
            write_atomic(out / _TABLE, groups.table_text(parts, GROUPS).encode())
            _close(out, name)
            say(f"{groups.summary_line(name, group.metrics)} ({time.perf_counter() - start:.0f} s)")
            if left[i + 1 :] and saving.asked_to_stop():
                raise Stopped(f"{i + 1} of {len(left)} groups finished")
        if problem := _draw_spectra(parts, run.groups):
            say(problem)
    return (out / _TABLE).read_text()


def _check(run: EvaluationRun, models: Models) -> Pair | None:
    roles_needed(run.groups, run.data)
    if JUDGE in models:
        others = {role: models[role] for role in (PLACES, ENCODER) if role in models}
        check_judge(models[JUDGE], models[PLACES].class_names, others)
    pair = Pair(models[GENERATOR], models[ENCODER]) if ENCODER in models else None
    if pair:
        make_encoder(*pair)
    return pair


def _check_categories(
    run: EvaluationRun,
    chosen: Sequence[str],
    photographs: Callable[[], ImageSet],
    models: Models,
) -> None:
    """Raise ValueError unless the photographs' categories are those that the groups need."""
    if not set(chosen) & set(_WITH_PHOTOGRAPHS):
        return
    classes, places = photographs().classes, models[PLACES]
    if "network" in chosen:
        label_units(classes, places)
    if "scenes" in chosen and not set(classes) & set(places.class_names):
        raise ValueError(
            f"--data={str(run.data)!r} has no category of network {places.info.network!r}: scenes "
            "needs photographs that the judge can name"
        )


def _photographs(run: EvaluationRun, side: int, say: Callable[[str], None]) -> ImageSet:
    images = load_images(run.data, "val", side, run.cache)
    for line in images.skipped:
        say(f"skipped {line}")
    return images


def _plan(models: Models, name: str, runs: Sequence[Run], settings: Settings) -> Problem:
    """Plan a sweep: never with the judge, and with no larger networks than it needs."""
    own = [models[role] for role in _SEEN_BY.get(name, (NSFW,))]
    return plan(runs, models[GENERATOR], own, settings, encoder=models.get(ENCODER))


def _config(run: EvaluationRun, models: Models, problem: Problem) -> dict[str, Any]:
    """Return the config.json of a sweep under way."""
    seen = problem.structures[0].request.system.encoder is not None
    encoder = models[ENCODER] if seen else None
    return {"command": run.command} | config_of(problem, encoder=encoder)


def _made_of(
    run: EvaluationRun,
    name: str,
    models: Models,
    configs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return all that decides a group's metrics."""
    own = {sweep: configs[sweep] for sweep in SWEEPS.get(name, ())}
    seen = run.data is not None and name in (*_WITH_PHOTOGRAPHS, "random")
    roles = roles_needed([name], run.data) if name != "size" else set()
    if any("encoder" in config["inputs"] for config in own.values()):
        roles.add(ENCODER)
    return {
        "networks": {role: model_record(models[role]) for role in sorted(roles & models.keys())},
        "data": str(run.data) if seen else "",
        "photographs": run.photographs if seen else 0,
        "sweeps": {
            sweep: {key: config[key] for key in ("sweep", "arithmetic")}
            | {"runs": sha256_of({"runs": config["runs"]})}
            for sweep, config in own.items()
        },
        "versions": versions(),
    }


def _close(out: Path, group: str) -> None:
    """Remove the checkpoints of a group's sweeps: its metrics are written."""
    for name in SWEEPS.get(group, ()):
        close_sweep(out, name)


def _open_parts(command: str, saving: Saving, models: Mapping[str, Any]) -> Parts:
    """Make the folder ready; an evaluation of the same weights that is finished is added to."""
    out = saving.folder
    finished = (out / f"{_STEM}.json").is_file() and not (out / UNFINISHED).is_dir()
    resume = saving.resume or (finished and not saving.overwrite)
    parts = Parts(out, command, resume=resume, overwrite=saving.overwrite, stem=_STEM, files=_OURS)
    for name in parts.names():
        for role, record in parts.made_of(name)["networks"].items():
            own = model_record(models[role]) if role in models else record
            if own["sha256"] != record["sha256"]:
                raise ValueError(
                    f"{out} holds figures of another {role}: choose another --out, or --overwrite"
                )
    return parts


def _write_pages(out: Path, group: str, pages: Mapping[str, Image.Image]) -> None:
    """Write a group's pages; delete numbered ones of an earlier evaluation."""
    for old in out.glob(f"{group}_*.png"):
        old.unlink()
    for name, page in pages.items():
        write_png(out / name, np.asarray(page.convert("RGB")))


def _draw_spectra(parts: Parts, chosen: Sequence[str]) -> str:
    """Draw spectra.png of the measured groups; return one line if that is impossible."""
    names = ("spectrum", "scenes")
    if not set(names) & set(chosen):
        return ""
    done = [parts.value(name)["metrics"] if name in parts.names() else None for name in names]
    return plot_spectra(parts.folder / "spectra.png", *done)
