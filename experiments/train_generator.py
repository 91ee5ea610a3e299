"""Trains a generator that inverts a scene network's fc6 code, and exports it.

  python -m experiments.train_generator --data=DIR --encoder=PATH --minutes=40 --out=runs/generator

DIR is as for train_places; PATH is a weights file that train_places wrote, or `pocket_places`. The
same command resumes a run that was stopped. Writes OUT/pocket_generator.safetensors and a sheet of
photographs above their reconstructions; see ported_params/README.md for minutes and figures.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from experiments.launch import run_main
from jaxsynth.training.data import default_cache
from jaxsynth.training.inversion import InversionTraining
from jaxsynth.training.inversion_run import InversionRun, train_inversion
from jaxsynth.training.loop import LoopConfig

_DATA = flags.DEFINE_string("data", None, "Folder of zips or class folders.", required=True)
_ENCODER = flags.DEFINE_string("encoder", "pocket_places", "Scene network: a name or a file.")
_OUT = flags.DEFINE_string("out", "runs/generator", "Folder for checkpoints and the weights file.")
_CACHE = flags.DEFINE_string("cache", None, "Decoded images; default $JAXSYNTH_CACHE.")
_WIDTH = flags.DEFINE_integer("width", 16, "Channels before the image layer.", lower_bound=1)
_MINUTES = flags.DEFINE_float("minutes", 0.0, "Budget on the clock; or give --epochs.")
_EPOCHS = flags.DEFINE_float("epochs", 0.0, "Budget in passes over the data; or give --minutes.")
_BATCH = flags.DEFINE_integer("batch", 32, "Images per step.", lower_bound=1)
_RATE = flags.DEFINE_float("rate", InversionTraining.rate, "Peak step size of Adam.")
_IMAGE = flags.DEFINE_float("image_loss", InversionTraining.image, "Weight of the image distance.")
_CODE = flags.DEFINE_float("code_loss", InversionTraining.code, "Weight of the code distance.")
_FEATURE = flags.DEFINE_float(
    "feature_loss", InversionTraining.feature, "Weight of the distance in --layers."
)
_LAYERS = flags.DEFINE_list(
    "layers", list(InversionTraining.layers), "Convolutions of the encoder to compare."
)
_NOISE = flags.DEFINE_float(
    "noise", InversionTraining.noise, "Noise on the given codes, in sigmas of each unit."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_CHECKPOINT = flags.DEFINE_float("checkpoint_minutes", 4.0, "Minutes between checkpoints.")
_EXPORT_ONLY = flags.DEFINE_bool("export_only", False, "Export the last checkpoint, no training.")


def main(argv: Sequence[str]) -> int:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}: train_generator takes flags only")
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of every save
    run = InversionRun(
        data=Path(_DATA.value),
        cache=Path(_CACHE.value) if _CACHE.value else default_cache(),
        encoder=_ENCODER.value,
        width=_WIDTH.value,
        training=InversionTraining(
            rate=_RATE.value,
            image=_IMAGE.value,
            code=_CODE.value,
            feature=_FEATURE.value,
            layers=tuple(_LAYERS.value),
            noise=_NOISE.value,
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
    path, figures = train_inversion(run, say=lambda line: print(line, flush=True))
    print(f"wrote {path}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
    return 0


if __name__ == "__main__":
    run_main(main)
