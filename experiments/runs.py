"""The runs that launchers make: which objectives, which seeds, which row and column."""

from collections.abc import Mapping, Sequence

from jaxsynth.maximize import Run
from jaxsynth.models.base import Classifier
from jaxsynth.objectives import Objective

from .run_flags import NSFW, PLACES


def random_runs(seeds: Sequence[int]) -> list[Run]:
    """Make a run per seed that maximises nothing."""
    return [Run(seed, Objective(())) for seed in seeds]


def class_runs(
    classifier: Classifier, label: str, seeds: Sequence[int], target: str = "log_odds"
) -> list[Run]:
    """Make a run per seed that raises one class."""
    goal = getattr(classifier, target)(label)
    return [Run(seed, goal) for seed in seeds]


def scene_runs(
    places: Classifier, units: Sequence[int], seeds: Sequence[int], target: str = "log_odds"
) -> list[Run]:
    """Make the runs: a row per scene, a column per seed."""
    goals = {unit: getattr(places, target)(unit) for unit in units}
    return [
        Run(seed, goal, places.class_names[unit], f"seed {seed}")
        for unit, goal in goals.items()
        for seed in seeds
    ]


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


def pareidolia_runs(
    nsfw: Classifier, alphas: Sequence[float], betas: Sequence[float], seeds: Sequence[int]
) -> list[Run]:
    """Make the runs: a row per NSFW weight and seed, a column per SFW weight."""
    ends = nsfw.logit("SFW"), nsfw.logit("NSFW")
    goals = {(a, b): a * ends[0] + b * ends[1] for b in betas for a in alphas}
    runs = []
    for seed in seeds:
        said = f", seed {seed}" if len(seeds) > 1 else ""
        for (alpha, beta), goal in goals.items():
            runs.append(Run(seed, goal, f"NSFW x {beta:g}{said}", f"SFW x {alpha:g}"))
    return runs
