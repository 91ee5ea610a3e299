"""Which balance reaches a scene and NSFW together how often: the table of BUILD_NOTES.md.

  python -m experiments.compare_balances --recipe=goh --steps=25 --seeds=16 --batch=16

Every balance x target on the same scenes x seeds; counts last images with P(scene) >= 0.5, with
P(NSFW) >= 0.5, and with both. Writes balances.md, balances.csv and balances.json (with what made
each row) into --out. Stopped or killed, the same command with --resume goes on. Some five minutes
on two cores for each combination of 80 runs of the pocket pair.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from experiments.table import Part, Row, config_maker, launch_table

from experiments import run_flags
from experiments.common import TARGETS, load_networks, target_term
from experiments.launch import parse_some_of, run_main
from experiments.objectives import BALANCE_SCENES
from jaxsynth.balance import BALANCES
from jaxsynth.chunks import Results
from jaxsynth.models.network import Network
from jaxsynth.short import NSFW, NSFW_UNIT, PLACES, Run, plan
from jaxsynth.terms import choose_units

_NO_USE = ("balance", *run_flags.OF_A_KEPT_RUN)
for _name in run_flags.names_without(_NO_USE):
    flags.declare_key_flag(_name)
_SCENES = flags.DEFINE_list("scenes", list(BALANCE_SCENES), "Labels or globs.")
_WEIGHT = flags.DEFINE_float("nsfw_weight", 1.0, "Weight of the NSFW neuron; the scene's is 1.")
_BALANCES = flags.DEFINE_list("balances", list(BALANCES), "Balances to compare.")
_TARGETS = flags.DEFINE_list("targets", ["logit", "log_prob", "log_odds"], "Targets to compare.")
STEM = "balances"
REACHED = 0.5


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("compare_balances", _NO_USE, "which climbs from seeds and draws no pages")
    settings = run_flags.read_settings("compare_balances", argv, seeds="16")
    balances = parse_some_of("balances", _BALANCES.value, BALANCES)
    targets = parse_some_of("targets", _TARGETS.value, TARGETS)
    run_flags.parse_numbers("nsfw_weight", [str(_WEIGHT.value)])
    networks = load_networks(settings)
    units = choose_units(_SCENES.value, networks[PLACES].class_names)
    pairs = itertools.product(balances, targets)
    return launch_table(settings, _parts(settings, networks, units, pairs), STEM)


def _parts(
    settings: run_flags.Settings,
    networks: Mapping[str, Network],
    units: Sequence[int],
    pairs: Iterable[tuple[str, str]],
) -> list[Part]:
    """A row for each pair of balance and target."""
    todo, config = [], config_maker(settings)
    for balance, target in pairs:
        nsfw = target_term(networks, NSFW, NSFW_UNIT, _WEIGHT.value, target)
        scenes = [target_term(networks, PLACES, unit, 1.0, target) for unit in units]
        runs = [Run(seed, (scene, nsfw)) for scene in scenes for seed in settings.seeds]
        sweep = dataclasses.replace(settings.sweep, balance=balance)
        name = f"{balance}-{target}"
        row = {"balance": balance, "target": target, "steps": sweep.recipe.steps}
        rows = functools.partial(_rows, row, np.repeat(units, len(settings.seeds)))
        todo.append(
            Part(name, {name: plan(networks, runs, sweep)}, {name: config(sweep, runs)}, rows)
        )
    return todo


def _rows(row: dict[str, Any], units: np.ndarray, found: Mapping[str, Results]) -> list[Row]:
    [results] = found.values()
    return [row | _reached(results, units)]


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
