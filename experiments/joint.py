"""Maximises a scene and the NSFW neuron together, over NSFW weights and seeds.

  python -m experiments.joint --scenes=mountain,iceberg --nsfw_weights=0.5,1,2 --seeds=4

Goh 2016, last experiment. The two networks' gradients differ by orders of magnitude; `--balance`
says how they are joined (the default divides each image-space gradient by its own mean |g|). A row
per scene and seed, a column per NSFW weight. 24 runs of the pocket networks take half a minute on
two cores.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxsynth.inputs import choose_units, option, parse_numbers
from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier

from .common import launch, load_models
from .flags import like
from .launch import run_experiment
from .run_flags import NSFW, PLACES, RunFlags, TargetFlags


@dataclasses.dataclass(frozen=True)
class Flags(TargetFlags):
    """The flags of this launcher."""

    scenes: tuple[str, ...] = option(("mountain", "iceberg"), "Labels, globs, indices, or all.")
    nsfw_weights: tuple[str, ...] = option(("0.5", "1", "2"), "Weights of the NSFW neuron.")
    scene_weight: float = option(1.0, "Weight of the scene's neuron.")
    target: str = like(TargetFlags, "target", "log_prob")
    seeds: str = like(RunFlags, "seeds", "4")


def main(flags: Flags) -> int:
    """Maximise scenes and the NSFW neuron together."""
    flags, models = load_models(flags, needs=(NSFW, PLACES))
    weights = parse_numbers("nsfw_weights", flags.nsfw_weights)
    [scene_weight] = parse_numbers("scene_weight", [str(flags.scene_weight)])
    units = choose_units(flags.scenes, models.classifiers[PLACES].class_names)
    how = (weights, scene_weight, flags.target)
    runs = joint_runs(models.classifiers, units, flags.seed_numbers, *how)
    return launch(flags, models, runs, "A scene and NSFW together")


def joint_runs(
    classifiers: Mapping[str, Classifier],
    units: Sequence[int],
    seeds: Sequence[int],
    nsfw_weights: Sequence[float] = (1.0,),
    scene_weight: float = 1.0,
    target: str = "log_prob",
) -> list[Run]:
    """Make the runs: a row per scene and seed, a column per NSFW weight."""
    places, nsfw = classifiers[PLACES], getattr(classifiers[NSFW], target)("NSFW")
    runs = []
    for unit in units:
        scene = scene_weight * getattr(places, target)(unit)
        goals = [(weight, scene + weight * nsfw) for weight in nsfw_weights]
        for seed in seeds:
            row = f"{places.class_names[unit]}, seed {seed}"
            runs += [Run(seed, goal, row, f"NSFW x {weight:g}") for weight, goal in goals]
    return runs


if __name__ == "__main__":
    run_experiment(main, Flags)
