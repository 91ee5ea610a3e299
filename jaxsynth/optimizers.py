"""Optimizers: asked for codes and told their values. One protocol for all of them.

An optimizer is a tuple of pure functions of one run; `jaxsynth.chunks` maps them over many. This
module has those that are told a gradient, `jaxsynth.gradient_free` those that are told the
objective alone, `jaxsynth.optimizer_names` all of them by name.

Sources: recipes as in `jaxsynth.recipes`; Langevin-like noise and the prior term are those of PPGN
(Nguyen et al. 2017).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.recipes import (
    SCHEDULES,
    Box,
    Recipe,
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
STEP = Recipe(lr_start=0.3, lr_end=0.003)  # normalised gradient, linear schedule

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
      scale_free: Whether positive multiples of an objective make the same steps.
      draws: Whether it draws random numbers of its own.
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
    scale_free: bool = False
    draws: bool = True

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
        if recipe.prior and recipe.prior_scaled:
            pull *= schedule_of(told)(step) / rate_of(setting, recipe.lr_start)
        moved, inner = move(told, setting.box, codes[0], state[1], gradient, pull, transform)
        if noise:
            key = jax.random.fold_in(setting.key, step)
            draw = jax.random.normal(key, moved.shape, moved.dtype)
            moved = project(setting.box, moved + noise * schedule_of(told)(step) * draw)
        return moved, inner

    kind = {"freezes": True, "scale_free": recipe.normalize, "draws": noise > 0, "spread": spread}
    asks, name = PRIOR if recipe.prior else GRADIENT, name or recipe.optimizer
    return Optimizer(name, asks, recipe.lr_start, init, ask, tell, **kind)


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


def langevin(rate: float = 0.3, noise: float = 0.3) -> Optimizer:
    """Make normalised gradient steps with noise x step size x N(0, 1) added to each."""
    step = dataclasses.replace(STEP, lr_start=rate, lr_end=rate / 100)
    return from_recipe(step, noise=noise, stretch=True, name="langevin")
