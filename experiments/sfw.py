"""Minimises P(NSFW): what the moderation network finds safest.

  python -m experiments.sfw --seeds=8

Goh 2016, third experiment: the images turn pastoral. Climbs the log-odds of SFW, whose gradient
never saturates, and reports P(NSFW). Expect <= 0.001 for nearly every seed. Two minutes for 8
seeds of the pocket generator on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks, target_term
from experiments.launch import run_main
from jaxsynth.experiment import NSFW, NSFW_UNIT, Run

flags.adopt_module_key_flags(run_flags)
_TARGET = flags.DEFINE_enum("target", "log_odds", TARGETS, "Which function of the neuron to climb.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("sfw", argv)
    networks = load_networks(settings)
    term = target_term(networks, NSFW, 1 - NSFW_UNIT, 1.0, _TARGET.value)
    runs = [Run(seed, (term,)) for seed in settings.seeds]
    return launch(settings, networks, runs, "Minimising P(NSFW)")


if __name__ == "__main__":
    run_main(main)
