"""Maximises a scene and the NSFW neuron together, over NSFW weights and seeds.

  python -m experiments.joint --scenes=mountain,iceberg --nsfw_weights=0.5,1,2 --seeds=4

Goh 2016, last experiment. The two networks' gradients differ by orders of magnitude; `--balance`
says how they are joined (the default divides each image-space gradient by its own mean |g|). A row
per scene and seed, a column per NSFW weight. Some three minutes for 24 runs of the pocket pair on
two cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks, target_term
from experiments.launch import run_main
from jaxsynth.engine.terms import choose_units
from jaxsynth.experiment import NSFW, NSFW_UNIT, PLACES, Run

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list("scenes", ["mountain", "iceberg"], "Labels, globs, indices, or all.")
_WEIGHTS = flags.DEFINE_list("nsfw_weights", ["0.5", "1", "2"], "Weights of the NSFW neuron.")
_SCENE_WEIGHT = flags.DEFINE_float("scene_weight", 1.0, "Weight of the scene's neuron.")
_TARGET = flags.DEFINE_enum("target", "log_prob", TARGETS, "Which function of both neurons.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("joint", argv, seeds="4")
    weights = run_flags.parse_numbers("nsfw_weights", _WEIGHTS.value)
    networks = load_networks(settings)
    places = networks[PLACES]
    runs = []
    for unit in choose_units(_SCENES.value, places.class_names):
        scene = target_term(networks, PLACES, unit, _SCENE_WEIGHT.value, _TARGET.value)
        for seed in settings.seeds:
            row = f"{places.class_names[unit]}, seed {seed}"
            for weight in weights:
                nsfw = target_term(networks, NSFW, NSFW_UNIT, weight, _TARGET.value)
                runs.append(Run(seed, (scene, nsfw), row, f"NSFW x {weight:g}"))
    return launch(settings, networks, runs, "A scene and NSFW together")


if __name__ == "__main__":
    run_main(main)
