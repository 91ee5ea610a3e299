"""Runs that must be equal are computed once, and the others are copies.

Under normalised steps only the ratio of an objective's weights counts; from one start code seeds
count only where something is drawn.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxsynth.terms import Objective

if TYPE_CHECKING:
    from jaxsynth.ascent import ChunkResult


_FAR = 1e12  # ratio of weights above which none is divided by another


class Shared(NamedTuple):
    """Which runs are one computation: under normalised steps, multiples of an objective.

    Attributes:
      place: (R,) of every run in the batch.
      factor: (R,) from the objective that is computed to the run's own.
    """

    place: np.ndarray
    factor: np.ndarray

    @property
    def row_factor(self) -> np.ndarray:
        """Of every row of the batch, the factor of the first run that it computes."""
        return self.factor[np.unique(self.place, return_index=True)[1]]

    @property
    def equals(self) -> dict[int, int]:
        """Every run that is a copy, with the first run that it equals."""
        first = np.unique(self.place, return_index=True)[1][self.place]
        return {i: int(j) for i, j in enumerate(first) if i != j}


def without_scale(objective: Objective) -> tuple[Objective, float]:
    """Scale an objective so that its first weight is 1 or -1; positive multiples become equal.

    Returns:
      The objective, and the factor that gives it back.
    """
    sizes = [abs(term.weight) for term in objective.terms if term.weight] or [1.0]
    if max(sizes) > _FAR * min(sizes):
        return objective, 1.0
    factor = sizes[0]
    weights = (float(f"{term.weight / factor:.15g}") for term in objective.terms)
    pairs = zip(objective.terms, weights, strict=True)
    return Objective(tuple(dataclasses.replace(t, weight=w) for t, w in pairs)), factor


def distinct(
    runs: Sequence[Any], scale_free: bool
) -> tuple[list[Objective], np.ndarray, np.ndarray]:
    """Find the objectives that are computed, and of each run which one and its factor, (R,).

    Where steps are normalised, positive multiples are one objective. It is computed with a first
    weight that is a power of two, which changes no bits: a run is the same beside any others.
    """
    seen: dict[int, tuple[int, float]] = {}  # by identity: many seeds share one object
    places: dict[Objective, int] = {}
    found: list[tuple[Objective, float]] = []
    which, factor = np.zeros(len(runs), np.int32), np.ones(len(runs))
    for i, run in enumerate(runs):
        objective = run.objective
        if id(objective) not in seen:
            bare, own = without_scale(objective) if scale_free else (objective, 1.0)
            place = places.setdefault(bare, len(found))
            if place == len(found):
                power = 2.0 ** (math.frexp(own)[1] - 1)  # at most `own`, more than half of it
                found.append((bare if power == 1.0 else bare * power, power))
            seen[id(objective)] = place, own / found[place][1]
        which[i], factor[i] = seen[id(objective)]
    return [objective for objective, _ in found], which, factor


def places_of(
    which: np.ndarray, seeds: np.ndarray, start: np.ndarray | None, alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the row of the batch that computes each run (R,), and the first run of each row.

    Runs of one objective, seed and start code are one row, unless they are `alone`.
    """
    count = len(which)
    if alone or (start is None and len(set(seeds.tolist())) == count):
        return np.arange(count), np.arange(count)
    codes = np.zeros(count, np.int64)
    if start is not None:
        codes = np.unique(start, axis=0, return_inverse=True)[1].reshape(-1)
    rows: dict[tuple[int, int, int], int] = {}
    keys = zip(which.tolist(), seeds.tolist(), codes.tolist(), strict=True)
    place = np.array([rows.setdefault(key, len(rows)) for key in keys])
    return place, np.unique(place, return_index=True)[1]


def every_run(problem: Any, computed: "ChunkResult") -> "ChunkResult":
    """Return the results of every run, of those of the batch."""
    if problem.shared is None:
        return computed
    place, factor = problem.shared
    found = jax.tree.map(lambda leaf: leaf[place], computed)

    def scaled(values: np.ndarray) -> np.ndarray:
        return values * factor.astype(values.dtype).reshape(-1, *(1,) * (values.ndim - 1))

    ends = {
        name: end._replace(objective=scaled(end.objective))
        for name, end in (("last", found.last), ("best", found.best))
    }
    return found._replace(objective=scaled(found.objective), **ends)
