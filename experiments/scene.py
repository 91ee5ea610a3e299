"""Maximises scene categories: what the scene network thinks of when it thinks of X.

  python -m experiments.scene --scenes='mountain,b*,17' --seeds=4
  python -m experiments.scene --scenes=all --seeds=1

Categories by label, glob, index or `all`; any number of them is one compilation. A row per
category, a column per seed. A minute for 4 categories x 4 seeds of the pocket pair on two
cores.
"""

from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.common import TARGETS, launch, load_networks, target_term
from experiments.launch import run_main
from jaxsynth.engine.terms import choose_units
from jaxsynth.experiment import PLACES, Run

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list(
    "scenes", ["mountain", "desert*", "corn_field", "iceberg"], "Labels, globs, indices, or all."
)
_TARGET = flags.DEFINE_enum("target", "logit", TARGETS, "Which function of the neuron to climb.")


def main(argv: Sequence[str]) -> int:
    settings = run_flags.read_settings("scene", argv, seeds="4")
    networks = load_networks(settings)
    places = networks[PLACES]
    runs = []
    for unit in choose_units(_SCENES.value, places.class_names):
        term = target_term(networks, PLACES, unit, 1.0, _TARGET.value)
        row = places.class_names[unit]
        runs += [Run(seed, (term,), row, f"seed {seed}") for seed in settings.seeds]
    return launch(settings, networks, runs, "Maximising scene categories")


if __name__ == "__main__":
    run_main(main)
