"""What users ask for, made runs: objectives by name, seeds, and where the runs begin."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.image_files import read_image
from jaxsynth.inputs import parse_seeds
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.objectives import Objective, as_objective
from jaxsynth.problem import encode
from jaxsynth.results import Result, Run, SweepResult
from jaxsynth.runs.checkpoint import read_codes


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
    """Give objectives by name; a lone one has none, several are named by their text.

    Raises:
      ValueError: if there is none, or one is no objective.
    """
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
    """Give the seeds that are asked for: a count, a sequence, or text such as `3:7`.

    Args:
      caller: the word that errors begin with.
      given: what is asked for. None: those of the runs that continue, one per start code, or
        `default`.
      begun: where the runs begin.
      default: without any of these.

    Raises:
      ValueError: if it is none of these, or empty.
    """
    if given is None:
        if begun.runs:
            return [run.seed for run in begun.runs]
        several = begun.codes is not None and len(begun.codes) > 1
        return range(len(begun.codes)) if several else default
    if isinstance(given, str):
        return parse_seeds(given)
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
    """Give the runs, objective by objective, and their start codes (R, D).

    Raises:
      ValueError: unless there is one start code, or one per seed.
    """
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
    """Find out where runs begin.

    Args:
      caller: the word that errors begin with.
      init: None, a photograph, codes, a file of either, or finished runs (see `maximize.sweep`).
      generator: whose codes.
      encoder: reads a photograph; None for the generator's own.

    Raises:
      ValueError: if it is none of these, does not fit, or needs an encoder that is not there.
    """
    if init is None:
        return Start()
    if isinstance(init, Result | SweepResult):
        return _continued(init.sweep if isinstance(init, Result) else init)
    if isinstance(init, str | os.PathLike):
        path = Path(init).expanduser()
        if path.suffix in (".npy", ".safetensors"):
            return _codes(caller, read_codes(path), generator)
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
    """Give final codes and seeds of finished runs, with their origins if they are saved."""
    named = [
        dataclasses.replace(run, origin=f"{runs.folder}:{number}" if runs.folder else "")
        for run, number in zip(runs.runs, runs.run_numbers, strict=True)
    ]
    return Start(np.array(runs.codes), runs=named)
