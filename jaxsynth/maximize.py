"""Maximise objectives: `maximize` one, `sweep` many. Everything is checked, then computed.

    result = maximize(places.logit("volcano"), generator, seed=0)
    runs = sweep({n: places.log_prob(n) for n in ("mountain", "abbey")}, generator, seeds=8,
                 folder="out/scenes", resume=True)

Both, and every launcher, end in `carry_out`.
"""

import contextlib
import dataclasses
import functools
import importlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import numpy as np

from jaxsynth.ask_tell import PRIOR
from jaxsynth.asked import (
    Options,
    Start,
    check_options,
    encode,
    make_runs,
    named_objectives,
    seeds_of,
    start_of,
)
from jaxsynth.batch import Problem, Run, every_run, join
from jaxsynth.disk import expand
from jaxsynth.environment import check_backend, keep_compiled, writable_cache
from jaxsynth.inputs import described
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.models.registry import load
from jaxsynth.objectives import as_objective
from jaxsynth.optimizer_names import make_optimizer
from jaxsynth.png_text import text_of
from jaxsynth.problem import PRECISIONS, Settings, plan
from jaxsynth.recipes import Recipe, make_recipe
from jaxsynth.results import Result, SweepResult, shown_file
from jaxsynth.runs.checkpoint import (
    from_arrays,
    join_chunks,
    map_arrays,
    remove_unfinished,
)
from jaxsynth.runs.folder import METRICS, RESULTS
from jaxsynth.runs.processes import ALONE, any_of
from jaxsynth.runs.records import config_of, hash_of, read_results, write_inputs
from jaxsynth.runs.saving import Saving, compute_together, finished_chunks, open_together
from jaxsynth.table import non_finite_line

__all__ = [
    "PRECISIONS", "Options", "Problem", "Run", "Settings", "carry_out", "config_of", "encode",
    "maximize", "plan", "sweep",
]  # fmt: skip
_SEEDS = tuple(range(8))
_CALL = "the same call of jaxsynth."
_log = logging.getLogger("jaxsynth")


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
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"maximize: seed is {described(seed)}, expected 0 to 2**32 - 1")
    if seed and seeds is not None:
        raise ValueError(f"maximize: seed={seed} and seeds={described(seeds)}: give one of them")
    task = _Task("maximize", [int(seed)], seeds, init, classifiers)
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
    saving: Saving | None = None,
    *,
    config: Mapping[str, Any],
    images: str = "all",
    show: str = "mean",
    size: int = 0,
    finish: Callable[[SweepResult], None] = lambda result: None,
) -> SweepResult | None:
    """Compute the runs of a problem, and save everything if there is a folder.

    Args:
      problem: made by `plan`.
      saving: the folder, and how it is saved; without a folder all stays in memory.
      config: `config_of`, `experiment`, `command`, and more entries for config.json.
      images: image files of every run, a key of `jaxsynth.runs.folder.IMAGES`.
      show: how pixels become visible: `mean` or `dgn_am`.
      size: side to which Lanczos enlarges image files; 0 for the generator's own.
      finish: called with the result, to write pages; checkpoints are removed after it.

    Returns:
      The runs. None in processes that do not lead, and where a resumed run is finished already.

    Raises:
      ValueError: if the folder cannot be used or holds another run.
      Stopped: if it was asked to stop, or another process has stopped.
    """
    saving, config = saving or Saving(), dict(config) | {"images": images, "show": show}
    config |= {"size": size} if size else {}
    folder = saving.folder
    if folder is None:
        chunks = [chunk for _, chunk in finished_chunks(problem, saving)]
        return _result(problem, every_run(problem, join(chunks)), config, None)
    watch = None
    if saving.watch or saving.tensorboard:  # else there are no observers to import
        watch = importlib.import_module("jaxsynth.report.watch")
        watch.check_observers(saving)
    with contextlib.ExitStack() as held:
        opened = open_together(saving, config, held)
        if opened is None:
            return None
        if watch:
            looking = (*saving.observers, *watch.observers(problem, saving, opened, held))
            saving = dataclasses.replace(saving, observers=looking)
        pixels = functools.partial(shown_file, generator=problem.generator, config=config)

        def text(run: int, which: str) -> str:
            return text_of(opened, run, which, problem.start_of(run))

        compute_together(problem, saving, images, pixels, text)
        if not saving.processes.leads:
            return None
        write_inputs(folder, problem)
        join_chunks(folder, problem.shared)
        result = _result(problem, from_arrays(map_arrays(folder / RESULTS)), opened, folder)
        result.to_csv(folder / METRICS)
        finish(result)
        remove_unfinished(folder)
    return result


