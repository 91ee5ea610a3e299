"""Runs as a problem to compute: everything is checked, and objectives become arrays."""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth import recipes
from jaxsynth.arithmetic import arithmetic
from jaxsynth.ask_tell import PRIOR, Optimizer
from jaxsynth.balance import BALANCES
from jaxsynth.batch import Batch, Problem, Run, Structure, check_record
from jaxsynth.goal_arrays import Shared, distinct, make_function, make_goals, make_layout, places_of
from jaxsynth.goals import Function
from jaxsynth.inputs import check_options, described, option
from jaxsynth.models.base import Classifier, Generator
from jaxsynth.optimizer_names import check_protocol, make_optimizer
from jaxsynth.recipes import Recipe, make_recipe
from jaxsynth.starts import checked_codes, drawn_codes, make_box
from jaxsynth.system import ENCODER, GENERATOR, Request, make_system, system_params
from jaxsynth.terms import MEASURES, Objective, before_relu, is_class_blob
from jaxsynth.transforms import Transforms

PRECISIONS = ("float32", "float64", "bfloat16")
_CPU_BATCH, _BATCH = 8, 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """How runs are computed; every field decides the result, so all are in config.json."""

    recipe: Recipe = dataclasses.field(default=recipes.RECIPES["goh"])
    optimizer: Any = option(
        "", "An optimizer by name instead of the recipe's, such as cma_es or lbfgs."
    )
    balance: str = option(
        "image",
        "How gradients of several classifiers are joined: each image-space gradient divided by its "
        "own mean |g| (image), the same in code space (code), plainly added (sum), or in turns "
        "(alternate).",
        among=BALANCES,
    )
    batch: int = option(0, "Codes a compiled chunk; 0 for 8 on CPU, 64 on accelerators.", low=0)
    precision: str = option(
        "float32",
        "Of the networks: float32; float64; or bfloat16, which is that of "
        "weights and activations, while codes, logits and objective stay float32. A CPU without "
        "bfloat16 arithmetic computes in float32 instead.",
        among=PRECISIONS,
    )
    record: tuple[int, ...] = option((), "Steps after which codes are recorded.")

    def __post_init__(self):
        """Let the recipe be a name, and recorded steps a list.

        Raises:
          ValueError: If no recipe is of that name, or there are no such steps.
        """
        if isinstance(self.recipe, str):
            object.__setattr__(self, "recipe", make_recipe(self.recipe))
        if isinstance(self.record, list | np.ndarray | range):
            steps = (int(s) if isinstance(s, numbers.Integral) else s for s in self.record)
            object.__setattr__(self, "record", tuple(steps))
        if not isinstance(self.record, tuple):
            raise ValueError(f"record: expected a list of steps, not {described(self.record)}")


def plan(
    runs: Sequence[Run],
    generator: Generator,
    classifiers: Sequence[Classifier] = (),
    settings: Settings = Settings(),
    *,
    start: np.ndarray | None = None,
    encoder: Classifier | None = None,
) -> Problem:
    """Turn runs into arrays and check all that can be checked before any long work.

    Args:
      runs: seeds and objectives.
      generator: makes the images of codes.
      classifiers: they judge the finished images, after those that objectives name.
      settings: how runs are computed.
      start: start codes (R, D) instead of the recipe's own by seed; used as they are. The seeds
        still decide random transforms.
      encoder: gives the generator's codes; only a recipe with a prior term needs it.

    Raises:
      ValueError: for anything that cannot work, in one line.
    """
    runs, notes = _checked(runs)
    _check_models(generator, classifiers, encoder)
    settings = _resolved(settings, generator)
    with arithmetic(settings.precision == "float64"):
        problem = _plan(runs, generator, classifiers, settings, start, encoder)
    return problem._replace(notes=notes)


