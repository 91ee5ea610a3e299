"""Measurements as rows of a table. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed.compare import OURS, Limits, Measured, Timing, ratio


def speed_rows(measured: Sequence[Measured], limits: dict[str, Limits]) -> list[dict[str, Any]]:
    """A row per case and batch; `limits` by precision.

    Two bounds of a step's time from below: its operations at the rate of a large matrix product,
    and the bytes that XLA's program moves at the rate of a copy. Caches may beat the second one.
    """
    return [_row(m, limits[m.precision]) for m in measured]


def _row(m: Measured, limits: Limits) -> dict[str, Any]:
    ours = m.timings[OURS]
    row = {
        "case": m.case,
        "batch": m.batch,
        "precision": m.precision,
        "rounds": len(ours.seconds),
        "ours, ms": _milliseconds(ours),
    }
    for name, timing in m.timings.items():
        if name != OURS:
            row |= {
                f"{name}, ms": _milliseconds(timing),
                f"{name} / ours": f"{ratio(ours, timing):.2f}",
            }
    rate = m.operations / ours.median
    return row | {
        "runs x steps / s": f"{m.batch / ours.median:.3g}",
        "GFLOP": f"{m.operations / 1e9:.3g}",
        "GFLOP/s": f"{rate / 1e9:.0f}",
        "of the peak": f"{rate / limits.operations:.0%}",
        "floor: arithmetic, ms": f"{1e3 * m.operations / limits.operations:.3g}",
        "floor: bytes, ms": f"{1e3 * m.moved / limits.bytes:.3g}",
        "buffers, MB": f"{m.memory / 1e6:.0f}",
        "first call, s": f"{m.first:.1f}",
        "gradients differ by": "" if m.agreement is None else f"{m.agreement:.0e}",
    }


def second_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Tidy: a row for every time that was taken."""
    return [
        {"case": m.case, "batch": m.batch, "precision": m.precision, "runner": name}
        | {"round": i, "seconds": float(seconds)}
        for m in measured
        for name, timing in m.timings.items()
        for i, seconds in enumerate(timing.seconds)
    ]


def _milliseconds(timing: Timing) -> str:
    low, median, high = (1e3 * v for v in (timing.low, timing.median, timing.high))
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def commit_rows(
    lowest: Mapping[tuple[str, str], Mapping[str, float]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row per case and batch: milliseconds by commit, and how much faster the last one is.

    lowest: seconds by (case, batch) and commit, of what is measured so far. names: all commits.
    """
    return [_commit_row(case, batch, seconds, names) for (case, batch), seconds in lowest.items()]


def _commit_row(
    case: str, batch: str, seconds: Mapping[str, float], names: Sequence[str]
) -> dict[str, Any]:
    first, last = (seconds.get(name) for name in (names[0], names[-1]))
    return {
        "case": case,
        "batch": batch,
        **{f"{n}, ms": f"{1e3 * seconds[n]:.1f}" if n in seconds else "" for n in names},
        f"{names[0]} / {names[-1]}": f"{first / last:.2f}" if first and last else "",
    }
