"""A few lines on all runs: the scores of the images that are shown, for each objective."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsynth import table
from jaxsynth.models.base import Classifier
from jaxsynth.png_text import deciding

Rows = Sequence[Mapping[str, Any]]
_TARGETS = 12  # of which each has a line of its own


def summarise(rows: Rows, classifiers: Sequence[Classifier] = ()) -> list[dict[str, Any]]:
    """Sum up all runs: the finite scores of the images that are shown, how many runs went wrong.

    The targets come first, a line each where there are few, then the sensitive classes and the
    objective.
    """
    out: list[dict[str, Any]] = []
    most = max(sum(key.startswith("target_") for key in row) for row in rows)
    for n in range(1, most + 1):
        out += _of_targets(rows, n)
    for judge in classifiers:
        if judge.sensitive is not None:
            name = f"P({judge.sensitive_name})"
            if not any(line["what"] == name for line in out):
                out += _line(name, [shown(row, f"{judge.name}_") for row in rows])
    out += _line("objective", [shown(row, "objective_") for row in rows])
    for what, count in (
        ("runs that did not stay finite, frozen", sum(map(table.is_non_finite, rows))),
        ("runs that did not go well (see status)", sum(row["status"] != "ok" for row in rows)),
    ):
        out += [{"what": what, "runs": count}] if count else []
    return out


def shown(row: Mapping[str, Any], what: str) -> Any:
    """Return a column of the image that is shown: `objective_`, `p_1_`, `nsfw_`."""
    return row.get(f"{what}{row.get('shown', 'last')}")


def _of_targets(rows: Rows, n: int) -> list[dict[str, Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        if f"target_{n}" in row:
            groups.setdefault(row[f"target_{n}"], []).append(shown(row, f"p_{n}_"))
    if len(groups) > _TARGETS:
        values = [value for group in groups.values() for value in group]
        return _line(f"P(target), {len(groups)} targets", values)
    return [
        line
        for name, values in groups.items()
        for line in _line(f"P({name.split(':', 2)[-1]})", values)
    ]


def _line(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    found = np.array([value for value in values if value is not None], float)
    found = found[np.isfinite(found)]
    if not found.size:
        return []
    low, middle, high = np.quantile(found, [0, 0.5, 1])
    spread = {"mean": found.mean(), "min": low, "median": middle, "max": high}
    return [{"what": name, "runs": found.size} | spread]


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """List everything that decided the runs: flags, resolved recipe, weights, versions, device."""
    others = ("runs", "command", "title", "flags")
    parts = {name: value for name, value in deciding(config).items() if name not in others}
    out: dict[str, Any] = {}
    for name, value in {**config.get("flags", {}), **parts}.items():
        _flatten(name, value, out)
    return out


def _flatten(name: str, value: Any, out: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _flatten(f"{name} {key}", part, out)
    elif value is not None:
        out[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
