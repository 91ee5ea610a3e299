"""A training run of the scene network from data folder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsynth.models.alexnet import AlexNetConfig
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import (
    CodeStats,
    Config,
    Network,
    NetworkInfo,
    Params,
    build_network,
    make_apply,
)
from jaxsynth.models.pocket import pocket_judge, pocket_places
from jaxsynth.models.weights import file_record, load_network, save_network
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.batch_norm import fold_batch_norm, unfold_batch_norm
from jaxsynth.training.code import PUBLISHED_MEAN_BOUND, measure_code, rescale_code
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import logits_of, top_k_accuracy
from jaxsynth.training.scene import (
    SceneState,
    SceneTraining,
    init_scene,
    normed_logits,
    scene_step,
    warm_scene,
)

PLACES, JUDGE = "pocket_places", "pocket_judge"
_VAL_BATCH = 100
TRAINING_BOUND = 2.0  # mean of mean + 3 sigma of a rectified unit that batch norm leaves
_INTERIM = 1000  # validation images looked at during training


class PlainScene(NamedTuple):
    """A scene network with batch norm folded.

    params: flat. unit: its code over the trained one. code: statistics of a rescaled code.
    """

    params: dict[str, jax.Array]
    unit: float = 1.0
    code: CodeStats | None = None


class SceneNotes(NamedTuple):
    """What a weights file says of its making."""

    source: str
    seed: int
    licence: str


@dataclasses.dataclass(frozen=True)
class SceneRun:
    """A run: `loop.out` receives checkpoints and `{network}.safetensors`.

    Attributes:
      network: `pocket_places`, or `pocket_judge`, another architecture that judges images.
      start: weights (a name or a file) to go on from; empty for fresh ones. An AlexNet's only.
      code: units of fc6; a judge has none.
      activations: `float32` or `bfloat16`.
      licence: a note that the weights file carries.
    """

    data: Path
    cache: Path
    loop: LoopConfig
    network: str = PLACES
    size: int = 64
    width: int = 24
    code: int = 512
    training: SceneTraining = dataclasses.field(default_factory=SceneTraining)
    start: str = ""
    activations: str = "float32"
    licence: str = ""

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size is {self.size}, expected a multiple of 16 from 32 on")
        if self.network not in (PLACES, JUDGE):
            raise ValueError(f"network is {self.network!r}, expected {PLACES} or {JUDGE}")
        if self.network == JUDGE and self.start:
            raise ValueError(f"start={self.start!r}: a {JUDGE} trains from fresh weights")


def train_scene(run: SceneRun, say: Callable[[str], None] = print) -> tuple[Path, dict[str, float]]:
    """Trains, folds, rescales the code, saves. Returns the file and its validation figures.

    Raises:
      ValueError: for unusable data or settings, before training starts.
    """
    train = load_images(run.data, "train", run.size + run.size // 8, run.cache)
    val = load_images(run.data, "val", run.size, run.cache, train.classes)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    if len(train.classes) < 2:
        raise ValueError(
            f"{str(run.data)!r} has one class, {train.classes[0]!r}: a scene network needs a "
            "folder of images for each of two classes at least"
        )
    say(
        f"{len(train.rows)} training and {len(val.rows)} validation images, "
        f"{len(train.classes)} classes, {len(train.skipped) + len(val.skipped)} skipped"
    )
    config = _config(run, len(train.classes))
    state = first_state(run, config, train)
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])
    settings = {
        "network": run.network,
        "size": run.size,
        "width": run.width,
        "code": run.code,
        "classes": list(train.classes),
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "start": file_record(run.start)["sha256"] if run.start else "",
        "training": dataclasses.asdict(run.training),
        "activations": run.activations,
        "photographs": content_hash(train),
    }
    state = run_loop(
        partial(scene_step, config, run.training, run.activations),
        state,
        train,
        run.loop,
        settings,
        evaluate=lambda s: _accuracy(partial(normed_logits, config, s), few, run.size),
        say=say,
    )
    plain = scale_scene(fold_scene(state, config), config, train)
    notes = SceneNotes("experiments.train_places", run.loop.seed, run.licence)
    network = plain_scene(plain.params, config, train.classes, notes)
    figures = _accuracy(logits_of(network), val, run.size)
    path = run.loop.out / f"{run.network}.safetensors"
    save_network(path, network)
    return path, figures


def _config(run: SceneRun, classes: int) -> Config:
    if run.network == JUDGE:
        return pocket_judge(run.size, classes, run.width)
    return pocket_places(run.size, run.code, classes, run.width)


def first_state(run: SceneRun, config: AlexNetConfig, train: ImageSet) -> SceneState:
    """Fresh weights, or those of `run.start` with batch norm put back.

    Raises:
      ValueError: if those are of another shape or other classes.
    """
    if not run.start:
        return init_scene(run.loop.seed, config, run.training)
    network = load_network(run.start)
    if network.info.config != config or network.labels != train.classes:
        raise ValueError(
            f"{run.start!r} is not of the size, width, code and classes of this run: give its own "
            "--size, --width and --code, or train from fresh weights"
        )
    params, stats = unfold_scene(network, start_code(network, train), train, run.training.min_scale)
    return warm_scene(params, stats, run.training)


def start_code(network: Network, train: ImageSet) -> CodeStats:
    """The code of an AlexNet to go on from, over a few images."""
    config = network.info.config
    return measure_code(_fc6(config), network.params, train, config.size, limit=_INTERIM)


def unfold_scene(
    network: Network, code: CodeStats, train: ImageSet, min_scale: float
) -> tuple[Any, Any]:
    """A plain AlexNet as it is trained, batch norm put back: trees (params, batch_stats).

    code: of the network, see `start_code`; its mean bound becomes `TRAINING_BOUND`.
    """
    config = network.info.config
    params = rescale_code(network.params, code, bound=TRAINING_BOUND)
    normed = [*(c.name for c in config.convs), *(name for name, _ in config.dense)]
    apply = jax.vmap(network.apply, in_axes=(None, 0))
    outputs = network_jit(lambda p, x: {k: v for k, v in apply(p, x).items() if k.endswith("_pre")})
    few = train._replace(rows=train.rows[:: max(1, len(train.rows) // _INTERIM)])
    inputs = (
        random_crop_flip(jax.random.key(i), rgb, config.size, min_scale)
        for i, (rgb, _, _) in enumerate(batches(few, _VAL_BATCH))
    )
    return unfold_batch_norm(params, partial(outputs, params), inputs, normed)


def _fc6(config: Config) -> Callable[[Params, jax.Array], jax.Array]:
    apply = make_apply(config)
    return jax.vmap(lambda params, x: apply(params, x)["fc6"], in_axes=(None, 0))


def fold_scene(state: SceneState, config: Config) -> PlainScene:
    """The plain network that computes what the trained one does."""
    first = config.convs[0].name if isinstance(config, AlexNetConfig) else "conv_1"
    return PlainScene(fold_batch_norm(state.params, state.batch_stats, first))


def scale_scene(plain: PlainScene, config: Config, train: ImageSet) -> PlainScene:
    """The same, an AlexNet's fc6 rescaled to the published code's range."""
    if not isinstance(config, AlexNetConfig):
        return plain
    stats = measure_code(_fc6(config), plain.params, train, config.size)
    unit = PUBLISHED_MEAN_BOUND / float(stats.upper.mean())
    code = CodeStats(*(np.float32(unit) * v for v in stats))
    return PlainScene(rescale_code(plain.params, stats), unit, code)


def plain_scene(
    params: Params, config: Config, classes: tuple[str, ...], run: SceneNotes
) -> Network:
    """The network of a `PlainScene`'s parameters, described."""
    alexnet = isinstance(config, AlexNetConfig)
    scaled = "; fc6 rescaled so that its mean bound is 11.85" if alexnet else ""
    info = NetworkInfo(
        network=PLACES if alexnet else JUDGE,
        config=config,
        labels=classes,
        licence=run.licence,
        source=run.source,
        preprocessing=f"resize{config.size}",
        notes=f"seed {run.seed}{scaled}",
    )
    return build_network(info, {k: np.asarray(v, np.float32) for k, v in params.items()})


def _accuracy(logits_fn, val: ImageSet, size: int) -> dict[str, float]:
    return top_k_accuracy(logits_fn, batches(val, _VAL_BATCH), size)
