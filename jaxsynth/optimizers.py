"""Optimizers that are told a gradient: steps along it, and L-BFGS and the spectral step.

`jaxsynth.ask_tell` has the protocol, `jaxsynth.gradient_free` those that are told the objective
alone, `jaxsynth.optimizer_names` all of them by name.

Sources: recipes as in `jaxsynth.recipes`; Langevin-like noise and the prior term are those of PPGN
(Nguyen et al. 2017); L-BFGS with optax's two-loop product (Nocedal & Wright 2006), the units at a
bound held as in Bertsekas 1982, Armijo backtracking along the projection; `spectral` is the
projected gradient with Barzilai & Borwein's step (Birgin, Martinez & Raydan 2000), here without a
line search.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.ask_tell import (
    GRADIENT,
    PRIOR,
    Box,
    Optimizer,
    Seen,
    Setting,
    all_finite,
    choose,
    project,
    rate_of,
)
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
_ARMIJO = 1e-4
_SHRINK = 0.3
_PATIENCE = 4  # refused steps after which L-BFGS restarts from the gradient

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

    `gradient` (D,) points uphill, `pull` is E(G(z)) - z, (D,), which only a prior term needs. The
    optax chain is `transform`, by default the recipe's.

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


# --- curvature ------------------------------------------------------------------------------------


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
        afresh = shorter._replace(
            direction=state.uphill, length=length, memory=inner.init(state.code)
        )
        return choose(shorter.refused == _PATIENCE, afresh, shorter)

    return Optimizer("lbfgs", GRADIENT, rate, init, ask, tell, draws=False)


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

    return Optimizer("spectral", GRADIENT, rate, init, ask, tell, draws=False)


def _stopped(box: Box, code: jax.Array, uphill: jax.Array) -> jax.Array:
    """Which units stand at a bound that the gradient points out of."""
    return ((code <= box.lower) & (uphill < 0)) | ((code >= box.upper) & (uphill > 0))