def _result(problem: Problem, arrays, config, folder) -> SweepResult:
    models = problem.generator, problem.classifiers
    return SweepResult(problem.runs, arrays, *models, problem.settings, config, folder)


# --- arguments ------------------------------------------------------------------------------------


class _Task(NamedTuple):
    """The named arguments of `maximize` and `sweep`; `default` are its seeds without any."""

    name: str
    default: Sequence[int]
    seeds: Any
    init: Any
    classifiers: Any


def _compute(task: _Task, objectives: Any, generator: Any, options: Options) -> SweepResult:
    check_options(task.name, options)
    check_backend()
    _keep_compiled_once()
    generator = load(generator) if isinstance(generator, str | Path) else generator
    if not isinstance(generator, Generator):
        raise ValueError(
            f"{task.name}: {described(generator)} stands for the generator: expected a Generator, "
            "or the name of one"
        )
    given = task.classifiers
    given = given if isinstance(given, list | tuple) else [given]
    classifiers = [load(one) if isinstance(one, str | Path) else one for one in given]
    named = named_objectives(objectives)
    begun = start_of(task.name, task.init, generator, options.get("encoder"))
    settings = _settings(task, options, generator, begun)
    seeds = seeds_of(task.name, task.seeds, begun, task.default)
    runs, start = make_runs(task.name, named, seeds, begun)
    encoder = options.get("encoder")
    if encoder is None and make_optimizer(settings.optimizer, settings.recipe).asks == PRIOR:
        encoder = generator.load_encoder()
    problem = plan(runs, generator, classifiers, settings, start=start, encoder=encoder)
    for note in problem.notes.values():
        _log.warning("%s", note)
    saving = _saving(task, options)
    config = {"experiment": "sweep", "command": _CALL + task.name}
    config |= {"title": options.get("title", "")}
    inputs = {} if start is None else {"start codes": hash_of(start)}
    config |= config_of(problem, saving.devices, inputs, encoder)
    found = carry_out(problem, saving, config=config, images=options.get("images", "all"))
    any_of(saving.processes, False)  # the one that leads has written everything
    if found is None:
        saved = read_results(saving.folder, generator, problem.classifiers)
        found = dataclasses.replace(saved, runs=problem.runs, settings=problem.settings)
    if saving.processes.leads and (said := non_finite_line(found.arrays)):
        _log.warning("%s", said)
    return found


def _saving(task: _Task, options: Options) -> Saving:
    folder, several = options.get("folder"), options.get("processes", ALONE)
    if folder is None:
        for name in ("resume", "overwrite", "watch", "tensorboard"):
            if options.get(name):
                raise ValueError(f"{task.name}: {name} needs a folder")
        if several.count > 1:
            raise ValueError(f"{task.name}: processes share a folder: give one")
    elif options.get("resume") and options.get("overwrite"):
        raise ValueError(f"{task.name}: resume continues a run, overwrite deletes it: give one")
    names = {field.name for field in dataclasses.fields(Saving)}
    given: dict[str, Any] = {name: value for name, value in options.items() if name in names}
    given["folder"] = None if folder is None else expand(folder)
    given["progress"] = options.get("progress", sys.stderr.isatty()) and several.leads
    return Saving(**given)


def _settings(task: _Task, options: Options, generator: Generator, begun: Start) -> Settings:
    own = generator.recipe_from_image if begun.from_image else generator.recipe
    recipe = options.get("recipe") or own
    if not isinstance(recipe, str | Recipe):
        call = ": call it" if callable(recipe) else ""
        raise ValueError(
            f"{task.name}: recipe is {described(recipe)}{call}; expected a Recipe, or its name"
        )
    names = [field.name for field in dataclasses.fields(Settings) if field.name != "recipe"]
    changes = {name: options[name] for name in names if name in options}
    return Settings(make_recipe(recipe), **changes)


@functools.cache
def _keep_compiled_once() -> None:
    """Store compiled programs on disk, unless the user has said where."""
    if jax.config.jax_compilation_cache_dir is None:
        keep_compiled(writable_cache())
