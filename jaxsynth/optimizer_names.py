"""Optimizers by name, and how users may specify one.

adam                 a row of `OPTIMIZERS`
adamw, optax:adamw   any optax optimizer that needs a learning rate and gradients
goh+raw+cosine       a gradient row with the raw gradient (+raw, instead of g / mean |g|) and
another schedule (+constant, +linear, +cosine, +exponential, +warmup_cosine)
cma_es+40            a gradient-free row with another number of codes in a generation (16 by
default), which an evaluation's batch must hold
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsynth.ask_tell import ASKS, PRIOR, VALUE, Box, Optimizer, Seen, Setting
from jaxsynth.gradient_free import ROWS as FREE
from jaxsynth.inputs import check_name, described, reason
from jaxsynth.optimizers import (
    POPULATION,
    STEP,
    from_recipe,
    from_transform,
    langevin,
    lbfgs,
    spectral,
)
from jaxsynth.recipes import RECIPES, SCHEDULES, Recipe, check_recipe, optax_optimizers

_OPTAX = "optax:"
_LONGEST = 160  # characters of a state in an error
_SMALLEST = 4  # population that all gradient-free rows work with, if even: open_es draws in pairs
_RAW_RATE = 3.0  # of sgd on a raw gradient, whose mean |g| is some tenths for a pocket logit


def _optax(name: str, rate: float = 0.3, **args: float) -> Recipe:
    return dataclasses.replace(
        STEP, optimizer=name, lr_start=rate, lr_end=rate / 100, optimizer_args=tuple(args.items())
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


def _row(recipe: Recipe, name: str, **options: Any) -> Callable[[], Optimizer]:
    return lambda: from_recipe(recipe, stretch=True, name=name, **options)


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "pocket": _row(RECIPES["pocket"], "pocket", spread=0.0),  # as it is
    **{name: _row(step, name) for name, step in STEPS.items()},
    "goh+raw": lambda: _variant("goh+raw"),
    "goh+constant": lambda: _variant("goh+constant"),
    "goh+cosine": lambda: _variant("goh+cosine"),
    "goh+warmup_cosine": lambda: _variant("goh+warmup_cosine"),
    "adam+raw": lambda: _variant("adam+raw"),
    "langevin": langevin,
    "ppgn": _row(dataclasses.replace(STEP, prior=0.05), "ppgn", noise=0.1),
    "lbfgs": lbfgs,
    "spectral": spectral,
    **FREE,
}


def make_optimizer(spec: Any, recipe: Recipe | None = None) -> Optimizer:
    """Make an optimizer from a user's specification.

    Args:
      spec: An `Optimizer`, an optax transformation, a name (see this module), or None or "" for the
        recipe's own steps.
      recipe: Gives those steps, or normalisation, prior term, decay and projection of an optax
        transformation.

    Raises:
      ValueError: If there is none of that name, with the near ones, or it needs a package that is
        not installed.
    """
    if isinstance(spec, Optimizer):
        return spec
    if isinstance(spec, str) and spec:
        return by_name(spec)
    if isinstance(spec, optax.GradientTransformation):
        return from_transform(spec, recipe or Recipe())
    if spec is None or isinstance(spec, str):
        return from_recipe(recipe or Recipe())
    call = ": call it" if callable(spec) else ""
    raise ValueError(
        f"optimizer: {described(spec)}{call}; expected a name such as adam or cma_es, an optax "
        "transformation, or a jaxsynth.Optimizer"
    )


@functools.cache
def by_name(name: str) -> Optimizer:
    """Return the optimizer of a name, the same object every time; raises as `make_optimizer`."""
    return OPTIMIZERS[name]() if name in OPTIMIZERS else _variant(name)


def check_optimizer_name(name: str) -> None:
    """Raise ValueError, with the near names, unless it names a row or a variant of one."""
    if name not in OPTIMIZERS and not _population(name):
        check_recipe(_steps(name))


def _variant(name: str) -> Optimizer:
    if population := _population(name):
        return FREE[name.partition("+")[0]](population=population)
    recipe = _steps(name)
    check_recipe(recipe)
    scales = recipe.optimizer == "sgd" and not recipe.normalize  # a step as large as its gradient
    return from_recipe(recipe, spread=2.0 if scales else 1.0, stretch=True, name=name)


def _population(name: str) -> int:
    """The population that a gradient-free variant asks for; 0 for the name of anything else."""
    base, _, size = name.partition("+")
    if base not in FREE:
        return 0
    number = int(size) if size.isascii() and size.isdecimal() else 0
    if number < _SMALLEST or number % 2 or size != str(number):
        raise ValueError(
            f"optimizer {name!r}: expected the codes of a generation after '{base}+', an even "
            f"number from {_SMALLEST} up, as in {base}+40"
        )
    if number == POPULATION:
        raise ValueError(f"optimizer {name!r} is the row {base!r} itself: name it so")
    return number


def _steps(name: str) -> Recipe:
    """The recipe of a gradient row, `optax:NAME`, or one of their variants."""
    base, *variants = name.split("+")
    if base.startswith(_OPTAX) or (base in optax_optimizers() and base not in OPTIMIZERS):
        recipe = _optax(base.removeprefix(_OPTAX))
    else:
        check_name("optimizer", base, (*OPTIMIZERS, *optax_optimizers()))
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


def check_protocol(optimizer: Optimizer, box: Box) -> None:
    """Check by shapes alone, nothing computed, that an optimizer keeps to the protocol.

    ValueError names the field or function that does not, its value and the expected one.
    """
    what, population = f"optimizer {optimizer.name!r}", optimizer.population
    if optimizer.asks not in ASKS:
        known = " or ".join(map(repr, ASKS))
        raise ValueError(f"{what}: asks is {described(optimizer.asks)}, expected {known}")
    if not isinstance(population, numbers.Integral) or population < 1:
        raise ValueError(f"{what}: population is {described(population)}, expected 1 or more codes")
    if optimizer.freezes and (population != 1 or optimizer.asks == VALUE):
        raise ValueError(f"{what}: freezes needs a population of 1 and its gradient")
    (size,), dtype = box.lower.shape, box.lower.dtype
    like: Any = jax.ShapeDtypeStruct
    codes, number, step = like((population, size), dtype), like((), dtype), like((), jnp.int32)
    key: Any = jax.eval_shape(lambda: jax.random.key(0))
    setting = Setting(like((size,), dtype), None, key, number, box)

    def shapes(call: str, *given: Any) -> Any:
        try:
            return jax.eval_shape(getattr(optimizer, call.partition("(")[0]), *given)
        except Exception as error:  # a user's function can raise anything
            why = reason(error)
            needs = call.startswith("tell") and optimizer.asks == VALUE and "NoneType" in why
            hint = "; seen.gradient is None unless asks is 'gradient'" if needs else ""
            raise ValueError(f"{what}: {call} fails: {why}{hint}") from error

    begun = shapes("init(setting)", setting)
    asked = shapes("ask(setting, step, state)", setting, step, begun)
    if not isinstance(asked, tuple | list) or len(asked) != 2:
        raise ValueError(f"{what}: ask gives {_said(asked)}, expected (codes (P, D), state)")
    if getattr(asked[0], "shape", None) != codes.shape:
        raise ValueError(
            f"{what}: ask gives codes {_said(asked[0])}, expected {codes.shape}: its population, "
            "and the units of a code"
        )
    gradient = None if optimizer.asks == VALUE else codes
    seen = Seen(like((population,), dtype), gradient, codes if optimizer.asks == PRIOR else None)
    told = shapes("tell(setting, step, state, codes, seen)", setting, step, asked[1], codes, seen)
    if _form(told) not in (_form(begun), _form(asked[1])):
        raise ValueError(
            f"{what}: tell gives {_said(told)}, expected a state like that before, "
            f"{_said(asked[1])}"
        )


def _form(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    """The structure of a pytree and the shapes of its leaves."""
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _said(tree: Any) -> str:
    """Describe the form of a pytree, in a line."""
    if tree is None or hasattr(tree, "shape"):
        return str(getattr(tree, "shape", None))
    structure, shapes = _form(tree)
    return f"arrays {shapes} in {structure}"[:_LONGEST]
