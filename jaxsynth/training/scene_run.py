"""A training run of the scene network from data folder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.engine.objective import encode, make_encoder
from jaxsynth.files.weights import file_record, load_network, save_network
from jaxsynth.networks.alexnet import AlexNetConfig
from jaxsynth.networks.network import (
    Config,
    Network,
    NetworkInfo,
    Params,
    build_network,
    image_blob,
    is_generator,
    logits_blob,
    make_apply,
)
from jaxsynth.networks.pocket import pocket_judge, pocket_places
from jaxsynth.training.augment import random_crop_flip
from jaxsynth.training.batch_norm import fold_batch_norm, unfold_batch_norm
from jaxsynth.training.code import measure_code, rescale_code
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import Pair, top_k_accuracy
from jaxsynth.training.reading import (
    Partner,
    ReadingTraining,
    reading_state,
    reading_step,
)
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
_TRAINING_BOUND = 2.0  # mean of mean + 3 sigma of a rectified unit that batch norm leaves
_INTERIM = 1000  # validation images looked at during training


@dataclasses.dataclass(frozen=True)
class SceneRun:
    """A run: `loop.out` receives checkpoints and `{network}.safetensors`.

    Attributes:
      network: `pocket_places`, or `pocket_judge`, another architecture that judges images.
      start: weights (a name or a file) to go on from; empty for fresh ones. An AlexNet's only.
      generator: a generator that inverts the fc6 of `start`: the network learns to read its images
        (see `jaxsynth.training.reading`); empty for plain training. `reading` are the weights.
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
    generator: str = ""
    reading: ReadingTraining = dataclasses.field(default_factory=ReadingTraining)
    activations: str = "float32"
    licence: str = ""

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size is {self.size}, expected a multiple of 16 from 32 on")
        if self.network not in (PLACES, JUDGE):
            raise ValueError(f"network is {self.network!r}, expected {PLACES} or {JUDGE}")
        if self.network == JUDGE and self.start:
            raise ValueError(f"start={self.start!r}: a {JUDGE} trains from fresh weights")
        if self.generator and not self.start:
            raise ValueError(
                f"generator={self.generator!r} needs start: the network whose code it inverts"
            )


def train_scene(run: SceneRun, say: Callable[[str], None] = print) -> tuple[Path, dict[str, float]]:
    """Trains, folds, rescales the code, saves. Returns the file and its validation figures.

    Raises:
      ValueError: for unusable data or settings, before training starts.
    """
    pair = _load_pair(run)
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
    step, frozen = partial(scene_step, config, run.training, run.activations), None
    if pair is not None:
        partner, frozen = _partner(pair, run, config, train)
        state = reading_state(state.params, state.batch_stats)
        step = partial(reading_step, config, run.training, run.reading, partner, run.activations)
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
    if run.generator:
        settings["generator"] = file_record(run.generator)["sha256"]
        settings["reading"] = dataclasses.asdict(run.reading)
    state = run_loop(
        step,
        state,
        train,
        run.loop,
        settings,
        evaluate=lambda s: _accuracy(partial(normed_logits, config, s), few, run.size),
        say=say,
        frozen=frozen,
    )
    network = export_scene(state, config, train, run)
    blob = logits_blob(config)
    logits = jax.jit(jax.vmap(lambda p, x: network.apply(p, x)[blob], (None, 0)))
    figures = _accuracy(partial(logits, network.params), val, run.size)
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
    stats = measure_code(_fc6(config), network.params, train, run.size, limit=_INTERIM)
    params = rescale_code(network.params, stats, bound=_TRAINING_BOUND)
    normed = [*(c.name for c in config.convs), *(name for name, _ in config.dense)]
    apply = jax.vmap(network.apply, in_axes=(None, 0))
    outputs = jax.jit(lambda p, x: {k: v for k, v in apply(p, x).items() if k.endswith("_pre")})
    few = train._replace(rows=train.rows[:: max(1, len(train.rows) // _INTERIM)])
    inputs = (
        random_crop_flip(jax.random.key(i), rgb, run.size, run.training.min_scale)
        for i, (rgb, _, _) in enumerate(batches(few, _VAL_BATCH))
    )
    return warm_scene(
        *unfold_batch_norm(params, partial(outputs, params), inputs, normed), run.training
    )


def _load_pair(run: SceneRun) -> Pair | None:
    """The generator whose images are read, and the network at the start that it inverts.

    Raises:
      ValueError: unless the generator inverts fc6 of `run.start`.
    """
    if not run.generator:
        return None
    generator = load_network(run.generator)
    if not is_generator(generator.info.config) or generator.info.encoder_blob != "fc6":
        raise ValueError(f"generator={run.generator!r} is no generator that inverts an fc6")
    digest, wanted = file_record(run.start)["sha256"], generator.info.encoder_sha256
    if digest != wanted:
        raise ValueError(
            f"start={run.start!r} (sha256 {digest}) is not the network that generator="
            f"{run.generator!r} inverts (sha256 {wanted or 'unknown'}): give that one, or train a "
            "generator for this one first"
        )
    return Pair(generator, load_network(run.start))


def _partner(
    pair: Pair, run: SceneRun, config: AlexNetConfig, train: ImageSet
) -> tuple[Partner, dict[str, Any]]:
    """The pair as functions, and its parameters, see `reading_step`."""
    reader, draw = make_encoder(*pair), pair.generator.apply
    blob = image_blob(pair.generator.info.config)
    plain = measure_code(_fc6(config), pair.encoder.params, train, run.size, limit=_INTERIM)
    scale = _TRAINING_BOUND / float(plain.upper.mean())
    frozen = {
        "generator": pair.generator.params,
        "first": pair.encoder.params,
        "scale": jnp.float32(scale),
        "power": jnp.float32(np.mean((scale * plain.sigma) ** 2)),
    }
    partner = Partner(lambda p, code: draw(p, code)[blob], partial(encode, reader), "fc6")
    return partner, frozen


def _fc6(config: Config) -> Callable[[Params, jax.Array], jax.Array]:
    apply = make_apply(config)
    return jax.vmap(lambda params, x: apply(params, x)["fc6"], in_axes=(None, 0))


def export_scene(state: SceneState, config: Config, train: ImageSet, run: SceneRun) -> Network:
    """The plain network: batch norm folded, fc6 rescaled to the published code's range."""
    first = config.convs[0].name if run.network == PLACES else "conv_1"
    params = fold_batch_norm(state.params, state.batch_stats, first)
    notes = f"seed {run.loop.seed}"
    if run.network == PLACES:
        params = rescale_code(params, measure_code(_fc6(config), params, train, run.size))
        notes += "; fc6 rescaled so that its mean bound is 11.85"
    info = NetworkInfo(
        network=run.network,
        config=config,
        labels=train.classes,
        licence=run.licence,
        source="experiments.train_places",
        preprocessing=f"resize{run.size}",
        notes=notes,
    )
    params = {path: np.asarray(value, np.float32) for path, value in params.items()}
    return build_network(info, params)


def _accuracy(logits_fn, val: ImageSet, size: int) -> dict[str, float]:
    return top_k_accuracy(logits_fn, batches(val, _VAL_BATCH), size)
