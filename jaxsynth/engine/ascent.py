"""One run: gradient steps of a code up the objective, projected into the box.

Pure functions of one unbatched run; `jaxsynth.engine.sweep` maps them over many.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.engine.balance import value_and_gradient
from jaxsynth.engine.objective import GENERATOR, AllActivations, System, Weights, objective
from jaxsynth.engine.recipes import Box, Recipe, make_transform
from jaxsynth.networks.network import Params

Watch = Mapping[str, Mapping[str, jax.Array]]  # {network: {blob: flat indices (K,)}}


class State(NamedTuple):
    """A run under way. Codes are (D,); counters are scalars."""

    code: jax.Array
    optimizer: optax.OptState
    step: jax.Array
    forward_code: jax.Array  # the code of the last forward pass
    best_code: jax.Array
    best_value: jax.Array
    ended: jax.Array  # step at which a zero gradient ended the run, or -1
    skipped: jax.Array  # updates skipped for a non-finite gradient


class Trace(NamedTuple):
    """What one step records, at the code *before* its update."""

    objective: jax.Array  # ()
    watched: dict[str, dict[str, jax.Array]]  # {network: {blob: (K,)}}


class Evaluation(NamedTuple):
    """A code looked at: its objective, watched activations, image (H, W, 3) BGR mean-subtracted."""

    objective: jax.Array
    watched: dict[str, dict[str, jax.Array]]
    image: jax.Array


def init(recipe: Recipe, code: jax.Array) -> State:
    """State of a run that starts from `code` (D,)."""
    return State(
        code=code,
        optimizer=make_transform(recipe).init(code),
        step=jnp.zeros((), jnp.int32),
        forward_code=code,
        best_code=code,
        best_value=jnp.full((), -jnp.inf, code.dtype),
        ended=jnp.full((), -1, jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
    )


def step(
    system: System,
    recipe: Recipe,
    balance: str,
    params: Mapping[str, Params],
    weights: Weights,
    watch: Watch,
    box: Box,
    state: State,
) -> tuple[State, Trace]:
    """One update. A zero gradient ends the run; a non-finite one skips the update."""
    code = state.code
    value, activations, gradient = value_and_gradient(
        system, balance, params, code, weights, state.step
    )
    updates, optimizer = make_transform(recipe).update(-gradient, state.optimizer, code)
    moved = _project(recipe, box, optax.apply_updates(code, updates))

    # XLA's ReLU and pooling can swallow a NaN, so the image is looked at as well.
    image = activations[GENERATOR][system.image]
    sound = jnp.isfinite(gradient).all() & jnp.isfinite(value) & jnp.isfinite(image).all()
    zero = sound & (jnp.abs(gradient).mean() == 0)
    ended = jnp.where((state.ended < 0) & zero, state.step, state.ended)
    finite = sound & jnp.isfinite(moved).all()
    running = ended < 0
    better = jnp.isfinite(value) & (value > state.best_value)
    go = running & finite
    new = State(
        code=jnp.where(go, moved, code),
        optimizer=jax.tree.map(lambda a, b: jnp.where(go, a, b), optimizer, state.optimizer),
        step=state.step + 1,
        forward_code=code,
        best_code=jnp.where(better, code, state.best_code),
        best_value=jnp.where(better, value, state.best_value),
        ended=ended,
        skipped=state.skipped + (running & ~finite),
    )
    return new, Trace(value, _watched(system, activations, watch))


def evaluate(
    system: System,
    params: Mapping[str, Params],
    weights: Weights,
    watch: Watch,
    code: jax.Array,
) -> Evaluation:
    """Objective, watched activations and image of a code (D,)."""
    value, activations = objective(system, params, code, weights)
    return Evaluation(
        value, _watched(system, activations, watch), activations[GENERATOR][system.image]
    )


def _watched(
    system: System, activations: AllActivations, watch: Watch
) -> dict[str, dict[str, jax.Array]]:
    """The watched units: {network: {blob: (K,)}}, flat indices into each blob (C order, HWC).

    All NaN where the image is not finite: what a classifier makes of that means nothing.
    """
    finite = jnp.isfinite(activations[GENERATOR][system.image]).all()

    def pick(blob, index):
        return jnp.where(finite, blob.ravel()[index], jnp.nan)

    return {
        role: {name: pick(activations[role][name], index) for name, index in blobs.items()}
        for role, blobs in watch.items()
    }


def _project(recipe: Recipe, box: Box, code: jax.Array) -> jax.Array:
    if recipe.decay_when == "before":
        code = recipe.decay * code
    code = optax.projections.projection_box(code, box.lower, box.upper)
    if recipe.decay_when == "after":
        code = recipe.decay * code
    return code
