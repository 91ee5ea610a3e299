r"""Trains a generator that inverts a blob of an encoder, and writes both.

  python -m experiments.train_generator --data=DIR --images=2000000 --out=out/generator
  python -m experiments.train_generator --data=DIR --encoder=open_nsfw --blob=pool \
    --layers=eltwise_stage0_block2,eltwise_stage1_block3,eltwise_stage2_block5,eltwise_stage3_block2

DIR is as for train_places, or a plain folder of images; the encoder is a name or a weights file.
The blob is reduced to a whitened code. The same command resumes a run that was stopped. Writes
OUT/pocket_generator.safetensors, OUT/pocket_encoder.safetensors, and at every checkpoint a sheet:
photographs, their reconstructions, images of random codes.
"""

from jaxsynth.training.prior_run import PriorRun, train_prior

from .launch import run_experiment
from .train_places import carry_out

Flags = PriorRun


def main(run: PriorRun) -> int:
    """Train a generator."""
    return carry_out(train_prior, run, "train_generator")


if __name__ == "__main__":
    run_experiment(main, Flags)
