"""Random codes: what the prior makes of noise, and how the classifiers score it.

  python -m experiments.random_samples --seeds=32

No climbing: random codes go through the generator and are scored (Goh 2016, first figure): z ~
N(0, 1) as there, and for a pocket generator codes distributed like those of its training images (by
unit, --start=normal is N(0, 1)). Expect abstract pictures of a low P(NSFW): most far below 0.01, a
few of 32 higher. Seconds on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import launch, load_networks
from experiments.launch import run_main
from experiments.objectives import random_codes
from jaxsynth.short import Run

_OF_A_START = ("start", "box")
_NO_USE = [name for name in run_flags.OF_A_RECIPE if name not in _OF_A_START]
_NO_USE += ["balance", "encoder", "init_image", "continue_from", "record_codes", "save_seconds"]
for _name in run_flags.names_without(_NO_USE):
    flags.declare_key_flag(_name)


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("random_samples", _NO_USE, "which does not climb")
    change = random_codes(run_flags.is_pocket()) | {"prior": 0.0}
    settings = run_flags.read_settings("random_samples", argv, seeds="32", **change)
    networks = load_networks(settings)
    runs = [Run(seed, ()) for seed in settings.seeds]
    return launch(settings, networks, runs, "Random codes, not climbed")


if __name__ == "__main__":
    run_main(main)
