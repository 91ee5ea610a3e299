"""Statistics of a comparison: medians with intervals, profiles, ranks. Pure numpy and scipy.

Arrays are (M methods, O objectives, S seeds), curves (M, O, S, G) with the best so far at G costs.
A higher value is better. Sources: performance and data profiles, Dolan & More 2002, More & Wild
2009; Friedman's test with Nemenyi's critical distance as in Demsar 2006 ("Statistical comparisons
of classifiers over multiple data sets"); percentile bootstrap, Efron & Tibshirani 1993.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
_BLOCKS = 20  # of resamples, one at a time in memory
LEVEL = 0.95


class Interval(NamedTuple):
    """A statistic and the bounds of its bootstrap interval; NaN where there is one seed only."""

    value: float
    low: float
    high: float


def median_interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Take the median over seeds and objectives of (O, S), or of (S,), seeds resampled.

    Objectives are fixed: they were chosen, not drawn. All of them are resampled together, since a
    seed's start is the same for each.
    """
    return _resampled(np.median, values, rng)


def mean_interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Take the mean in the same way: a share, where values are 0 and 1."""
    return _resampled(np.mean, values, rng)


def _resampled(
    statistic: Callable[..., np.ndarray], values: np.ndarray, rng: np.random.Generator
) -> Interval:
    values = np.atleast_2d(values).astype(float)
    picks = rng.integers(values.shape[1], size=(RESAMPLES, values.shape[1]))
    blocks = np.array_split(picks, _BLOCKS)  # memory
    drawn = np.concatenate([statistic(values[:, block], axis=(0, 2)) for block in blocks])
    return _interval(float(statistic(values)), drawn, values.shape[1])


def gains(values: np.ndarray, start: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return shares of the best known gain: 0 at the start, 1 at the best, 1 where none gained.

    Args:
      values: (M, O, S) or (M, O, S, G).
      start: (O, S) of the start codes.
      best: (O, S) the best known.
    """
    if values.ndim == 4:
        start, best = start[..., None], best[..., None]
    room = best - start
    return np.where(room > 0, (values - start) / np.where(room > 0, room, 1.0), 1.0)


def profile(curve_gains: np.ndarray, missing: float) -> np.ndarray:
    """Return the share of problems (objective, seed) solved by each cost, (M, G).

    Solved is within `missing` of the best known gain.
    """
    return (curve_gains >= 1 - missing - 1e-9).mean(axis=(1, 2))


def cost_to(curve_gains: np.ndarray, marks: np.ndarray, share: float) -> np.ndarray:
    """Return the first mark at which a run has this share of the best known gain, (M, O, S).

    Infinite for a run that never has.
    """
    reached = curve_gains >= share - 1e-9
    return np.where(reached.any(axis=-1), np.asarray(marks)[reached.argmax(axis=-1)], np.inf)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the first axis, 1 for the highest; equal values share their mean rank."""
    return stats.rankdata(-values, axis=0)


class Friedman(NamedTuple):
    """Friedman's test over blocks, and the distance of mean ranks that Nemenyi's test asks for."""

    ranks: np.ndarray  # (M,) mean
    statistic: float  # chi squared
    p: float
    distance: float


def friedman(values: np.ndarray, level: float = LEVEL) -> Friedman:
    """Test whether methods differ over blocks: values (M, B), one row a method.

    Raises:
      ValueError: with fewer than two methods or blocks.
    """
    methods, blocks = values.shape
    if methods < 2 or blocks < 2:
        raise ValueError(f"{methods} methods on {blocks} blocks: expected two of each or more")
    own = ranks(values)
    mean = own.mean(axis=1)
    spread = own.var(axis=0, ddof=1).mean()  # of a block's ranks; smaller where values are equal
    excess = blocks * ((mean - (methods + 1) / 2) ** 2).sum()
    statistic = excess / spread if spread > 0 else 0.0
    p = stats.chi2.sf(statistic, methods - 1)
    return Friedman(mean, float(statistic), float(p), nemenyi_distance(methods, blocks, level))


def nemenyi_distance(methods: int, blocks: int, level: float = LEVEL) -> float:
    """Return the distance of mean ranks over the blocks beyond which two methods differ."""
    q = stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def bootstrap_ranks(values: np.ndarray, rng: np.random.Generator) -> list[Interval]:
    """Rank methods by the median over seeds, averaged over the objectives, seeds resampled.

    Args:
      values: (M, O, S).
      rng: Draws the resamples.
    """
    seeds = values.shape[2]
    picks = rng.integers(seeds, size=(RESAMPLES, seeds))
    drawn = np.stack([_mean_ranks(values[:, :, pick]) for pick in picks])  # (RESAMPLES, M)
    return [
        _interval(float(rank), column, seeds)
        for rank, column in zip(_mean_ranks(values), drawn.T, strict=True)
    ]


def rank_agreement(values: np.ndarray) -> float | None:
    """Return Kendall's W of the seeds' rankings, 0 to 1 where all seeds rank the methods alike.

    Each seed of (M, O, S) ranks by its mean rank over the objectives. Corrected for equal ranks, as
    in Siegel & Castellan 1988. None with fewer than two methods or seeds.
    """
    own = ranks(values).mean(axis=1)  # (M, S)
    own = stats.rankdata(own, axis=0)
    methods, seeds = own.shape
    if methods < 2 or seeds < 2:
        return None
    spread = ((own.sum(axis=1) - seeds * (methods + 1) / 2) ** 2).sum()
    equal = np.concatenate([np.unique(column, return_counts=True)[1] for column in own.T])
    most = seeds**2 * (methods**3 - methods) - seeds * (equal**3 - equal).sum()
    return float(12 * spread / most) if most else 1.0


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    return ranks(np.median(values, axis=2)).mean(axis=1)


def _interval(value: float, drawn: np.ndarray, seeds: int) -> Interval:
    if seeds < 2:
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), method="nearest")
    return Interval(value, float(low), float(high))
