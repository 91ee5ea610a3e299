"""Maximises P(NSFW): what the moderation network thinks of when it thinks of NSFW.

  python -m experiments.nsfw --seeds=8

Goh 2016, second experiment. The objective is the log-odds, whose gradient has the direction of that
of P(NSFW) but never saturates; P is reported. Expect >= 0.99 for nearly every seed. Half a minute
for 8 seeds of the pocket generator on two cores.
"""

import dataclasses
from collections.abc import Sequence

from jaxsynth.inputs import option
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier

from .common import NSFW, TARGETS, launch, load_models
from .launch import run_experiment
from .run_flags import RunFlags


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    target: str = option("log_odds", "Which function of the neuron to maximise.", among=TARGETS)


def nsfw_runs(nsfw: Classifier, seeds: Sequence[int], target: str = "log_odds") -> list[Run]:
    """Make a run per seed that raises the NSFW neuron."""
    goal = getattr(nsfw, target)("NSFW")
    return [Run(seed, goal) for seed in seeds]


def main(flags: Flags) -> int:
    """Maximise P(NSFW)."""
    flags, models = load_models(flags, needs=(NSFW,))
    runs = nsfw_runs(models.classifiers[NSFW], flags.seed_numbers, flags.target)
    return launch(flags, models, runs, "Maximising P(NSFW)")


if __name__ == "__main__":
    run_experiment(main, Flags)
