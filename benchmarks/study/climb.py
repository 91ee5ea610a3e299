"""One optimizer's runs to a budget: what they found, and when.

Cost is counted in forward passes of the climbed networks: a code whose gradient is asked for counts
by measured time (`costs`). Networks see codes in rows of a fixed number, whatever the
optimizer's population, so one compiled evaluation of each kind serves every optimizer, rate, seed
and objective of a group.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.study.problems import Group
from jaxsynth.balance import value_and_gradient
from jaxsynth.models.cpu_convolution import network_jit
from jaxsynth.models.network import Params
from jaxsynth.optimizers import PRIOR, VALUE, Optimizer, Seen, Setting, State, project
from jaxsynth.parts import share_rows
from jaxsynth.recipes import Box
from jaxsynth.system import ENCODER, GENERATOR, System, encode, objective, params_of

_NOISE_ROOT = 2  # not the root of the start codes nor that of the jitter
Costs = Mapping[str, float]  # of a code by what is asked of it, in forward passes


class Runs(NamedTuple):
    """Runs as data, every leaf with a leading axis R."""

    starts: np.ndarray  # (R, D) inside the box
    rates: np.ndarray  # (R,)
    seeds: np.ndarray  # (R,) uint32
    weights: Mapping[str, Mapping[str, np.ndarray]]  # leaves (R, *blob shape)


class Found(NamedTuple):
    """What runs found, the start codes included, leading axis R."""

    start: np.ndarray  # (R,) objective of the start code, which is not charged
    best: np.ndarray  # (R,)
    codes: np.ndarray  # (R, D) of the best
    curve: np.ndarray  # (R, G) best at the marks


def step_cost(optimizer: Optimizer, costs: Costs) -> float:
    """Forward passes that a step is charged."""
    return optimizer.population * costs[optimizer.asks]


def steps_within(optimizer: Optimizer, costs: Costs, budget: float) -> int:
    """Setting many steps a budget of forward passes pays for.

    Raises:
      ValueError: if it is none.
    """
    cost = step_cost(optimizer, costs)
    steps = int(budget / cost + 1e-9)
    if steps < 1:
        raise ValueError(f"budget {budget:g} does not pay for one step, which costs {cost:.3g}")
    return steps


def check_batch(optimizer: Optimizer, batch: int) -> None:
    """Raises ValueError unless a population fits into `batch` codes."""
    if optimizer.population > batch:
        raise ValueError(
            f"batch is {batch}, but a population has {optimizer.population} codes: a batch of "
            f"{optimizer.population} or more holds it"
        )


def climb(
    optimizer: Optimizer,
    group: Group,
    runs: Runs,
    box: Box,
    costs: Costs,
    budget: float,
    marks: Sequence[float],
    batch: int,
    on_step: Callable[[int], None] = lambda runs: None,
) -> Found:
    """Runs to `budget`, as many at once as their populations fit into `batch` codes.

    Args:
      runs: see `Runs`; their weights are those of the group's objectives.
      marks: costs at which the best is noted, rising.
      batch: codes per evaluation.
      on_step: called after every step with the number of runs that made it.

    Raises:
      ValueError: if the budget does not pay for a step, or a population is larger than `batch`.
    """
    check_batch(optimizer, batch)
    steps = steps_within(optimizer, costs, budget)
    total, at_once = len(runs.seeds), batch // optimizer.population
    found = []
    for first in range(0, total, at_once):
        rows = np.minimum(first + np.arange(at_once), total - 1)
        chunk = jax.tree.map(lambda leaf, i=rows: jnp.asarray(leaf[i]), runs)
        tell = functools.partial(on_step, min(at_once, total - first))
        done = _climb_chunk(optimizer, group, chunk, box, costs, steps, marks, batch, tell)
        found.append(jax.tree.map(lambda leaf, n=total - first: leaf[:n], done))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


class _Best(NamedTuple):
    value: jax.Array  # (R,)
    code: jax.Array  # (R, D)


def _climb_chunk(optimizer, group, runs: Runs, box, costs, steps, marks, batch, on_step) -> Found:
    width = len(runs.seeds) * optimizer.population
    place = np.minimum(np.arange(share_rows(batch)), width - 1) // optimizer.population
    weights = jax.tree.map(lambda leaf: leaf[place], runs.weights)
    params = params_for(group, optimizer.asks)
    start = start_values(group, runs, batch)
    how = _how(runs, jnp.float32(steps), box)
    state, best = _init(optimizer, how), _Best(jnp.asarray(start), how.start)
    trace = []
    for step in range(steps):
        codes, state = _ask(optimizer, len(place), how, jnp.float32(step), state)
        seen = see(group.system, optimizer.asks, params, weights, codes)
        state, best = _tell(optimizer, how, jnp.float32(step), state, codes, seen, best)
        trace.append(best.value)
        on_step()
    cost = step_cost(optimizer, costs) * np.arange(steps + 1)
    values = np.stack([np.asarray(v) for v in (start, *trace)])  # (steps + 1, R)
    at = np.searchsorted(cost, np.asarray(marks) + 1e-6, side="right") - 1
    return Found(start, np.asarray(best.value), np.asarray(best.code), values[at].T)


def start_values(group: Group, runs: Runs, batch: int) -> np.ndarray:
    """The objective of the runs' start codes, (R,)."""
    total, rows = len(runs.seeds), share_rows(batch)
    values = []
    for first in range(0, total, batch):
        place = np.minimum(first + np.arange(rows), total - 1)
        weights = jax.tree.map(lambda leaf, i=place: leaf[i], runs.weights)
        seen = see(group.system, VALUE, params_for(group, VALUE), weights, runs.starts[place])
        values.append(np.asarray(seen.value)[:batch])
    return np.concatenate(values)[:total]


