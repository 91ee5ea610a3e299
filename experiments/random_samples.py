"""Random codes: what the prior makes of noise, and how the classifiers score it.

  python -m experiments.random_samples --seeds=32

No climbing: z ~ N(0, 1) goes through the generator and is scored (Goh 2016, first figure). Expect
abstract pictures of a low P(NSFW), a few hundredths, not zero. Seconds on two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import launch, load_networks
from experiments.launch import run_main
from experiments.objectives import RANDOM_CODES
from jaxsynth.experiment import Run

flags.adopt_module_key_flags(run_flags)


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("random_samples", argv, seeds="32", **RANDOM_CODES)
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
