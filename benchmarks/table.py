"""Shared parts of launchers that compare sweeps in a table, with one or more rows for each part.

OUT/STEM.json         finished parts (`jaxsynth.runs.parts`)
OUT/STEM.csv, .md     the rows so far, in their order
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.common import Models, saved_run
from experiments.launch import command_line
from experiments.run_flags import RunFlags
from jaxsynth.ascent import ChunkResult
from jaxsynth.batch import Problem
from jaxsynth.disk import write_atomic
from jaxsynth.maximize import config_of
from jaxsynth.report.tables import format_markdown, write_csv
from jaxsynth.runs.folder import sha256_of
from jaxsynth.runs.parts import Parts, close_sweep, finished_sweep
from jaxsynth.runs.processes import lock
from jaxsynth.runs.saving import Saving, Stopped

Row = dict[str, Any]
BALANCE_SCENES = ("mountain", "iceberg", "desert-sand", "corn_field", "bedroom")


class Part(NamedTuple):
    """Rows that are made at once.

    Attributes:
      name: of the part.
      problems: its sweeps by name.
      configs: what decides each of them.
      rows: makes the rows of the sweeps' results.
    """

    name: str
    problems: Mapping[str, Problem]
    configs: Mapping[str, Mapping[str, Any]]
    rows: Callable[[Mapping[str, ChunkResult]], list[Row]]

    @property
    def made_of(self) -> dict[str, Any]:
        """Settings and networks of every sweep, and the hash of its runs."""
        return {
            name: {**config, "runs": sha256_of(config["runs"])}
            for name, config in self.configs.items()
        }


def config_maker(models: Models) -> Callable[[Problem], dict[str, Any]]:
    """Give what makes a sweep's config."""
    return lambda problem: config_of(problem, encoder=models.encoder)


def launch_table(flags: RunFlags, parts: Sequence[Part], stem: str, head: str = "") -> int:
    """Compute the parts and write the table into the output folder.

    Returns:
      The exit code.

    Raises:
      ValueError: for what cannot work, and when the disk fails; what is finished is saved.
      SystemExit: if it was stopped (`resumable`).
    """
    out, command = flags.folder, command_line(flags.name)
    with saved_run(flags) as saving, lock(out):
        how = {"resume": flags.resume, "overwrite": flags.overwrite, "stem": stem}
        table = _compute(saving, Parts(out, command, **how), parts, (stem, head, command))
    print(f"{table}\nwrote {out / stem}.md")
    return 0


def _compute(
    saving: Saving, saved: Parts, parts: Sequence[Part], said: tuple[str, str, str]
) -> str:
    stem, head, command = said
    left = [part for part in parts if not saved.done(part.name, part.made_of)]
    for name in [name for part in parts if part not in left for name in part.problems]:
        close_sweep(saving.folder, name)  # a kill may have come before this
    for i, part in enumerate(left):
        found = {
            name: finished_sweep(saving, name, problem, {"command": command} | part.configs[name])
            for name, problem in part.problems.items()
        }
        saved.save(part.name, part.made_of, part.rows(found))
        for name in part.problems:
            close_sweep(saving.folder, name)
        _write_table(saved, parts, stem, head)
        if left[i + 1 :] and saving.asked_to_stop():
            raise Stopped(f"{len(saved.names())} of {len(parts)} parts of the table finished")
    return _write_table(saved, parts, stem, head)


def _write_table(saved: Parts, parts: Sequence[Part], stem: str, head: str) -> str:
    names = saved.names()
    rows = [row for part in parts if part.name in names for row in saved.value(part.name)]
    write_csv(saved.folder / f"{stem}.csv", rows)
    table = head + format_markdown(rows)
    write_atomic(saved.folder / f"{stem}.md", table.encode())
    return table
