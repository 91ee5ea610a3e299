"""Which balance reaches a scene and NSFW together how often: the table of BUILD_NOTES.md.

  python -m experiments.compare_balances --recipe=goh --steps=25 --seeds=16 --batch=16

Every balance x target on the same scenes x seeds; counts last images with P(scene) >= 0.5, with
P(NSFW) >= 0.5, and with both. Writes balances.md, balances.csv and balances.json (with what made
each row) into --out. Stopped or killed, the same command with --resume goes on. Some five minutes
on two cores for each combination of 80 runs of the pocket pair.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import run_flags
from experiments.common import (
    TARGETS,
    command_line,
    encoder_name,
    load_networks,
    needs_encoder,
    target_term,
)
from experiments.launch import check_some_of, run_main
from experiments.objectives import BALANCE_SCENES
from experiments.stopping import keeps_going_on
from jaxsynth.engine.balance import BALANCES
from jaxsynth.engine.objective import ENCODER
from jaxsynth.engine.sweep import Results
from jaxsynth.engine.terms import choose_units
from jaxsynth.experiment import NSFW, NSFW_UNIT, PLACES, Plan, Run, plan
from jaxsynth.files.chunks import locked
from jaxsynth.files.weights import file_record
from jaxsynth.files.whole import write_whole
from jaxsynth.kept import Stopped
from jaxsynth.kept_sweeps import (
    Keeping,
    close_sweep,
    kept_sweep,
    open_folder,
    open_sweep,
    sha256_of,
    sweep_config,
)
from jaxsynth.networks.network import Network
from jaxsynth.report.tables import format_markdown, write_metrics

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list("scenes", list(BALANCE_SCENES), "Labels or globs.")
_WEIGHT = flags.DEFINE_float("nsfw_weight", 1.0, "Weight of the NSFW neuron; the scene's is 1.")
_BALANCES = flags.DEFINE_list("balances", list(BALANCES), "Balances to compare.")
_TARGETS = flags.DEFINE_list("targets", ["logit", "log_prob", "log_odds"], "Targets to compare.")
_NO_USE = ("balance", *run_flags.OF_A_KEPT_RUN)
ROWS = "balances.json"
REACHED = 0.5


class Combination(NamedTuple):
    """A row of the table: its sweep, and what that is made of."""

    balance: str
    target: str
    plan: Plan
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.balance}-{self.target}"


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("compare_balances", _NO_USE, "which compares them and draws no pages")
    settings = run_flags.read_settings("compare_balances", argv, seeds="16")
    for flag, values, known in (
        ("balances", _BALANCES.value, BALANCES),
        ("targets", _TARGETS.value, TARGETS),
    ):
        check_some_of(flag, values, known)
    run_flags.parse_numbers("nsfw_weight", [str(_WEIGHT.value)])
    networks = load_networks(settings)
    units = choose_units(_SCENES.value, networks[PLACES].class_names)
    todo = _combinations(settings, networks, units)
    out, scenes = settings.out, np.repeat(units, len(settings.seeds))
    with keeps_going_on(out) as stop, locked(out):
        open_folder(out, settings.resume, settings.overwrite, ROWS)
        done = _earlier_rows(out, todo)
        keeping = Keeping(
            out, settings.resume, settings.save_seconds, stop.asked, settings.progress
        )
        left = [one for one in todo if one.name not in done]
        for name in done:  # a kill may have come between its row and this
            close_sweep(out, name)
        for one in left:
            open_sweep(keeping, one.name, one.config)
        for i, one in enumerate(left):
            row = {"balance": one.balance, "target": one.target}
            row |= {"steps": settings.sweep.recipe.steps}
            row |= _reached(kept_sweep(keeping, one.name, one.plan), scenes)
            done[one.name] = {"row": row, "sha256": sha256_of(one.config)}
            done[one.name] |= {part: one.config[part] for part in ("command", "sweep", "networks")}
            write_whole(out / ROWS, json.dumps(done, indent=1).encode())
            close_sweep(out, one.name)
            if left[i + 1 :] and stop.asked():
                raise Stopped(f"{len(done)} of {len(todo)} rows finished")
            _write_tables(out, todo, done)
        table = _write_tables(out, todo, done)
    print(f"{table}\nwrote {out / 'balances.md'}")
    return 0


def _combinations(
    settings: run_flags.Settings, networks: Mapping[str, Network], units: Sequence[int]
) -> list[Combination]:
    """Every balance with every target."""
    records = {role: file_record(name) for role, name in settings.networks.items()}
    if needs_encoder(settings):
        records[ENCODER] = file_record(encoder_name(settings))
    todo = []
    for balance, target in itertools.product(
        dict.fromkeys(_BALANCES.value), dict.fromkeys(_TARGETS.value)
    ):
        nsfw = target_term(networks, NSFW, NSFW_UNIT, _WEIGHT.value, target)
        scenes = [target_term(networks, PLACES, unit, 1.0, target) for unit in units]
        runs = [Run(seed, (scene, nsfw)) for scene in scenes for seed in settings.seeds]
        sweep = dataclasses.replace(settings.sweep, balance=balance)
        config = sweep_config(command_line(settings.name), sweep, runs, records)
        todo.append(Combination(balance, target, plan(networks, runs, sweep), config))
    return todo


def _earlier_rows(out: Path, todo: Sequence[Combination]) -> dict[str, Any]:
    """The finished rows that the folder holds, by name.

    Raises:
      ValueError: if the file that holds them is damaged, or one is none of those that are asked
        for.
    """
    path, asked = out / ROWS, {one.name: sha256_of(one.config) for one in todo}
    try:
        rows = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        other = [row["command"] for name, row in rows.items() if row["sha256"] != asked.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}): delete it") from None
    if other:
        raise ValueError(
            f"output folder {out} holds rows of other settings: resume it with its own command "
            f"({other[0]}), or choose another --out"
        )
    return rows


def _write_tables(out: Path, todo: Sequence[Combination], done: Mapping[str, Any]) -> str:
    """Writes the rows that are there in their order, and gives the table."""
    rows = [done[one.name]["row"] for one in todo if one.name in done]
    write_metrics(out / "balances.csv", rows)
    table = format_markdown(rows)
    write_whole(out / "balances.md", table.encode())
    return table


def _reached(results: Results, units: np.ndarray) -> dict[str, object]:
    watched = results.last.watched
    scene = watched[PLACES]["prob"][np.arange(len(units)), units]
    nsfw = watched[NSFW]["prob"][:, NSFW_UNIT]
    both = (scene >= REACHED) & (nsfw >= REACHED)
    return {
        "runs": len(units),
        "both": f"{both.mean():.0%}",
        "P(scene) >= 0.5": f"{(scene >= REACHED).mean():.0%}",
        "P(NSFW) >= 0.5": f"{(nsfw >= REACHED).mean():.0%}",
        "median P(scene)": round(float(np.median(scene)), 3),
        "median P(NSFW)": round(float(np.median(nsfw)), 3),
    }


if __name__ == "__main__":
    run_main(main)
