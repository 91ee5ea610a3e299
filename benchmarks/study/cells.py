"""Cells of the study: one optimizer on all objectives of a group from all seeds, at a budget.

Cost is counted in forward passes: a code whose gradient is asked for counts by measured time
(`tuning`). Networks see codes in rows of a fixed number, whatever the optimizer's population. So
one compiled evaluation of each kind serves a group's every optimizer, rate, seed and objective.
Arrays have an axis of the group's objectives O, then one of seeds S.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.study.problems import START, Group, asking, part_of, problem_for
from jaxsynth import programs
from jaxsynth.ask_tell import VALUE, Box, Optimizer
from jaxsynth.batch import Batch, Problem
from jaxsynth.chunks import execute
from jaxsynth.devices import padded, share_rows
from jaxsynth.goals import RunData
from jaxsynth.starts import start_codes
from jaxsynth.system import GENERATOR, START_CODE, params_of

_NOISE_ROOT = 7  # of objectives' noise; not an optimizer's own draws
_START_ROOT = 0  # that of the experiments: a seed is the same start there and here
MARKS = 40  # costs at which the best is noted
Costs = Mapping[str, float]  # of a code in forward passes, by kind of evaluation


class Work(NamedTuple):
    """Settings of all cells of a study: the code box, who is told of steps, noise of objectives."""

    box: Box
    on_step: Callable[[int], None] = lambda runs: None
    noise: float = 0.0


class Found(NamedTuple):
    """Findings of runs, the start codes included, leading axis R.

    Attributes:
      start: (R,) objective of the start code, which is not charged.
      best: (R,) the highest objective.
      codes: (R, D) of the best.
      curve: (R, MARKS) best at the marks.
    """

    start: np.ndarray
    best: np.ndarray
    codes: np.ndarray
    curve: np.ndarray


def marks(budget: float) -> np.ndarray:
    """Return costs (MARKS,) at which the best is noted, evenly spaced up to the budget."""
    return budget * np.arange(1, MARKS + 1) / MARKS


def step_cost(optimizer: Optimizer, costs: Costs) -> float:
    """Return the forward passes that a step is charged."""
    return optimizer.population * costs[optimizer.asks]


def steps_within(optimizer: Optimizer, costs: Costs, budget: float) -> int:
    """Return how many steps a budget of forward passes pays for.

    Raises:
      ValueError: If it is none.
    """
    cost = step_cost(optimizer, costs)
    steps = int(budget / cost + 1e-9)
    if steps < 1:
        raise ValueError(f"budget {budget:g} does not pay for one step, which costs {cost:.3g}")
    return steps


def check_batch(optimizer: Optimizer, batch: int) -> None:
    """Raise ValueError unless a population fits into `batch` codes."""
    if optimizer.population > batch:
        raise ValueError(
            f"batch is {batch}, but a population has {optimizer.population} codes: a batch of "
            f"{optimizer.population} or more holds it"
        )


def starts(box: Box, seeds: Sequence[int]) -> np.ndarray:
    """Return start codes (S, D)."""
    return np.asarray(start_codes(START, box, jax.random.key(_START_ROOT), np.asarray(seeds)))


def check_starts(work: Work, group: Group, seeds: Sequence[int]) -> None:
    """Check that every objective is finite at the start codes of all seeds.

    Raises:
      ValueError: Naming an objective and a seed: nothing could be compared with what is found.
    """
    runs, shape = _runs(work.box, group, np.ones(len(group.targets)), seeds)
    values = start_values(group, runs).reshape(shape)  # (O, S)
    for o, s in np.argwhere(~np.isfinite(values)):
        raise ValueError(
            f"objective {group.targets[o].name!r} is {values[o, s]} at the start of seed "
            f"{seeds[s]}: expected one that is finite there"
        )


def optimise_all(
    work: Work,
    optimizer: Optimizer,
    group: Group,
    costs: Costs,
    budget: float,
    rates: np.ndarray,
    seeds: Sequence[int],
) -> Found:
    """Maximise every objective from every seed S with rates (..., O).

    Returns:
      What was found, leaves (..., O, S, ...).

    Raises:
      ValueError: If the budget does not pay for a step, or a population is larger than the batch.
    """
    runs, shape = _runs(work.box, group, rates, seeds)
    found = optimise(work, optimizer, group, runs, costs, budget)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)


def optimise(
    work: Work, optimizer: Optimizer, group: Group, runs: Batch, costs: Costs, budget: float
) -> Found:
    """Maximise as many runs at once as their populations fit into the codes of an evaluation."""
    check_batch(optimizer, group.problem.settings.batch)
    steps = steps_within(optimizer, costs, budget)
    told_of = with_noise(optimizer, work.noise)
    problem = problem_for(group, told_of, steps)._replace(batch=runs, box=work.box)
    start = start_values(group, runs)
    told = _Told(work.on_step)
    done = list(execute(problem, on_step=told, evaluate=False))
    best, codes, trace = (
        np.concatenate(parts)
        for parts in zip(
            *((c.state.best_value, c.state.best_code, c.trace.objective) for c in done), strict=True
        )
    )
    better = best > start
    values = np.concatenate([start[:, None], trace], axis=1)  # (R, steps + 1)
    values = np.maximum.accumulate(np.where(np.isfinite(values), values, -np.inf), axis=1)
    cost = step_cost(optimizer, costs) * np.arange(steps + 1)
    at = np.searchsorted(cost, marks(budget) + 1e-6, side="right") - 1
    return Found(
        start=start,
        best=np.where(better, best, start),
        codes=np.where(better[:, None], codes, runs.codes),
        curve=values[:, at],
    )


@functools.cache
def with_noise(optimizer: Optimizer, level: float) -> Optimizer:
    """Let an optimizer be told value (1 + level N(0, 1)); gradients are exact.

    What a run has found is told of without noise.
    """
    if not level:
        return optimizer

    def tell(setting, step, state, asked, seen):
        key = jax.random.fold_in(jax.random.fold_in(setting.key, _NOISE_ROOT), step)
        noise = jax.random.normal(key, seen.value.shape, seen.value.dtype)
        noisy = seen._replace(value=seen.value * (1 + level * noise))
        return optimizer.tell(setting, step, state, asked, noisy)

    return optimizer._replace(tell=tell)


class _Told:
    """Tells how many run-steps were made since the last call."""

    def __init__(self, on_step: Callable[[int], None]):
        self._on_step, self._chunk, self._done = on_step, -1, 0

    def __call__(self, first: int, done: int, values: np.ndarray, snapshot: Any) -> None:
        if first != self._chunk:
            self._chunk, self._done = first, 0
        self._on_step(len(values) * (done - self._done))
        self._done = done


def start_values(group: Group, runs: Batch) -> np.ndarray:
    """Return the objective of the runs' start codes, (R,)."""
    batch = group.problem.settings.batch
    values = np.zeros(len(runs.seeds), runs.codes.dtype)
    for structure in np.unique(runs.structure):
        own = np.flatnonzero(runs.structure == structure)
        for first in range(0, len(own), batch):
            rows = own[first : first + batch]
            given = evaluation(group.problem, VALUE, structure, runs.which[rows], runs.codes[rows])
            values[rows] = np.asarray(programs.respond_jit(*given).value)[: len(rows)]
    return values


