"""A training run of a scene network and its generator together, from data to two weights files."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsynth.models.alexnet import AlexNetConfig
from jaxsynth.models.generator import GeneratorConfig
from jaxsynth.models.network import Network, NetworkInfo, build_network, is_generator
from jaxsynth.models.weights import file_record, load_encoder, load_network, save_network
from jaxsynth.system import make_encoder
from jaxsynth.training.adversary import join_late
from jaxsynth.training.data import ImageSet, batches, content_hash, load_images
from jaxsynth.training.inversion import fold_scales, unfold_scales
from jaxsynth.training.inversion_run import NAME, write_sheet
from jaxsynth.training.loop import LoopConfig, run_loop
from jaxsynth.training.measure import Pair, inversion_figures, invert, logits_of, top_k_accuracy
from jaxsynth.training.pair import CODE, CodeScale, PairState, PairTraining, init_pair, pair_step
from jaxsynth.training.scene import SceneState
from jaxsynth.training.scene_run import (
    PLACES,
    TRAINING_BOUND,
    PlainScene,
    SceneNotes,
    fold_scene,
    plain_scene,
    scale_scene,
    start_code,
    unfold_scene,
)

_VAL_BATCH = 100
_INTERIM = 1000  # validation images looked at during training


@dataclasses.dataclass(frozen=True)
class PairRun:
    """A run: `loop.out` receives checkpoints, both weights files and `reconstructions.png`.

    Attributes:
      start: the scene network to go on from, a pocket AlexNet (a name or a file).
      generator: the generator that inverts its fc6.
      activations: `float32` or `bfloat16`.
      licence: a note that both files carry.
    """

    data: Path
    cache: Path
    loop: LoopConfig
    start: str
    generator: str
    training: PairTraining = dataclasses.field(default_factory=PairTraining)
    activations: str = "float32"
    licence: str = ""


class _Parts(NamedTuple):
    """What a run is made of, checked."""

    scene: AlexNetConfig
    config: GeneratorConfig
    scale: CodeScale
    labels: tuple[str, ...]


def train_pair(
    run: PairRun, say: Callable[[str], None] = print
) -> tuple[tuple[Path, Path], dict[str, float]]:
    """Trains both, folds, rescales the code, saves. Returns the files of the scene network and of
    the generator, and their figures on all validation photographs.

    Raises:
      ValueError: for unusable data, networks or settings, before training starts; if training is
        no longer finite.
    """
    pair = _load_pair(run)
    size = pair.encoder.input_shape[0]
    train = load_images(run.data, "train", size + size // 8, run.cache)
    val = load_images(run.data, "val", size, run.cache, train.classes)
    for line in train.skipped + val.skipped:
        say(f"skipped {line}")
    if train.classes != pair.encoder.labels:
        raise ValueError(
            f"start={run.start!r} names {len(pair.encoder.labels)} categories that are not the "
            f"{len(train.classes)} of data={str(run.data)!r}: train a scene network on that folder"
        )
    parts, state = _start(run, pair, train)
    few = val._replace(rows=val.rows[:: max(1, len(val.rows) // _INTERIM)])

    def evaluate(state: PairState) -> dict[str, float]:
        plain = _folded(parts, state)
        made = Pair(_generator(run, parts, state, plain), _scene(run, parts, plain))
        write_sheet(run.loop.out / "reconstructions.png", invert(*made), few, size)
        return _figures(made, few)

    static = (parts.scene, parts.config, run.training, run.activations)
    step = join_late(lambda flag: partial(pair_step, *static, flag), run.training)
    state = run_loop(
        step, state, train, run.loop, _settings(run, train), evaluate, say, parts.scale
    )
    plain = scale_scene(_folded(parts, state), parts.scene, train)
    paths = run.loop.out / f"{PLACES}.safetensors", run.loop.out / f"{NAME}.safetensors"
    encoder, generator = _scene(run, parts, plain), _generator(run, parts, state, plain)
    digest = save_network(paths[0], encoder)
    generator = generator._replace(info=dataclasses.replace(generator.info, encoder_sha256=digest))
    save_network(paths[1], generator)
    return paths, _figures(Pair(generator, encoder), val)


def _load_pair(run: PairRun) -> Pair:
    generator = load_network(run.generator)
    if not is_generator(generator.info.config) or generator.info.encoder_blob != CODE:
        raise ValueError(f"generator={run.generator!r} is no generator that inverts an {CODE}")
    encoder = load_encoder(generator, run.start)
    make_encoder(generator, encoder)  # refuses another network, or a code of another length
    config = encoder.info.config
    if not isinstance(config, AlexNetConfig) or config.size != generator.info.config.size:
        raise ValueError(
            f"start={run.start!r} is no pocket scene network that sees images of the side "
            f"{generator.info.config.size}, which generator={run.generator!r} makes"
        )
    return Pair(generator, encoder)


def _start(run: PairRun, pair: Pair, train: ImageSet) -> tuple[_Parts, PairState]:
    """The run's parts, and the state that computes what the given files compute."""
    scene, config = pair.encoder.info.config, pair.generator.info.config
    code = start_code(pair.encoder, train)
    unit = TRAINING_BOUND / float(code.upper.mean())
    rms = float(np.sqrt(np.mean(code.mean**2 + code.sigma**2)))
    scale = CodeScale(jnp.float32(unit * rms), jnp.asarray(unit * code.sigma))
    state = init_pair(
        run.loop.seed,
        config,
        run.training,
        *unfold_scene(pair.encoder, code, train, run.training.min_scale),
        unfold_scales(pair.generator.params, config, rms),
    )
    return _Parts(scene, config, scale, pair.encoder.labels), state


def _folded(parts: _Parts, state: PairState) -> PlainScene:
    """The averaged scene network, its code as it is trained."""
    return fold_scene(SceneState(state.average["scene"], state.batch_stats, None), parts.scene)


def _scene(run: PairRun, parts: _Parts, plain: PlainScene) -> Network:
    notes = SceneNotes("experiments.train_pair", run.loop.seed, run.licence)
    return plain_scene(plain.params, parts.scene, parts.labels, notes)


def _generator(run: PairRun, parts: _Parts, state: PairState, plain: PlainScene) -> Network:
    """The plain generator of the averaged weights, with the statistics of its encoder's code."""
    scale = plain.unit * float(parts.scale.rms)
    flat = fold_scales(state.average["generator"], parts.config, scale)
    info = NetworkInfo(
        network=NAME,
        config=parts.config,
        licence=run.licence,
        source="experiments.train_pair",
        encoder=PLACES,
        encoder_blob=CODE,
        notes=f"seed {run.loop.seed}; {run.training}",
    )
    return build_network(info, {k: np.asarray(v, np.float32) for k, v in flat.items()}, plain.code)


def _figures(pair: Pair, images: ImageSet) -> dict[str, float]:
    size = pair.encoder.input_shape[0]
    seen = top_k_accuracy(logits_of(pair.encoder), batches(images, _VAL_BATCH), size)
    return seen | inversion_figures(invert(*pair), batches(images, _VAL_BATCH), size)


def _settings(run: PairRun, train: ImageSet) -> dict[str, Any]:
    """What a checkpoint depends on."""
    return {
        "start": file_record(run.start)["sha256"],
        "generator": file_record(run.generator)["sha256"],
        "batch": run.loop.batch,
        "seed": run.loop.seed,
        "training": dataclasses.asdict(run.training),
        "activations": run.activations,
        "photographs": content_hash(train),
    }
