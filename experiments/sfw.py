"""Minimises P(NSFW): images that the moderation network finds safest.

  python -m experiments.sfw --seeds=8

Goh 2016, third experiment: the images turn pastoral. The objective is the log-odds of SFW,
whose gradient never saturates; P(NSFW) is reported. Expect <= 0.001 for nearly every seed. 8 seeds
of the pocket generator take half a minute on two cores.
"""

from .common import launch, load_models
from .launch import run_experiment
from .nsfw import class_runs
from .run_flags import NSFW, TargetFlags

Flags = TargetFlags


def main(flags: TargetFlags) -> int:
    """Minimise P(NSFW)."""
    flags, models = load_models(flags, needs=(NSFW,))
    runs = class_runs(models.classifiers[NSFW], "SFW", flags.seed_numbers, flags.target)
    return launch(flags, models, runs, "Minimising P(NSFW)")


if __name__ == "__main__":
    run_experiment(main, Flags)