def _plan(runs, generator, classifiers, settings: Settings, start, encoder) -> Problem:
    optimizer = make_optimizer(settings.optimizer, settings.recipe)
    encoder = _needed_encoder(settings.recipe, optimizer, generator, encoder)
    objectives, which, factor = distinct(runs, optimizer.scale_free)
    models = _classifiers(objectives, generator, classifiers)
    dtype = _precision(settings.precision, [generator, *models, *([encoder] if encoder else [])])
    start = None if start is None else checked_codes(start, len(runs), generator.code_size, dtype)
    seeds = np.array([run.seed for run in runs], np.uint32)
    alone = any(term.how == "diversity" for o in objectives for term in o.terms)
    recipe = settings.recipe
    transforms = Transforms(recipe.jitter, float(recipe.zoom), float(recipe.rotate))
    seeded = start is None or transforms.draws or optimizer.draws
    place, own = places_of(which, seeds if seeded else np.zeros_like(seeds), start, alone)
    shared = Shared(place, factor) if len(own) < len(runs) or (factor != 1).any() else None
    which, seeds = which[own], seeds[own]
    upper, lower = (getattr(generator.code, side, None) for side in ("upper", "lower"))
    box = make_box(recipe, generator.code_size, upper, dtype, lower)
    codes = drawn_codes(recipe, box, seeds, generator.code) if start is None else start[own]
    if isinstance(settings.optimizer, Optimizer):  # our own are known to work
        check_protocol(optimizer, box)

    shapes = _shapes(generator, models)
    functions = [
        tuple(
            make_function(term, shapes, generator.image, generator.code_size)
            for term in objective.terms
            if term.how != "linear"
        )
        for objective in objectives
    ]
    layout = make_layout(objectives)
    kinds = list(dict.fromkeys(functions))
    evaluated = {*layout, *(name for kind in kinds for f in kind for name in f.reads)}
    system = make_system(generator, [c for c in models if c.name in evaluated], encoder)
    judge = make_system(generator, models)
    request = Request(
        system,
        optimizer.asks,
        settings.balance,
        transforms,
        _record(objectives, models),
    )
    structures = tuple(
        Structure(
            request._replace(system=system._replace(functions=kind)),
            judge._replace(functions=kind),
            make_goals([o for o, f in zip(objectives, functions, strict=True) if f == kind],
                       kind, layout, dtype),
        )
        for kind in kinds
    )  # fmt: skip
    structure, place = _places(functions, kinds)
    batch = Batch(codes, structure[which], place[which], seeds)
    params = system_params(generator, models, encoder)
    fixed = structures, optimizer, params, batch, box, settings
    return Problem(*fixed, runs, generator, tuple(models), shared)


def _checked(runs: Any) -> tuple[Sequence[Run], dict[str, str]]:
    """The runs, of units before their ReLU (`before_relu`), and the units that were moved."""
    if not isinstance(runs, Sequence) or not runs:
        raise ValueError(f"runs: expected a list of at least one Run, not {described(runs)}")
    moved: dict[int, Objective] = {}  # by identity: many seeds share one object
    notes: dict[str, str] = {}
    for run in runs:
        if not isinstance(run, Run) or not isinstance(run.objective, Objective):
            wrong = described(run.objective if isinstance(run, Run) else run)
            raise ValueError(
                f"runs: {wrong} is none: expected Run(seed, objective), and an objective such as "
                "classifier.logit('cat')"
            )
        if id(run.objective) not in moved:
            moved[id(run.objective)], said = before_relu(run.objective)
            notes |= said
    if notes:
        runs = [dataclasses.replace(run, objective=moved[id(run.objective)]) for run in runs]
    return runs, notes


def _check_models(generator: Any, classifiers: Any, encoder: Any) -> None:
    if not isinstance(generator, Generator):
        raise ValueError(f"{described(generator)} stands for the generator: expected a generator")
    if not isinstance(classifiers, list | tuple):
        raise ValueError(f"classifiers: expected a list of them, not {described(classifiers)}")
    given = [*(("a classifier", model) for model in classifiers)]
    given += [] if encoder is None else [(repr(ENCODER), encoder)]
    for role, model in given:
        if not isinstance(model, Classifier):
            raise ValueError(f"{described(model)} stands for {role}: expected a classifier")


