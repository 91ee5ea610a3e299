r"""Trains the pocket scene network, or the judge, and exports it.

  python -m experiments.train_places --data=DIR --images=600000 --out=out/places
  python -m experiments.train_places --data=DIR --network=pocket_judge --seed=1 --images=600000

The scene network is another classifier (--trunk), fine-tuned with a fresh last layer; the judge is
a residual network from fresh weights. DIR holds zips (`*train*.zip`, `*val*.zip`, a folder per
class inside) or class folders. The same command resumes a run that was stopped. Writes
OUT/NETWORK.safetensors.
"""

from collections.abc import Sequence

from absl import flags

from experiments import train_flags
from experiments.launch import run_main
from jaxsynth.training.finetune import FineTuning
from jaxsynth.training.scene import SceneTraining
from jaxsynth.training.scene_run import JUDGE, PLACES, SceneRun, train_scene

flags.adopt_module_key_flags(train_flags)
_NETWORK = flags.DEFINE_enum(
    "network", PLACES, [PLACES, JUDGE], "The scene network, or one of another kind that judges."
)
_TRUNK = flags.DEFINE_string("trunk", SceneRun.trunk, "Classifier that is fine-tuned.")
_SIZE = flags.DEFINE_integer("size", SceneRun.size, "Image side in pixels, a multiple of 16.")
_WIDTH = flags.DEFINE_integer("width", SceneRun.width, "Channels of the judge's first layer.")
_RATE = flags.DEFINE_float("rate", None, "Peak step size.")
_DECAY = flags.DEFINE_float("decay", None, "Weight decay on kernels.")
_SMOOTHING = flags.DEFINE_float("smoothing", None, "Label smoothing.")
_MIN_SCALE = flags.DEFINE_float("min_scale", None, "Shortest side of a random crop, as a share.")
_COLOUR = flags.DEFINE_float(
    "colour", None, "Strength of random brightness, contrast and saturation, 0..1."
)
_FREEZE = flags.DEFINE_list("freeze", None, "Patterns of the trunk's parameters that stay.")


def main(argv: Sequence[str]) -> int:
    common = train_flags.read_common("train_places", argv)
    if start := common.pop("start"):
        raise ValueError(f"--start={start}: give --trunk, the classifier that is fine-tuned")
    flags_of = {"rate": _RATE, "decay": _DECAY, "smoothing": _SMOOTHING}
    flags_of |= {"min_scale": _MIN_SCALE, "colour": _COLOUR}
    given = {name: flag.value for name, flag in flags_of.items() if flag.value is not None}
    freeze = {} if _FREEZE.value is None else {"freeze": tuple(_FREEZE.value)}
    run = SceneRun(
        **common,
        network=_NETWORK.value,
        trunk=_TRUNK.value,
        size=_SIZE.value,
        width=_WIDTH.value,
        tuning=FineTuning(**given, **freeze),
        training=SceneTraining(**given),
    )
    train_flags.tell_result(*train_scene(run, train_flags.say))
    return 0


if __name__ == "__main__":
    run_main(main)
