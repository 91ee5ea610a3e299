"""What the pages need of every run, gathered chunk by chunk: small beside the results."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsynth.chunks import Results, watched_of_run
from jaxsynth.models.network import Network
from jaxsynth.report.rows import Watched, metric_rows, probability
from jaxsynth.short import Run
from jaxsynth.terms import Term


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
    """Of a chunk whose first run is number `first` of all `runs`; keeps no array of it alive."""
    own = runs[first : first + len(chunk.codes)]
    curves = [
        [_curve(t, networks, watched_of_run(chunk.watched, i)) for t in run.terms]
        for i, run in enumerate(own)
    ]
    return Digest(metric_rows(first, own, chunk, networks), chunk.objective, curves)


def _curve(term: Term, networks: Mapping[str, Network], watched: Watched) -> np.ndarray | None:
    """A copy: a view would keep the probabilities of all classes."""
    p = probability(term, networks, watched)
    return None if p is None else np.array(p)


def join_digests(parts: Sequence[Digest]) -> Digest:
    """Chunks in order -> one."""
    return Digest(
        [row for part in parts for row in part.rows],
        np.concatenate([part.objective for part in parts]),
        [curves for part in parts for curves in part.curves],
    )
