"""Random codes: what the prior makes of noise, and how the classifiers score it.

  python -m experiments.random_samples --seeds=32

No climbing: random codes go through the generator and are scored (Goh 2016, first figure): z ~
N(0, 1) as there, and for a pocket generator codes distributed like those of its training images (by
unit, --start=normal is N(0, 1)). Expect abstract pictures of a low P(NSFW), a few hundredths, not
zero. Seconds on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import launch, load_networks
from experiments.launch import run_main
from experiments.objectives import random_codes
from jaxsynth.experiment import Run

flags.adopt_module_key_flags(run_flags)


def main(argv: Sequence[str]) -> int:
    change = random_codes(run_flags.is_pocket())
    settings = run_flags.read_settings("random_samples", argv, seeds="32", **change)
    if settings.sweep.recipe.steps or settings.earlier:
        raise ValueError(
            "random_samples does not climb: leave --steps, --recipe, --init_image and "
            "--continue_from alone"
        )
    networks = load_networks(settings)
    runs = [Run(seed, ()) for seed in settings.seeds]
    return launch(settings, networks, runs, "Random codes, not climbed")


if __name__ == "__main__":
    run_main(main)
