"""The cost of a code, with or without its gradient. An edge module: it holds the clock."""

from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.speed.timing import time_in_turn
from benchmarks.study.cells import Costs, evaluation
from benchmarks.study.problems import Group
from jaxsynth import programs
from jaxsynth.ask_tell import ASKS, VALUE
from jaxsynth.devices import share_rows


def measured_costs(group: Group, asks: Sequence[str], starts: np.ndarray, batch: int) -> Costs:
    """Measure what a code costs by what is asked of it, in forward passes.

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
