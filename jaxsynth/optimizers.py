"""Optimizers: asked for codes and told what they are worth. One protocol for all of them.

An optimizer is a tuple of pure functions of one run; `jaxsynth.chunks` maps them over many. This
module has those that are told a gradient and the table of names; `jaxsynth.gradient_free` has those
that are told the objective alone.

Names may carry variants:

  adam                 a row of `OPTIMIZERS`
  optax:adamw          any optax optimizer that needs a learning rate and gradients
  goh+raw+cosine       a gradient row with the raw gradient (+raw, instead of g / mean |g|) and
                       another schedule (+constant, +linear, +cosine, +exponential, +warmup_cosine)
  cma_es+40            a gradient-free row with another number of codes in a generation (16 by
                       default), which an evaluation's batch must hold

Sources: recipes as in `jaxsynth.recipes`; Langevin-like noise and the prior term are those of PPGN
(Nguyen et al. 2017); L-BFGS with optax's two-loop product (Nocedal & Wright 2006), the units at a
bound held as in Bertsekas 1982, Armijo backtracking along the projection; `spectral` is the
projected gradient with Barzilai & Borwein's step (Birgin, Martinez & Raydan 2000), here without a
line search.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.inputs import check_name
from jaxsynth.recipes import (
    RECIPES,
    SCHEDULES,
    Box,
    Recipe,
    check_recipe,
    check_transform,
    make_transform,
    normalise,
    schedule_of,
)

# What an optimizer asks of a code, and so what it pays for.
VALUE = "value"  # the objective: a forward pass
GRADIENT = "gradient"  # and its gradient
PRIOR = "gradient and prior"  # and what the generator's encoder reads from the image
ASKS = (VALUE, GRADIENT, PRIOR)
POPULATION = 16  # codes of a generation

_RESOLUTION = 1000  # steps of the schedule that all numbers of steps are read from
_ARMIJO = 1e-4
_SHRINK = 0.3
_PATIENCE = 4  # refused steps after which L-BFGS begins anew, from the gradient
_OPTAX = "optax:"
_SMALLEST = 4  # population that all gradient-free rows work with, if even: open_es draws in pairs
_RAW_RATE = 3.0  # of sgd on a raw gradient, whose mean |g| is some tenths for a pocket logit
_STEP = Recipe(lr_start=0.3, lr_end=0.003)  # normalised gradient, linear schedule

State = Any


class Setting(NamedTuple):
    """What decides a run beside its objective.

    Attributes:
      start: The code (D,) that it starts from.
      rate: Size of its steps or spread of its population, (); None for the optimizer's own.
      key: Of its own draws.
      steps: How many it makes, () float; None where a recipe's own schedule says.
      box: Bounds of the code.
    """

    start: jax.Array
    rate: jax.Array | None
    key: jax.Array | None
    steps: jax.Array | None
    box: Box


class Seen(NamedTuple):
    """What the codes of one step are worth: values (P,); gradients and pulls (P, D), or None.

    A gradient points uphill; a pull is E(G(z)) - z.
    """

    value: jax.Array
    gradient: jax.Array | None = None
    pull: jax.Array | None = None


class Optimizer(NamedTuple):
    """An optimizer; static under jit, so make it once.

    Attributes:
      name: The word that it goes by.
      asks: One of `ASKS`.
      rate: The rate that it takes unless a run has its own.
      init: Setting -> state.
      ask: (Setting, step (), state) -> (codes (P, D), state).
      tell: (Setting, step (), state, codes (P, D), Seen) -> state.
      population: P, the codes of one step.
      spread: Power to which the factors of a tuning sweep are raised; 0 takes the rate as it is.
      largest: The largest rate that means anything, such as a right angle.
      freezes: Whether a step that is not finite, or whose gradient is zero, ends the run.
    """

    name: str
    asks: str
    rate: float
    init: Callable[[Setting], State]
    ask: Callable[[Setting, jax.Array, State], tuple[jax.Array, State]]
    tell: Callable[[Setting, jax.Array, State, jax.Array, Seen], State]
    population: int = 1
    spread: float = 1.0
    largest: float = math.inf
    freezes: bool = False

    def rates(self, factors: tuple[float, ...]) -> tuple[float, ...]:
        """Return the rates of a tuning sweep, each once."""
        asked = (self.rate * factor**self.spread for factor in factors)
        return tuple(dict.fromkeys(min(rate, self.largest) for rate in asked))


def choose(condition: jax.Array, new: State, old: State) -> State:
    """Return `new` where the condition () holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def all_finite(*trees: Any) -> jax.Array:
    """Whether every number of these arrays is finite, ().

    XLA's ReLU and pooling can swallow a NaN, so the image has to be among them.
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trees)]).all()


def project(box: Box, code: jax.Array) -> jax.Array:
    """Clip codes (..., D) to the box."""
    return jnp.clip(code, box.lower, box.upper)


def rate_of(setting: Setting, own: float) -> jax.Array | float:
    """Return a run's rate, by default the optimizer's own."""
    return own if setting.rate is None else setting.rate


# --- steps along a gradient -----------------------------------------------------------------------


@functools.cache
def from_recipe(
    recipe: Recipe,
    noise: float = 0.0,
    spread: float = 1.0,
    stretch: bool = False,
    name: str = "",
    transform: optax.GradientTransformation | None = None,
) -> Optimizer:
    """Make the optimizer of a recipe: its gradient step, prior term, decay and projection.

    Where a run has a rate of its own, the schedule begins with that and is stretched over the run's
    steps.

    Args:
      recipe: Gives the steps.
      noise: Adds noise x step size x N(0, 1) to every update, inside the box.
      spread: See `Optimizer`.
      stretch: Stretch the schedule over the run's steps in any case.
      name: By default the recipe's optax optimizer.
      transform: Takes the place of the recipe's optax chain and schedule.
    """

    def scheduled(setting: Setting) -> Recipe:
        own = callable(recipe.schedule) or (setting.rate is None and not stretch)
        return recipe if own else dataclasses.replace(recipe, schedule=_stretched(recipe, setting))

    def init(setting: Setting):
        chain = transform or make_transform(scheduled(setting))
        return setting.start, chain.init(setting.start)

    def ask(setting: Setting, step: jax.Array, state):
        return state[0][None], state

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        told, gradient = scheduled(setting), seen.gradient[0]
        pull = seen.pull[0] if recipe.prior else None
        moved, inner = move(told, setting.box, codes[0], state[1], gradient, pull, transform)
        if noise:
            key = jax.random.fold_in(setting.key, step)
            draw = jax.random.normal(key, moved.shape, moved.dtype)
            moved = project(setting.box, moved + noise * schedule_of(told)(step) * draw)
        return moved, inner

    asks, name = PRIOR if recipe.prior else GRADIENT, name or recipe.optimizer
    return Optimizer(name, asks, recipe.lr_start, init, ask, tell, spread=spread, freezes=True)


def from_transform(transform: optax.GradientTransformation, recipe: Recipe) -> Optimizer:
    """Make an optimizer of an optax transformation, which is given the gradient of -objective.

    Normalisation, prior term, decay and projection are those of the recipe.

    Raises:
      ValueError: If the transformation needs more than gradients.
    """
    check_transform(transform, "the optimizer")
    return from_recipe(recipe, spread=0.0, name="optax", transform=_chain(transform, recipe))


@functools.cache
def _chain(transform: optax.GradientTransformation, recipe: Recipe) -> optax.GradientTransformation:
    return optax.chain(normalise() if recipe.normalize else optax.identity(), transform)


def move(
    recipe: Recipe,
    box: Box,
    code: jax.Array,
    state: optax.OptState,
    gradient: jax.Array,
    pull: jax.Array | None,
    transform: optax.GradientTransformation | None = None,
) -> tuple[jax.Array, optax.OptState]:
    """Make one update of a code (D,), decayed and projected.

    Args:
      recipe: Gives the optax chain, prior term, decay and projection.
      box: Bounds of the code.
      code: (D,).
      state: Of the optax chain.
      gradient: (D,), points uphill.
      pull: E(G(z)) - z, (D,), which only a prior term needs.
      transform: Takes the place of the recipe's chain.

    Returns:
      The code after it, and the chain's new state.
    """
    transform = transform or make_transform(recipe)
    updates, state = transform.update(-gradient, state, code)
    moved = optax.apply_updates(code, updates)
    if recipe.prior:
        moved += recipe.prior * pull
    if recipe.decay_when == "before":
        moved = recipe.decay * moved
    moved = optax.projections.projection_box(moved, box.lower, box.upper)
    if recipe.decay_when == "after":
        moved = recipe.decay * moved
    return moved, state


def _stretched(recipe: Recipe, setting: Setting) -> optax.Schedule:
    """The recipe's schedule over the run's steps, from its rate on."""
    unit = SCHEDULES[recipe.schedule](1.0, recipe.lr_end / recipe.lr_start, _RESOLUTION)
    rate = rate_of(setting, recipe.lr_start)
    return lambda count: rate * unit(count * _RESOLUTION / setting.steps)


class _Search(NamedTuple):
    """A line search along the projection of code + length * direction."""

    code: jax.Array  # (D,) the last accepted
    value: jax.Array  # () its objective
    uphill: jax.Array  # (D,) its gradient, 0 where a bound stops it
    direction: jax.Array  # (D,)
    length: jax.Array  # ()
    refused: jax.Array  # () int32, since the last accepted one
    memory: optax.OptState


@functools.cache
def lbfgs(rate: float = 0.3, memory: int = 10) -> Optimizer:
    """Make L-BFGS inside the box. Every trial of its line search is a step.

    Args:
      rate: The largest mean step that an iteration may make.
      memory: Steps that its approximation of the curvature is made of.
    """
    inner = optax.scale_by_lbfgs(memory_size=memory)

    def init(setting: Setting) -> _Search:
        start = setting.start
        nothing, zero = jnp.zeros_like(start), jnp.zeros((), start.dtype)
        return _Search(
            start, zero - jnp.inf, nothing, nothing, zero, jnp.int32(0), inner.init(start)
        )

    def ask(setting: Setting, step: jax.Array, state: _Search):
        return project(setting.box, state.code + state.length * state.direction)[None], state

    def tell(setting: Setting, step: jax.Array, state: _Search, codes: jax.Array, seen: Seen):
        code, value, gradient = codes[0], seen.value[0], seen.gradient[0]
        promised = _ARMIJO * jnp.vdot(state.uphill, code - state.code)
        good = all_finite(value, gradient) & (value >= state.value + promised)
        return choose(good, accept(setting, state, code, value, gradient), refuse(setting, state))

    def accept(setting: Setting, state: _Search, code, value, gradient) -> _Search:
        uphill = jnp.where(_stopped(setting.box, code, gradient), 0.0, gradient)
        product, told = inner.update(-uphill, state.memory, code)
        direction = jnp.where(uphill == 0, 0.0, -product)
        rises = (jnp.vdot(direction, uphill) > 0) & all_finite(direction)
        direction = jnp.where(rises, direction, uphill)
        first = jnp.isneginf(state.value)
        longest = rate_of(setting, rate) / jnp.abs(direction).mean()
        length = jnp.where(first | ~rises, longest, jnp.minimum(1.0, longest))
        length = jnp.where(jnp.isfinite(length), length, 0.0)
        return _Search(code, value, uphill, direction, length, jnp.int32(0), told)

    def refuse(setting: Setting, state: _Search) -> _Search:
        shorter = state._replace(length=_SHRINK * state.length, refused=state.refused + 1)
        mean = jnp.abs(state.uphill).mean()
        length = jnp.where(mean > 0, 0.1 * rate_of(setting, rate) / mean, 0.0)
        anew = shorter._replace(
            direction=state.uphill, length=length, memory=inner.init(state.code)
        )
        return choose(shorter.refused == _PATIENCE, anew, shorter)

    return Optimizer("lbfgs", GRADIENT, rate, init, ask, tell)


@functools.cache
def spectral(rate: float = 0.3) -> Optimizer:
    """Make projected gradient steps of Barzilai & Borwein's length.

    Their mean stays within a tenth and three times `rate`.
    """

    def init(setting: Setting):
        start = project(setting.box, setting.start)
        return start, start, jnp.zeros_like(start)  # code, code and gradient before

    def ask(setting: Setting, step: jax.Array, state):
        return state[0][None], state

    def tell(setting: Setting, step: jax.Array, state, codes: jax.Array, seen: Seen):
        code, gradient, own = codes[0], seen.gradient[0], rate_of(setting, rate)
        moved, bent = code - state[1], state[2] - gradient
        mean = jnp.abs(gradient).mean()
        length = jnp.vdot(moved, moved) / jnp.abs(jnp.vdot(moved, bent)) * mean  # as a mean step
        length = jnp.where(jnp.isfinite(length), length, own)
        length = jnp.where(step == 0, own, jnp.clip(length, 0.1 * own, 3 * own))
        new = project(setting.box, code + length * gradient / mean)
        return choose(all_finite(new), (new, code, gradient), (code, *state[1:]))

    return Optimizer("spectral", GRADIENT, rate, init, ask, tell)


def _stopped(box: Box, code: jax.Array, uphill: jax.Array) -> jax.Array:
    """Which units stand at a bound that the gradient points out of."""
    return ((code <= box.lower) & (uphill < 0)) | ((code >= box.upper) & (uphill > 0))


def langevin(rate: float = 0.3, noise: float = 0.3) -> Optimizer:
    """Make normalised gradient steps with noise x step size x N(0, 1) added to each."""
    step = dataclasses.replace(_STEP, lr_start=rate, lr_end=rate / 100)
    return from_recipe(step, noise=noise, stretch=True, name="langevin")


# --- by name --------------------------------------------------------------------------------------


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

# What another population (+40) can be given to: functions of `jaxsynth.gradient_free`.
FREE = ("cma_es", "sep_cma_es", "sphere_cma", "open_es", "snes", "ga", "xdream_ga", "de", "pso")
FREE += ("random",)


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
    "ppgn": _row(dataclasses.replace(_STEP, prior=0.05), "ppgn", noise=0.1),
    "lbfgs": lbfgs,
    "spectral": spectral,
    **{name: functools.partial(lambda name: _free(name)(), name) for name in FREE},
}


def make_optimizer(spec: Any, recipe: Recipe | None = None) -> Optimizer:
    """Make an optimizer of what a user gives.

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
    if spec in (None, ""):
        return from_recipe(recipe or Recipe())
    raise ValueError(
        f"optimizer {spec!r}: expected a name such as adam or cma_es, an optax transformation, or "
        "a jaxsynth.Optimizer"
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
        return _free(name.partition("+")[0])(population=population)
    recipe = _steps(name)
    check_recipe(recipe)
    scales = recipe.optimizer == "sgd" and not recipe.normalize  # a step as large as its gradient
    return from_recipe(recipe, spread=2.0 if scales else 1.0, stretch=True, name=name)


def _free(name: str) -> Callable[..., Optimizer]:
    from jaxsynth import gradient_free  # imports this module

    return gradient_free.ROWS[name]


def _population(name: str) -> int:
    """The population that a gradient-free variant asks for; 0 for the name of anything else.

    Raises:
      ValueError: If what follows the row's name is no population, or its own.
    """
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
