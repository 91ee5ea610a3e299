"""Maximises a scene and the NSFW neuron together, over NSFW weights and seeds.

  python -m experiments.joint --scenes=mountain,iceberg --nsfw_weights=0.5,1,2 --seeds=4

Goh 2016, last experiment. The two networks' gradients differ by orders of magnitude; `--balance`
says how they are joined (the default divides each image-space gradient by its own mean |g|). A row
per scene and seed, a column per NSFW weight. Half a minute for 24 runs of the pocket pair on two
cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks
from experiments.launch import run_main
from experiments.objectives import JOINT_TARGET, joint_runs
from jaxsynth.short import PLACES
from jaxsynth.terms import choose_units

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list("scenes", ["mountain", "iceberg"], "Labels, globs, indices, or all.")
_WEIGHTS = flags.DEFINE_list("nsfw_weights", ["0.5", "1", "2"], "Weights of the NSFW neuron.")
_SCENE_WEIGHT = flags.DEFINE_float("scene_weight", 1.0, "Weight of the scene's neuron.")
_TARGET = flags.DEFINE_enum("target", JOINT_TARGET, TARGETS, "Which function of both neurons.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("joint", argv, seeds="4")
    weights = run_flags.parse_numbers("nsfw_weights", _WEIGHTS.value)
    run_flags.parse_numbers("scene_weight", [str(_SCENE_WEIGHT.value)])
    networks = load_networks(settings)
    units = choose_units(_SCENES.value, networks[PLACES].class_names)
    runs = joint_runs(networks, units, settings.seeds, weights, _SCENE_WEIGHT.value, _TARGET.value)
    return launch(settings, networks, runs, "A scene and NSFW together")


if __name__ == "__main__":
    run_main(main)
