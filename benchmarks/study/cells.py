"""A benchmark's parts: an optimizer on all objectives of a group and all seeds, at a budget.

Pure. Arrays have an axis of the group's objectives O, then one of seeds S.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.study.climb import Costs, Found, Runs, climb, start_values, step_cost
from benchmarks.study.problems import Group, part_of
from jaxsynth.optimizers import Optimizer
from jaxsynth.recipes import RECIPES, Box, start_codes

START = RECIPES["goh"]  # every optimizer starts from N(0, 1) clipped to the box
_START_ROOT = 0  # that of the experiments: a seed is the same start there and here
MARKS = 40  # costs at which the best is noted


class Work(NamedTuple):
    """What every cell of a benchmark has in common."""

    box: Box
    batch: int
    on_step: Callable[[int], None] = lambda runs: None


def marks(budget: float) -> np.ndarray:
    """Costs (MARKS,) at which the best is noted, evenly spaced up to the budget."""
    return budget * np.arange(1, MARKS + 1) / MARKS


def starts(box: Box, seeds: Sequence[int]) -> np.ndarray:
    """Start codes (S, D)."""
    return np.asarray(start_codes(START, box, jax.random.key(_START_ROOT), np.asarray(seeds)))


def check_starts(work: Work, group: Group, seeds: Sequence[int]) -> None:
    """Raises ValueError where an objective is not finite at the start code of a seed: nothing could
    be compared with what is found from there."""
    runs = _runs(work, group, np.ones(len(group.objectives)), seeds)
    values = start_values(group, runs, work.batch).reshape(-1, len(seeds))  # (O, S)
    for o, s in np.argwhere(~np.isfinite(values)):
        raise ValueError(
            f"objective {group.objectives[o].name!r} is {values[o, s]} at the start of seed "
            f"{seeds[s]}: expected one that is finite there"
        )


def climb_all(
    work: Work,
    optimizer: Optimizer,
    group: Group,
    costs: Costs,
    budget: float,
    rates: np.ndarray,
    seeds: Sequence[int],
) -> Found:
    """What is found of every objective from every seed S with rates (..., O), leaves
    (..., O, S, ...)."""
    runs, shape = _runs(work, group, rates, seeds), (*rates.shape, len(seeds))
    found = climb(
        optimizer, group, runs, work.box, costs, budget, marks(budget), work.batch, work.on_step
    )
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)


def _runs(work: Work, group: Group, rates: np.ndarray, seeds: Sequence[int]) -> Runs:
    """Every objective from every seed S with rates (..., O), one below the other."""
    seeds, shape = np.asarray(seeds, np.uint32), (*rates.shape, len(seeds))
    rates, which = (
        np.broadcast_to(a[..., None], shape).ravel()
        for a in (rates.astype(np.float32), np.arange(rates.shape[-1]))
    )
    repeats = len(rates) // len(seeds)
    return Runs(
        starts=np.tile(starts(work.box, seeds), (repeats, 1)),
        rates=rates,
        seeds=np.tile(seeds, repeats),
        weights=jax.tree.map(lambda leaf: leaf[which], group.weights),
    )


def warm_up(work: Work, optimizer: Optimizer, group: Group, costs: Costs) -> None:
    """Compiles what a cell needs, by one step. Nobody is told of it."""
    untold, one = work._replace(on_step=lambda runs: None), part_of(group, [0])
    climb_all(untold, optimizer, one, costs, step_cost(optimizer, costs), np.ones(1), [0])
