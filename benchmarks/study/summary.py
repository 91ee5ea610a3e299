"""The findings of a study, and the rows of its tables. Pure.

Arrays are (M optimizers, O objectives, S seeds). Gains are shares of the best known gain of the
same objective and seed, over all optimizers and budgets of the study.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.study.statistics import (
    Friedman,
    Interval,
    bootstrap_ranks,
    cost_to,
    friedman,
    gains,
    mean_interval,
    median_interval,
    profile,
    rank_agreement,
)
from jaxsynth.ask_tell import VALUE

SOLVED = (0.1, 0.01)  # missing shares of the best known gain at which a problem counts as solved
SHARE = 0.9  # of the best known gain: steps to threshold
_EDGES = ((1, "upper"), (-1, "lower"))
TOP = 5  # ranks of the judge that count as recognised


class Outcome(NamedTuple):
    """One budget's results."""

    budget: float
    marks: np.ndarray  # (G,)
    start: np.ndarray  # (O, S)
    best: np.ndarray  # (M, O, S)
    curve: np.ndarray  # (M, O, S, G)
    rates: np.ndarray  # (M, O)
    edge: np.ndarray | None  # (M, O): `tuning.edges`; None without a sweep
    steps: np.ndarray  # (M, O)
    spent: np.ndarray  # (M, O) forward passes of a run, at most the budget
    seconds: np.ndarray  # (M,) of a run where the batch is full
    judged: np.ndarray  # (M, J scene objectives, S) rank that the judge gives, 0 the first
    clipped: np.ndarray  # (M, J) share of the images' pixels that are clipped when shown


class Names(NamedTuple):
    """Names of what was compared; kinds are what each optimizer asks for."""

    optimizers: tuple[str, ...]
    kinds: tuple[str, ...]
    objectives: tuple[str, ...]
    scenes: tuple[int, ...]  # those objectives of `objectives` that the judge looks at


class Compared(NamedTuple):
    """One budget's statistics, in the order of the optimizers."""

    gain: np.ndarray  # (M, O, S)
    curve: np.ndarray  # (M, O, S, G) gains
    profiles: np.ndarray  # (M, G) solved within SOLVED[0]
    medians: list[Interval]
    ranks: list[Interval]
    recognised: list[Interval] | None  # None without scene objectives
    test: Friedman | None  # None with fewer than two optimizers or objectives
    agreement: float | None  # None with fewer than two optimizers or seeds
    order: np.ndarray  # (M,) optimizers by mean rank


def best_known(outcomes: Sequence[Outcome]) -> np.ndarray:
    """Return the highest value that anything found, (O, S)."""
    return np.max([outcome.best.max(axis=0) for outcome in outcomes], axis=0)


def compare(outcome: Outcome, best: np.ndarray, seed: int = 0) -> Compared:
    """Compare optimizers at one budget by the best known values (O, S)."""
    rng = np.random.default_rng(seed)
    gain = gains(outcome.best, outcome.start, best)
    curve = gains(outcome.curve, outcome.start, best)
    methods, objectives, _ = gain.shape
    test = None
    if methods > 1 and objectives > 1:
        test = friedman(np.median(outcome.best, axis=2))
    ranks = bootstrap_ranks(outcome.best, rng)
    recognised = None
    if outcome.judged.shape[1]:
        recognised = [mean_interval(hits, rng) for hits in outcome.judged < TOP]
    return Compared(
        gain=gain,
        curve=curve,
        profiles=profile(curve, SOLVED[0]),
        medians=[median_interval(own, rng) for own in gain],
        ranks=ranks,
        recognised=recognised,
        test=test,
        agreement=rank_agreement(outcome.best),
        order=np.argsort([rank.value for rank in ranks], kind="stable"),
    )


