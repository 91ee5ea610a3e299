"""A training run of the scene network from data folder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxsynth.files.weights import save_network
from jaxsynth.networks.alexnet import AlexNetConfig
from jaxsynth.networks.network import Network, NetworkInfo, build_network, make_apply
from jaxsynth.networks.pocket import pocket_places
from jaxsynth.training.code import measure_code, rescale_code
from jaxsynth.training.data import ImageSet, batches, load_images
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import top_k_accuracy
from jaxsynth.training.scene import (
    SceneState,
    SceneTraining,
    fold_batch_norm,
    init_scene,
    normed_logits,
    scene_step,
)

LICENCE = "weights trained on MiniPlaces (Places images: non-commercial research and education)"
NAME = "pocket_places"
_VAL_BATCH = 100
_INTERIM = 1000  # validation images looked at during training


@dataclasses.dataclass(frozen=True)
class SceneRun:
    """A run: `loop.out` receives checkpoints and `pocket_places.safetensors`."""

    data: Path
    cache: Path
    loop: LoopConfig
    size: int = 64
    width: int = 24
    code: int = 512
    training: SceneTraining = dataclasses.field(default_factory=SceneTraining)
    licence: str = LICENCE

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size is {self.size}, expected a multiple of 16 from 32 on")


def train_scene(run: SceneRun, say: Callable[[str], None] = print) -> tuple[Path, dict[str, float]]:
    """Trains, folds, rescales the code, saves. Returns the file and its validation figures.

    Raises:
      ValueError: for unusable data or settings, before training starts.
    """
    train = load_images(run.data, "train", run.size + run.size // 8, run.cache)
    val = load_images(run.data, "val", run.size, run.cache, train.classes)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    say(
        f"{len(train.rows)} training and {len(val.rows)} validation images, "
        f"{len(train.classes)} classes, {len(train.skipped) + len(val.skipped)} skipped"
    )
    config = pocket_places(run.size, run.code, len(train.classes), run.width)
    state = init_scene(run.loop.seed, config, run.training)
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])
    settings = {
        "network": NAME,
        "size": run.size,
        "width": run.width,
        "code": run.code,
        "classes": list(train.classes),
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
    }
    state = run_loop(
        partial(scene_step, config, run.training),
        state,
        train,
        run.loop,
        settings,
        evaluate=lambda s: _accuracy(partial(normed_logits, config, s), few, run.size),
        say=say,
    )
    network = export_scene(state, config, train, run)
    logits = jax.jit(jax.vmap(lambda p, x: network.apply(p, x)["fc8"], (None, 0)))
    figures = _accuracy(partial(logits, network.params), val, run.size)
    path = run.loop.out / f"{NAME}.safetensors"
    save_network(path, network)
    return path, figures


def export_scene(
    state: SceneState, config: AlexNetConfig, train: ImageSet, run: SceneRun
) -> Network:
    """The plain network: batch norm folded, fc6 rescaled to the published code's range."""
    params = fold_batch_norm(state)
    stats = measure_code(make_apply(config), params, train, run.size)
    params = rescale_code(params, stats)
    info = NetworkInfo(
        network=NAME,
        config=config,
        labels=train.classes,
        licence=run.licence,
        source="experiments.train_places",
        preprocessing=f"resize{run.size}",
        notes=f"seed {run.loop.seed}; fc6 rescaled so that its mean bound is 11.85",
    )
    params = {path: np.asarray(value, np.float32) for path, value in params.items()}
    return build_network(info, params)


def _accuracy(logits_fn, val: ImageSet, size: int) -> dict[str, float]:
    return top_k_accuracy(logits_fn, batches(val, _VAL_BATCH), size)
