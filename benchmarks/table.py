"""What the launchers share that compare sweeps in a table: settings and parts -> a kept table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.common import used_files
from experiments.launch import command_line
from experiments.run_flags import Settings
from experiments.stopping import keeps_going_on
from jaxsynth.maximize import Run, Sweep
from jaxsynth.runs.checkpoint import locked
from jaxsynth.runs.sweeps import Keeping, sweep_config
from jaxsynth.runs.tables import Part, kept_table


def config_maker(settings: Settings) -> Callable[[Sweep, Sequence[Run]], Mapping[str, Any]]:
    """Gives what a sweep is made of (`sweep_config`) by how it climbs and its runs; the files are
    hashed once for all."""
    command, files = command_line(settings.name), used_files(settings)
    return lambda sweep, runs: sweep_config(command, sweep, runs, files)


def launch_table(settings: Settings, parts: Sequence[Part], stem: str, head: str = "") -> int:
    """Computes the parts and writes the table into the output folder; gives the exit code.

    Raises:
      ValueError: for what cannot work, and when the disk fails; what is finished is kept.
      SystemExit: if it was stopped (`keeps_going_on`).
    """
    out = settings.out
    with keeps_going_on(out) as stop, locked(out):
        keeping = Keeping(
            out, settings.resume, settings.save_seconds, stop.asked, settings.progress
        )
        table = kept_table(keeping, parts, stem, settings.overwrite, head)
    print(f"{table}\nwrote {out / stem}.md")
    return 0
