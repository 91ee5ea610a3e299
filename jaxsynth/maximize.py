"""Maximise objectives: `maximize` one, `sweep` many. Everything is checked, then computed.

    result = maximize(places.logit("volcano"), generator, seed=0)
    runs = sweep({n: places.log_prob(n) for n in ("mountain", "abbey")}, generator, seeds=8,
                 folder="out/scenes", resume=True)

Both, and every launcher, end in `carry_out`.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import jax

from jaxsynth.asked import Start, make_runs, named_objectives, seeds_of, start_of
from jaxsynth.chunks import Problem, join
from jaxsynth.disk import expand
from jaxsynth.environment import keep_compiled, writable_cache
from jaxsynth.inputs import check_name, near
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.registry import load
from jaxsynth.objectives import as_objective
from jaxsynth.optimizers import PRIOR, make_optimizer
from jaxsynth.problem import PRECISIONS, Settings, encode, plan
from jaxsynth.recipes import Recipe, make_recipe
from jaxsynth.results import Result, Run, SweepResult, read_results, visible
from jaxsynth.runs.checkpoint import (
    from_arrays,
    join_chunks,
    map_arrays,
    remove_unfinished,
)
from jaxsynth.runs.folder import IMAGES, METRICS, RESULTS
from jaxsynth.runs.keep import Keeping, compute_together, finished_chunks, open_together
from jaxsynth.runs.processes import ALONE, Processes, any_of
from jaxsynth.runs.records import config_of, hash_of, write_inputs

__all__ = [
    "PRECISIONS", "Options", "Problem", "Run", "Settings", "carry_out", "config_of", "encode",
    "maximize", "plan", "sweep",
]  # fmt: skip
_SEEDS = tuple(range(8))
_CALL = "the same call of jaxsynth.sweep"


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


def maximize(
    objective: Any,
    generator: Generator,
    *,
    seed: int = 0,
    seeds: int | str | Sequence[int] | None = None,
    init: Any = None,
    classifiers: Sequence[Classifier] = (),
    **options: Unpack[Options],
) -> Result | SweepResult:
    """Find a code whose image maximises an objective.

    Args:
      objective: such as `classifier.logit("cat")`, a sum of them, or a function of the activations.
      generator: makes the images.
      seed: decides the start code.
      seeds: several instead, see `sweep`.
      init: a start instead of a code by seed, see `sweep`.
      classifiers: those that a function reads, or that judge the finished image.
      **options: see `Options`.

    Returns:
      The run; of several seeds or start codes the runs.

    Raises:
      ValueError: for anything that cannot work, in one line, before any long work.
    """
    own = seeds_of("maximize", [seed], Start(), ())
    task = _Task("maximize", own, seeds, init, classifiers)
    found = _compute(task, [as_objective(objective)], generator, options)
    return found[0] if seeds is None and len(found) == 1 else found


def sweep(
    objectives: Any,
    generator: Generator,
    *,
    seeds: int | str | Sequence[int] | None = None,
    init: Any = None,
    classifiers: Sequence[Classifier] = (),
    **options: Unpack[Options],
) -> SweepResult:
    """Maximise each objective from several seeds, in one compilation.

    Args:
      objectives: one, a sequence of them, or {name: objective}. Names are rows, seeds columns.
      generator: makes the images.
      seeds: a count, a sequence, or text such as `3:7`; by default 8, or one per start code.
      init: a start instead of codes by seed: a photograph (a path, or (H, W, 3) uint8 RGB), codes
        (D,) or (k, D), a file of codes, or finished runs, which continue.
      classifiers: those that functions read, or that judge the finished images.
      **options: see `Options`.

    Returns:
      The runs, objective by objective. With a folder their arrays are read when asked for.

    Raises:
      ValueError: for anything that cannot work, in one line, before any long work.
      Stopped: if `processes` share the work and another one has stopped.
    """
    default = _SEEDS if init is None else (0,)
    return _compute(
        _Task("sweep", default, seeds, init, classifiers), objectives, generator, options
    )


def carry_out(
    problem: Problem,
    keeping: Keeping | None = None,
    *,
    config: Mapping[str, Any],
    images: str = "all",
    show: str = "mean",
    finish: Callable[[SweepResult], None] = lambda result: None,
) -> SweepResult | None:
    """Compute the runs of a problem, and save everything if there is a folder.

    Args:
      problem: made by `plan`.
      keeping: the folder, and how it is saved; without a folder all stays in memory.
      config: what decides the runs (`config_of`), `experiment`, `command` and whatever else
        config.json is to tell.
      images: image files of every run, a key of `jaxsynth.runs.folder.IMAGES`.
      show: how pixels become visible: `mean` or `dgn_am`.
      finish: called with the result, to write pages; checkpoints are removed after it.

    Returns:
      The runs. None where a resumed folder holds this run, finished, and in processes that do not
      lead.

    Raises:
      ValueError: if the folder cannot be used or holds another run.
      Stopped: if it was asked to stop, or another process has stopped.
    """
    keeping, config = keeping or Keeping(), dict(config) | {"images": images, "show": show}
    folder = keeping.folder
    if folder is None:
        chunks = [chunk for _, chunk in finished_chunks(problem, keeping)]
        return _result(problem, join(chunks), problem.batch.codes[:], config, None)
    with contextlib.ExitStack() as held:
        opened = open_together(keeping, config, held)
        if opened is None:
            return None
        pixels = functools.partial(visible, generator=problem.generator, config=config)
        compute_together(problem, keeping, images, pixels)
        if not keeping.processes.leads:
            return None
        write_inputs(folder, problem)
        join_chunks(folder)
        arrays = map_arrays(folder / RESULTS)
        result = _result(problem, from_arrays(arrays), arrays["start_codes"], opened, folder)
        result.to_csv(folder / METRICS)
        finish(result)
        remove_unfinished(folder)
    return result


def _result(problem: Problem, arrays, start_codes, config, folder) -> SweepResult:
    models = problem.generator, problem.classifiers
    return SweepResult(problem.runs, arrays, start_codes, *models, problem.settings, config, folder)


# --- what is asked for ----------------------------------------------------------------------------


class _Task(NamedTuple):
    """The named arguments of `maximize` and `sweep`; `default` are its seeds without any."""

    name: str
    default: Sequence[int]
    seeds: Any
    init: Any
    classifiers: Any


def _compute(task: _Task, objectives: Any, generator: Any, options: Options) -> SweepResult:
    for name in options:
        if name not in Options.__annotations__:
            hint = near(name, [*Options.__annotations__, "seeds", "init", "classifiers"])
            raise ValueError(f"{task.name}: {name!r} is no setting{hint}")
    images = options.get("images", "all")
    check_name(f"{task.name}: images", images, IMAGES)
    _keep_compiled_once()
    generator = load(generator) if isinstance(generator, str | Path) else generator
    if not isinstance(generator, Generator):
        raise ValueError(f"{task.name}: {generator!r:.60} stands for the generator")
    given = task.classifiers
    classifiers = [given] if isinstance(given, Classifier) else list(given)
    named = named_objectives(objectives)
    begun = start_of(task.name, task.init, generator, options.get("encoder"))
    settings = _settings(task, options, generator, begun)
    seeds = seeds_of(task.name, task.seeds, begun, task.default)
    runs, start = make_runs(task.name, named, seeds, begun)
    encoder = options.get("encoder")
    if encoder is None and make_optimizer(settings.optimizer, settings.recipe).asks == PRIOR:
        encoder = generator.load_encoder()
    problem = plan(runs, generator, classifiers, settings, start=start, encoder=encoder)
    keeping = _keeping(task, options)
    config = {"experiment": "sweep", "command": _CALL, "title": options.get("title", "")}
    inputs = {} if start is None else {"start codes": hash_of(start)}
    config |= config_of(problem, keeping.devices, inputs, encoder)
    found = carry_out(problem, keeping, config=config, images=images)
    any_of(keeping.processes, False)  # the one that leads has written everything
    if found is None:
        saved = read_results(keeping.folder, generator, problem.classifiers)
        found = dataclasses.replace(saved, runs=runs, settings=problem.settings)
    return found


def _keeping(task: _Task, options: Options) -> Keeping:
    folder, several = options.get("folder"), options.get("processes", ALONE)
    if folder is None:
        for name in ("resume", "overwrite"):
            if options.get(name):
                raise ValueError(f"{task.name}: {name} needs a folder")
        if several.count > 1:
            raise ValueError(f"{task.name}: processes share a folder: give one")
    elif options.get("resume") and options.get("overwrite"):
        raise ValueError(f"{task.name}: resume continues a run, overwrite deletes it: give one")
    return Keeping(
        None if folder is None else expand(folder),
        resume=bool(options.get("resume")),
        overwrite=bool(options.get("overwrite")),
        save_seconds=options.get("save_seconds", 15.0),
        progress=options.get("progress", sys.stderr.isatty()) and several.leads,
        devices=tuple(options.get("devices", ())),
        processes=several,
    )


def _settings(task: _Task, options: Options, generator: Generator, begun: Start) -> Settings:
    own = generator.recipe_from_image if begun.from_image else generator.recipe
    recipe = options.get("recipe") or own
    if not isinstance(recipe, str | Recipe):
        raise ValueError(f"{task.name}: recipe is {recipe!r}, expected a Recipe or its name")
    names = [field.name for field in dataclasses.fields(Settings) if field.name != "recipe"]
    changes = {name: options[name] for name in names if name in options}
    if "record" in changes:
        changes["record"] = tuple(changes["record"])
    return Settings(make_recipe(recipe), **changes)


@functools.cache
def _keep_compiled_once() -> None:
    """Store compiled programs on disk, unless the user has said where."""
    if jax.config.jax_compilation_cache_dir is None:
        keep_compiled(writable_cache())
