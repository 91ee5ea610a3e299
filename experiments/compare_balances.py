"""Which balance reaches a scene and NSFW together how often: the table of BUILD_NOTES.md.

  python -m experiments.compare_balances --recipe=goh --steps=25 --seeds=16 --batch=16

Every balance x target on the same scenes x seeds; counts last images with P(scene) >= 0.5, with
P(NSFW) >= 0.5, and with both. Writes balances.md and balances.csv into --out. Some five minutes on
two cores for each combination of 80 runs of the pocket pair.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import run_flags
from experiments.common import TARGETS, load_networks, target_term
from experiments.launch import check_some_of, run_main
from experiments.objectives import BALANCE_SCENES
from jaxsynth.engine.balance import BALANCES
from jaxsynth.engine.sweep import Results, join
from jaxsynth.engine.terms import choose_units
from jaxsynth.experiment import NSFW, NSFW_UNIT, PLACES, Run, plan
from jaxsynth.files.results import prepare_folder
from jaxsynth.report.progress import execute_shown
from jaxsynth.report.tables import format_markdown, write_metrics

flags.adopt_module_key_flags(run_flags)
_SCENES = flags.DEFINE_list("scenes", list(BALANCE_SCENES), "Labels or globs.")
_WEIGHT = flags.DEFINE_float("nsfw_weight", 1.0, "Weight of the NSFW neuron; the scene's is 1.")
_BALANCES = flags.DEFINE_list("balances", list(BALANCES), "Balances to compare.")
_TARGETS = flags.DEFINE_list("targets", ["logit", "log_prob", "log_odds"], "Targets to compare.")
_NO_USE = ("balance", *run_flags.OF_A_KEPT_RUN)
REACHED = 0.5


def main(argv: Sequence[str]) -> int:
    run_flags.refuse("compare_balances", _NO_USE, "it keeps every row that is finished")
    settings = run_flags.read_settings("compare_balances", argv, seeds="16")
    for flag, values, known in (
        ("balances", _BALANCES.value, BALANCES),
        ("targets", _TARGETS.value, TARGETS),
    ):
        check_some_of(flag, values, known)
    run_flags.parse_numbers("nsfw_weight", [str(_WEIGHT.value)])
    networks = load_networks(settings)
    units = choose_units(_SCENES.value, networks[PLACES].class_names)
    todo = []
    for balance, target in itertools.product(_BALANCES.value, _TARGETS.value):
        nsfw = target_term(networks, NSFW, NSFW_UNIT, _WEIGHT.value, target)
        scenes = [target_term(networks, PLACES, unit, 1.0, target) for unit in units]
        runs = [Run(seed, (scene, nsfw)) for scene in scenes for seed in settings.seeds]
        sweep = dataclasses.replace(settings.sweep, balance=balance)
        todo.append((balance, target, plan(networks, runs, sweep)))
    folder = prepare_folder(settings.out, settings.overwrite)
    rows = []
    steps = settings.sweep.recipe.steps
    for balance, target, one in tqdm(todo, disable=not settings.progress, file=sys.stderr):
        rows.append(
            {"balance": balance, "target": target, "steps": steps}
            | _reached(
                join(list(execute_shown(one, shown=False))), np.repeat(units, len(settings.seeds))
            )
        )
        write_metrics(folder / "balances.csv", rows)
        (folder / "balances.md").write_text(format_markdown(rows))
    print(format_markdown(rows) + f"\nwrote {folder / 'balances.md'}")
    return 0


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
