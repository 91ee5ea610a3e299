"""What the launchers share that compare sweeps in a table, a row or more for each part of it.

OUT/STEM.json         finished parts (`jaxsynth.runs.parts`)
OUT/STEM.csv, .md     the rows so far, in their order
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.common import used_files
from experiments.launch import command_line
from experiments.run_flags import Settings
from experiments.stopping import keeps_going_on
from jaxsynth.chunks import Results
from jaxsynth.disk import write_atomic
from jaxsynth.report.tables import format_markdown, write_csv
from jaxsynth.runs.folder import lock, sha256_of
from jaxsynth.runs.keep import (
    Keeping,
    Stopped,
    close_sweep,
    finished_sweep,
    sweep_config,
)
from jaxsynth.runs.parts import Parts
from jaxsynth.short import Plan, Run, Sweep

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

    @property
    def made_of(self) -> dict[str, Any]:
        """Settings and networks of every sweep, and the hash of its runs."""
        return {
            name: {"sweep": c["sweep"], "networks": c["networks"], "runs": sha256_of(c["runs"])}
            for name, c in self.configs.items()
        }


def config_maker(settings: Settings) -> Callable[[Sweep, Sequence[Run]], Mapping[str, Any]]:
    """Give what makes a sweep's config from its settings and runs; files are hashed once."""
    command, files = command_line(settings.name), used_files(settings)
    return lambda sweep, runs: sweep_config(command, sweep, runs, files)


def launch_table(settings: Settings, parts: Sequence[Part], stem: str, head: str = "") -> int:
    """Compute the parts and write the table into the output folder; give the exit code.

    Raises:
      ValueError: for what cannot work, and when the disk fails; what is finished is saved.
      SystemExit: if it was stopped (`keeps_going_on`).
    """
    out = settings.out
    with keeps_going_on(out) as stop, lock(out):
        keeping = Keeping(
            out,
            resume=settings.resume,
            save_seconds=settings.save_seconds,
            progress=settings.progress,
            asked_to_stop=stop.asked,
        )
        saved = Parts(
            out,
            command_line(settings.name),
            resume=settings.resume,
            overwrite=settings.overwrite,
            stem=stem,
        )
        table = _compute(keeping, saved, parts, stem, head)
    print(f"{table}\nwrote {out / stem}.md")
    return 0


def _compute(keeping: Keeping, saved: Parts, parts: Sequence[Part], stem: str, head: str) -> str:
    left = [part for part in parts if not saved.done(part.name, part.made_of)]
    for name in [name for part in parts if part not in left for name in part.plans]:
        close_sweep(keeping.folder, name)  # a kill may have come before this
    for i, part in enumerate(left):
        found = {
            name: finished_sweep(keeping, name, plan, part.configs[name])
            for name, plan in part.plans.items()
        }
        saved.save(part.name, part.made_of, part.rows(found))
        for name in part.plans:
            close_sweep(keeping.folder, name)
        _write_table(saved, parts, stem, head)
        if left[i + 1 :] and keeping.asked_to_stop():
            raise Stopped(f"{len(saved.names())} of {len(parts)} parts of the table finished")
    return _write_table(saved, parts, stem, head)


def _write_table(saved: Parts, parts: Sequence[Part], stem: str, head: str) -> str:
    names = saved.names()
    rows = [row for part in parts if part.name in names for row in saved.value(part.name)]
    write_csv(saved.folder / f"{stem}.csv", rows)
    table = head + format_markdown(rows)
    write_atomic(saved.folder / f"{stem}.md", table.encode())
    return table