def _resolved(settings: Settings, generator: Generator) -> Settings:
    """The settings, checked, with the values that the machine and the generator decide."""
    if not isinstance(settings, Settings):
        recipe = ": give Settings(recipe)" if isinstance(settings, Recipe) else ""
        raise ValueError(f"settings: {described(settings)} is no Settings{recipe}")
    recipe = settings.recipe
    recipes.check_recipe(recipe)
    if generator.start:
        recipe = dataclasses.replace(recipe, start=generator.start)
        recipes.check_recipe(recipe)
    check_options(settings, "settings")
    check_record(settings.record, recipe.steps)
    if recipe.jitter >= generator.image_size:
        raise ValueError(
            f"recipe: jitter is {recipe.jitter}, but the generator's images have only "
            f"{generator.image_size} pixels a side: expected a few pixels"
        )
    own = _CPU_BATCH if jax.default_backend() == "cpu" else _BATCH
    return dataclasses.replace(settings, recipe=recipe, batch=settings.batch or own)


def _needed_encoder(recipe: Recipe, optimizer, generator: Generator, encoder):
    """The generator's encoder where the prior term needs it, else None."""
    if optimizer.asks != PRIOR:
        return None
    if encoder is None:
        own = getattr(generator.encoder, "network", "") or "whose blob is its code"
        raise ValueError(
            f"recipe: prior is {recipe.prior}, but no network stands for {ENCODER!r}: give the "
            f"generator's own ({own}), or choose a prior of 0"
        )
    return encoder


def _classifiers(
    objectives: Sequence[Objective], generator: Generator, given: Sequence[Classifier]
) -> list[Classifier]:
    """All classifiers of a problem: those that are given, then others that objectives name."""
    named = [m for o in objectives for m in o.models()]
    models = list({id(m): m for m in (*given, *named) if m is not generator}.values())
    for model in models:
        if not isinstance(model, Classifier):
            raise ValueError(
                f"an objective weighs generator {model.name!r}, but the runs' generator is "
                f"another object ({generator.name!r}): make both of the same one"
            )
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1 or name in (GENERATOR, ENCODER):
            taken = f"two classifiers are called {name!r}"
            taken = taken if names.count(name) > 1 else f"a classifier is called {name!r}"
            raise ValueError(f'{taken}: give one another name, classifier.named("other")')
    return models


def _precision(name: str, models: Sequence[Any]) -> np.dtype:
    """The precision of codes and objective."""
    for model in models:
        kinds = {np.asarray(p).dtype if np.isscalar(p) else p.dtype
                 for p in jax.tree.leaves(model.params)}  # fmt: skip
        other = {str(k) for k in kinds if jnp.issubdtype(k, jnp.floating)} - {name}
        if other:
            way = "jaxsynth.load takes a dtype" if model.info.file else f"cast them to {name}"
            raise ValueError(
                f"{model.role} {model.info.network or model.name!r} has {other.pop()} parameters, "
                f"but the precision is {name}: {way}"
            )
    return np.dtype("float32" if name == "bfloat16" else name)


def _shapes(generator: Generator, models: Sequence[Classifier]) -> dict[str, Mapping[str, tuple]]:
    """{network: {blob: shape}} of everything that a term can weigh."""
    shapes: dict[str, Mapping[str, tuple]] = {model.name: model.shapes for model in models}
    return shapes | {GENERATOR: {**generator.shapes, **dict.fromkeys(MEASURES, (1,))}}


def _record(
    objectives: Sequence[Objective], models: Sequence[Classifier]
) -> tuple[tuple[str, str], ...]:
    """Blobs that are recorded in full: logits and probabilities, and weighed ones of classes."""
    found = {}
    for model in models:
        blobs = [blob for blob in (model.logits, "prob") if blob and blob in model.shapes]
        found |= dict.fromkeys((model.name, blob) for blob in blobs)
    for term in (term for objective in objectives for term in objective.terms):
        own = term.how == "linear" and isinstance(term.model, Classifier)
        if own and is_class_blob(term.model, term.blob):
            found[(term.network, term.blob)] = None
    return tuple(found)


def _places(
    functions: Sequence[tuple[Function, ...]], kinds: Sequence[tuple[Function, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """For every objective its structure, and its place among those of that structure."""
    structure = np.array([kinds.index(f) for f in functions], np.int32)
    place = np.zeros(len(functions), np.int32)
    for kind in range(len(kinds)):
        own = structure == kind
        place[own] = np.arange(own.sum())
    return structure, place
