"""A few lines on all runs: scores of the images that are shown, settings, how a run is repeated."""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsynth import table
from jaxsynth.models.base import Classifier
from jaxsynth.png_text import deciding
from jaxsynth.recipes import Recipe
from jaxsynth.report.tables import Rows

_TARGETS = 12  # of which each has a line of its own
# What the explorer replaces by a run's own; no name holds a NUL.
RUN, SEED, OBJECTIVE = "\0run", "\0seed", "\0objective"


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


# --- how a run is repeated ------------------------------------------------------------------------


def lines_that_repeat(config: Mapping[str, Any], folder: Path | None) -> dict[str, str]:
    """Say how a run of a sweep, by its config.json and folder, is repeated and continued.

    `command` is of the whole sweep, `continue` of one run; `python` are lines that repeat one run,
    `python_continue` lines after those. `RUN`, `SEED` and `OBJECTIVE` stand for a run's own. What
    is not known is empty.
    """
    out = {"command": str(config.get("command", "")), "continue": "", "python": ""}
    out["python_continue"] = ""
    sweep, name = config.get("sweep", {}), config.get("experiment", "")
    start = _launcher(out["command"], name)
    if start and folder is not None:
        steps = sweep.get("recipe", {}).get("steps", 1)
        given = [f"--continue_from={folder}:{RUN}", f"--extend_steps={steps}"]
        given.append(f"--out={folder}-{RUN}")
        out["continue"] = " ".join([start, *map(_quoted, given)])
    if "recipe" in sweep and "networks" in config:
        out["python"] = _python(config, folder)
    if out["python"] and folder is not None:
        out["python_continue"] = (
            f"before = js.read_results({str(folder)!r}, generator, classifiers)\n"
            f"more = js.sweep(objective, generator, init=before[{RUN}:{RUN} + 1], **how)"
        )
    return out


def _launcher(command: str, name: str) -> str:
    for start in (f"jaxsynth {name}", f"python -m experiments.{name}"):
        if name and command.startswith(start):
            return start
    return ""


def _quoted(word: str) -> str:
    """Quote for a shell, but not because of the NUL."""
    plain = word.replace("\0", "")
    return word if shlex.quote(plain) == plain else "'" + word.replace("'", "'\"'\"'") + "'"


def _python(config: Mapping[str, Any], folder: Path | None) -> str:
    networks, sweep = config["networks"], config["sweep"]
    lines = ["import jaxsynth as js", ""]
    names = {}
    for role, record in networks.items():
        names[role] = role if role.isidentifier() else re.sub(r"\W", "_", f"model_{role}")
        own = "" if role == "generator" else f".named({role!r})"
        lines.append(f"{names[role]} = js.load({record['name']!r}){own}")
    lines.append(f"classifiers = [{', '.join(v for k, v in names.items() if k != 'generator')}]")
    models = ", ".join(f"{role!r}: {name}" for role, name in names.items())
    lines.append(f"objective = js.parse({OBJECTIVE}, {{{models}}})")
    usual = {f.name: f.default for f in dataclasses.fields(Recipe)}
    recipe = {k: _plain(v) for k, v in sweep["recipe"].items()}
    changed = [f"{k}={v!r}" for k, v in recipe.items() if k in usual and v != usual[k]]
    how = [f"recipe=js.Recipe({', '.join(changed)})", "classifiers=classifiers"]
    for name in ("optimizer", "balance", "batch", "precision"):
        if sweep.get(name):
            how.append(f"{name}={sweep[name]!r}")
    lines.append(f"how = dict({', '.join(how)})")
    start = ""
    if folder is not None and set(config.get("inputs", {})) - {"encoder"}:
        start = f", init=js.read_results({str(folder)!r}).start_codes[{RUN}]"
    lines.append(f"result = js.maximize(objective, generator, seed={SEED}{start}, **how)")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list) else value
