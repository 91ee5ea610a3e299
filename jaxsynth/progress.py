"""A chunk of runs under way, as host arrays: taken off the device, and put back bit for bit."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsynth.ascent import State, Trace


class Progress(NamedTuple):
    """What `sweep` needs to go on with a chunk.

    Attributes:
      state: the leaves of the runs' `State`, (B, ...) each; random keys as their data.
      trace: of the updates that have been made, leaves (done, B, ...).
      recorded: codes kept so far, by step, (B, D) each.
    """

    state: list[np.ndarray]
    trace: Trace
    recorded: dict[int, np.ndarray]

    @property
    def done(self) -> int:
        """Updates that have been made."""
        return len(self.trace.objective)


def host_leaves(state: State) -> list[np.ndarray]:
    """Copies of the leaves (the state is donated to the next step)."""
    plain = [jax.random.key_data(v) if _is_key(v) else v for v in jax.tree.leaves(state)]
    return [np.array(leaf) for leaf in plain]


def restore(like: State, leaves: Sequence[np.ndarray]) -> State:
    """Inverse of `host_leaves`; `like` is any state of the same recipe, batch and generator.

    Raises:
      ValueError: if they are the leaves of another state.
    """
    own, tree = jax.tree.flatten(like)
    made = [
        jax.random.wrap_key_data(jnp.asarray(leaf)) if _is_key(old) else jnp.asarray(leaf)
        for old, leaf in zip(own, leaves, strict=False)
    ]
    kinds = [[(leaf.dtype, leaf.shape) for leaf in tree] for tree in (own, made)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "a saved state is of another recipe, batch, generator, number of devices or version of "
            "jaxsynth or jaxlib: resume it as it was begun, or delete it to compute its chunk again"
        )
    return jax.tree.unflatten(tree, made)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
