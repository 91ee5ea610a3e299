"""Optimizers that estimate curvature inside the box: L-BFGS and the spectral step.

Sources: L-BFGS with optax's two-loop product (Nocedal & Wright 2006), the units at a bound held as
in Bertsekas 1982, Armijo backtracking along the projection; `spectral` is the projected gradient
with Barzilai & Borwein's step (Birgin, Martinez & Raydan 2000), here without a line search.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.ask_tell import (
    GRADIENT,
    Box,
    Optimizer,
    Seen,
    Setting,
    all_finite,
    choose,
    project,
    rate_of,
)

_ARMIJO = 1e-4
_SHRINK = 0.3
_PATIENCE = 4  # refused steps after which L-BFGS restarts from the gradient


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
