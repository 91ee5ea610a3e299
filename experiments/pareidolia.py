"""Maximises alpha * a_sfw + beta * a_nsfw, the neurons before the softmax, over a grid.

  python -m experiments.pareidolia --alphas=0.5,1,2,4 --betas=0.5,1,2 --seeds=1

Goh 2016, fourth experiment. Goh found that the NSFW neuron dominates at equal weights, and that
weights that balance give images "of a very different flavour". With the shipped networks the SFW
neuron dominates at equal weights. A row per beta (and seed), a column per alpha. A normalised
gradient depends on alpha / beta alone, so runs of one ratio are computed once. The pocket generator
takes half a minute on two cores.
"""

import dataclasses

from jaxsynth.inputs import option, parse_numbers

from .common import launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import NSFW, RunFlags
from .runs import pareidolia_runs


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    alphas: tuple[str, ...] = option(("0.5", "1", "2", "4"), "Weights of the SFW neuron.")
    betas: tuple[str, ...] = option(("0.5", "1", "2"), "Weights of the NSFW neuron.")
    seeds: str = like(RunFlags, "seeds", "1")


def main(flags: Flags) -> int:
    """Maximise both neurons of open_nsfw over a grid of weights."""
    flags, models = load_models(flags, needs=(NSFW,))
    alphas = parse_numbers("alphas", flags.alphas)
    betas = parse_numbers("betas", flags.betas)
    runs = pareidolia_runs(models.classifiers[NSFW], alphas, betas, flags.seed_numbers)
    return launch(flags, models, runs, "Pareidolia: both neurons of open_nsfw at once")


if __name__ == "__main__":
    run_experiment(main, Flags)
