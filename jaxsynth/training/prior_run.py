"""A training run of a generator, from a data folder and an encoder to weights files.

Writes the generator and its encoder: the network whose blob is inverted, with the whitening that
makes the blob a code. See `prior` for the losses.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxsynth.environment import writable_cache
from jaxsynth.inputs import option
from jaxsynth.lpips import distance as lpips_distance
from jaxsynth.models.compiled import network_jit
from jaxsynth.models.grid_generator import EncoderConfig, GridGeneratorConfig, grid_features
from jaxsynth.models.network import (
    CodeStats,
    Network,
    NetworkInfo,
    activation_shapes,
    build_network,
    make_apply,
    make_module,
)
from jaxsynth.models.packaged import EfficientNetConfig
from jaxsynth.models.weights import file_record, load_network, save_network
from jaxsynth.system import view
from jaxsynth.training.augment import to_input
from jaxsynth.training.convolution import training_conv
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
from jaxsynth.training.prior_look import measure_prior, write_sheet
from jaxsynth.training.projected import init_adversary
from jaxsynth.training.setup import ACTIVATIONS, cast, default_activations, initial_variables
from jaxsynth.training.whitening import Whitening, measure_whitening, saved_whitening

GENERATOR, ENCODER = "pocket_generator", "pocket_encoder"
_BATCH = 100  # of photographs that are only looked at
_INTERIM = 500  # validation photographs looked at during training
_WHITENING = 16_000  # photographs that the whitening is measured on


@dataclasses.dataclass(frozen=True)
class PriorRun:
    """A run; `loop.out` receives checkpoints, both weights files and `samples.png`."""

    data: Path = dataclasses.field(metadata={"help": "Folder of zips, class folders or images."})
    loop: LoopConfig
    encoder: str = option("efficientnet_lite0", "Classifier whose blob is inverted: name or file.")
    blob: str = option("block15", "The blob, spatial or a vector.")
    layers: tuple[str, ...] = option(
        ("block2", "block4", "block10", "block15"), "Blobs that losses compare, finest first."
    )
    comparator: str = option(
        "none", "Network of LPIPS whose distance joins the losses, such as vgg16_features, or none."
    )
    channels: int = option(64, "Of the code at each place of the blob's grid.", low=1)
    size: int = option(128, "Side of the images: the grid's, doubled any number of times.", low=32)
    width: int = option(32, "Channels of the last map.", low=1)
    training: PriorTraining = dataclasses.field(default_factory=PriorTraining)
    cache: Path | None = option(None, "Folder of decoded images; by default jaxsynth's cache.")
    activations: str | None = option(
        None, "By default bfloat16 on an accelerator, float32 on CPU.", among=ACTIVATIONS
    )
    licence: str = option("", "A note that the weights files carry.")


class _Encoding(NamedTuple):
    """The encoder of a run, whitened."""

    config: EncoderConfig
    params: Any  # tree
    whitening: Whitening
    source: str


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
    network = _trunk(load_network(run.encoder), run)
    grid, cache = _grid(network, run), run.cache or writable_cache()
    train = load_images(run.data, "train", run.size, cache)
    val = load_images(run.data, "val", run.size, cache)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    encoding = _whiten(network, grid, run, train)
    say(f"the code holds {encoding.whitening.explained:.1%} of the features' variance")
    config = GridGeneratorConfig(grid, run.size, run.width)
    comparator = _comparator(run)
    compare = comparator and comparator.apply
    parts = _parts(config, encoding.config, run.layers, run.activations, compare)
    state, frozen = _first_state(config, encoding, parts, run)
    frozen["comparator"] = comparator and comparator.params
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])

    def evaluate(state: PriorState) -> dict[str, float]:
        write_sheet(run.loop.out / "samples.png", parts, state, frozen, few)
        return measure_prior(parts, state, frozen, few)

    step = _join_late(parts, run.training, run.loop.batch)
    training = Training(step, _settings(run, train), evaluate, frozen)
    state = run_loop(training, state, train, run.loop, say, asked_to_stop)
    encoder = _encoder_network(encoding, run)
    encoder_path = run.loop.out / f"{ENCODER}.safetensors"
    digest = save_network(encoder_path, encoder)
    path = run.loop.out / f"{GENERATOR}.safetensors"
    save_network(path, _generator_network(state, config, run, digest))
    return path, measure_prior(parts, state, frozen, val)


def _trunk(network: Network, run: PriorRun) -> Network:
    """The encoder's network at the run's size, without a head that nothing reads.

    Raises:
      ValueError: if it has not the blobs that the run names.
    """
    config = network.info.config
    if isinstance(config, EfficientNetConfig):
        config = dataclasses.replace(config, size=run.size)
        if all(name.startswith("block") for name in (run.blob, *run.layers)):
            config = dataclasses.replace(config, classes=0)
    info = dataclasses.replace(network.info, config=config)
    heads = ("conv_head/", "logits/") if getattr(config, "classes", 1) == 0 else ()
    params = (
        {k: v for k, v in network.params.items() if not k.startswith(heads)}
        if heads
        else (network.params)
    )
    blobs = activation_shapes(config)
    for name in (run.blob, *run.layers):
        if name not in blobs:
            raise ValueError(
                f"{run.encoder!r} has no blob {name!r}: choose from {', '.join(blobs)}"
            )
    return build_network(info, params)


def _comparator(run: PriorRun) -> Network | None:
    """The network of LPIPS that the run names.

    Raises:
      ValueError: if it is none of LPIPS.
    """
    if run.comparator == "none":
        return None
    network = load_network(run.comparator)
    if not any(name.startswith("lpips_") for name in activation_shapes(network.info.config)):
        raise ValueError(
            f"comparator {run.comparator!r} has no blobs of LPIPS: choose alexnet_features, "
            "vgg16_features, or none"
        )
    return network


def _grid(network: Network, run: PriorRun) -> tuple[int, int, int]:
    """(height, width, channels) of the code.

    Raises:
      ValueError: if doubling the blob's grid does not reach the run's size.
    """
    shape = activation_shapes(network.info.config)[run.blob]
    side = shape[0] if len(shape) == 3 else 1
    ratio = run.size / side
    if (len(shape) == 3 and shape[0] != shape[1]) or ratio < 2 or np.log2(ratio) % 1:
        raise ValueError(
            f"size is {run.size}, but {run.blob!r} has a grid of {shape[:2]}: expected that side "
            f"doubled any number of times, such as {side * 16}, {side * 32}"
        )
    return side, side, run.channels


def _whiten(
    network: Network, grid: tuple[int, int, int], run: PriorRun, train: ImageSet
) -> _Encoding:
    side, apply = network.input_shape[0], network.apply

    @network_jit
    def features(params, rgb):
        x = view(to_input(rgb), side)
        blob = jax.vmap(apply, (None, 0))(params, x)[run.blob]
        return grid_features(blob, x, grid[:2])

    rows = train.rows[:: max(1, len(train.rows) // _WHITENING)]
    some = train._replace(rows=rows)
    whitening = saved_whitening(
        run.loop.out / "whitening.npz",
        lambda: measure_whitening(
            lambda rgb: features(network.params, rgb), lambda: batches(some, _BATCH), grid[2]
        ),
    )
    flat = {f"trunk/{path}": value for path, value in network.params.items()}
    layers = {"project": whitening.project, "whiten": whitening.whiten}
    for name, (kernel, bias) in layers.items():
        flat |= {f"{name}/kernel": jnp.asarray(kernel), f"{name}/bias": jnp.asarray(bias)}
    config = EncoderConfig(network.info.config, run.blob, grid)
    return _Encoding(config, flat, whitening, network.name)


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

    def generate(params, codes):
        params, codes = cast((params, codes), activations)
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


def _first_state(config, encoding, parts, run) -> tuple[PriorState, dict[str, Any]]:
    generator = make_module(config, conv=training_conv())
    params = initial_variables(generator, run.loop.seed, (1, config.code))["params"]
    kernel, bias = encoding.whitening.colour
    params["colour"] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    image = jax.ShapeDtypeStruct((2, run.size, run.size, 3), jnp.float32)
    seen = jax.eval_shape(parts.encode, encoding.params, image)
    shapes = [seen[name].shape for name in run.layers]
    adversary, projections = init_adversary(run.loop.seed, shapes)
    frozen = {"encoder": encoding.params, "projections": projections}
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
        **{name: getattr(run, name) for name in fields},
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
        "activations": run.activations,
        "photographs": content_hash(train),
    }


def _encoder_network(encoding: _Encoding, run: PriorRun) -> Network:
    info = NetworkInfo(
        network=ENCODER,
        config=encoding.config,
        licence=run.licence,
        source=f"{run.encoder}, whitened by experiments.train_generator",
        notes=f"{run.blob}, {encoding.whitening.explained:.1%} of its variance",
    )
    return build_network(info, _half(encoding.params))


def _generator_network(
    state: PriorState, config: GridGeneratorConfig, run: PriorRun, encoder: str
) -> Network:
    info = NetworkInfo(
        network=GENERATOR,
        config=config,
        licence=run.licence,
        source="experiments.train_generator",
        encoder=ENCODER,
        encoder_sha256=encoder,
        encoder_blob="code",
        notes=f"seed {run.loop.seed}, {int(state.step) * run.loop.batch} images, {run.training}",
    )
    ones = np.ones(config.code, np.float32)
    code = CodeStats(BOX * ones, 0 * ones, ones, -BOX * ones)
    flat = traverse_util.flatten_dict(state.average, sep="/")
    return build_network(info, _half(flat), code)


def _half(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Parameters in the precision of a shipped file."""
    return {path: np.asarray(value, np.float16) for path, value in params.items()}
