"""Measures what bfloat16 changes: the same seeds in float32, in float32 again, and in bfloat16.

  python -m experiments.compare_precisions --scenes=mountain,bedroom --seeds=64

Runs are chaotic: rounded otherwise, as in another batch size, they end in another image. That
difference (--other_batch) is the yardstick for the one that bfloat16 makes; on a CPU of two cores
only a batch of one is rounded otherwise. Every final code is evaluated in float32. Scores are P of
the objective's class. Differences are of the pictures, in grey levels (0 to 255, root mean square),
against the float32 run of the same seed. Writes precision.md, precision.csv and precision.json into
--out. After a stop or a kill, the same command with --resume continues. Seven minutes on two cores.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from experiments.table import Part, Row, config_maker, launch_table

from experiments.common import Models, load_models
from experiments.flags import like
from experiments.launch import command_line, run_experiment
from experiments.nsfw import class_runs
from experiments.run_flags import NOT_IN_STUDIES, NSFW, PLACES, RunFlags
from experiments.scene import scene_runs
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem, every_run, join
from jaxsynth.chunks import execute
from jaxsynth.environment import machine_line
from jaxsynth.inputs import choose_units, option
from jaxsynth.maximize import Run, Settings, plan

STEM = "precision"
REACHED = 0.9


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    WITHOUT = ("precision", *NOT_IN_STUDIES)
    WHY = "which starts from seeds and draws no pages"

    scenes: tuple[str, ...] = option(("mountain", "bedroom"), "Labels, globs or indices.")
    with_nsfw: bool = option(True, "Compare nsfw as well.")
    other_batch: int | None = option(
        None,
        "Batch size of the second float32 sweep, other than --batch; by default 1, or 2 for "
        "--batch=1. On a CPU of few cores any two from 2 up give the same.",
        low=1,
    )
    seeds: str = like(RunFlags, "seeds", "64")


def main(flags: Flags) -> int:
    """Compare precisions."""
    flags, exact = load_models(flags, needs=(NSFW, PLACES))
    names = list(_names(flags, exact))
    batch = _plan(exact, exact.settings, _runs(flags, names[0])(exact)).settings.batch
    other = flags.other_batch or (2 if batch == 1 else 1)
    if other == batch:
        raise ValueError(f"--other_batch={other} is that of --batch: give another one")
    _, coarse = load_models(dataclasses.replace(flags, precision="bfloat16"), emulate=True)
    sweeps = [
        (exact, dataclasses.replace(exact.settings, batch=batch)),
        (exact, dataclasses.replace(exact.settings, batch=other)),
        (coarse, dataclasses.replace(coarse.settings, batch=batch)),
    ]
    parts = [_part(sweeps, name, _runs(flags, name)) for name in names]
    head = f"`{command_line(flags.name)}`\n\n{machine_line()}\n\n"
    return launch_table(flags, parts, STEM, head)


def _names(flags: Flags, models: Models) -> Iterator[str]:
    """The objectives: scenes by label, and nsfw."""
    places = models.classifiers[PLACES]
    for unit in choose_units(flags.scenes, places.class_names):
        yield places.class_names[unit]
    if flags.with_nsfw:
        yield NSFW


def _runs(flags: Flags, name: str):
    """Return a function of models that makes an objective's runs, one for each seed."""

    def make(models: Models) -> list[Run]:
        if name == NSFW:
            return class_runs(models.classifiers[NSFW], "NSFW", flags.seed_numbers)
        places = models.classifiers[PLACES]
        return scene_runs(places, [places.class_names.index(name)], flags.seed_numbers)

    return make


def _part(sweeps: Sequence[tuple[Models, Settings]], name: str, runs) -> Part:
    """An objective: a row for each sweep, the first of which the others are compared with."""
    problems, configs = {}, {}
    for models, settings in sweeps:
        key = f"{name}-{settings.precision}-{settings.batch}"
        problems[key] = _plan(models, settings, runs(models))
        configs[key] = config_maker(models)(problems[key])
    exact, first = sweeps[0]

    def rows(found: Mapping[str, ChunkResult]) -> list[Row]:
        made: list[Row] = []
        reference = None
        for (_, settings), done in zip(sweeps, found.values(), strict=True):
            seen = _look(exact, first, runs(exact), done.codes)
            pictures = exact.generator.preprocess.show(seen.last.image).astype(np.float32)
            reference = pictures if reference is None else reference
            row = {"objective": name, "precision": settings.precision, "batch": settings.batch}
            made.append(row | _scores(runs(exact), done, seen) | _differences(pictures, reference))
        return made

    return Part(name, problems, configs, rows)


def _plan(models: Models, settings: Settings, runs: Sequence[Run], start=None) -> Problem:
    judges = list(models.only(runs[0].objective.terms[0].network).classifiers.values())
    return plan(runs, models.generator, judges, settings, start=start, encoder=models.encoder)


def _look(
    models: Models, settings: Settings, runs: Sequence[Run], codes: np.ndarray
) -> ChunkResult:
    """Evaluate these codes by a sweep without steps."""
    still = dataclasses.replace(settings.recipe, steps=0)
    settings = dataclasses.replace(settings, recipe=still, record=())
    problem = _plan(models, settings, runs, codes)
    return every_run(problem, join(list(execute(problem))))


def _scores(runs: Sequence[Run], done: ChunkResult, seen: ChunkResult) -> dict[str, Any]:
    """Final P: as float32 sees it, and its median as the run itself saw it."""
    [term] = runs[0].objective.terms
    own, p = (r.last.watched[term.network]["prob"][:, term.unit] for r in (done, seen))
    low, middle, high = np.quantile(p, (0.1, 0.5, 0.9))
    return {
        "runs": len(runs),
        "median P": f"{middle:.4f}",
        "P, 10 % to 90 %": f"{low:.4f} to {high:.4f}",
        f"P >= {REACHED}": f"{np.mean(p >= REACHED):.1%}",
        "median P, own eyes": f"{np.median(own):.4f}",
        "not finite": int((~done.sound).sum()),
    }


def _differences(pictures: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Of each seed's picture (R, H, W, 3) from its reference; and of one seed's from the next."""
    same, other = _rms(pictures - reference), _rms(pictures - np.roll(pictures, 1, axis=0))
    low, middle, high = np.quantile(same, (0.1, 0.5, 0.9))
    return {
        "rms from float32, median": f"{middle:.1f}",
        "10 % to 90 %": f"{low:.1f} to {high:.1f}",
        "rms between seeds, median": f"{np.median(other):.1f}",
    }


def _rms(difference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(difference**2, axis=(1, 2, 3)))  # (R,)


if __name__ == "__main__":
    run_experiment(main, Flags)
