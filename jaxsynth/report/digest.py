"""What the pages need of every run, gathered chunk by chunk: small beside the results."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.engine.sweep import Results, watched_of_run
from jaxsynth.experiment import Run
from jaxsynth.networks.network import Network
from jaxsynth.report.rows import metric_rows, probability


class Digest(NamedTuple):
    """Of some runs in order.

    rows: their metric rows. objective: (R, T). curves: per run and term, the probability (T,) of
    the class that the term is about, None where it is about none.
    """

    rows: list[dict[str, Any]]
    objective: np.ndarray
    curves: list[list[np.ndarray | None]]


def digest(
    first: int, runs: Sequence[Run], chunk: Results, networks: Mapping[str, Network]
) -> Digest:
    """Of a chunk whose first run is number `first` of all `runs`."""
    own = runs[first : first + len(chunk.codes)]
    curves = [
        [probability(t, networks, watched_of_run(chunk.watched, i)) for t in run.terms]
        for i, run in enumerate(own)
    ]
    return Digest(metric_rows(first, own, chunk, networks), chunk.objective, curves)


def join_digests(parts: Sequence[Digest]) -> Digest:
    """Chunks in order -> one."""
    return Digest(
        [row for part in parts for row in part.rows],
        np.concatenate([part.objective for part in parts]),
        [curves for part in parts for curves in part.curves],
    )
