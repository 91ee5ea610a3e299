"""Optimizers that are told the gradient: recipes, Langevin noise, L-BFGS, spectral steps.

Sources: recipes as in `jaxsynth.recipes`; Langevin-like noise and the prior term are those
of PPGN (Nguyen et al. 2017); L-BFGS with optax's two-loop product (Nocedal & Wright 2006), the
units at a bound held as in Bertsekas 1982, Armijo backtracking along the projection; `spectral` is
the projected gradient with Barzilai & Borwein's step (Birgin, Martinez & Raydan 2000), here without
a line search.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.study.protocol import GRADIENT, PRIOR, How, Optimizer, Seen, choose
from jaxsynth import ascent
from jaxsynth.recipes import SCHEDULES, Box, Recipe, make_transform

_RESOLUTION = 1000  # steps of the schedule that all numbers of steps are read from
_ARMIJO = 1e-4
_SHRINK = 0.3
_PATIENCE = 4  # refused steps after which L-BFGS begins anew, from the gradient


def from_recipe(recipe: Recipe, noise: float = 0.0, spread: float = 1.0) -> Optimizer:
    """The steps of a recipe, with its schedule stretched over the budget and its rate tuned.

    Start and number of steps are the benchmark's. `noise` adds noise x rate x N(0, 1) to every
    update.
    """

    def scheduled(how: How) -> Recipe:
        return dataclasses.replace(recipe, schedule=_schedule(recipe, how))

    def init(how: How):
        return how.start, make_transform(scheduled(how)).init(how.start)

    def ask(how: How, step: jax.Array, state):
        return state[0][None], state

    def tell(how: How, step: jax.Array, state, codes: jax.Array, seen: Seen):
        code, optimizer = codes[0], state[1]
        pull = seen.pull[0] if recipe.prior else None
        told = scheduled(how)
        moved, optimizer = ascent.move(told, how.box, code, optimizer, seen.gradient[0], pull)
        if noise:
            draw = jax.random.normal(jax.random.fold_in(how.key, step), code.shape, code.dtype)
            moved = project(how.box, moved + noise * told.schedule(step) * draw)
        return choose(ascent.all_finite(moved), (moved, optimizer), (code, state[1]))

    kind = PRIOR if recipe.prior else GRADIENT
    return Optimizer(kind, recipe.lr_start, init, ask, tell, spread=spread)


def _schedule(recipe: Recipe, how: How) -> optax.Schedule:
    """The recipe's schedule over `how.steps`, from `how.rate` on."""
    unit = SCHEDULES[recipe.schedule](1.0, recipe.lr_end / recipe.lr_start, _RESOLUTION)
    return lambda count: how.rate * unit(count * _RESOLUTION / how.steps)


def project(box: Box, code: jax.Array) -> jax.Array:
    """Codes (..., D) clipped to the box."""
    return jnp.clip(code, box.lower, box.upper)


class _Search(NamedTuple):
    """A line search along the projection of code + length * direction."""

    code: jax.Array  # (D,) the last accepted
    value: jax.Array  # () its objective
    uphill: jax.Array  # (D,) its gradient, 0 where a bound stops it
    direction: jax.Array  # (D,)
    length: jax.Array  # ()
    refused: jax.Array  # () int32, since the last accepted one
    memory: optax.OptState


def lbfgs(rate: float, memory: int = 10) -> Optimizer:
    """L-BFGS inside the box. `rate` is the largest mean step that an iteration may make.

    Every trial of the line search is a step, and is paid for.
    """
    inner = optax.scale_by_lbfgs(memory_size=memory)

    def init(how: How) -> _Search:
        nothing = jnp.zeros_like(how.start)
        zero = jnp.zeros((), how.start.dtype)
        return _Search(
            how.start, zero - jnp.inf, nothing, nothing, zero, jnp.int32(0), inner.init(how.start)
        )

    def ask(how: How, step: jax.Array, state: _Search):
        return project(how.box, state.code + state.length * state.direction)[None], state

    def tell(how: How, step: jax.Array, state: _Search, codes: jax.Array, seen: Seen) -> _Search:
        code, value, gradient = codes[0], seen.value[0], seen.gradient[0]
        promised = _ARMIJO * jnp.vdot(state.uphill, code - state.code)
        good = ascent.all_finite(value, gradient) & (value >= state.value + promised)
        return choose(good, accept(how, state, code, value, gradient), refuse(how, state))

    def accept(how: How, state: _Search, code, value, gradient) -> _Search:
        uphill = jnp.where(_stopped(how.box, code, gradient), 0.0, gradient)
        product, told = inner.update(-uphill, state.memory, code)
        direction = jnp.where(uphill == 0, 0.0, -product)
        rises = (jnp.vdot(direction, uphill) > 0) & ascent.all_finite(direction)
        direction = jnp.where(rises, direction, uphill)
        first = jnp.isneginf(state.value)
        longest = how.rate / jnp.abs(direction).mean()
        length = jnp.where(first | ~rises, longest, jnp.minimum(1.0, longest))
        length = jnp.where(jnp.isfinite(length), length, 0.0)
        return _Search(code, value, uphill, direction, length, jnp.int32(0), told)

    def refuse(how: How, state: _Search) -> _Search:
        shorter = state._replace(length=_SHRINK * state.length, refused=state.refused + 1)
        mean = jnp.abs(state.uphill).mean()
        length = jnp.where(mean > 0, 0.1 * how.rate / mean, 0.0)
        anew = shorter._replace(
            direction=state.uphill, length=length, memory=inner.init(state.code)
        )
        return choose(shorter.refused == _PATIENCE, anew, shorter)

    return Optimizer(GRADIENT, rate, init, ask, tell)


def spectral(rate: float) -> Optimizer:
    """Projected gradient steps of Barzilai & Borwein's length, whose mean stays within a tenth and
    three times `rate`."""

    def init(how: How):
        return how.start, how.start, jnp.zeros_like(how.start)  # code, code and gradient before

    def ask(how: How, step: jax.Array, state):
        return state[0][None], state

    def tell(how: How, step: jax.Array, state, codes: jax.Array, seen: Seen):
        code, gradient = codes[0], seen.gradient[0]
        moved, bent = code - state[1], state[2] - gradient
        mean = jnp.abs(gradient).mean()
        length = jnp.vdot(moved, moved) / jnp.abs(jnp.vdot(moved, bent)) * mean  # as a mean step
        length = jnp.where(jnp.isfinite(length), length, how.rate)
        length = jnp.where(step == 0, how.rate, jnp.clip(length, 0.1 * how.rate, 3 * how.rate))
        new = project(how.box, code + length * gradient / mean)
        return choose(ascent.all_finite(new), (new, code, gradient), (code, *state[1:]))

    return Optimizer(GRADIENT, rate, init, ask, tell)


def _stopped(box: Box, code: jax.Array, uphill: jax.Array) -> jax.Array:
    """Which units stand at a bound that the gradient points out of."""
    return ((code <= box.lower) & (uphill < 0)) | ((code >= box.upper) & (uphill > 0))
