"""The table of optimizers: a line for each. Names on the command line may carry variants.

  adam                 a row of the table
  'c*'                 all rows that match
  optax:adamw          any optax optimizer that needs a learning rate and gradients
  goh+raw+cosine       a gradient row with the raw gradient (+raw, instead of g / mean |g|) and
                       another schedule (+constant, +linear, +cosine, +exponential, +warmup_cosine)
  cma_es+40            a gradient-free row with another number of codes in a generation (16 by
                       default), which an evaluation's batch must hold

Rates are where the tuning sweep is centred. Those of gradient rows are in units of the code; +raw
ones in units of the code per unit of gradient.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from functools import cache, partial

import optax

from benchmarks.study import free, gradient
from benchmarks.study.protocol import Optimizer
from jaxsynth.recipes import RECIPES, SCHEDULES, Recipe, check_recipe
from jaxsynth.terms import check_name

_OPTAX = "optax:"
_SMALLEST = 4  # population that all gradient-free rows work with, if even: open_es draws in pairs
_RAW_RATE = 3.0  # of sgd on a raw gradient, whose mean |g| is some tenths for a pocket logit
_STEP = Recipe(lr_start=0.3, lr_end=0.003)  # normalised gradient, linear schedule


def _optax(name: str, rate: float = 0.3, **args: float) -> Recipe:
    return dataclasses.replace(
        _STEP, optimizer=name, lr_start=rate, lr_end=rate / 100, optimizer_args=tuple(args.items())
    )


# What variants (+raw, +cosine) can be made of: rows whose steps are a recipe's.
STEPS: dict[str, Recipe] = {
    "goh": dataclasses.replace(RECIPES["goh"], lr_start=0.3),
    "dgn_am": dataclasses.replace(RECIPES["dgn_am"], lr_start=0.3),
    "cnnpref": dataclasses.replace(RECIPES["cnnpref"], lr_start=0.1),
    "momentum": _optax("sgd", 0.1, momentum=0.9),
    "nesterov": _optax("sgd", 0.1, momentum=0.9, nesterov=True),
    "rmsprop": _optax("rmsprop"),
    "adam": _optax("adam"),
    "nadam": _optax("nadam"),
    "adabelief": _optax("adabelief"),
    "yogi": _optax("yogi"),
    "lion": _optax("lion"),
    "sign": _optax("sign_sgd"),
}

# What another population (+40) can be given to: rows that are told the objective alone.
FREE: dict[str, Callable[..., Optimizer]] = {
    "cma_es": partial(free.distribution, "CMA_ES", 1.0),
    "sep_cma_es": partial(free.distribution, "Sep_CMA_ES", 1.0),
    "sphere_cma": partial(free.sphere_cma, 0.5),
    "open_es": partial(free.distribution, "Open_ES", 1.0, optimizer=optax.adam(0.5)),
    "snes": partial(free.distribution, "SNES", 1.0),
    "ga": partial(free.population_based, "SimpleGA", 1.0, crossover_rate=0.5),
    "xdream_ga": partial(free.xdream_ga, 1.0),
    "de": partial(free.population_based, "DifferentialEvolution", 1.0),
    "pso": partial(free.population_based, "PSO", 1.0),
    "random": partial(free.random_search, 1.0),
}

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "pocket": lambda: gradient.from_recipe(RECIPES["pocket"], spread=0.0),  # as it is
    **{name: partial(gradient.from_recipe, step) for name, step in STEPS.items()},
    "goh+raw": lambda: _variant("goh+raw"),
    "goh+constant": lambda: _variant("goh+constant"),
    "goh+cosine": lambda: _variant("goh+cosine"),
    "goh+warmup_cosine": lambda: _variant("goh+warmup_cosine"),
    "adam+raw": lambda: _variant("adam+raw"),
    "langevin": lambda: gradient.from_recipe(_STEP, noise=0.3),
    "ppgn": lambda: gradient.from_recipe(dataclasses.replace(_STEP, prior=0.05), noise=0.1),
    "lbfgs": lambda: gradient.lbfgs(0.3),
    "spectral": lambda: gradient.spectral(0.3),
    **FREE,
}


@cache
def make_optimizer(name: str) -> Optimizer:
    """The optimizer of a name that `choose_optimizers` gives; the same object every time.

    Raises:
      ValueError: if it needs a package that is not installed.
    """
    return OPTIMIZERS[name]() if name in OPTIMIZERS else _variant(name)


def choose_optimizers(patterns: Sequence[str]) -> tuple[str, ...]:
    """Names by name, glob or variant, in the order asked for, each once.

    Raises:
      ValueError: naming what is wrong, with the nearest names.
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in OPTIMIZERS if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            if not _free_variant(pattern):
                check_recipe(_steps(pattern))
            found = [pattern]
        chosen |= dict.fromkeys(found)
    if not chosen:
        raise ValueError("no optimizer named: give names or globs such as 'adam' or 'c*'")
    return tuple(chosen)


def _variant(name: str) -> Optimizer:
    if make := _free_variant(name):
        return make()
    recipe = _steps(name)
    scales = recipe.optimizer == "sgd" and not recipe.normalize  # a step as large as its gradient
    return gradient.from_recipe(recipe, spread=2.0 if scales else 1.0)


def _free_variant(name: str) -> Callable[[], Optimizer] | None:
    """Makes a gradient-free row with another population; None for the name of anything else.

    Raises:
      ValueError: if what follows the row's name is no population, or its own.
    """
    base, _, size = name.partition("+")
    if base not in FREE:
        return None
    number = int(size) if size.isascii() and size.isdecimal() else 0
    if number < _SMALLEST or number % 2 or size != str(number):
        raise ValueError(
            f"optimizer {name!r}: expected the codes of a generation after '{base}+', an even "
            f"number from {_SMALLEST} up, as in {base}+40"
        )
    if number == free.POPULATION:
        raise ValueError(f"optimizer {name!r} is the row {base!r} itself: name it so")
    return partial(FREE[base], population=number)


def _steps(name: str) -> Recipe:
    """The recipe of a gradient row, `optax:NAME`, or one of their variants."""
    base, *variants = name.split("+")
    if base.startswith(_OPTAX):
        recipe = _optax(base.removeprefix(_OPTAX))
    else:
        check_name("optimizer", base, (*OPTIMIZERS, f"{_OPTAX}NAME"))
        if base not in STEPS:
            raise ValueError(
                f"optimizer {name!r}: {base!r} has no variants, unlike {', '.join((*STEPS, *FREE))}"
            )
        recipe = STEPS[base]
    for variant in variants:
        if variant.isdecimal():
            raise ValueError(
                f"optimizer {name!r}: only gradient-free rows have a population: {', '.join(FREE)}"
            )
        check_name(f"optimizer {name!r}: variant", variant, ("raw", *SCHEDULES))
        if variant == "raw":
            rate = _RAW_RATE if recipe.optimizer == "sgd" else recipe.lr_start
            recipe = dataclasses.replace(recipe, normalize=False, lr_start=rate, lr_end=rate / 100)
        else:
            recipe = dataclasses.replace(recipe, schedule=variant)
    return recipe
