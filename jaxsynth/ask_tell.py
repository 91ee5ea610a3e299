"""The protocol of optimizers: asked for codes, told their values.

An optimizer is a tuple of pure functions of one run; `jaxsynth.chunks` maps them over many.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Kinds of evaluation that an optimizer asks for, and pays for.
VALUE = "value"  # the objective: a forward pass
GRADIENT = "gradient"  # and its gradient
PRIOR = "gradient and prior"  # and the code that the generator's encoder reads from the image
ASKS = (VALUE, GRADIENT, PRIOR)
State = Any


class Box(NamedTuple):
    """Bounds of the code, each (D,); infinite where there is none."""

    lower: jax.Array
    upper: jax.Array


class Setting(NamedTuple):
    """Everything but the objective that decides a run.

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
    """The evaluation of one step's codes: values (P,); gradients and pulls (P, D), or None.

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
