"""Minimises P(NSFW): what the moderation network finds safest.

  python -m experiments.sfw --seeds=8

Goh 2016, third experiment: the images turn pastoral. Climbs the log-odds of SFW, whose gradient
never saturates, and reports P(NSFW). Expect <= 0.001 for nearly every seed. Half a minute for 8
seeds of the pocket generator on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks
from experiments.launch import run_main
from experiments.objectives import NSFW_TARGET, sfw_runs

flags.adopt_module_key_flags(run_flags)
_TARGET = flags.DEFINE_enum(
    "target", NSFW_TARGET, TARGETS, "Which function of the neuron to climb."
)


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("sfw", argv)
    networks = load_networks(settings)
    runs = sfw_runs(networks, settings.seeds, _TARGET.value)
    return launch(settings, networks, runs, "Minimising P(NSFW)")


if __name__ == "__main__":
    run_main(main)
