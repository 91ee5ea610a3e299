"""Maximises P(NSFW): images that the moderation network answers NSFW to most.

  python -m experiments.nsfw --seeds=8

Goh 2016, second experiment. The objective is the log-odds: its gradient has the direction of that
of P(NSFW) but never saturates. P is reported. Expect >= 0.99 for nearly every seed. 8 seeds of the
pocket generator take half a minute on two cores.
"""

from collections.abc import Sequence

from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier

from .common import launch, load_models
from .launch import run_experiment
from .run_flags import NSFW, TargetFlags

Flags = TargetFlags


def main(flags: TargetFlags) -> int:
    """Maximise P(NSFW)."""
    flags, models = load_models(flags, needs=(NSFW,))
    runs = class_runs(models.classifiers[NSFW], "NSFW", flags.seed_numbers, flags.target)
    return launch(flags, models, runs, "Maximising P(NSFW)")


def class_runs(
    classifier: Classifier, label: str, seeds: Sequence[int], target: str = "log_odds"
) -> list[Run]:
    """Make a run per seed that raises one class."""
    goal = getattr(classifier, target)(label)
    return [Run(seed, goal) for seed in seeds]


if __name__ == "__main__":
    run_experiment(main, Flags)
