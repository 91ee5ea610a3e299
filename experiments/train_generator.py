r"""Trains a generator that inverts a chosen layer of a chosen encoder, and exports it.

  python -m experiments.train_generator --data=DIR --encoder=PATH --minutes=60 --out=out/generator
  python -m experiments.train_generator --data=DIR --encoder=open_nsfw --blob=pool --layers=pool1 \
    --minutes=60

DIR is as for train_places, or a plain folder of images; PATH is a weights file (train_places or
port wrote it) or a name. Losses: image distance, code distance, feature distance in a comparator,
and from half of the run on an adversary. The same command resumes a run that was stopped. Writes
OUT/pocket_generator.safetensors with the code's statistics, and at every checkpoint a sheet of
photographs above their reconstructions.
"""

from collections.abc import Sequence

from absl import flags

from experiments import train_flags
from experiments.launch import run_main
from jaxsynth.training.inversion import InversionTraining
from jaxsynth.training.inversion_run import InversionRun, train_inversion

flags.adopt_module_key_flags(train_flags)
_ENCODER = flags.DEFINE_string("encoder", "pocket_places", "Classifier: a name or a file.")
_BLOB = flags.DEFINE_string("blob", "fc6", "Its layer that is inverted, after a ReLU or pooling.")
_SIZE = flags.DEFINE_integer("size", 0, "Image side, a multiple of 16; 0 is the encoder's (or 64).")
_WIDTH = flags.DEFINE_integer("width", 16, "Channels before the image layer.", lower_bound=1)
_RATE = flags.DEFINE_float("rate", InversionTraining.rate, "Peak step size of Adam.")
_IMAGE = flags.DEFINE_float("image_loss", InversionTraining.image, "Weight of the image distance.")
_CODE = flags.DEFINE_float("code_loss", InversionTraining.code, "Weight of the code distance.")
_FEATURE = flags.DEFINE_float(
    "feature_loss", InversionTraining.feature, "Weight of the distance in --layers."
)
_COMPARATOR = flags.DEFINE_string(
    "comparator", "", "Network whose --layers are compared; by default the encoder."
)
_LAYERS = flags.DEFINE_list(
    "layers", list(InversionTraining.layers), "Convolutions of the comparator."
)
_ADVERSARY = flags.DEFINE_float(
    "adversary_loss",
    InversionTraining.adversary,
    "Size of the adversary's gradient as a share of the other losses'; 0 trains without.",
)
_ADVERSARY_START = flags.DEFINE_float(
    "adversary_start", InversionTraining.adversary_start, "Share of the run after which it joins."
)
_CRITIC_RATE = flags.DEFINE_float(
    "critic_rate", InversionTraining.critic_rate, "Peak step size of the adversary."
)
_NOISE = flags.DEFINE_float(
    "noise", InversionTraining.noise, "Noise on the given codes, in sigmas of each unit."
)
_JITTER = flags.DEFINE_integer(
    "jitter", InversionTraining.jitter, "Largest shift in pixels before networks compare."
)


def main(argv: Sequence[str]) -> int:
    run = InversionRun(
        **train_flags.read_common("train_generator", argv),
        encoder=_ENCODER.value,
        blob=_BLOB.value,
        comparator=_COMPARATOR.value,
        size=_SIZE.value,
        width=_WIDTH.value,
        training=InversionTraining(
            rate=_RATE.value,
            image=_IMAGE.value,
            code=_CODE.value,
            feature=_FEATURE.value,
            layers=tuple(_LAYERS.value),
            adversary=_ADVERSARY.value,
            adversary_start=_ADVERSARY_START.value,
            critic_rate=_CRITIC_RATE.value,
            noise=_NOISE.value,
            jitter=_JITTER.value,
        ),
    )
    train_flags.tell_result(*train_inversion(run, train_flags.say))
    return 0


if __name__ == "__main__":
    run_main(main)
