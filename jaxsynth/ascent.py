"""One run: gradient steps of a code up the objective, projected into the box.

Pure functions of one unbatched run; `jaxsynth.chunks` maps them over many.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsynth.balance import value_and_gradient
from jaxsynth.models.network import Params
from jaxsynth.recipes import Box, Recipe, make_transform
from jaxsynth.system import (
    ENCODER,
    GENERATOR,
    AllActivations,
    System,
    Weights,
    encode,
    objective,
    shift,
)

_JITTER_ROOT = 1  # not the root of the start codes: the two draws of a seed are independent

Watch = Mapping[str, Mapping[str, jax.Array]]  # {network: {blob: flat indices (K,)}}


class State(NamedTuple):
    """A run under way. Codes are (D,); counters are scalars."""

    code: jax.Array
    optimizer: optax.OptState
    step: jax.Array
    forward_code: jax.Array  # the code of the last forward pass that was finite
    best_code: jax.Array
    best_value: jax.Array
    ended: jax.Array  # step that ended the run before its last, or -1
    sound: jax.Array  # bool: False if something that is not finite ended it, not a zero gradient
    key: jax.Array | None = None  # of the run's jitter; None without


class Trace(NamedTuple):
    """What one step records, at the code *before* its update, of the image as it was seen then."""

    objective: jax.Array  # ()
    watched: dict[str, dict[str, jax.Array]]  # {network: {blob: (K,)}}


class Evaluation(NamedTuple):
    """A code looked at: its objective, watched activations, image (H, W, 3) BGR mean-subtracted."""

    objective: jax.Array
    watched: dict[str, dict[str, jax.Array]]
    image: jax.Array


def init(recipe: Recipe, code: jax.Array, seed: jax.Array | None = None) -> State:
    """State of a run that starts from `code` (D,); its seed () uint32 decides the jitter."""
    key = jax.random.fold_in(jax.random.key(_JITTER_ROOT), seed) if recipe.jitter else None
    return State(
        code=code,
        optimizer=make_transform(recipe).init(code),
        step=jnp.zeros((), jnp.int32),
        forward_code=code,
        best_code=code,
        best_value=jnp.full((), -jnp.inf, code.dtype),
        ended=jnp.full((), -1, jnp.int32),
        sound=jnp.ones((), bool),
        key=key,
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
    """One update, unless the run has ended. A zero gradient ends it where it is.

    Where the image, a watched activation or the objective is not finite, the run ends at the code
    before; where only the gradient or the update is not, at this one. With jitter, `best_value` is
    that of the moved image.
    """
    code = state.code
    value, activations, gradient = value_and_gradient(
        system, balance, params, code, weights, state.step, _look(recipe, state)
    )
    image = activations[GENERATOR][system.image]
    pull = encode(system.encoder, params[ENCODER], image) - code if recipe.prior else None
    moved, optimizer = move(recipe, box, code, state.optimizer, gradient, pull)

    watched = watched_units(image, activations, watch)
    good = all_finite(value, image, watched)
    sound = good & all_finite(gradient)
    zero = sound & (jnp.abs(gradient).mean() == 0)
    running = state.ended < 0
    finite = sound & all_finite(moved)
    better = running & good & (value > state.best_value)
    go = running & finite & ~zero
    seen = jnp.where(running & ~good, state.forward_code, code)  # the last code that was finite
    new = State(
        code=jnp.where(go, moved, seen),
        optimizer=jax.tree.map(lambda a, b: jnp.where(go, a, b), optimizer, state.optimizer),
        step=state.step + 1,
        forward_code=seen,
        best_code=jnp.where(better, code, state.best_code),
        best_value=jnp.where(better, value, state.best_value),
        ended=jnp.where(running & ~go, state.step, state.ended),
        sound=state.sound & (~running | finite),
        key=state.key,
    )
    return new, Trace(value, watched)


def move(
    recipe: Recipe,
    box: Box,
    code: jax.Array,
    optimizer: optax.OptState,
    gradient: jax.Array,
    pull: jax.Array | None,
) -> tuple[jax.Array, optax.OptState]:
    """A code (D,) after one update, decayed and projected, and the optimizer's new state.

    `gradient` (D,) points uphill; `pull` (D,) is E(G(z)) - z, which only a prior term needs.
    """
    updates, optimizer = make_transform(recipe).update(-gradient, optimizer, code)
    moved = optax.apply_updates(code, updates)
    if recipe.prior:
        moved += recipe.prior * pull
    return _project(recipe, box, moved), optimizer


def all_finite(*trees: Any) -> jax.Array:
    """Whether every number of these arrays is finite, ().

    XLA's ReLU and pooling can swallow a NaN, so the image has to be among them.
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trees)]).all()


def evaluate(
    system: System,
    params: Mapping[str, Params],
    weights: Weights,
    watch: Watch,
    code: jax.Array,
) -> Evaluation:
    """Objective, watched activations and image of a code (D,)."""
    value, activations = objective(system, params, code, weights)
    image = activations[GENERATOR][system.image]
    return Evaluation(value, watched_units(image, activations, watch), image)


def watched_units(
    image: jax.Array, activations: AllActivations, watch: Watch
) -> dict[str, dict[str, jax.Array]]:
    """The watched units: {network: {blob: (K,)}}, flat indices into each blob (C order, HWC).

    All NaN where the image is not finite: what a classifier makes of that means nothing.
    """
    finite = jnp.isfinite(image).all()

    def pick(blob, index):
        return jnp.where(finite, blob.ravel()[index].astype(image.dtype), jnp.nan)

    return {
        role: {name: pick(activations[role][name], index) for name, index in blobs.items()}
        for role, blobs in watch.items()
    }


def _look(recipe: Recipe, state: State) -> Callable[[jax.Array], jax.Array]:
    """How the classifiers see the image (H, W, 3) at this step: as it is, or moved at random."""
    if not recipe.jitter:
        return lambda image: image
    key = jax.random.fold_in(state.key, state.step)
    offset = jax.random.randint(key, (2,), -recipe.jitter, recipe.jitter + 1, jnp.int32)
    return lambda image: shift(image, offset, recipe.jitter)


def _project(recipe: Recipe, box: Box, code: jax.Array) -> jax.Array:
    if recipe.decay_when == "before":
        code = recipe.decay * code
    code = optax.projections.projection_box(code, box.lower, box.upper)
    if recipe.decay_when == "after":
        code = recipe.decay * code
    return code
