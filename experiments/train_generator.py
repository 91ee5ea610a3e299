r"""Trains a generator that inverts a blob of an encoder, and writes both.

  python -m experiments.train_generator --data=DIR --images=2000000 --out=out/generator
  python -m experiments.train_generator --data=DIR --encoder=open_nsfw --blob=pool \
    --layers=eltwise_stage0_block2,eltwise_stage1_block3,eltwise_stage2_block5,eltwise_stage3_block2

DIR is as for train_places, or a plain folder of images; the encoder is a name or a weights file.
The blob is reduced to a whitened code. The same command resumes a run that was stopped. Writes
OUT/pocket_generator.safetensors, OUT/pocket_encoder.safetensors, and at every checkpoint a sheet:
photographs, their reconstructions, images of random codes.
"""

from collections.abc import Sequence

from absl import flags

from experiments import train_flags
from experiments.launch import run_main
from jaxsynth.training.prior import PriorTraining
from jaxsynth.training.prior_run import PriorRun, train_prior

flags.adopt_module_key_flags(train_flags)
_ENCODER = flags.DEFINE_string("encoder", PriorRun.encoder, "Classifier: a name or a file.")
_BLOB = flags.DEFINE_string("blob", PriorRun.blob, "Its blob that is inverted.")
_LAYERS = flags.DEFINE_list("layers", list(PriorRun.layers), "Its blobs that losses compare.")
_CHANNELS = flags.DEFINE_integer("channels", PriorRun.channels, "Of the code at each place.")
_SIZE = flags.DEFINE_integer("size", PriorRun.size, "Side of the images.", lower_bound=32)
_WIDTH = flags.DEFINE_integer("width", PriorRun.width, "Channels of the last map.", lower_bound=1)
_RATE = flags.DEFINE_float("rate", PriorTraining.rate, "Step size of Adam.")
_ADVERSARY_RATE = flags.DEFINE_float(
    "adversary_rate", PriorTraining.adversary_rate, "Step size of the adversary's Adam."
)
_PIXELS = flags.DEFINE_float("pixel_loss", PriorTraining.pixels, "Weight of coarse pixels.")
_CODE = flags.DEFINE_float("code_loss", PriorTraining.code, "Weight of the code distance.")
_ADVERSARY = flags.DEFINE_float(
    "adversary_loss", PriorTraining.adversary, "Weight of the adversary; 0 trains without."
)
_START = flags.DEFINE_integer(
    "adversary_start", PriorTraining.adversary_start, "Images seen before the adversary joins."
)
_OTHERS = flags.DEFINE_float(
    "others",
    PriorTraining.others,
    "Codes of no photograph, as a share of each batch's photographs.",
)
_NOISE = flags.DEFINE_float("noise", PriorTraining.noise, "Noise on the codes, in sigmas.")


def main(argv: Sequence[str]) -> int:
    common = train_flags.read_common("train_generator", argv)
    if start := common.pop("start"):
        raise ValueError(f"--start={start}: a generator trains from fresh weights")
    run = PriorRun(
        **common,
        encoder=_ENCODER.value,
        blob=_BLOB.value,
        layers=tuple(_LAYERS.value),
        channels=_CHANNELS.value,
        size=_SIZE.value,
        width=_WIDTH.value,
        training=PriorTraining(
            rate=_RATE.value,
            adversary_rate=_ADVERSARY_RATE.value,
            pixels=_PIXELS.value,
            code=_CODE.value,
            adversary=_ADVERSARY.value,
            adversary_start=_START.value,
            others=_OTHERS.value,
            noise=_NOISE.value,
        ),
    )
    train_flags.tell_result(*train_prior(run, train_flags.say))
    return 0


if __name__ == "__main__":
    run_main(main)
