"""One experiment from start codes to results: the library call behind every launcher.

Computes and touches no file. Users of the library call `synthesize` with runs of their own making;
a launcher calls `plan`, which checks everything, then `execute`, which yields chunks as they end.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth import recipes, terms
from jaxsynth import system as objective
from jaxsynth.balance import check_balance
from jaxsynth.chunks import Batch, OnStep, Results, check_record, join, sweep
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Network, Params, is_generator, logits_blob
from jaxsynth.progress import Progress
from jaxsynth.recipes import Recipe
from jaxsynth.starts import StartCodes
from jaxsynth.system import ENCODER, GENERATOR, System, make_encoder, make_system, system_params
from jaxsynth.terms import Term

NSFW, PLACES = "nsfw", "places"  # roles of the two classifiers, as terms and flags call them
NSFW_UNIT = 1  # of open_nsfw's two: 0 is SFW


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: a seed and a weighting. `row` and `column` are its place on the contact sheet.

    `origin` says what its start code was the final code of, FOLDER:RUN, if it goes on.
    """

    seed: int
    terms: tuple[Term, ...]
    row: str = ""
    column: str = ""
    origin: str = ""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """How runs are computed; every field decides the result, so all are in config.json.

    Attributes:
      recipe, balance: how a code climbs.
      batch: runs per compiled chunk.
      precision: `float32`; `float64` (needs JAX's x64 mode); or `bfloat16`, which is that of the
        weights and activations, while codes, logits and objective stay float32.
      record: steps after which codes are kept.
    """

    recipe: Recipe
    balance: str = "image"
    batch: int = 8
    precision: str = "float32"
    record: tuple[int, ...] = ()


PRECISIONS = ("float32", "float64", "bfloat16")


class Plan(NamedTuple):
    """Everything a sweep needs, checked: made by `plan`, run by `execute`."""

    system: System  # what is climbed
    judge: System  # what looks at the finished images
    params: dict[str, Params]
    batch: Batch
    box: recipes.Box
    settings: Sweep


def plan(
    networks: Mapping[str, Network],
    runs: Sequence[Run],
    settings: Sweep,
    start: np.ndarray | None = None,
) -> Plan:
    """Turns runs into arrays and checks all that can be checked before any long work.

    Args:
      networks: role -> network; `generator` is one, `encoder` gives its codes (only a recipe with a
        prior term needs it), every other role is a classifier. Only those that a term weighs are
        climbed; all of them judge the finished images.
      runs: what to climb.
      settings: how.
      start: start codes (R, D), instead of the recipe's own by seed; used as they are. The seeds
        still decide the jitter.

    Raises:
      ValueError: for anything that cannot work.
    """
    if not runs:
        raise ValueError("no runs to compute: at least one is needed")
    check_roles(networks)
    recipes.check_recipe(settings.recipe)
    check_balance(settings.balance)
    check_record(settings.record, settings.recipe.steps)
    dtype = _precision(settings.precision, networks)
    generator = networks[GENERATOR]
    encoder = _encoder(networks, settings.recipe)
    classifiers = {role: n for role, n in networks.items() if role not in (GENERATOR, ENCODER)}
    climbed = {t.network for run in runs for t in run.terms}
    system = make_system(generator, {r: n for r, n in classifiers.items() if r in climbed}, encoder)
    judge = make_system(generator, classifiers)

    upper = generator.code.upper if generator.code is not None else None
    size = generator.input_shape[0]
    box = recipes.make_box(settings.recipe, size, upper, dtype)
    seeds = np.array([run.seed for run in runs])
    if start is None:
        root = jax.random.key(0)

        def draw(some: np.ndarray) -> jax.Array:
            return recipes.start_codes(settings.recipe, box, root, some, generator.code)

        codes = StartCodes(draw, seeds, size, dtype)
        codes[0]  # a recipe that needs what the generator lacks is refused here
    elif start.shape != (len(runs), size):
        raise ValueError(f"start codes have shape {start.shape}, expected {(len(runs), size)}")
    elif not np.isfinite(start).all():
        raise ValueError("start codes hold numbers that are not finite")
    else:
        codes = np.asarray(start, dtype)
    shapes = terms.system_shapes(networks)
    side = shapes[GENERATOR][system.image][0]
    if settings.recipe.jitter >= side:
        raise ValueError(
            f"recipe: jitter is {settings.recipe.jitter}, but the generator's images have only "
            f"{side} pixels a side: expected a few pixels"
        )
    weights, watch = terms.weights_and_watch(
        [run.terms for run in runs], shapes, watched_blobs(classifiers), dtype
    )
    batch = Batch(codes, weights, watch, seeds.astype(np.uint32))
    params = system_params(generator, classifiers, encoder)
    return Plan(system, judge, params, batch, box, settings)


