"""Trains the pocket scene network and exports it, batch norm folded.

  python -m experiments.train_places --data=DIR --minutes=40 --out=runs/places

DIR holds zips (`*train*.zip`, `*val*.zip`, a folder per class inside) or class folders. The same
command resumes a run that was stopped. Writes OUT/pocket_places.safetensors; on two CPU cores 40
minutes give some 5 epochs of 64,000 photographs; see ported_params/README.md for the figures.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from experiments.launch import run_main
from jaxsynth.training.data import default_cache
from jaxsynth.training.loop import LoopConfig
from jaxsynth.training.scene import SceneTraining
from jaxsynth.training.scene_run import SceneRun, train_scene

_DATA = flags.DEFINE_string("data", None, "Folder of zips or class folders.", required=True)
_OUT = flags.DEFINE_string("out", "runs/places", "Folder for checkpoints and the weights file.")
_CACHE = flags.DEFINE_string("cache", None, "Decoded images; default $JAXSYNTH_CACHE.")
_SIZE = flags.DEFINE_integer("size", 64, "Image side in pixels, a multiple of 16.")
_WIDTH = flags.DEFINE_integer("width", 24, "Channels of the first layer.", lower_bound=1)
_CODE = flags.DEFINE_integer("code", 512, "Units of fc6.", lower_bound=1)
_MINUTES = flags.DEFINE_float("minutes", 0.0, "Budget on the clock; or give --epochs.")
_EPOCHS = flags.DEFINE_float("epochs", 0.0, "Budget in passes over the data; or give --minutes.")
_BATCH = flags.DEFINE_integer("batch", 32, "Images per step.", lower_bound=2)
_RATE = flags.DEFINE_float("rate", SceneTraining.rate, "Peak step size.")
_DECAY = flags.DEFINE_float("decay", SceneTraining.decay, "Weight decay on kernels.")
_SMOOTHING = flags.DEFINE_float("smoothing", SceneTraining.smoothing, "Label smoothing.")
_DROPOUT = flags.DEFINE_float("dropout", SceneTraining.dropout, "Dropout on fc6.")
_MIN_SCALE = flags.DEFINE_float(
    "min_scale", SceneTraining.min_scale, "Shortest side of a random crop, as a share."
)
_START = flags.DEFINE_string("start", "", "Weights to go on from, a name or a file.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_CHECKPOINT = flags.DEFINE_float("checkpoint_minutes", 4.0, "Minutes between checkpoints.")
_EXPORT_ONLY = flags.DEFINE_bool("export_only", False, "Export the last checkpoint, no training.")


def main(argv: Sequence[str]) -> int:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: train_places takes flags only")
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of every save
    run = SceneRun(
        data=Path(_DATA.value),
        cache=Path(_CACHE.value) if _CACHE.value else default_cache(),
        size=_SIZE.value,
        width=_WIDTH.value,
        code=_CODE.value,
        start=_START.value,
        training=SceneTraining(
            rate=_RATE.value,
            decay=_DECAY.value,
            smoothing=_SMOOTHING.value,
            dropout=_DROPOUT.value,
            min_scale=_MIN_SCALE.value,
        ),
        loop=LoopConfig(
            out=Path(_OUT.value),
            batch=_BATCH.value,
            seed=_SEED.value,
            minutes=_MINUTES.value,
            epochs=_EPOCHS.value,
            checkpoint_minutes=_CHECKPOINT.value,
            max_steps=0 if _EXPORT_ONLY.value else None,
        ),
    )
    path, figures = train_scene(run, say=lambda line: print(line, flush=True))
    print(f"wrote {path}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
    return 0


if __name__ == "__main__":
    run_main(main)
