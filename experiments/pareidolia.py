"""Maximises alpha * a_sfw + beta * a_nsfw, the neurons before the softmax, over a grid.

  python -m experiments.pareidolia --alphas=0.5,1,2,4 --betas=0.5,1,2 --seeds=1

Goh 2016, fourth experiment: at equal weights the NSFW neuron dominates; weights that balance give
images "of a very different flavour". A row per beta (and seed), a column per alpha. Half a
minute on two cores for the pocket generator.
"""

import dataclasses

from jaxsynth.inputs import option, parse_numbers
from jaxsynth.maximize import Run

from .common import NSFW, launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import RunFlags


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
    sfw, nsfw = (models.classifiers[NSFW].logit(label) for label in ("SFW", "NSFW"))
    goals = {(alpha, beta): alpha * sfw + beta * nsfw for beta in betas for alpha in alphas}
    runs = []
    for seed in flags.seed_numbers:
        said = f", seed {seed}" if len(flags.seed_numbers) > 1 else ""
        for (alpha, beta), goal in goals.items():
            runs.append(Run(seed, goal, f"NSFW x {beta:g}{said}", f"SFW x {alpha:g}"))
    return launch(flags, models, runs, "Pareidolia: both neurons of open_nsfw at once")


if __name__ == "__main__":
    run_experiment(main, Flags)
