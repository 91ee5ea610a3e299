"""A training run of a generator, from a data folder and an encoder to weights files.

Writes the generator and its encoder: the network whose blob is inverted, with the whitening that
makes the blob a code. See `prior` for the losses.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from PIL import Image

from jaxsynth.arithmetic import root_key
from jaxsynth.environment import writable_cache
from jaxsynth.images import to_rgb
from jaxsynth.inputs import option
from jaxsynth.lpips import distance as lpips_distance
from jaxsynth.lpips import load_comparator
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.grid_generator import EncoderConfig, GridGeneratorConfig
from jaxsynth.models.network import (
    CodeStats,
    Network,
    NetworkInfo,
    build_network,
    make_apply,
    make_module,
)
from jaxsynth.models.weights import file_record, save_network
from jaxsynth.system import view
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.loop import LoopConfig, Training, run_loop
from jaxsynth.training.prior import (
    BOX,
    Phase,
    PriorParts,
    PriorState,
    PriorTraining,
    init_prior,
    prior_step,
)
from jaxsynth.training.prior_encoder import (
    BATCH,
    ENCODER,
    code_grid,
    encoder_network,
    encoding_of,
    half_precision,
    trained_pair,
    trunk_of,
    whitened,
)
from jaxsynth.training.projected import init_adversary
from jaxsynth.training.setup import (
    ACTIVATIONS,
    cast,
    default_activations,
    initial_variables,
    to_input,
    training_conv,
)

GENERATOR = "pocket_generator"
_SHEET = 16  # columns of the sheet
_INTERIM = 500  # validation photographs looked at during training


@dataclasses.dataclass(frozen=True)
class PriorRun:
    """A run; `loop.out` receives checkpoints, both weights files and `samples.png`."""

    data: Path = dataclasses.field(metadata={"help": "Folder of zips, class folders or images."})
    loop: LoopConfig
    encoder: str = option("efficientnet_lite0", "Classifier whose blob is inverted: name or file.")
    start: str = option(
        "none", "Generator whose weights and code the training starts from: name or file, or none."
    )
    blob: str = option("block10", "The blob, spatial or a vector.")
    layers: tuple[str, ...] = option(
        ("block0", "block2", "block4", "block10", "block15"),
        "Blobs that losses compare, finest first.",
    )
    comparator: str = option(
        "none", "Network of LPIPS whose distance joins the losses, such as vgg16_features, or none."
    )
    channels: int = option(16, "Of the code at each place of the blob's grid.", low=1)
    size: int = option(128, "Side of the images: the grid's, doubled any number of times.", low=32)
    width: int = option(32, "Channels of the last map.", low=1)
    training: PriorTraining = dataclasses.field(default_factory=PriorTraining)
    cache: Path | None = option(None, "Folder of decoded images; by default jaxsynth's cache.")
    activations: str | None = option(
        None, "By default bfloat16 on an accelerator, float32 on CPU.", among=ACTIVATIONS
    )
    licence: str = option("", "A note that the weights files carry.")


def train_prior(
    run: PriorRun,
    say: Callable[[str], None] = print,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, dict[str, float]]:
    """Train and save; return the generator's file and its validation metrics.

    Raises:
      Stopped: if it was asked to; the last step is saved.
      ValueError: for unusable data, encoder or settings, before training starts.
    """
    activations = run.activations or default_activations()
    run = dataclasses.replace(run, activations=activations)
    network = trunk_of(run.encoder, (run.blob, *run.layers), run.size)
    grid = code_grid(network, run.blob, run.channels, run.size)
    config = GridGeneratorConfig(grid, run.size, run.width)
    wanted = config, EncoderConfig(network.info.config, run.blob, grid)
    begun = None if run.start == "none" else trained_pair(run.start, wanted)
    comparator = None if run.comparator == "none" else load_comparator(run.comparator)
    cache = run.cache or writable_cache()
    train = load_images(run.data, "train", run.size, cache)
    val = load_images(run.data, "val", run.size, cache)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    if begun:
        encoding = encoding_of(*begun)
        encoder = begun[1]._replace(params=half_precision(begun[1].params))
    else:
        encoding = whitened(network, run.blob, grid, run.loop.out / "whitening.npz", train)
        encoder = encoder_network(encoding, run.encoder, run.licence)
        say(f"the code holds {encoding.whitening.explained:.1%} of the features' variance")
    compare = comparator and comparator.apply
    parts = _parts(config, encoding.config, run.layers, run.activations, compare)
    state, frozen = _first_state(config, encoding, parts, run, begun and begun[0].params)
    frozen["comparator"] = comparator and comparator.params
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])

    def evaluate(state: PriorState) -> dict[str, float]:
        _write_sheet(run.loop.out / "samples.png", parts, state, frozen, few)
        return _measure(parts, state, frozen, few)

    step = _join_late(parts, run.training, run.loop.batch)
    settings = _settings(run, train)
    training = Training(step, settings, evaluate, frozen)
    state = run_loop(training, state, train, run.loop, say, asked_to_stop)
    encoder_path = run.loop.out / f"{ENCODER}.safetensors"
    digest = save_network(encoder_path, encoder)
    path = run.loop.out / f"{GENERATOR}.safetensors"
    params = {**state.average, "colour": frozen["colour"]}
    images = int(state.step) * run.loop.batch
    notes = f"start {settings['start']}, seed {run.loop.seed}, {images} images, {run.training}"
    save_network(path, _generator_network(params, notes, config, run, digest))
    return path, _measure(parts, state, frozen, val)


@functools.cache  # equal runs of a process share their programs
def _parts(
    config: GridGeneratorConfig,
    encoder: EncoderConfig,
    layers: tuple[str, ...],
    activations: str,
    compare: Callable | None = None,
) -> PriorParts:
    generator = make_module(config, conv=training_conv())
    encode, side = make_apply(encoder), encoder.size

    def generate(params, colour, codes):
        params, codes = cast(({**params, "colour": colour}, codes), activations)
        return generator.apply({"params": params}, codes)["image"].astype(jnp.float32)

    def encoded(params, image):
        made = jax.vmap(encode, (None, 0))(cast(params, activations), view(image, side))
        return {name: made[name].astype(jnp.float32) for name in (*layers, "code")}

    places = config.grid[0] * config.grid[1]
    distance = None if compare is None else functools.partial(_apart, compare, activations)
    return PriorParts(generate, encoded, layers, places, distance)


def _apart(compare: Callable, activations: str, params: Any, *images: jax.Array) -> jax.Array:
    """LPIPS of two batches of images, (B,), in the precision of training."""
    return lpips_distance(compare, *cast((params, *images), activations)).astype(jnp.float32)


def _first_state(config, encoding, parts, run, start) -> tuple[PriorState, dict[str, Any]]:
    if start:
        params = traverse_util.unflatten_dict(start, sep="/")
    else:
        generator = make_module(config, conv=training_conv())
        params = initial_variables(generator, run.loop.seed, (1, config.code))["params"]
    kernel, bias = map(jnp.asarray, encoding.whitening.colour)
    del params["colour"]  # stays as measured
    image = jax.ShapeDtypeStruct((2, run.size, run.size, 3), jnp.float32)
    seen = jax.eval_shape(parts.encode, encoding.params, image)
    shapes = [seen[name].shape for name in run.layers]
    adversary, projections = init_adversary(run.loop.seed, shapes)
    frozen = {"encoder": encoding.params, "projections": projections}
    frozen["colour"] = {"kernel": kernel, "bias": bias}
    searches = round(run.training.searches * run.loop.batch), config.code
    return init_prior(params, adversary, run.training, searches), frozen


def _join_late(parts: PriorParts, training: PriorTraining, batch: int) -> Callable:
    """The step with what has joined so far: a compilation for each, no work for nothing."""

    def step(state, frozen, rgb, labels, key, progress):
        images = int(state.step) * batch
        phase = Phase(
            training.adversary > 0 and images >= training.adversary_start,
            training.searches > 0 and images >= training.searches_start,
        )
        return _step(parts, training, phase, state, frozen, (rgb, key, progress))

    return step


_step = network_jit(prior_step, static_argnums=(0, 1, 2), donate_argnums=3)


def _settings(run: PriorRun, train: ImageSet) -> dict[str, Any]:
    """What the weights depend on."""
    fields = ("blob", "layers", "comparator", "channels", "size", "width")
    return {
        "network": GENERATOR,
        "encoder": file_record(run.encoder)["sha256"],
        "start": "none" if run.start == "none" else file_record(run.start)["sha256"],
        **{name: getattr(run, name) for name in fields},
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
        "activations": run.activations,
        "photographs": content_hash(train),
    }


def _generator_network(
    params: Any, notes: str, config: GridGeneratorConfig, run: PriorRun, encoder: str
) -> Network:
    info = NetworkInfo(
        network=GENERATOR,
        config=config,
        licence=run.licence,
        source="experiments.train_generator",
        encoder=ENCODER,
        encoder_sha256=encoder,
        encoder_blob="code",
        notes=notes,
    )
    ones = np.ones(config.code, np.float32)
    code = CodeStats(BOX * ones, 0 * ones, ones, -BOX * ones)
    flat = traverse_util.flatten_dict(params, sep="/")
    return build_network(info, half_precision(flat), code)


def _measure(
    parts: PriorParts, state: PriorState, frozen: Any, images: ImageSet
) -> dict[str, float]:
    """Measure the rms of E(G(E(x))) - E(x) and, in grey levels, of G(E(x)) - x."""
    code = pixels = total = 0.0
    for rgb, _, count in batches(images, BATCH):
        z, made, x, image = (
            np.asarray(v)[:count] for v in _reconstruct(parts, state.average, frozen, rgb)
        )
        code += float(((made - z) ** 2).mean(1).sum())
        pixels += float(((image - x) ** 2).mean((1, 2, 3)).sum())
        total += count
    return {"val code": (code / total) ** 0.5, "val rms": (pixels / total) ** 0.5}


@functools.partial(network_jit, static_argnums=0)
def _reconstruct(parts, average, frozen, rgb):
    x = to_input(rgb)
    z = parts.encode(frozen["encoder"], x)["code"]
    image = parts.generate(average, frozen["colour"], z)
    return z, parts.encode(frozen["encoder"], image)["code"], x, image


@functools.partial(network_jit, static_argnums=0)
def _generate(parts, average, frozen, codes):
    return parts.generate(average, frozen["colour"], codes)


def _write_sheet(
    path: Path, parts: PriorParts, state: PriorState, frozen: Any, images: ImageSet
) -> None:
    """Write photographs, their reconstructions, images of N(0, 1) and of 0.7 N(0, 1)."""
    chosen = images._replace(rows=images.rows[:: max(1, len(images.rows) // _SHEET)][:_SHEET])
    (rgb, _, _), *_ = batches(chosen, _SHEET)
    _, _, x, made = _reconstruct(parts, state.average, frozen, rgb)
    codes = jax.random.normal(root_key(1), (_SHEET, len(frozen["colour"]["bias"])))
    drawn = [_generate(parts, state.average, frozen, scale * codes) for scale in (1.0, 0.7)]
    rows = [np.concatenate([to_rgb(np.asarray(v)) for v in row], 1) for row in (x, made, *drawn)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(path)
