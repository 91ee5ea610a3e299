"""Maximises P(NSFW): what the moderation network thinks of when it thinks of NSFW.

  python -m experiments.nsfw --seeds=8

Goh 2016, second experiment. Climbs the log-odds, whose gradient has the direction of that of
P(NSFW) but never saturates, and reports P. Expect >= 0.99 for nearly every seed. Half a minute for
8 seeds of the pocket generator on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks
from experiments.launch import run_main
from experiments.objectives import NSFW_TARGET, nsfw_runs

flags.adopt_module_key_flags(run_flags)
_TARGET = flags.DEFINE_enum(
    "target", NSFW_TARGET, TARGETS, "Which function of the neuron to climb."
)


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("nsfw", argv)
    networks = load_networks(settings)
    runs = nsfw_runs(networks, settings.seeds, _TARGET.value)
    return launch(settings, networks, runs, "Maximising P(NSFW)")


if __name__ == "__main__":
    run_main(main)
