"""A training run of a generator from data folder and encoder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxsynth.images import to_rgb
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.network import (
    CodeStats,
    Network,
    NetworkInfo,
    activation_shapes,
    build_network,
    image_blob,
    is_generator,
)
from jaxsynth.models.pocket import pocket_generator
from jaxsynth.models.weights import file_record, load_network, save_network
from jaxsynth.system import view
from jaxsynth.training.adversary import join_late
from jaxsynth.training.augment import centre_input
from jaxsynth.training.code import measure_code
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.inversion import (
    Comparator,
    Encoder,
    InversionState,
    InversionTraining,
    flat_code,
    fold_scales,
    init_inversion,
    inversion_step,
    unfold_scales,
)
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import inversion_figures, invert

NAME = "pocket_generator"
_LARGEST = 128  # default side of the images, where the encoder's is larger
_VAL_BATCH = 100
_INTERIM = 1000  # validation images looked at during training
_SHEET = 16  # photographs on the reconstruction sheet


@dataclasses.dataclass(frozen=True)
class InversionRun:
    """A run: `loop.out` receives checkpoints, the weights file and `reconstructions.png`.

    Attributes:
      encoder, blob: what the generator inverts. comparator: whose features are compared, empty for
        the encoder.
      size: side of the images, a multiple of 16; 0 is the encoder's, or 64 where that does not fit.
      start: a generator's weights to go on from, whose shapes hold; empty for fresh ones.
      activations: `float32` or `bfloat16`.
      licence: a note that the weights file carries.
    """

    data: Path
    cache: Path
    encoder: str
    loop: LoopConfig
    blob: str = "fc6"
    comparator: str = ""
    size: int = 0
    width: int = 16
    start: str = ""
    activations: str = "float32"
    training: InversionTraining = dataclasses.field(default_factory=InversionTraining)
    licence: str = ""


class _Parts(NamedTuple):
    """What a run is made of, checked."""

    network: Network  # the encoder's
    encoder: Encoder
    comparator: Network | None
    stats: CodeStats
    config: GeneratorConfig
    start: Any  # parameters to go on from, or None


def train_inversion(
    run: InversionRun, say: Callable[[str], None] = print
) -> tuple[Path, dict[str, float]]:
    """Trains, folds, saves. Returns the file and its figures on all validation photographs.

    Raises:
      ValueError: for unusable data, encoder or settings, before training starts.
    """
    network, comparator = load_network(run.encoder), _load_comparator(run)
    size = _check(run, network, comparator or network)
    train = load_images(run.data, "train", size + size // 8, run.cache)
    val = load_images(run.data, "val", size, run.cache)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    parts = _parts(run, network, comparator, train, size)
    state = init_inversion(run.loop.seed, parts.config, run.training, parts.start)
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])

    def evaluate(state: InversionState) -> dict[str, float]:
        inverted = invert(_export(state, parts, run), network)
        write_sheet(run.loop.out / "reconstructions.png", inverted, few, size)
        return inversion_figures(inverted, batches(few, _VAL_BATCH), size)

    frozen = {"encoder": network.params}
    if comparator is not None:
        frozen["comparator"] = comparator.params
    state = run_loop(
        _step(run, parts),
        state,
        train,
        run.loop,
        _settings(run, size, train),
        evaluate,
        say,
        frozen,
    )
    path, made = run.loop.out / f"{NAME}.safetensors", _export(state, parts, run)
    save_network(path, made)
    return path, inversion_figures(invert(made, network), batches(val, _VAL_BATCH), size)


def _step(run: InversionRun, parts: _Parts) -> Callable:
    other = parts.comparator
    comparator = other and Comparator(jax.vmap(other.apply, (None, 0)), other.input_shape[0])
    static = (parts.config, parts.encoder, comparator, run.training, run.activations)
    return join_late(lambda flag: partial(inversion_step, *static, flag), run.training)


def write_sheet(path: Path, inverted: Callable, images: ImageSet, size: int) -> None:
    """Rows of photographs, each above its reconstruction."""
    chosen = images._replace(rows=images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET])
    (rgb, _, count), *_ = batches(chosen, _SHEET)
    x = centre_input(rgb, size)
    pairs = [[to_rgb(np.asarray(v)) for v in pair] for pair in zip(x, inverted(x)[-1], strict=True)]
    columns = [np.concatenate(pair, axis=0) for pair in pairs[:count]]
    half = -(-len(columns) // 2)
    columns += [np.zeros_like(columns[0])] * (2 * half - len(columns))
    rows = [np.concatenate(columns[i : i + half], axis=1) for i in (0, half)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


def _load_comparator(run: InversionRun) -> Network | None:
    return load_network(run.comparator) if run.comparator else None


def _check(run: InversionRun, encoder: Network, comparator: Network) -> int:
    """The side of the images."""
    for network in (encoder, comparator):
        if is_generator(network.info.config):
            raise ValueError(f"{network.name!r} is a generator: expected a classifier to invert")
    blobs = activation_shapes(encoder.info.config)
    if run.blob not in blobs:
        raise ValueError(f"blob {run.blob!r} of {encoder.name!r} is none of {', '.join(blobs)}")
    layers = activation_shapes(comparator.info.config)
    if unknown := [name for name in run.training.layers if name not in layers]:
        raise ValueError(
            f"feature layer {unknown[0]!r} of {comparator.name!r} is none of {', '.join(layers)}"
        )
    side = encoder.input_shape[0]
    size = run.size or (side if side % 16 == 0 and side <= _LARGEST else 64)
    if size < 32 or size % 16:
        raise ValueError(f"size is {size}, expected a multiple of 16 from 32 on")
    return size


def _parts(
    run: InversionRun, network: Network, comparator: Network | None, train: ImageSet, size: int
) -> _Parts:
    side = network.input_shape[0]
    features = jax.vmap(network.apply, in_axes=(None, 0))
    stats = measure_code(
        lambda params, x: flat_code(features(params, view(x, side)), run.blob),
        network.params,
        train,
        size,
    )
    scale = float(np.sqrt(np.mean(stats.mean**2 + stats.sigma**2)))
    encoder = Encoder(features, side, run.blob, jnp.asarray(stats.sigma), scale)
    config, start = _generator(run, size, stats.mean.shape[0], scale)
    return _Parts(network, encoder, comparator, stats, config, start)


def _generator(
    run: InversionRun, size: int, code: int, scale: float
) -> tuple[GeneratorConfig, Any]:
    """Shapes and parameters of the generator to go on from; of a fresh one, None for these."""
    if not run.start:
        return pocket_generator(size, code, run.width), None
    given = load_network(run.start)
    config = given.info.config
    if not is_generator(config) or (config.size, config.code) != (size, code):
        raise ValueError(
            f"{run.start!r} is not a generator of this run's size and code: give its own --size, "
            "or train from fresh weights"
        )
    return config, unfold_scales(given.params, config, scale)


def _settings(run: InversionRun, size: int, train: ImageSet) -> dict:
    """What the weights depend on."""
    files = {"encoder": run.encoder, "comparator": run.comparator, "start": run.start}
    hashes = {k: file_record(name)["sha256"] if name else "" for k, name in files.items()}
    return {
        "network": NAME,
        **hashes,
        "blob": run.blob,
        "size": size,
        "width": run.width,
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
        "activations": run.activations,
        "photographs": content_hash(train),
    }


def _export(state: InversionState, parts: _Parts, run: InversionRun) -> Network:
    config = parts.config
    info = NetworkInfo(
        network=NAME,
        config=config,
        licence=run.licence,
        source="experiments.train_generator",
        encoder=parts.network.name,
        encoder_sha256=file_record(run.encoder)["sha256"],
        encoder_blob=run.blob,
        notes=f"seed {run.loop.seed}; output {image_blob(config)}, losses {run.training}",
    )
    flat = fold_scales(state.average, config, parts.encoder.scale)
    params = {path: np.asarray(value, np.float32) for path, value in flat.items()}
    return build_network(info, params, parts.stats)
