"""A training run of a scene network, or of a judge, from data folder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsynth.environment import writable_cache
from jaxsynth.inputs import option
from jaxsynth.models.caffe_networks import pocket_judge
from jaxsynth.models.network import (
    Config,
    Network,
    NetworkInfo,
    Params,
    activation_shapes,
    build_network,
    logits_blob,
    param_shapes,
)
from jaxsynth.models.weights import file_record, load_network, save_network
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.finetune import (
    FineTuning,
    LinearTraining,
    balanced_rows,
    finetune_step,
    finetuned_logits,
    fit_linear,
    init_finetuned,
    pooled_features,
    split_params,
)
from jaxsynth.training.loop import LoopConfig, Training, format_line, has_checkpoint, run_loop
from jaxsynth.training.scene import (
    SceneTraining,
    fold_batch_norm,
    init_scene,
    normed_logits,
    scene_step,
    top_k_accuracy,
)
from jaxsynth.training.setup import ACTIVATIONS, default_activations

PLACES, JUDGE, LINEAR = "pocket_places", "pocket_judge", "linear_judge"
SETTINGS = {PLACES: FineTuning, JUDGE: SceneTraining, LINEAR: LinearTraining}
TRUNKS = {PLACES: "efficientnet_lite0", LINEAR: "vgg16_features"}
_BATCH = 100  # of photographs that are only looked at
_INTERIM = 1000  # validation photographs looked at during training


@dataclasses.dataclass(frozen=True)
class SceneRun:
    """A run; `loop.out` receives checkpoints and `{network}.safetensors`.

    `pocket_places` is a classifier that is fine-tuned. Two networks only judge images:
    `pocket_judge` is a residual network from fresh weights, `linear_judge` a linear layer on the
    frozen features of a network. `settings` are those of the kind: FineTuning, SceneTraining or
    LinearTraining; by default the kind's own.
    """

    data: Path = dataclasses.field(metadata={"help": "Folder of zips or class folders."})
    loop: LoopConfig
    network: str = option(PLACES, "The scene network, or a judge.", among=tuple(SETTINGS))
    trunk: str = option(
        "",
        "Network that is fine-tuned (by default efficientnet_lite0), or whose features "
        "linear_judge reads (by default vgg16_features): a name or a file.",
    )
    size: int = option(128, "Side of the images, a multiple of 16.", low=32)
    width: int = option(24, "Channels of the judge's first layer.", low=1)
    settings: Any = None
    cache: Path | None = option(None, "Folder of decoded images; by default jaxsynth's cache.")
    activations: str | None = option(
        None, "By default bfloat16 on an accelerator, float32 on CPU.", among=ACTIVATIONS
    )
    licence: str = option("", "A note that the weights file carries.")

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size is {self.size}, expected a multiple of 16 from 32 on")
        if self.network not in SETTINGS:
            raise ValueError(f"network is {self.network!r}, expected one of {', '.join(SETTINGS)}")
        kind = SETTINGS[self.network]
        if not isinstance(self.settings, kind | None):
            raise ValueError(f"settings of {self.network} are {self.settings!r}, expected {kind}")


def train_scene(
    run: SceneRun,
    say: Callable[[str], None] = print,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, dict[str, float]]:
    """Train and save; return the file and its validation metrics.

    Raises:
      Stopped: if it was asked to; the last step is saved.
      ValueError: for unusable data or settings, before training starts.
    """
    run = dataclasses.replace(
        run,
        activations=run.activations or default_activations(),
        settings=run.settings or SETTINGS[run.network](),
        trunk=run.trunk or TRUNKS.get(run.network, ""),
    )
    cache = run.cache or writable_cache()
    train = load_images(run.data, "train", run.size, cache)
    val = load_images(run.data, "val", run.size, cache, train.classes)
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
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])
    make = {PLACES: _fine_tune, JUDGE: _judge, LINEAR: _linear}[run.network]
    config, params = make(run, train, few, say, asked_to_stop)
    network = _described(run, config, params, train.classes)
    path = run.loop.out / f"{run.network}.safetensors"
    save_network(path, network)
    return path, _accuracy(partial(finetuned_logits, config, network.params), val)


def _judge(run: SceneRun, train: ImageSet, few: ImageSet, say, stop) -> tuple[Config, Params]:
    """Trains a residual network from fresh weights; batch norm is folded."""
    config = pocket_judge(run.size, len(train.classes), run.width)
    training = Training(
        partial(scene_step, config, run.settings, run.activations),
        _settings(run, train) | {"training": dataclasses.asdict(run.settings), "width": run.width},
        lambda state: _accuracy(partial(normed_logits, config, state), few),
    )
    start = init_scene(run.loop.seed, config, run.settings)
    state = run_loop(training, start, train, run.loop, say, stop)
    return config, fold_batch_norm(state.params, state.batch_stats, "conv_1")


def _fine_tune(run: SceneRun, train: ImageSet, few: ImageSet, say, stop) -> tuple[Config, Params]:
    """Trains the trunk with a last layer that is fitted first."""
    trunk = load_network(run.trunk)
    config, params = _with_classes(trunk, run.size, len(train.classes))
    if run.settings.fitted and not has_checkpoint(run.loop.out):  # else the checkpoint has it
        start, how = (trunk, config, params), LinearTraining()
        params |= _fit_last(run, start, train, run.settings.fitted, how, say, stop)
        found = _accuracy(partial(finetuned_logits, config, params), few)
        say(format_line("last layer fitted", found))
    trained, frozen = split_params(params, run.settings.freeze)
    training = Training(
        partial(finetune_step, config, run.settings, run.activations),
        _settings(run, train)
        | {"trunk": file_record(run.trunk)["sha256"], "tuning": dataclasses.asdict(run.settings)},
        lambda state: _accuracy(partial(finetuned_logits, config, state.average | frozen), few),
        frozen,
    )
    begin = init_finetuned(trained, run.settings)
    state = run_loop(training, begin, train, run.loop, say, stop)
    return config, state.average | frozen


def _linear(run: SceneRun, train: ImageSet, few: ImageSet, say, stop) -> tuple[Config, Params]:
    """Fit a linear layer on the trunk's pooled features of `loop.images` photographs."""
    trunk = load_network(run.trunk)
    config, params = _with_classes(trunk, run.size, len(train.classes))
    start = trunk, config, params
    return config, params | _fit_last(run, start, train, run.loop.images, run.settings, say, stop)