def evaluation(
    problem: Problem, asks: str, structure: int, which: np.ndarray, codes: np.ndarray
) -> tuple:
    """Return the arguments of an evaluation of codes (N, D) by objectives (N,), rows repeated."""
    request, _, goals = asking(problem, asks).structures[structure]
    which, codes = padded((which, codes), share_rows(problem.settings.batch))
    goal, codes = jax.tree.map(lambda leaf: jnp.asarray(leaf[which]), goals), jnp.asarray(codes)
    run = RunData(goal, start=codes if START_CODE in goals.linear.get(GENERATOR, {}) else None)
    return request, None, params_of(request.system, problem.params), run, codes, jnp.int32(0)


def warm_up(work: Work, optimizer: Optimizer, group: Group, costs: Costs) -> None:
    """Compile what a cell needs, by one step. Nobody is told of it."""
    untold, one = work._replace(on_step=lambda runs: None), part_of(group, [0])
    optimise_all(untold, optimizer, one, costs, step_cost(optimizer, costs), np.ones(1), [0])


def _runs(
    box: Box, group: Group, rates: np.ndarray, seeds: Sequence[int]
) -> tuple[Batch, tuple[int, ...]]:
    """Every objective from every seed with rates (..., O), one below the other; (..., O, S)."""
    seeds, shape = np.asarray(seeds, np.uint32), (*rates.shape, len(seeds))
    rates, place = (
        np.broadcast_to(a[..., None], shape).ravel()
        for a in (rates.astype(np.float32), np.asarray(group.places))
    )
    repeats, template = len(rates) // len(seeds), group.problem.batch
    batch = Batch(
        codes=np.tile(starts(box, seeds), (repeats, 1)),
        structure=template.structure[place],
        which=template.which[place],
        seeds=np.tile(seeds, repeats),
        rates=rates,
    )
    return batch, shape
