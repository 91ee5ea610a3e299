"""Climbs alpha * a_sfw + beta * a_nsfw, the neurons before the softmax, over a grid.

  python -m experiments.pareidolia --alphas=0.5,1,2,4 --betas=0.5,1,2 --seeds=1

Goh 2016, fourth experiment: at equal weights the NSFW neuron dominates; weights that balance give
images "of a very different flavour". A row per beta (and seed), a column per alpha. Half a
minute on two cores for the pocket generator.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import launch, load_networks, target_term
from experiments.launch import run_main
from jaxsynth.short import NSFW, NSFW_UNIT, Run

flags.adopt_module_key_flags(run_flags)
_ALPHAS = flags.DEFINE_list("alphas", ["0.5", "1", "2", "4"], "Weights of the SFW neuron.")
_BETAS = flags.DEFINE_list("betas", ["0.5", "1", "2"], "Weights of the NSFW neuron.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("pareidolia", argv, seeds="1")
    alphas = run_flags.parse_numbers("alphas", _ALPHAS.value)
    betas = run_flags.parse_numbers("betas", _BETAS.value)
    networks = load_networks(settings)
    runs = []
    for seed in settings.seeds:
        for beta in betas:
            row = f"NSFW x {beta:g}" + (f", seed {seed}" if len(settings.seeds) > 1 else "")
            for alpha in alphas:
                terms = (
                    target_term(networks, NSFW, 1 - NSFW_UNIT, alpha, "logit"),
                    target_term(networks, NSFW, NSFW_UNIT, beta, "logit"),
                )
                runs.append(Run(seed, terms, row, f"SFW x {alpha:g}"))
    return launch(settings, networks, runs, "Pareidolia: both neurons of open_nsfw at once")


if __name__ == "__main__":
    run_main(main)
