"""Maximises scene categories: what the scene network thinks of when it thinks of X.

  python -m experiments.scene --scenes='mountain,b*,17' --seeds=4
  python -m experiments.scene --scenes=all --seeds=1

Categories by label, glob, index or `all`; any number of them is one compilation. A row per
category, a column per seed. Some ten seconds for 4 categories x 4 seeds of the pocket pair on two
cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks
from experiments.launch import run_main
from experiments.objectives import SCENE_TARGET, scene_runs
from jaxsynth.short import PLACES
from jaxsynth.terms import choose_units

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list(
    "scenes", ["mountain", "desert*", "corn_field", "iceberg"], "Labels, globs, indices, or all."
)
_TARGET = flags.DEFINE_enum(
    "target", SCENE_TARGET, TARGETS, "Which function of the neuron to climb."
)


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("scene", argv, seeds="4")
    networks = load_networks(settings)
    units = choose_units(_SCENES.value, networks[PLACES].class_names)
    runs = scene_runs(networks, units, settings.seeds, _TARGET.value)
    return launch(settings, networks, runs, "Maximising scene categories")


if __name__ == "__main__":
    run_main(main)
