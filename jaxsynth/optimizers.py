"""Optimizers that are told a gradient.

`jaxsynth.ask_tell` has the protocol, `jaxsynth.gradient_free` those that are told the objective
alone, `jaxsynth.optimizer_names` all of them by name.

Sources: recipes as in `jaxsynth.recipes`; Langevin-like noise and the prior term are those of PPGN
(Nguyen et al. 2017).
"""

import dataclasses
import functools

import jax
import optax

from jaxsynth.ask_tell import (
    GRADIENT,
    PRIOR,
    Box,
    Optimizer,
    Seen,
    Setting,
    project,
    rate_of,
)  # fmt: skip
from jaxsynth.recipes import (
    SCHEDULES,
    Recipe,
    check_transform,
    make_transform,
    normalise,
    schedule_of,
)

POPULATION = 16  # codes of a generation

_RESOLUTION = 1000  # steps of the schedule that all numbers of steps are read from
STEP = Recipe(lr_start=0.3, lr_end=0.003)  # normalised gradient, linear schedule

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
