"""A table whose rows need sweeps: what is finished is kept, and so is the sweep under way.

OUT/STEM.json         finished parts: their rows, and what they were made of
OUT/STEM.csv, .md     the rows that are there, in their order
OUT/unfinished/NAME   see `jaxsynth.runs.sweeps`
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsynth.chunks import Results
from jaxsynth.disk import write_whole
from jaxsynth.maximize import Plan
from jaxsynth.report.tables import format_markdown, write_metrics
from jaxsynth.runs.keep import Stopped
from jaxsynth.runs.sweeps import (
    Keeping,
    close_sweep,
    kept_sweep,
    open_folder,
    open_sweep,
    sha256_of,
)

Row = dict[str, Any]


class Part(NamedTuple):
    """Rows that are made at once.

    Attributes:
      name: of the part.
      plans: its sweeps by name.
      configs: what each is made of, see `sweep_config`.
      rows: makes the rows of the sweeps' results.
    """

    name: str
    plans: Mapping[str, Plan]
    configs: Mapping[str, Mapping[str, Any]]
    rows: Callable[[Mapping[str, Results]], list[Row]]


def kept_table(
    keeping: Keeping, parts: Sequence[Part], stem: str, overwrite: bool, head: str = ""
) -> str:
    """Computes the parts that are missing, writes the table after each, and gives it as Markdown.

    `head` stands above it in the file.

    Raises:
      Stopped: if it was asked to.
      ValueError: if the folder holds anything else, or what it holds is damaged.
    """
    out = keeping.out
    open_folder(out, keeping.resume, overwrite, f"{stem}.json")
    done = _earlier(out, stem, parts)
    left = [part for part in parts if part.name not in done]
    for part in parts:
        for name in part.plans:
            if part.name in done:  # a kill may have come between its rows and this
                close_sweep(out, name)
            else:
                open_sweep(keeping, name, part.configs[name])
    for i, part in enumerate(left):
        found = {name: kept_sweep(keeping, name, plan) for name, plan in part.plans.items()}
        done[part.name] = {"rows": part.rows(found), "sha256": _sha256(part)} | _made_of(part)
        write_whole(out / f"{stem}.json", json.dumps(done, indent=1).encode())
        for name in part.plans:
            close_sweep(out, name)
        _write_table(out, stem, head, parts, done)
        if left[i + 1 :] and keeping.asked_to_stop():
            raise Stopped(f"{len(done)} of {len(parts)} parts of the table finished")
    return _write_table(out, stem, head, parts, done)


def _sha256(part: Part) -> str:
    return sha256_of({name: sha256_of(config) for name, config in part.configs.items()})


def _made_of(part: Part) -> dict[str, Any]:
    """The command, and settings and networks of every sweep."""
    [command] = {config["command"] for config in part.configs.values()}
    sweeps = {
        name: {key: config[key] for key in ("sweep", "networks")}
        for name, config in part.configs.items()
    }
    return {"command": command, "sweeps": sweeps}


def _earlier(out: Path, stem: str, parts: Sequence[Part]) -> dict[str, Any]:
    """The finished parts that the folder holds, by name.

    Raises:
      ValueError: if the file that holds them is damaged, or one is none of those that are asked
        for.
    """
    path, asked = out / f"{stem}.json", {part.name: _sha256(part) for part in parts}
    try:
        done = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        other = [one["command"] for name, one in done.items() if one["sha256"] != asked.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}): delete it") from None
    if other:
        raise ValueError(
            f"output folder {out} holds rows of other settings: resume it with its own command "
            f"({other[0]}), or choose another --out"
        )
    return done


def _write_table(
    out: Path, stem: str, head: str, parts: Sequence[Part], done: Mapping[str, Any]
) -> str:
    rows = [row for part in parts if part.name in done for row in done[part.name]["rows"]]
    write_metrics(out / f"{stem}.csv", rows)
    table = format_markdown(rows)
    write_whole(out / f"{stem}.md", (head + table).encode())
    return head + table
