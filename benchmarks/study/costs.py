"""What a code costs by what is asked of it. An edge module: it holds the clock."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.timing import time_in_turn
from benchmarks.study.climb import Costs, params_for, see
from benchmarks.study.problems import Group
from jaxsynth.optimizers import ASKS, VALUE
from jaxsynth.parts import share_rows


def measured_costs(group: Group, kinds: Sequence[str], starts: np.ndarray, batch: int) -> Costs:
    """What a code costs by what is asked of it, in forward passes: measured in turn.

    The shortest times count: what else the machine does only ever adds.
    `starts` (R, D) are any codes; the evaluations are those of the climb, and compiled by it too.
    """
    rows = share_rows(batch)
    codes = jnp.asarray(starts[np.arange(rows) % len(starts)])
    weights = jax.tree.map(lambda leaf: jnp.asarray(leaf[np.zeros(rows, int)]), group.weights)

    def call(kind):
        given = (group.system, kind, params_for(group, kind), weights, codes)
        return lambda: jax.block_until_ready(see(*given))

    wanted = [kind for kind in ASKS if kind == VALUE or kind in kinds]
    timings = time_in_turn({kind: call(kind) for kind in wanted}, repeats=15, budget=20.0)
    shortest = {kind: timing.seconds.min() for kind, timing in timings.items()}
    return {kind: float(seconds / shortest[VALUE]) for kind, seconds in shortest.items()}
