r"""Trains a scene network and the generator that inverts its code together: the last stage.

  python -m experiments.train_pair --data=DIR --start=ENCODER --generator=ITS_GENERATOR --minutes=60

ENCODER and ITS_GENERATOR are files that train_places and train_generator wrote. Both go on
learning, each what the other can do: the generator paints what the scene network reads, and the
scene network codes what the generator can paint. The same command resumes a run that was stopped.
Writes OUT/pocket_places.safetensors, OUT/pocket_generator.safetensors, and at every checkpoint a
sheet of photographs above their reconstructions. Two CPU cores see 30 to 110 images a second.
"""

from collections.abc import Sequence

from absl import flags

from experiments import train_flags
from experiments.launch import run_main
from jaxsynth.training.pair import PairTraining
from jaxsynth.training.pair_run import PairRun, train_pair

flags.adopt_module_key_flags(train_flags)
_GENERATOR = flags.DEFINE_string(
    "generator", "pocket_generator", "The generator that inverts the fc6 of --start."
)
_HELP = {
    "scene_rate": "Peak step size of Adam, scene network.",
    "generator_rate": "Peak step size of Adam, generator.",
    "label": "Weight of naming photographs.",
    "code": "Weight of the share of a unit's variance that is lost from E(x) to E(G(E(x))).",
    "agreement": "Weight of predicting of G(E(x)) what is predicted of x.",
    "temperature": "Of the predictions that are followed; below 1 sharpens them.",
    "image": "Weight of the image distance.",
    "mutual": "Share of --code and --agreement by which E(x) follows what is read in G(E(x)).",
    "shared": "Weight of texture at the same place in all G(E(x)).",
    "feature": "Weight of the distance in conv2, conv3 and conv5.",
    "through": "Share of the generator's gradient that reaches the scene network by the code.",
    "adversary": "Size of the adversary's gradient as a share of the other losses'; 0 is without.",
    "adversary_start": "Share of the run after which it joins.",
    "critic_rate": "Peak step size of the adversary.",
    "noise": "Noise on the given codes, in sigmas of each unit.",
    "photographs": "Share of photographs among what is read.",
    "jitter": "Largest shift in pixels of what is read.",
    "grain": "Most noise on what is read, in grey levels.",
    "min_scale": "Shortest side of a random crop, as a share.",
}
_DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
_DEFAULTS = vars(PairTraining())
_FLAGS = {
    name: _DEFINE[type(_DEFAULTS[name])](name, _DEFAULTS[name], text)
    for name, text in _HELP.items()
}


def main(argv: Sequence[str]) -> int:
    common = train_flags.read_common("train_pair", argv)
    run = PairRun(
        **common | {"start": common["start"] or "pocket_places"},
        generator=_GENERATOR.value,
        training=PairTraining(**{name: flag.value for name, flag in _FLAGS.items()}),
    )
    paths, figures = train_pair(run, train_flags.say)
    train_flags.tell_result(" and ".join(map(str, paths)), figures)
    return 0


if __name__ == "__main__":
    run_main(main)