def params_for(group: Group, kind: str) -> Mapping[str, Params]:
    """The parameters that an evaluation of this kind takes."""
    return params_of(_used(group.system, kind), group.params)


def _used(system: System, kind: str) -> System:
    return system if kind == PRIOR else system._replace(encoder=None)


def _see_one(system: System, kind: str, params, weights, code: jax.Array) -> Seen:
    """What a code (D,) is worth; leaves without the axis P."""
    if kind == VALUE:
        return Seen(objective(system, params, code, weights)[0])
    value, activations, gradient = value_and_gradient(
        system, "sum", params, code, weights, jnp.int32(0)
    )
    if kind != PRIOR:
        return Seen(value, gradient)
    image = activations[GENERATOR][system.image]
    return Seen(value, gradient, encode(system.encoder, params[ENCODER], image) - code)


# Module-level, so that every climb of a process shares their caches.
@functools.partial(network_jit, static_argnums=(0, 1))
def see(system: System, kind: str, params, weights, codes: jax.Array) -> Seen:
    """What codes (N, D) are worth under their own weights, leaves (N, ...)."""
    used = _used(system, kind)
    return jax.vmap(lambda w, z: _see_one(used, kind, params, w, z))(weights, codes)


@jax.jit
def _how(runs: Runs, steps: jax.Array, box: Box) -> Setting:
    root = jax.random.key(_NOISE_ROOT)
    keys = jax.vmap(lambda seed: jax.random.fold_in(root, seed))(runs.seeds)
    return Setting(runs.starts, runs.rates, keys, steps, box)


_RUN_AXES = Setting(start=0, rate=0, key=0, steps=None, box=None)


@functools.partial(jax.jit, static_argnums=0)
def _init(optimizer: Optimizer, how: Setting) -> State:
    return jax.vmap(optimizer.init, (_RUN_AXES,))(how)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _ask(optimizer: Optimizer, rows: int, how: Setting, step: jax.Array, state: State):
    """Codes of all runs one below the other, inside the box, (rows, D); the last is repeated."""
    codes, state = jax.vmap(optimizer.ask, (_RUN_AXES, None, 0))(how, step, state)
    flat = project(how.box, codes).reshape(-1, codes.shape[-1])
    return flat[jnp.minimum(jnp.arange(rows), len(flat) - 1)], state


@functools.partial(jax.jit, static_argnums=0)
def _tell(
    optimizer: Optimizer,
    how: Setting,
    step: jax.Array,
    state: State,
    codes,
    seen: Seen,
    best: _Best,
) -> tuple[State, _Best]:
    count = best.value.shape[0] * optimizer.population

    def by_run(leaf):
        return leaf[:count].reshape(-1, optimizer.population, *leaf.shape[1:])

    codes, seen = jax.tree.map(by_run, (codes, seen))
    state = jax.vmap(optimizer.tell, (_RUN_AXES, None, 0, 0, 0))(how, step, state, codes, seen)
    values = jnp.where(jnp.isfinite(seen.value), seen.value, -jnp.inf)  # (R, P)
    place = jnp.argmax(values, axis=1)
    value = jnp.take_along_axis(values, place[:, None], axis=1)[:, 0]
    code = jnp.take_along_axis(codes, place[:, None, None], axis=1)[:, 0]
    better = value > best.value
    return state, _Best(
        jnp.where(better, value, best.value), jnp.where(better[:, None], code, best.code)
    )
