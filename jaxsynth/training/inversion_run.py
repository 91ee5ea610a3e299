"""A training run of a generator from data folder and encoder to weights file."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxsynth.files.images import to_rgb
from jaxsynth.files.weights import file_record, load_network, save_network
from jaxsynth.networks.network import (
    CodeStats,
    Network,
    NetworkInfo,
    build_network,
    image_blob,
    is_generator,
)
from jaxsynth.networks.pocket import pocket_generator
from jaxsynth.training.augment import centre_input
from jaxsynth.training.code import measure_code
from jaxsynth.training.data import ImageSet, batches, load_images
from jaxsynth.training.inversion import (
    Encoder,
    InversionState,
    InversionTraining,
    fold_scales,
    generate,
    init_inversion,
    inversion_step,
)
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import inversion_figures
from jaxsynth.training.scene_run import LICENCE

NAME = "pocket_generator"
_VAL_BATCH = 100
_INTERIM = 1000  # validation images looked at during training
_SHEET = 16  # photographs on the reconstruction sheet


@dataclasses.dataclass(frozen=True)
class InversionRun:
    """A run: `loop.out` receives checkpoints, the weights file and `reconstructions.png`."""

    data: Path
    cache: Path
    encoder: str
    loop: LoopConfig
    width: int = 16
    training: InversionTraining = dataclasses.field(default_factory=InversionTraining)
    licence: str = LICENCE


def train_inversion(
    run: InversionRun, say: Callable[[str], None] = print
) -> tuple[Path, dict[str, float]]:
    """Trains, folds, saves. Returns the file and its figures on all validation photographs.

    Raises:
      ValueError: for unusable data, encoder or settings, before training starts.
    """
    network = load_network(run.encoder)
    size = _encoder_size(network, run.training.layers)
    train = load_images(run.data, "train", size + size // 8, run.cache)
    val = load_images(run.data, "val", size, run.cache)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    stats = measure_code(network.apply, network.params, train, size)
    encoder = make_encoder(network, stats)
    config = pocket_generator(size, stats.mean.shape[0], run.width)
    state = init_inversion(run.loop.seed, config, run.training)
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])
    settings = {
        "network": NAME,
        "encoder": file_record(run.encoder)["sha256"],
        "size": size,
        "width": run.width,
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
    }

    def evaluate(state: InversionState) -> dict[str, float]:
        write_sheet(run.loop.out / "reconstructions.png", invert(state, network.params), few, size)
        return _figures(invert(state, network.params), few, size)

    def invert(state: InversionState, params):
        return partial(_invert, config, encoder, state.average, params)

    step = jax.jit(partial(inversion_step, config, encoder, run.training), donate_argnums=0)
    state = run_loop(step, state, train, run.loop, settings, evaluate, say, frozen=network.params)
    made = _export(state, config, encoder, stats, network, run)
    path = run.loop.out / f"{NAME}.safetensors"
    save_network(path, made)
    return path, _figures(invert(state, network.params), val, size)


def make_encoder(network: Network, stats: CodeStats) -> Encoder:
    """The frozen network's batched features, with the code's statistics."""
    scale = float(np.sqrt(np.mean(stats.mean**2 + stats.sigma**2)))
    features = jax.vmap(network.apply, in_axes=(None, 0))
    return Encoder(features, "fc6", jnp.asarray(stats.sigma), scale)


def write_sheet(path: Path, invert: Callable, images: ImageSet, size: int) -> None:
    """Rows of photographs, each above its reconstruction."""
    chosen = images._replace(rows=images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET])
    (rgb, _, count), *_ = batches(chosen, _SHEET)
    x = centre_input(rgb, size)
    pairs = [[to_rgb(np.asarray(v)) for v in pair] for pair in zip(x, invert(x)[-1], strict=True)]
    columns = [np.concatenate(pair, axis=0) for pair in pairs[:count]]
    half = -(-len(columns) // 2)
    columns += [np.zeros_like(columns[0])] * (2 * half - len(columns))
    rows = [np.concatenate(columns[i : i + half], axis=1) for i in (0, half)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


def _encoder_size(network: Network, layers: tuple[str, ...]) -> int:
    config = network.info.config
    if is_generator(config) or "fc6" not in dict(getattr(config, "dense", ())):
        raise ValueError(f"encoder {network.name!r} has no layer fc6: expected a scene network")
    known = {c.name for c in config.convs}
    if unknown := [name for name in layers if name not in known]:
        raise ValueError(f"feature layer {unknown[0]!r} is none of {', '.join(sorted(known))}")
    if config.size % 16:
        raise ValueError(f"encoder {network.name!r} takes {config.size} px, no multiple of 16")
    return config.size


@partial(jax.jit, static_argnums=0)
def _invert_jit(static, average, scale, params, x):
    config, features, code = static
    real = features(params, x)
    image = generate(config, average, real[code], scale)
    made = features(params, image)
    return real["fc8"], made["fc8"], real[code], made[code], image


def _invert(config, encoder: Encoder, average, params, x):
    static = (config, encoder.features, encoder.code)
    return _invert_jit(static, average, encoder.scale, params, x)


def _figures(invert: Callable, val: ImageSet, size: int) -> dict[str, float]:
    return inversion_figures(invert, batches(val, _VAL_BATCH), size)


def _export(
    state: InversionState,
    config,
    encoder: Encoder,
    stats: CodeStats,
    network: Network,
    run: InversionRun,
) -> Network:
    info = NetworkInfo(
        network=NAME,
        config=config,
        licence=run.licence,
        source="experiments.train_generator",
        encoder=network.name,
        notes=f"seed {run.loop.seed}; output {image_blob(config)}, losses {run.training}",
    )
    flat = fold_scales(state.average, config, encoder.scale)
    params = {path: np.asarray(value, np.float32) for path, value in flat.items()}
    return build_network(info, params, stats)
