"""Maximises alpha * a_sfw + beta * a_nsfw, the neurons before the softmax, over a grid.

  python -m experiments.pareidolia --alphas=0.5,1,2,4 --betas=0.5,1,2 --seeds=1

Goh 2016, fourth experiment. Goh found that the NSFW neuron dominates at equal weights, and that
weights that balance give images "of a very different flavour". With the shipped networks the SFW
neuron dominates at equal weights. A row per beta (and seed), a column per alpha. A normalised
gradient depends on alpha / beta alone, so runs of one ratio are computed once. The pocket generator
takes half a minute on two cores.
"""

import dataclasses
from collections.abc import Sequence

from jaxsynth.inputs import option, parse_numbers
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier

from .common import launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import NSFW, RunFlags


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


def pareidolia_runs(
    nsfw: Classifier, alphas: Sequence[float], betas: Sequence[float], seeds: Sequence[int]
) -> list[Run]:
    """Make the runs: a row per NSFW weight and seed, a column per SFW weight."""
    ends = nsfw.logit("SFW"), nsfw.logit("NSFW")
    goals = {(a, b): a * ends[0] + b * ends[1] for b in betas for a in alphas}
    runs = []
    for seed in seeds:
        said = f", seed {seed}" if len(seeds) > 1 else ""
        for (alpha, beta), goal in goals.items():
            runs.append(Run(seed, goal, f"NSFW x {beta:g}{said}", f"SFW x {alpha:g}"))
    return runs


if __name__ == "__main__":
    run_experiment(main, Flags)
