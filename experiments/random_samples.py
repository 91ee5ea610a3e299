"""Shows images of random codes, and their scores: the baseline of every other experiment.

  python -m experiments.random_samples --seeds=32

Nothing is optimised: random codes go through the generator and are scored (Goh 2016, first figure).
Codes are N(0, 1) as there; for a pocket generator they are distributed like those of its training
images. Expect textures and something like landscapes, of a low P(NSFW). Takes seconds on two cores.
"""

import dataclasses

from jaxsynth.maximize import Run
from jaxsynth.models.base import Generator
from jaxsynth.objectives import Objective
from jaxsynth.recipes import Recipe
from jaxsynth.starts import still

from .common import launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import OF_A_RECIPE, RunFlags

_OF_A_START = ("start", "box")


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """The flags of this launcher."""

    WITHOUT = (
        *(name for name in OF_A_RECIPE if name not in _OF_A_START),
        *("balance", "encoder", "init_image", "continue_from", "record_codes", "save_seconds"),
        "film",
    )
    WHY = "which takes no step"

    seeds: str = like(RunFlags, "seeds", "32")

    def usual_recipe(self, generator: Generator) -> Recipe:
        """Return the recipe without steps."""
        return still(generator)


def main(flags: Flags) -> int:
    """Draw the images of random codes."""
    flags, models = load_models(flags)
    runs = [Run(seed, Objective(())) for seed in flags.seed_numbers]
    return launch(flags, models, runs, "Random codes, not optimised")


if __name__ == "__main__":
    run_experiment(main, Flags)
