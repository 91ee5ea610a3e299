"""Which balance reaches a scene and NSFW together how often: the table of BUILD_NOTES.md.

  python -m experiments.compare_balances --recipe=goh --steps=25 --seeds=16 --batch=16

Every balance x target on the same scenes x seeds; counts last images with P(scene) >= 0.5, with
P(NSFW) >= 0.5, and with both. Writes balances.md, balances.csv and balances.json (with what made
each row) into --out. After a stop or a kill, the same command with --resume continues. Each
combination of 80 runs of the pocket networks takes some five minutes on two cores.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from experiments.table import BALANCE_SCENES, Part, Row, config_maker, launch_table

from experiments.common import Models, load_models
from experiments.flags import like
from experiments.launch import run_experiment
from experiments.run_flags import NOT_IN_STUDIES, NSFW, PLACES, TARGETS, RunFlags
from jaxsynth.ascent import ChunkResult
from jaxsynth.balance import BALANCES
from jaxsynth.inputs import choose_units, option, parse_numbers
from jaxsynth.maximize import Run, plan

STEM = "balances"
REACHED = 0.5


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    WITHOUT = ("balance", *NOT_IN_STUDIES)
    WHY = "which starts from seeds and draws no pages"

    scenes: tuple[str, ...] = option(BALANCE_SCENES, "Labels or globs.")
    nsfw_weight: float = option(1.0, "Weight of the NSFW neuron; the scene's is 1.")
    balances: tuple[str, ...] = option(tuple(BALANCES), "Balances to compare.", among=BALANCES)
    targets: tuple[str, ...] = option(
        ("logit", "log_prob", "log_odds"), "Targets to compare.", among=TARGETS
    )
    seeds: str = like(RunFlags, "seeds", "16")


def main(flags: Flags) -> int:
    """Compare balances."""
    parse_numbers("nsfw_weight", [str(flags.nsfw_weight)])
    flags, models = load_models(flags, needs=(NSFW, PLACES))
    units = choose_units(flags.scenes, models.classifiers[PLACES].class_names)
    pairs = itertools.product(dict.fromkeys(flags.balances), dict.fromkeys(flags.targets))
    return launch_table(flags, _parts(flags, models, units, pairs), STEM)


def _parts(
    flags: Flags, models: Models, units: Sequence[int], pairs: Iterable[tuple[str, str]]
) -> list[Part]:
    """A row for each pair of balance and target."""
    todo, config = [], config_maker(models)
    judges = list(models.classifiers.values())
    for balance, target in pairs:
        nsfw = flags.nsfw_weight * getattr(models.classifiers[NSFW], target)("NSFW")
        goals = [getattr(models.classifiers[PLACES], target)(unit) + nsfw for unit in units]
        runs = [Run(seed, goal) for goal in goals for seed in flags.seed_numbers]
        settings = dataclasses.replace(models.settings, balance=balance)
        problem = plan(runs, models.generator, judges, settings, encoder=models.encoder)
        name = f"{balance}-{target}"
        row = {"balance": balance, "target": target, "steps": settings.recipe.steps}
        rows = functools.partial(_rows, row, np.repeat(units, len(flags.seed_numbers)))
        todo.append(Part(name, {name: problem}, {name: config(problem)}, rows))
    return todo


def _rows(row: dict[str, Any], units: np.ndarray, found: Mapping[str, ChunkResult]) -> list[Row]:
    [results] = found.values()
    return [row | _reached(results, units)]


def _reached(results: ChunkResult, units: np.ndarray) -> dict[str, object]:
    watched = results.last.watched
    scene = watched[PLACES]["prob"][np.arange(len(units)), units]
    nsfw = watched[NSFW]["prob"][:, 1]
    both = (scene >= REACHED) & (nsfw >= REACHED)
    return {
        "runs": len(units),
        "both": f"{both.mean():.0%}",
        "P(scene) >= 0.5": f"{(scene >= REACHED).mean():.0%}",
        "P(NSFW) >= 0.5": f"{(nsfw >= REACHED).mean():.0%}",
        "median P(scene)": round(float(np.median(scene)), 3),
        "median P(NSFW)": round(float(np.median(nsfw)), 3),
    }


if __name__ == "__main__":
    run_experiment(main, Flags)
