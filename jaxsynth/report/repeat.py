"""The command and the Python lines that repeat a run, or continue it."""

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsynth.recipes import Recipe

# What the explorer replaces by a run's own; no name holds a NUL.
RUN, SEED, OBJECTIVE = "\0run", "\0seed", "\0objective"


def lines_that_repeat(config: Mapping[str, Any], folder: Path | None) -> dict[str, str]:
    """Say how a run of a sweep is repeated and continued.

    Args:
      config: as config.json has it.
      folder: of the sweep, if it has one.

    Returns:
      `command`: of the whole sweep. `continue`: a command for one run. `python`: lines that repeat
      one run. `python_continue`: lines after those. `RUN`, `SEED` and `OBJECTIVE` stand for a run's
      own. What is not known is empty.
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
    return (
        word if shlex.quote(word.replace("\0", "")) == word.replace("\0", "") else _in_quotes(word)
    )


def _in_quotes(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


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