def table_rows(names: Names, outcome: Outcome, compared: Compared) -> list[dict[str, Any]]:
    """Return a row per optimizer, the best mean rank first."""
    costs = cost_to(compared.curve, outcome.marks, SHARE)
    rows = []
    for m in compared.order:
        row = {
            "optimizer": names.optimizers[m],
            "told": names.kinds[m],
            "mean rank": _interval(compared.ranks[m], "{:.1f}"),
            "median gain": _interval(compared.medians[m], "{:.2f}"),
        }
        for missing in SOLVED:
            solved = (compared.gain[m] >= 1 - missing).mean()
            row[f"within {missing:.0%}"] = f"{solved:.0%}"
        middle = np.median(costs[m])
        row[f"cost of {SHARE:.0%}"] = f"{middle:.0f}" if np.isfinite(middle) else "-"
        if compared.recognised is not None:
            hits = compared.recognised[m]
            row["judge's first"] = f"{(outcome.judged[m] == 0).mean():.0%}"
            row[f"judge's top {TOP}"] = _interval(hits, "{:.0%}")
            row["clipped pixels"] = f"{outcome.clipped[m].mean():.1%}"
        row["passes spent"] = f"{np.median(outcome.spent[m]):.0f}"
        row["s a run"] = f"{outcome.seconds[m]:.2g}"
        if outcome.edge is not None:
            ends = [f"{(outcome.edge[m] == end).sum()} {word}" for end, word in _EDGES]
            row["rate at the edge"] = ", ".join(ends)
        rows.append(row)
    return rows


def run_rows(
    names: Names, seeds: Sequence[int], outcomes: Sequence[Outcome]
) -> list[dict[str, Any]]:
    """Return tidy rows, one per optimizer, budget, objective and seed."""
    best, rows = best_known(outcomes), []
    for outcome in outcomes:
        gain = gains(outcome.best, outcome.start, best)
        reached = cost_to(gains(outcome.curve, outcome.start, best), outcome.marks, SHARE)
        for m, o, s in np.ndindex(outcome.best.shape):
            judged = names.scenes.index(o) if o in names.scenes else None
            rows.append(
                {
                    "optimizer": names.optimizers[m],
                    "told": names.kinds[m],
                    "budget": float(outcome.budget),
                    "objective": names.objectives[o],
                    "seed": int(seeds[s]),
                    "rate": float(outcome.rates[m, o]),
                    "steps": int(outcome.steps[m, o]),
                    "spent": round(float(outcome.spent[m, o]), 3),
                    "start": float(outcome.start[o, s]),
                    "best": float(outcome.best[m, o, s]),
                    "gain": float(gain[m, o, s]),
                    "cost_to_90": float(reached[m, o, s]) if reached[m, o, s] < np.inf else None,
                    "judge_rank": None if judged is None else int(outcome.judged[m, judged, s]),
                }
            )
    return rows


def sentences(names: Names, outcome: Outcome, compared: Compared) -> list[str]:
    """Return what the tests say of one budget, in sentences."""
    lines = []
    if (agreement := compared.agreement) is not None:
        lines.append(
            f"Kendall's W of the seeds' rankings: {agreement:.2f} (1: all seeds rank alike)."
        )
    if compared.test is not None:
        test = compared.test
        lines.append(
            f"Friedman over {len(names.objectives)} objectives (medians over seeds): chi2 "
            f"{test.statistic:.1f}, p {test.p:.1g}; Nemenyi: mean ranks further apart than "
            f"{test.distance:.1f} differ."
        )
    if compared.recognised is not None:
        hits = np.array([interval.value for interval in compared.recognised])
        ranks = np.array([interval.value for interval in compared.ranks])
        seen, highest = (
            ", ".join(names.optimizers[m] for m in np.flatnonzero(which))
            for which in (hits == hits.max(), ranks == ranks.min())
        )
        lines.append(
            f"Most often recognised by the judge: {seen} ({hits.max():.0%}); highest by the "
            f"objective: {highest}."
        )
    free = [m for m in compared.order if names.kinds[m] == VALUE]
    if free:
        ordered = " > ".join(names.optimizers[m] for m in free)
        lines.append(f"Gradient-free ones by mean rank: {ordered}.")
    return lines


def latex_table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Return a LaTeX table (booktabs) of rows of text."""
    head = list(rows[0])
    lines = [" & ".join(_tex(str(row[column])) for column in head) for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * len(head)}}}",
            r"\toprule",
            " & ".join(_tex(column) for column in head) + r" \\",
            r"\midrule",
            *(rf"{line} \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _interval(interval: Interval, form: str) -> str:
    value, low, high = (form.format(v) for v in interval)
    return value if np.isnan(interval.low) else f"{value} ({low} to {high})"


def _tex(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}"}
    return "".join(special.get(c, c) for c in text)
