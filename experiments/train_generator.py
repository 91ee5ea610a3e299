r"""Trains a generator that inverts a blob of an encoder, and writes both.

  python -m experiments.train_generator --data=DIR --images=2000000 --batch=16 --out=out/prior
  python -m experiments.train_generator --data=DIR --minutes=60 --encoder=open_nsfw --size=112 \
    --blob=eltwise_stage3_block2 --layers=eltwise_stage0_block2,eltwise_stage2_block5

DIR holds zips, class folders, images, or `train` and `val`, see docs/howto/train_prior.md. The
blob is reduced to a whitened code. The same command resumes a run that was stopped. Writes
OUT/pocket_generator.safetensors, OUT/pocket_encoder.safetensors, and at every checkpoint
OUT/samples.png: photographs, their reconstructions, images of random codes.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxsynth.environment import (
    check_backend,
    keep_compiled,
    split_over_processors,
    writable_cache,
)
from jaxsynth.training.loop import format_line
from jaxsynth.training.prior_run import PriorRun, train_prior

from .launch import resumable, run_experiment

if TYPE_CHECKING:
    from jaxsynth.training.scene_run import SceneRun

Flags = PriorRun  # its fields are the flags


def main(run: Flags) -> int:
    """Train a generator."""
    return train(run, train_prior)


def train(run: "PriorRun | SceneRun", trainer: Callable[..., Any]) -> int:
    """Carry out a training, which a stop leaves resumable, and say what it has written."""
    say, begun = partial(print, flush=True), time.monotonic()
    split_over_processors(run.loop.batch)
    check_backend()
    cache = run.cache or writable_cache()
    keep_compiled(cache)
    say(f"decoded photographs are cached in {cache}")
    with resumable(run.loop.out, "the same command") as stop:
        path, metrics = trainer(run, say, stop.asked)
    minutes = (time.monotonic() - begun) / 60
    say(format_line(f"wrote {path} after {minutes:.1f} minutes in all", metrics))
    return 0


if __name__ == "__main__":
    run_experiment(main, Flags)
