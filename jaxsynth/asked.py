"""Runs made from what users ask for: objectives by name, seeds, and start codes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from jaxsynth.batch import Run
from jaxsynth.image_files import read_image
from jaxsynth.inputs import check_name, described, near, parse_seeds
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.objectives import Objective, as_objective
from jaxsynth.programs import encode_jit
from jaxsynth.recipes import Recipe
from jaxsynth.results import Result, SweepResult
from jaxsynth.runs.checkpoint import read_codes
from jaxsynth.runs.folder import IMAGES
from jaxsynth.runs.processes import Processes
from jaxsynth.system import make_encoder

# Types of the keywords, and their names in errors.
_SWITCH = bool, "True or False"
_KINDS: dict[str, tuple[Any, str]] = {
    "batch": (int | np.integer, "a whole number"),
    "record": (list | tuple | range | np.ndarray, "a list of steps"),
    "folder": (str | Path | None, "a path"),
    "resume": _SWITCH,
    "overwrite": _SWITCH,
    "images": (str, f"one of {', '.join(IMAGES)}"),
    "save_seconds": (float | int, "a number"),
    "progress": _SWITCH,
    "devices": (list | tuple, "a list of devices, such as jax.devices()"),
    "processes": (Processes, "what jaxsynth.runs.processes.join_processes gives"),
    "encoder": (Classifier | None, "a classifier"),
    "title": (str, "text"),
    "watch": _SWITCH,
    "tensorboard": _SWITCH,
    "observers": (list | tuple, "a list of jaxsynth.runs.saving.Observer"),
}


class Options(TypedDict, total=False):
    """Keywords of `maximize` and `sweep` beyond the named ones.

    Attributes:
      recipe: how a code moves, or the name of a recipe; by default the generator's.
      optimizer: instead of the recipe's: a name, an `Optimizer`, an optax transformation.
      balance: how the gradients of several classifiers are joined.
      batch: runs of a compiled chunk. Fewer are padded to it, so that a run is the same to the bit
        whatever its neighbours; 1 is quickest for one run. By default 8, or 64 on accelerators.
      precision: of the networks.
      record: steps after which codes are recorded.
      folder: where everything is saved as it is computed; without one all stays in memory.
      resume: continue the run in the folder, if there is one.
      overwrite: replace it.
      images: image files in the folder: `all`, `best` or `none`.
      save_seconds: between two checkpoints.
      progress: whether a bar is drawn; by default on a terminal.
      devices: what chunks are split over; by default one.
      processes: that share the folder and the work, see `jaxsynth.runs.processes`.
      encoder: of the generator, for a photograph or a prior term; by default its own.
      title: of the report.
      watch: whether index.html in the folder shows the runs under way.
      tensorboard: whether events are written into the folder.
      observers: told of every step and finished chunk, see `jaxsynth.runs.saving.Observer`.
    """

    recipe: Recipe | str
    optimizer: Any
    balance: str
    batch: int
    precision: str
    record: Sequence[int]
    folder: str | Path
    resume: bool
    overwrite: bool
    images: str
    save_seconds: float
    progress: bool
    devices: Sequence[jax.Device]
    processes: Processes
    encoder: Classifier
    title: str
    watch: bool
    tensorboard: bool
    observers: Sequence[Any]


def check_options(caller: str, options: Options) -> None:
    """Raise ValueError for the first keyword that there is not, or whose value is of a wrong kind.

    Those of `Settings` are checked with it.
    """
    names = [*Options.__annotations__, "seeds", "init", "classifiers"]
    names += ["seed"] if caller == "maximize" else []
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise ValueError(f"{caller}: {name!r} is no setting{_way(name, value, names)}")
        kind, expected = _KINDS.get(name, (object, ""))
        wrong = isinstance(value, bool) and kind is not bool
        if kind is not object and (wrong or not isinstance(value, kind)):
            raise ValueError(f"{caller}: {name} is {described(value)}, expected {expected}")
    if wrong := [one for one in options.get("devices", ()) if not isinstance(one, jax.Device)]:
        raise ValueError(f"{caller}: devices has {described(wrong[0])}, no jax.Device")
    if (batch := options.get("batch", 1)) < 1:
        raise ValueError(f"{caller}: batch is {batch}, expected a whole number from 1 up")
    check_name(f"{caller}: images", options.get("images", "all"), IMAGES)
    if not (seconds := options.get("save_seconds", 0.0)) >= 0:
        raise ValueError(f"{caller}: save_seconds is {seconds}, expected 0 or more")


def _way(name: str, value: Any, names: Sequence[str]) -> str:
    """Say where a keyword belongs, or which it resembles."""
    if name not in (field.name for field in dataclasses.fields(Recipe)):
        return near(name, names)
    return f": it is one of the recipe, such as recipe=js.recipes.pocket({name}={described(value)})"


class Start(NamedTuple):
    """Where runs begin.

    Attributes:
      codes: (k, D); None for codes by seed.
      from_image: whether they are a photograph's.
      runs: the finished runs that continue, if they do.
    """

    codes: np.ndarray | None = None
    from_image: bool = False
    runs: Sequence[Run] = ()


def named_objectives(given: Any) -> dict[str, Objective]:
    """Return objectives by name; a lone one has none, several are named by their text."""
    if isinstance(given, Mapping):
        found = {str(name): as_objective(one) for name, one in given.items()}
    elif isinstance(given, Sequence) and not isinstance(given, str):
        several = [as_objective(one) for one in given]
        found = {str(one) if len(several) > 1 else "": one for one in several}
    else:
        found = {"": as_objective(given)}
    if not found:
        raise ValueError("no objective given: expected one such as classifier.logit('cat')")
    return found


def seeds_of(caller: str, given: Any, begun: Start, default: Sequence[int]) -> Sequence[int]:
    """Return the seeds that are asked for: a count, a sequence, or text such as `3:7`.

    None asks for those of the runs that continue, one per start code, or `default`. Errors begin
    with `caller`.
    """
    if given is None:
        if begun.runs:
            return [run.seed for run in begun.runs]
        count = 1 if begun.codes is None else len(begun.codes)
        return range(count) if count > 1 else default
    if isinstance(given, str):
        try:
            return parse_seeds(given)
        except ValueError as error:
            raise ValueError(f"{caller}: {str(error).removeprefix('--')}") from None
    seeds = []
    try:
        asked = range(given) if isinstance(given, int | np.integer) else list(given)
        seeds = [int(seed) for seed in asked if int(seed) == seed]
        good = len(seeds) == len(asked) > 0 and min(seeds) >= 0 and max(seeds) < 2**32
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f"{caller}: seeds is {given!r}, expected a count such as 8, numbers from 0 to "
            "2**32 - 1, or text such as '3:7'"
        )
    return seeds


def make_runs(
    caller: str, objectives: Mapping[str, Objective], seeds: Sequence[int], begun: Start
) -> tuple[list[Run], np.ndarray | None]:
    """Return the runs, objective by objective, and their start codes (R, D)."""
    origins, codes = [""] * len(seeds), begun.codes
    if codes is not None:
        if len(codes) not in (1, len(seeds)):
            raise ValueError(
                f"{caller}: init has {len(codes)} codes for {len(seeds)} seeds: give one code, or "
                "one per seed"
            )
        if begun.runs:
            origins = [run.origin for run in begun.runs] * (len(seeds) // len(codes))
        codes = np.broadcast_to(codes, (len(seeds), codes.shape[1]))
        codes = np.tile(codes, (len(objectives), 1))
    runs = [
        Run(seed, objective, name, _column(name, seed, origin), origin)
        for name, objective in objectives.items()
        for seed, origin in zip(seeds, origins, strict=True)
    ]
    return runs, codes


def _column(name: str, seed: int, origin: str) -> str:
    if not name:
        return ""
    return f"run {origin.rpartition(':')[2]}" if origin else f"seed {seed}"


def start_of(caller: str, init: Any, generator: Generator, encoder: Classifier | None) -> Start:
    """Find out where runs begin: `init` as in `maximize.sweep`. Errors begin with `caller`.

    A photograph takes `encoder`, or the generator's own.
    """
    if init is None:
        return Start()
    if isinstance(init, Result | SweepResult):
        return _continued(init.sweep if isinstance(init, Result) else init)
    if isinstance(init, str | os.PathLike):
        path = Path(init).expanduser()
        if path.suffix in (".npy", ".safetensors"):
            return _codes(caller, read_codes(path), generator)
        if path.is_dir():
            raise ValueError(
                f"{caller}: init={str(path)!r} is a folder: give a picture, codes, or its finished "
                f"runs, init=js.read_results({str(path)!r})"
            )
        init = read_image(path)
    init = np.asarray(init)
    if init.dtype != np.uint8:
        return _codes(caller, init, generator)
    if init.ndim != 3 or init.shape[-1] != 3:
        raise ValueError(f"{caller}: init has shape {init.shape}, expected (H, W, 3) of uint8")
    encoder = encoder or generator.load_encoder()
    if encoder is None:
        raise ValueError(
            f"{caller}: a photograph needs the encoder of generator {generator.name!r}, which "
            "names none: give encoder="
        )
    return Start(encode(encoder, generator, encoder.input_of(init))[None], from_image=True)


def _codes(caller: str, codes: np.ndarray, generator: Generator) -> Start:
    found, size = np.atleast_2d(codes), generator.code_size
    if found.ndim != 2 or found.shape[1] != size or found.dtype.kind != "f":
        raise ValueError(
            f"{caller}: init holds {codes.dtype} {codes.shape}, expected floats ({size},) or "
            f"(k, {size}), a photograph (H, W, 3) of uint8, or finished runs"
        )
    return Start(found)


def _continued(runs: SweepResult) -> Start:
    """Return final codes and seeds of finished runs, with their origins if they are saved."""
    named = [
        dataclasses.replace(run, origin=f"{runs.folder}:{number}" if runs.folder else "")
        for run, number in zip(runs.runs, runs.run_numbers, strict=True)
    ]
    return Start(np.array(runs.codes), runs=named)


def encode(encoder: Classifier, generator: Generator, image: np.ndarray) -> np.ndarray:
    """Return the code (D,) of an image (H, W, 3) of the encoder's size, in its units."""
    reader = make_encoder(generator, encoder)._replace(units=None)
    return np.asarray(encode_jit(reader, encoder.params, np.asarray(image)))