def execute(
    plan: Plan,
    on_step: OnStep = lambda first, done, values, snapshot: None,
    chunks: Sequence[int] | None = None,
    under_way: Progress | None = None,
    devices: Sequence[jax.Device] = (),
    on_halved: Callable[[int], None] = lambda at_once: None,
) -> Iterator[Results]:
    """Runs a plan; yields finished chunks in order (`jaxsynth.chunks.join` joins them).

    `chunks` are the first runs of those to compute, by default of all, `under_way` the first one's
    progress if there is any; a chunk's runs are split over `devices`, if there are several.
    `on_step` is called with (first run of the chunk, steps done, objective values (R,), snapshot),
    `on_halved` as `jaxsynth.chunks.sweep` says, when memory is short.
    """
    settings = plan.settings
    return sweep(
        plan.system,
        plan.params,
        plan.batch,
        plan.box,
        settings.recipe,
        balance=settings.balance,
        judge=plan.judge,
        batch=settings.batch,
        record=settings.record,
        on_step=on_step,
        chunks=chunks,
        under_way=under_way,
        devices=devices,
        on_halved=on_halved,
    )


def synthesize(
    networks: Mapping[str, Network],
    runs: Sequence[Run],
    settings: Sweep,
    start: np.ndarray | None = None,
) -> Results:
    """Climbs from every run's start code and looks at what came out: `plan`, then `execute`."""
    return join(list(execute(plan(networks, runs, settings, start))))


def check_roles(networks: Mapping[str, Network]) -> None:
    """Raises ValueError where a network stands in a role that it cannot fill.

    Class 1 of `nsfw` is reported as P(NSFW), so it must be of the two classes SFW and NSFW.
    """
    for role, network in networks.items():
        if is_generator(network.info.config) != (role == GENERATOR):
            kind = "a generator" if role == GENERATOR else "a classifier"
            raise ValueError(f"network {network.name!r} stands for {role!r}: expected {kind}")
    if NSFW in networks:
        network = networks[NSFW]
        if network.labels != ("SFW", "NSFW"):
            raise ValueError(
                f"network {network.name!r} stands for {NSFW!r}, but its classes are not SFW and "
                "NSFW: expected open_nsfw or a port of it"
            )


def _encoder(networks: Mapping[str, Network], recipe: Recipe) -> Network | None:
    """The generator's encoder where the recipe's prior term needs it, else None."""
    if not recipe.prior:
        return None
    if ENCODER not in networks:
        own = networks[GENERATOR].info.encoder or "whose blob is its code"
        raise ValueError(
            f"recipe: prior is {recipe.prior}, but no network stands for {ENCODER!r}: give the "
            f"generator's own ({own}), or choose a prior of 0"
        )
    return networks[ENCODER]


def _precision(name: str, networks: Mapping[str, Network]) -> np.dtype:
    """The precision of codes and objective."""
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is none of {', '.join(PRECISIONS)}")
    dtype = np.dtype("float32" if name == "bfloat16" else name)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("precision float64 needs JAX's x64 mode: set JAX_ENABLE_X64=1")
    for role, network in networks.items():
        other = {str(p.dtype) for p in network.params.values()} - {name}
        if other:
            raise ValueError(
                f"{role} {network.name!r} has {other.pop()} parameters, but the precision is "
                f"{name}: load_network takes a dtype"
            )
    return dtype


def watched_blobs(classifiers: Mapping[str, Network]) -> list[tuple[str, str]]:
    """What is recorded of every classifier whatever the objective: its logits and probabilities."""
    return [
        (role, blob)
        for role, network in classifiers.items()
        for blob in (logits_blob(network.info.config), "prob")
    ]


def encode(encoder: Network, generator: Network, image: np.ndarray) -> np.ndarray:
    """The code (D,) of an image (H, W, 3), BGR, mean-subtracted, of the encoder's size.

    Raises:
      ValueError: if the encoder has no such blob, or it is not as long as the generator's code.
    """
    read = functools.partial(objective.encode, make_encoder(generator, encoder))
    return np.asarray(network_jit(read)(encoder.params, jnp.asarray(image)))
