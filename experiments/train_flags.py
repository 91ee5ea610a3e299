"""The flags that the trainers have, and what they say: data, budget, checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from experiments.launch import check_flags_only, keep_compiled
from jaxsynth.environment import cache_dir
from jaxsynth.training.loop import LoopConfig
from jaxsynth.training.setup import ACTIVATIONS, default_activations

_DATA = flags.DEFINE_string(
    "data", None, "Folder of zips, of class folders, or of images.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder for checkpoints and the weights file.")
_CACHE = flags.DEFINE_string("cache", None, "Decoded images; default $JAXSYNTH_CACHE.")
_MINUTES = flags.DEFINE_float("minutes", 0.0, "Budget on the clock; or give --epochs.")
_EPOCHS = flags.DEFINE_float("epochs", 0.0, "Budget in passes over the data; or give --minutes.")
_IMAGES = flags.DEFINE_integer("images", 0, "Budget in photographs seen; or give --minutes.")
_BATCH = flags.DEFINE_integer(
    "batch", 32, "Images per step, split over the devices.", lower_bound=2
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.")
_START = flags.DEFINE_string("start", "", "Weights to go on from, a name or a file.")
_CHECKPOINT = flags.DEFINE_float("checkpoint_minutes", 4.0, "Minutes between checkpoints.")
_EXPORT_ONLY = flags.DEFINE_bool("export_only", False, "Export the last checkpoint as it is.")
_LICENCE = flags.DEFINE_string("licence", "", "A note that the weights file carries.")
_ACTIVATIONS = flags.DEFINE_enum(
    "activations",
    None,
    ACTIVATIONS,
    "Precision of activations; by default bfloat16 on an accelerator, float32 on CPU.",
)


def read_common(name: str, argv: Sequence[str]) -> dict[str, Any]:
    """The fields that `SceneRun` and `InversionRun` share, from the flags.

    Raises:
      ValueError: naming the first flag that cannot work.
    """
    check_flags_only(name, argv)
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of every save
    cache = Path(_CACHE.value) if _CACHE.value else cache_dir()
    keep_compiled(cache)
    return {
        "data": Path(_DATA.value),
        "cache": cache,
        "start": _START.value,
        "licence": _LICENCE.value,
        "activations": _ACTIVATIONS.value or default_activations(),
        "loop": LoopConfig(
            out=Path(_OUT.value or f"out/{name}"),
            batch=_BATCH.value,
            seed=_SEED.value,
            minutes=_MINUTES.value,
            epochs=_EPOCHS.value,
            images=_IMAGES.value,
            checkpoint_minutes=_CHECKPOINT.value,
            max_steps=0 if _EXPORT_ONLY.value else None,
        ),
    }


def say(line: str) -> None:
    """Prints a line at once, also into a file."""
    print(line, flush=True)


def tell_result(path: Path | str, figures: dict[str, float]) -> None:
    """The last line of a training run."""
    say(f"wrote {path}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
