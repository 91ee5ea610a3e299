"""Maximises scene categories: images that the scene network names with most certainty.

  python -m experiments.scene --scenes='mountain,b*,17' --seeds=4
  python -m experiments.scene --scenes=all --seeds=1

Categories by label, glob, index or `all`; any number of them is one compilation. A row per
category, a column per seed. 4 categories x 4 seeds of the pocket networks take some ten seconds on
two cores.
"""

import dataclasses
from collections.abc import Sequence

from jaxsynth.inputs import choose_units, option
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier

from .common import launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import PLACES, RunFlags, TargetFlags


@dataclasses.dataclass(frozen=True)
class Flags(TargetFlags):
    """The flags of this launcher."""

    scenes: tuple[str, ...] = option(
        ("mountain", "desert*", "corn_field", "iceberg"), "Labels, globs, indices, or all."
    )
    seeds: str = like(RunFlags, "seeds", "4")


def main(flags: Flags) -> int:
    """Maximise scene categories."""
    flags, models = load_models(flags, needs=(PLACES,))
    places = models.classifiers[PLACES]
    units = choose_units(flags.scenes, places.class_names)
    runs = scene_runs(places, units, flags.seed_numbers, flags.target)
    return launch(flags, models, runs, "Maximising scene categories")


def scene_runs(
    places: Classifier, units: Sequence[int], seeds: Sequence[int], target: str = "log_odds"
) -> list[Run]:
    """Make the runs: a row per scene, a column per seed."""
    goals = {unit: getattr(places, target)(unit) for unit in units}
    return [
        Run(seed, goal, places.class_names[unit], f"seed {seed}")
        for unit, goal in goals.items()
        for seed in seeds
    ]


if __name__ == "__main__":
    run_experiment(main, Flags)
