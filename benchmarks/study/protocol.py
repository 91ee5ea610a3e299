"""What an optimizer is here: it is asked for codes and told what they are worth.

Everything is one unbatched run, a pure function; `benchmarks.study.climb` maps it over many. The
codes that are evaluated are always inside the box: the climb projects what `ask` proposes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsynth.recipes import Box

# What an optimizer wants to know of a code, and so what it pays for.
VALUE = "value"  # the objective: a forward pass
GRADIENT = "gradient"  # and its gradient
PRIOR = "gradient and prior"  # and what the generator's encoder reads from the image
KINDS = (VALUE, GRADIENT, PRIOR)

State = Any


class How(NamedTuple):
    """What decides a run beside its objective.

    Attributes:
      start: the code (D,) that it starts from, inside the box.
      rate: size of its steps, or spread of its population, ().
      key: of its own draws.
      steps: how many it makes, () float.
      box: bounds of the code.
    """

    start: jax.Array
    rate: jax.Array
    key: jax.Array
    steps: jax.Array
    box: Box


class Seen(NamedTuple):
    """What the codes of one step are worth: values (P,); gradients and pulls (P, D), or None.

    A gradient points uphill; a pull is E(G(z)) - z.
    """

    value: jax.Array
    gradient: jax.Array | None = None
    pull: jax.Array | None = None


class Optimizer(NamedTuple):
    """An entry of the table.

    Attributes:
      kind: one of `KINDS`.
      rate: the rate that it is tuned around.
      init: How -> state.
      ask: (How, step (), state) -> (codes (P, D), state).
      tell: (How, step (), state, codes (P, D) in the box, Seen) -> state.
      population: P, the codes of one step.
      spread: power to which the factors of a tuning sweep are raised; 0 for an entry that is taken
        as it is.
      largest: the largest rate that means anything, such as a right angle.
    """

    kind: str
    rate: float
    init: Callable[[How], State]
    ask: Callable[[How, jax.Array, State], tuple[jax.Array, State]]
    tell: Callable[[How, jax.Array, State, jax.Array, Seen], State]
    population: int = 1
    spread: float = 1.0
    largest: float = float("inf")

    def rates(self, factors: tuple[float, ...]) -> tuple[float, ...]:
        """The rates of a tuning sweep, each once."""
        asked = (self.rate * factor**self.spread for factor in factors)
        return tuple(dict.fromkeys(min(rate, self.largest) for rate in asked))


def choose(condition: jax.Array, new: State, old: State) -> State:
    """`new` where the condition () holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