def _fit_last(
    run: SceneRun, start, train: ImageSet, count: int | None, how: LinearTraining, say, stop
) -> Params:
    """The last layer by path, fitted to the pooled features of `count` photographs."""
    trunk, config, params = start
    if "pool" not in activation_shapes(config):
        raise ValueError(f"{trunk.name!r} has no pooled features: expected a blob `pool`")
    train = train._replace(rows=balanced_rows(train, count or None, run.loop.seed))
    network = build_network(dataclasses.replace(trunk.info, config=config), params)
    features = pooled_features(network, train, run.loop.batch, say, run.loop.report_steps, stop)
    labels = np.tile(train.labels[train.rows], 2)
    flat = features.reshape(len(labels), -1)
    fitted = fit_linear(flat, labels, len(train.classes), how)
    return {f"{logits_blob(config)}/{name}": value for name, value in fitted.items()}


def _with_classes(trunk: Network, size: int, classes: int) -> tuple[Config, Params]:
    """The trunk for images of `size`, if its layers take that; its last layer is 0."""
    config = dataclasses.replace(trunk.info.config, size=size, classes=classes)
    head = logits_blob(config)
    expected, params = param_shapes(config), dict(trunk.params)
    for path in (f"{head}/kernel", f"{head}/bias"):
        params[path] = jnp.zeros(expected[path], jnp.float32)
    for path, shape in expected.items():
        if path not in params or params[path].shape != shape:
            raise ValueError(
                f"{trunk.name!r} does not take images of side {size}: its {path} would have shape "
                f"{shape}; choose its own size, {trunk.input_shape[0]}"
            )
    return config, params


def _settings(run: SceneRun, train: ImageSet) -> dict[str, Any]:
    """What the weights depend on, but for the settings of training."""
    return {
        "network": run.network,
        "size": run.size,
        "classes": list(train.classes),
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "activations": run.activations,
        "photographs": content_hash(train),
    }


def _described(run: SceneRun, config: Config, params: Params, classes) -> Network:
    from_trunk = f", from {run.trunk}" if run.trunk else ""
    info = NetworkInfo(
        network=run.network,
        config=config,
        labels=classes,
        licence=run.licence,
        source=f"experiments.train_places{from_trunk}",
        preprocessing=f"resize{run.size}",
        notes=f"seed {run.loop.seed}",
    )
    return build_network(info, {k: np.asarray(v, np.float16) for k, v in params.items()})


def _accuracy(logits_fn, val: ImageSet) -> dict[str, float]:
    return top_k_accuracy(logits_fn, batches(val, _BATCH))
