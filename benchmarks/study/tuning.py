"""The rate of an optimizer: a sweep over rates from seeds that are not reported; costs of codes.

For every objective by itself the rate of the highest median over the seeds is chosen. Where that is
at an end of the sweep, rates beyond it are tried as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.speed.compare import time_in_turn
from benchmarks.study.cells import Costs, Work, evaluation, optimise_all
from benchmarks.study.problems import Group, part_of
from jaxsynth import programs
from jaxsynth.ask_tell import ASKS, VALUE, Optimizer
from jaxsynth.devices import share_rows


class Tuned(NamedTuple):
    """The findings of a sweep.

    Attributes:
      rates: (K,) in the order in which they were tried.
      best: (K, O, S) the best value found, -inf where a rate was not tried on an objective.
    """

    rates: np.ndarray
    best: np.ndarray


def tune(
    work: Work,
    optimizer: Optimizer,
    group: Group,
    costs: Costs,
    budget: float,
    rates: Sequence[float],
    seeds: Sequence[int],
    further: int,
) -> Tuned:
    """Sweep over rates, and over up to `further` beyond an end that is an objective's best.

    Steps of the further ones are told to `work.on_step` as made by no run.
    """
    count, untold = len(group.targets), work._replace(on_step=lambda runs: work.on_step(0))
    grid = np.repeat(np.asarray(rates)[:, None], count, axis=1)  # (K, O)
    tuned = Tuned(
        np.asarray(rates), optimise_all(work, optimizer, group, costs, budget, grid, seeds).best
    )
    for _ in range(further):
        ends = edges(tuned, optimizer.largest)
        if not ends.any():
            break
        for end in (1, -1):
            if len(which := np.flatnonzero(ends == end)):
                rate, own = min(_beyond(tuned.rates, end), optimizer.largest), part_of(group, which)
                grid = np.full((1, len(which)), rate)
                found = optimise_all(untold, optimizer, own, costs, budget, grid, seeds).best
                row = np.full((1, count, len(seeds)), -np.inf, found.dtype)
                row[:, which] = found
                tuned = Tuned(np.append(tuned.rates, rate), np.concatenate([tuned.best, row]))
    return tuned


def choose_rates(tuned: Tuned) -> np.ndarray:
    """Return the rate (O,) of the highest median over seeds, the first tried of equal ones."""
    return tuned.rates[np.median(tuned.best, axis=2).argmax(axis=0)]


def edges(tuned: Tuned, most: float) -> np.ndarray:
    """Return (O,): where an end of the rates that were tried on an objective is chosen.

    1 for the largest, if it is less than `most`, -1 for the smallest, else 0.
    """
    tried = np.isfinite(tuned.best).any(axis=2)  # (K, O)
    rates, chosen = tuned.rates[:, None], choose_rates(tuned)
    largest = np.where(tried, rates, -np.inf).max(axis=0)
    smallest = np.where(tried, rates, np.inf).min(axis=0)
    return ((chosen == largest) & (chosen < most)).astype(int) - (chosen == smallest)


def _beyond(rates: np.ndarray, end: int) -> float:
    """The next rate over the largest one (end 1), or under the smallest one, at equal distance."""
    rising = np.sort(rates)
    last, before = (rising[-1], rising[-2]) if end == 1 else (rising[0], rising[1])
    return float(last * (last / before))


def measured_costs(group: Group, asks: Sequence[str], starts: np.ndarray, batch: int) -> Costs:
    """Measure the cost of a code in forward passes, for each kind of evaluation.

    The evaluations are timed in turn, and the shortest times count: what else the machine does only
    ever adds. They are those of the cells, and compiled by them too.

    Args:
      group: Gives the evaluations.
      asks: Some of `ASKS`.
      starts: Any codes (R, D).
      batch: Codes per evaluation.
    """
    codes = starts[np.arange(share_rows(batch)) % len(starts)]
    structure, which = (leaf[:1] for leaf in group.problem.batch[1:3])

    def call(asked: str):
        given = evaluation(group.problem, asked, int(structure[0]), which, codes)
        return lambda: jax.block_until_ready(programs.respond_jit(*given))

    wanted = [asked for asked in ASKS if asked == VALUE or asked in asks]
    timings = time_in_turn({asked: call(asked) for asked in wanted}, repeats=15, budget=20.0)
    shortest = {asked: timing.seconds.min() for asked, timing in timings.items()}
    return {asked: float(seconds / shortest[VALUE]) for asked, seconds in shortest.items()}
