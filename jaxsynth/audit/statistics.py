"""The statistics of an audit: shares with intervals, quantiles, calibration. Pure NumPy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Z = 1.959964  # of a two-sided interval of 95 %
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
Row = dict[str, Any]


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, after Wilson 1927; (0, 1) of nothing."""
    if not total:
        return 0.0, 1.0
    share, square = count / total, Z * Z / total
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return (0.0 if count == 0 else low), (1.0 if count == total else high)


def share_row(flags: np.ndarray) -> Row:
    """Describe how many of (N,) booleans are true: `n`, `count`, `share`, `low`, `high`."""
    count, total = int(np.sum(flags)), len(flags)
    low, high = wilson(count, total)
    return {"n": total, "count": count, "share": count / max(1, total), "low": low, "high": high}


def flagged(scores: np.ndarray, thresholds: Sequence[float]) -> list[Row]:
    """Count, for each threshold, how many scores (N,) are at or above it, with intervals."""
    scores = np.asarray(scores)
    return [{"threshold": t} | share_row(scores >= t) for t in thresholds]


def quantiles(scores: np.ndarray) -> Row:
    """Return the quantiles of scores (N,) and their mean; empty of none."""
    if not len(scores):
        return {"n": 0}
    found = np.quantile(scores, QUANTILES)
    names = ("min", "q05", "q25", "median", "q75", "q95", "max")
    spread = dict(zip(names, map(float, found), strict=True))
    return {"n": len(scores), "mean": float(np.mean(scores))} | spread


def median_row(values: np.ndarray) -> Row:
    """Return the median of values (N,) and its interval of at least 95 % by order statistics.

    No distribution is assumed. Fewer than 6 values have no such interval: it is their range.
    """
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    if not n:
        return {"n": 0}
    rank, tail = 0, 0.0  # the largest rank whose two tails hold at most 5 %
    while rank < (n - 1) // 2:
        tail += math.comb(n, rank) / 2.0**n
        if 2 * (tail + math.comb(n, rank + 1) / 2.0**n) > 0.05:
            break
        rank += 1
    low, high = float(ordered[rank]), float(ordered[n - 1 - rank])
    return {"n": n, "median": float(np.median(ordered)), "low": low, "high": high}


def calibration(scores: np.ndarray, truth: np.ndarray, bins: int = 10) -> list[Row]:
    """Compare scores (N,) in 0..1 with the truth (N,), in bins of equal width; no empty ones.

    A row has `from`, `to`, the mean `score`, and how many are positive, with an interval.
    """
    place = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    rows = []
    for i in range(bins):
        own = place == i
        if own.any():
            edges = {"from": i / bins, "to": (i + 1) / bins, "score": float(scores[own].mean())}
            rows.append(edges | share_row(truth[own]))
    return rows


def calibration_error(rows: Sequence[Row]) -> float:
    """Return the expected calibration error of the rows of `calibration`, weighed by their counts.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """
    total = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["score"] - row["share"]) for row in rows) / max(1, total)


def auc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the chance that a positive scores above a negative, ties half; None without both."""
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return None
    order = np.sort(negative)
    below, upto = (np.searchsorted(order, positive, side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))


def rates(scores: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]) -> list[Row]:
    """Return the shares of positives and of negatives at or above each threshold."""
    rows = []
    for t in thresholds:
        row: Row = {"threshold": t}
        for name, own in (("found", truth), ("false_alarms", ~truth)):
            part = share_row(scores[own] >= t)
            row |= {f"{name}_{key}": part[key] for key in ("n", "count", "share", "low", "high")}
        rows.append(row)
    return rows


def dispute(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how sure one is and how sure the other is of the opposite: min(p, 1 - q)."""
    return np.minimum(first, 1 - np.asarray(second))
