"""What the experiments climb, as runs: shared by their launchers and evaluate_prior."""

from collections.abc import Mapping, Sequence

from jaxsynth.models.network import Network, logits_blob
from jaxsynth.short import NSFW, NSFW_UNIT, PLACES, Run
from jaxsynth.terms import Term

SCENE_TARGET, NSFW_TARGET, JOINT_TARGET = "log_prob", "log_odds", "log_prob"
BALANCE_SCENES = ("mountain", "iceberg", "desert-sand", "corn_field", "bedroom")

Networks = Mapping[str, Network]


def target_term(networks: Networks, role: str, unit: int, weight: float, target: str) -> Term:
    """A term on a classifier's unit: its logit, log_prob, log_odds or prob."""
    network = networks[role]
    blob = logits_blob(network.info.config) if target == "logit" else target
    return Term(role, blob, (unit,), weight, network.class_names[unit])


def scene_runs(
    networks: Networks, units: Sequence[int], seeds: Sequence[int], target: str = SCENE_TARGET
) -> list[Run]:
    """A row per scene, a column per seed."""
    runs = []
    for unit in units:
        term = target_term(networks, PLACES, unit, 1.0, target)
        row = networks[PLACES].class_names[unit]
        runs += [Run(seed, (term,), row, f"seed {seed}") for seed in seeds]
    return runs


def nsfw_runs(networks: Networks, seeds: Sequence[int], target: str = NSFW_TARGET) -> list[Run]:
    """Raises the NSFW neuron."""
    term = target_term(networks, NSFW, NSFW_UNIT, 1.0, target)
    return [Run(seed, (term,)) for seed in seeds]


def sfw_runs(networks: Networks, seeds: Sequence[int], target: str = NSFW_TARGET) -> list[Run]:
    """Raises the other one."""
    term = target_term(networks, NSFW, 1 - NSFW_UNIT, 1.0, target)
    return [Run(seed, (term,)) for seed in seeds]


def joint_runs(
    networks: Networks,
    units: Sequence[int],
    seeds: Sequence[int],
    nsfw_weights: Sequence[float] = (1.0,),
    scene_weight: float = 1.0,
    target: str = JOINT_TARGET,
) -> list[Run]:
    """Each scene with NSFW: a row per scene and seed, a column per NSFW weight."""
    runs = []
    for unit in units:
        scene = target_term(networks, PLACES, unit, scene_weight, target)
        for seed in seeds:
            row = f"{networks[PLACES].class_names[unit]}, seed {seed}"
            for weight in nsfw_weights:
                nsfw = target_term(networks, NSFW, NSFW_UNIT, weight, target)
                runs.append(Run(seed, (scene, nsfw), row, f"NSFW x {weight:g}"))
    return runs
